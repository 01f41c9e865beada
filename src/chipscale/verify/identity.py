"""Which chip a device is: by name, memory, cores and bandwidth together, never by name alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from chipscale.bench.record import Identity, Record
from chipscale.catalog import Catalog
from chipscale.evidence import Hypothesis
from chipscale.facts.chip import Chip
from chipscale.units import show
from chipscale.verify.nouns import Match, Measurement, Property

#: reported over claimed memory: drivers keep some per cent back, and most vendors' GB are GiB (2^30 / 10^9 = 1.074)
MEMORY = (0.90, 1.08)
#: bandwidth of memory clock and bus over the claim; what a copy reaches of it lies lower, down to the least
BUS, LEAST_COPY = (0.92, 1.08), 0.45
#: relative difference of core counts that a stated number may have
CORES = 0.01


def hypotheses(catalog: Catalog, id: str) -> tuple[Hypothesis[Chip], ...]:
    """Return the hypotheses of a believed chip; of one that is known one without a key."""
    found = catalog.chip(id)
    if isinstance(found, Chip):
        return (Hypothesis(key="", title=found.name, weight=1.0, reason="a product", value=found),)
    return found.hypotheses


def names(catalog: Catalog, id: str) -> tuple[str, ...]:
    """Return the ways in which a chip is called."""
    return tuple(alias for alias, named in catalog.aliases().items() if named == id)


def called(name: str, aliases: Sequence[str]) -> int:
    """Return how much of a device's name is one of these aliases: the letters of the longest, 0 where none stands in it as whole words.

    >>> called("NVIDIA H100 80GB HBM3", ("h100", "h100-sxm")), called("Ascend910B3", ("910b3", "ascend-910b3")), called("NVIDIA H200", ("h20",))
    (4, 11, 0)
    """
    words = [w for w in re.split(r"[^a-z0-9]+", name.lower()) if w]
    joined = {"".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, min(i + 5, len(words)) + 1)}
    plain = {re.sub(r"[^a-z0-9]+", "", a.lower()) for a in aliases}
    return max((len(p) for p in plain & joined), default=0)


def compare(catalog: Catalog, id: str, hypothesis: str, chip: Chip, known: Identity, copy: Measurement | None) -> Match:
    """Compare a device with a chip; where its memory fits one die of several, the device is a die."""
    aliases = names(catalog, id)
    devices = _devices(chip, known)
    named = called(known.name, aliases) > 0
    silent = not known.name or not re.search(r"\d", known.name)
    first = Property(name="name", said=known.name or "none", known=aliases[0] if aliases else id, agrees=None if silent else named)
    rest = (_memory(chip, known, devices), _cores(chip, known, devices), _bandwidth(chip, known, copy, devices))
    return Match(chip=id, hypothesis=hypothesis, devices=devices, properties=(first, *rest))


def _devices(chip: Chip, known: Identity) -> int:
    """Return how many devices make a package: as many as dies where the memory fits one die and not the package, else one."""
    dies = int(chip.value("dies")) if chip.has("dies") else 1
    if dies < 2 or not chip.has("memory_bytes") or not known.memory_bytes:
        return 1
    share = known.memory_bytes / chip.value("memory_bytes")
    return dies if MEMORY[0] <= share * dies <= MEMORY[1] else 1


def _memory(chip: Chip, known: Identity, devices: int) -> Property:
    if not known.memory_bytes or not chip.has("memory_bytes"):
        return Property(
            name="memory",
            said=show(known.memory_bytes, "B") if known.memory_bytes else "unknown",
            known=_told(chip, "memory_bytes", devices),
            agrees=None,
        )
    fact = chip.fact("memory_bytes")
    agrees = fact.low / devices * MEMORY[0] <= known.memory_bytes <= fact.high / devices * MEMORY[1]
    return Property(name="memory", said=show(known.memory_bytes, "B"), known=_told(chip, "memory_bytes", devices), agrees=agrees)


def _cores(chip: Chip, known: Identity, devices: int) -> Property:
    if not known.units or not chip.has("cores"):
        return Property(name="cores", said=str(known.units or "unknown"), known=_told(chip, "cores", devices), agrees=None)
    fact = chip.fact("cores")
    agrees = fact.low / devices * (1 - CORES) <= known.units <= fact.high / devices * (1 + CORES)
    return Property(name="cores", said=str(known.units), known=_told(chip, "cores", devices), agrees=agrees)


def _bandwidth(chip: Chip, known: Identity, copy: Measurement | None, devices: int) -> Property:
    """Compare the memory's bandwidth: by clock and bus where the device tells them, else by the fastest copy."""
    name = "memory bandwidth"
    if not chip.has("memory_bandwidth") or (copy is None and not (known.memory_clock and known.memory_bus_bits)):
        return Property(
            name=name, said="unknown" if copy is None else show(copy.value, "B/s"), known=_told(chip, "memory_bandwidth", devices), agrees=None
        )
    fact = chip.fact("memory_bandwidth")
    least, most = fact.low / devices, fact.high / devices
    if known.memory_clock and known.memory_bus_bits:
        bus = known.memory_clock * 2 * known.memory_bus_bits / 8
        agrees, said = least * BUS[0] <= bus <= most * BUS[1], f"{show(bus, 'B/s')} by clock and bus"
    else:
        assert copy is not None
        agrees, said = least * LEAST_COPY <= copy.value <= most * BUS[1], f"{show(copy.value, 'B/s')} copied"
    return Property(name=name, said=said, known=_told(chip, "memory_bandwidth", devices), agrees=agrees)


def _told(chip: Chip, quantity: str, devices: int) -> str:
    if not chip.has(quantity):
        return "unknown"
    fact = chip.fact(quantity)
    low, high = (show(v / devices, fact.unit) for v in (fact.low, fact.high))
    one = show(fact.value / devices, fact.unit)
    return one if fact.high <= fact.low * 1.05 else f"{low} to {high}"


def identify(catalog: Catalog, record: Record, copy: Measurement | None) -> Match | None:
    """Return the chip that agrees with a device in most properties and is contradicted by none, None where there is no such chip.

    The name decides between chips that agree equally; two properties at least must agree, one of them not the name.
    """
    known = record.identity
    if known.kind == "cpu":
        return None
    found = [compare(catalog, id, h.key, h.value, known, copy) for id in catalog.chips() for h in hypotheses(catalog, id)]
    sure = [m for m in found if m.sure]
    return max(sure, key=lambda m: (m.agreeing, called(known.name, names(catalog, m.chip)), not m.hypothesis, m.devices), default=None)


def same_name(catalog: Catalog, record: Record) -> str:
    """Return the id of the chip that a device's name names, empty where none is."""
    found = {id: called(record.identity.name, names(catalog, id)) for id in catalog.chips()}
    best = max(found, key=lambda id: found[id])
    return best if found[best] else ""
