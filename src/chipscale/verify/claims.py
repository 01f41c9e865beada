"""verify(record) -> Verification: each claim of a chip beside what was measured."""

from __future__ import annotations

from collections.abc import Sequence

from chipscale.bench.record import Record
from chipscale.catalog import UNITS, Catalog
from chipscale.evidence import EvidenceError
from chipscale.facts.chip import Chip
from chipscale.units import show
from chipscale.verify.belief import posterior
from chipscale.verify.identity import compare, hypotheses, identify, same_name
from chipscale.verify.judging import judge
from chipscale.verify.measured import CLAIMS, REDUCED_IN_NETWORK, measurement, measurements, missing
from chipscale.verify.nouns import Judged, Match, Subject, Verification
from chipscale.verify.usual import Shares, read


def judged(shares: Shares, record: Record, match: Match, chip: Chip, other: str) -> tuple[Judged, ...]:
    """Judge every claim of a chip; none where the device is known to be another, `other`."""
    found = []
    for quantity in CLAIMS:
        if chip.has(quantity):
            m = None if other else measurement(record, quantity)
            why = f"measured on another device, {other}" if other else missing(record, quantity)
            found.append(judge(chip.fact(quantity), match.devices, m, shares.usual(quantity, match.chip), why))
    return tuple(found)


def another(record: Record, match: Match | None, matches: Sequence[Match]) -> str:
    """Return what the device is where it cannot be the chip that it is held against, empty where it may be."""
    if record.identity.kind == "cpu":
        return f"the processor {record.identity.name}"
    elsewhere = match is not None and all(m.chip != match.chip and m.against for m in matches)
    return match.chip if match and matches and elsewhere else ""


def verify(catalog: Catalog, record: Record, name: str, against: str | None = None) -> Verification:
    """Hold a record against a chip: the one stated, else the one that the device's properties name.

    Errors: an unknown chip.
    """
    stated = catalog.aliases().get(against.lower()) if against else None
    if against and stated is None:
        catalog.chip(against)  # says what is known instead
    copy = measurement(record, "memory_bandwidth")
    match = identify(catalog, record, copy)
    id = stated or (match.chip if match else "")
    shares = read(catalog)
    held = hypotheses(catalog, id) if id else ()
    matches = [compare(catalog, id, h.key, h.value, record.identity, copy) for h in held]
    other = another(record, match, matches)
    prior = [(h.weight, m.devices, h.value) for h, m in zip(held, matches, strict=True)]
    after = posterior(shares, [record], prior) if prior and not other else tuple(w for w, _, _ in prior)
    return Verification(
        record=name, sha256=record.sha256, created=record.created, device=record.identity.name, kind=record.identity.kind, chip=id, stated=stated is not None,
        remarks=tuple(remarks(catalog, record, match, stated, matches)),
        subjects=tuple(
            Subject(chip=id, hypothesis=h.key, title=h.title, before=h.weight, after=w, match=m, claims=judged(shares, record, m, h.value, other))
            for h, m, w in zip(held, matches, after, strict=True)
        ),
        results=measurements(record),
    )  # fmt: skip


def remarks(catalog: Catalog, record: Record, match: Match | None, stated: str | None, matches: Sequence[Match]) -> list[str]:
    """Say what a reader must know first: who the device is, and where its name and its properties part."""
    known, said = record.identity, []
    if known.kind == "cpu" and stated is None:
        return [
            "a processor: no chip file claims anything of it, so that nothing can be held against it; --against CHIP compares it with a chip all the same"
        ]
    if match is None and stated is None:
        named = same_name(catalog, record)
        hint = f"its name says {named}, but a name alone is no proof; add --against {named}" if named else "add --against CHIP"
        said.append(f"no chip agrees with {known.name or 'the device'} in two properties; {hint}")
    named = same_name(catalog, record)
    if named and match and named != match.chip:
        said.append(f"the device calls itself {known.name}, which names {named}; its other properties are those of {match.chip}")
    if stated and (other := another(record, match, matches)):
        nearest = min(matches, key=lambda m: len(m.against))
        what = ", ".join(f"{p.name} {p.said} against {p.known}" for p in nearest.against)
        by = f", by its {', '.join(p.name for p in match.properties if p.agrees)}" if match else ""
        said.append(f"the device is no {stated} but {other}{by} ({what})")
    if any(m.devices > 1 for m in matches):
        said.append(f"each device is one of {max(m.devices for m in matches)} dies; claims are for the package and are divided")
    if not record.complete:
        said.append("the record was cut short; what it lacks is not testable here")
    if any(m.flagged for m in record.measures):
        said.append("samples above a bound were set apart when this was measured, and count nowhere")
    return said


def refuse_beyond(name: str, subject: Subject) -> None:
    """Refuse to believe a record that beats what is claimed of the chip.

    Raises EvidenceError that names file, field and remedy.
    """
    for j in subject.claims:
        if j.above and j.measured is not None and not j.measured.what.startswith(REDUCED_IN_NETWORK):
            raise EvidenceError(
                f"{name}: {j.quantity}: measured {show(j.measured.value, UNITS[j.quantity])} is {j.reason}; correct the record, or the chip's file (--catalog DIR)"
            )
