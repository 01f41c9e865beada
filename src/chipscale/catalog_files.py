"""The shape of a catalogue file, checked at the border: tables in, nouns out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from math import exp
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from chipscale.evidence import SPREAD, Belief, EvidenceError, Fact, Hypothesis, Kind, Per, Source
from chipscale.facts.chip import QUANTITIES, Chip
from chipscale.facts.cluster import Cluster, Tier, Topology
from chipscale.facts.framework import Framework
from chipscale.facts.job import Job, Phase
from chipscale.units import FACTORS, parse

M = TypeVar("M", bound=BaseModel)
RANK: Mapping[Kind, int] = {kind: i for i, kind in enumerate(Kind)}
Sources = Mapping[str, Source]
Text = str | int | float


class Table(BaseModel):
    """A table of a catalogue file: no field may be unknown."""

    model_config = ConfigDict(extra="forbid")


class SourceTable(Table):
    where: str
    kind: Kind
    date: str = ""
    licence: str = ""


class FactTable(Table):
    quantity: str
    value: Text
    low: Text | None = None
    high: Text | None = None
    unit: str | None = None
    per: Per = "package"
    sense: str = ""
    source: str
    note: str = ""
    chosen: bool = False
    rejected: str = ""


class HypothesisTable(Table):
    key: str
    title: str
    weight: float
    reason: str
    chip: str = ""
    family: str = ""
    cluster: str = ""
    notes: list[str] = []
    fact: list[FactTable] = []


class ChipTable(Table):
    id: str
    name: str
    vendor: str
    family: str = ""
    aliases: list[str] = []
    released: str = ""
    cluster: str = ""
    notes: list[str] = []
    fact: list[FactTable] = []
    hypothesis: list[HypothesisTable] = []


class TierTable(Table):
    name: str
    size: int
    bandwidth: Text
    low: Text | None = None
    high: Text | None = None
    sense: str = "one-way per chip"
    source: str
    note: str = ""
    latency: Text
    topology: Topology
    oversubscription: float = 1.0


class ClusterTable(Table):
    id: str
    name: str
    chip: str | list[str]
    node: int
    aliases: list[str] = []
    notes: list[str] = []
    host_power: FactTable | None = None
    tier: list[TierTable]


class JobTable(Table):
    id: str
    title: str
    phase: Phase
    model: str
    chips: int
    length: int
    batch: int
    tokens: Text = 0
    precisions: list[str]
    source: str
    aliases: list[str] = []


class FrameworkTable(Table):
    id: str
    name: str
    matches: list[str]
    sharding: Literal["none", "zero1", "zero2", "zero3"]
    recompute: dict[Literal["none", "selective", "full"], float]
    master_bytes: float
    gradient_bytes: float
    overlaps: list[str]
    source: str
    date: str
    note: str = ""


def near(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean x?)" where a known name is close, else nothing."""
    found = get_close_matches(name.casefold(), list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(found)}?" if found else ""


def _remedy(kind: str, field: str, table: type[BaseModel]) -> str:
    if kind == "missing":
        return "add source = \"...\", a key of the sources folder: no source, no fact" if field == "source" else f"add {field} = ..."
    if kind == "extra_forbidden":
        return f"remove it or correct its spelling{near(field, table.model_fields)}"
    return "correct it"


def checked(table: type[M], data: Mapping[str, object], where: str) -> M:
    """Check a parsed table against its shape, or name the first field that is wrong and what to do."""
    try:
        return table.model_validate(data)
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        places = [f"{p + 1}" if isinstance(p, int) else p for p in first["loc"]]
        remedy = _remedy(first["type"], places[-1] if places else "", table)
        raise EvidenceError(f"{where}: {'.'.join(places) or 'file'}: {first['msg']}; {remedy}") from None


def sources(data: Mapping[str, object], where: str) -> dict[str, Source]:
    """Read a file of sources: one table per key."""
    found = {}
    for key, table in data.items():
        if not isinstance(table, dict):
            raise EvidenceError(f"{where}: {key}: a source is a table; write [{key}] with where and kind below it")
        found[key] = Source(key=key, **checked(SourceTable, table, f"{where}: {key}").model_dump())
    return found


def _number(value: Text, unit: str, where: str) -> float:
    try:
        return parse(str(value), unit)
    except EvidenceError as problem:
        raise EvidenceError(f"{where}: {problem}") from None


def _source(key: str, known: Sources, where: str) -> Source:
    if key not in known:
        raise EvidenceError(f"{where}: source {key!r} is unknown; add [{key}] to a file in sources/{near(key, known)}")
    return known[key]


def _unit(table: FactTable, where: str) -> str:
    if table.quantity in QUANTITIES:
        return QUANTITIES[table.quantity]
    if table.unit is None:
        raise EvidenceError(f"{where}: quantity {table.quantity!r} is none that formulas read; add unit = \"...\" or correct it{near(table.quantity, QUANTITIES)}")
    if table.unit not in FACTORS:
        raise EvidenceError(f"{where}: unit {table.unit!r} is unknown; use one of {', '.join(FACTORS)}")
    return table.unit


def fact(table: FactTable, known: Sources, where: str) -> Fact:
    """Read one fact; without a stated range its range is its value."""
    where = f"{where}: {table.quantity}"
    unit = _unit(table, where)
    value = _number(table.value, unit, f"{where}.value")
    low = value if table.low is None else _number(table.low, unit, f"{where}.low")
    high = value if table.high is None else _number(table.high, unit, f"{where}.high")
    if table.chosen and (table.rejected or not table.note):
        raise EvidenceError(f"{where}.chosen: a fact chosen by hand states its reason and is not rejected; add note = \"...\"")
    try:
        return Fact(quantity=table.quantity, value=value, low=low, high=high, unit=unit, source=_source(table.source, known, where),
                    per=table.per, sense=table.sense, note=table.note, rejected=table.rejected)  # fmt: skip
    except EvidenceError as problem:
        raise EvidenceError(f"{where}: {problem}") from None


def widened(chosen: Fact, others: Iterable[Fact]) -> Fact:
    """Span the chosen fact's range over the credible others and at least over what its kind deserves.

    low = min(low, v exp(-s), v_j), high = max(high, v exp(s), v_j) over unrejected v_j of the same sense; s = SPREAD[kind].
    """
    spread = SPREAD[chosen.source.kind] if chosen.low == chosen.value == chosen.high and chosen.unit != "1" else 0.0
    comparable = [f.value for f in others if not f.rejected and f.sense == chosen.sense and f.per == chosen.per]
    low = min([chosen.low, chosen.value * exp(-spread), *comparable])
    high = max([chosen.high, chosen.value * exp(spread), *comparable])
    return replace(chosen, low=low, high=high)


def settled(facts: list[tuple[Fact, bool]], where: str) -> tuple[Fact, ...]:
    """Order the facts of one quantity, the chosen one first and widened.

    By hand where exactly one says so, else the most trusted kind, then the newest date; rejected facts come last.
    """
    if sum(by_hand for _, by_hand in facts) > 1:
        raise EvidenceError(f"{where}: {facts[0][0].quantity}: chosen by hand twice; keep one chosen = true")
    newest = sorted(facts, key=lambda f: f[0].source.date, reverse=True)
    ordered = [f for f, _ in sorted(newest, key=lambda f: (not f[1], bool(f[0].rejected), RANK[f[0].source.kind]))]
    if ordered[0].rejected:
        return tuple(ordered)
    return (widened(ordered[0], ordered[1:]), *ordered[1:])


def _facts(tables: list[FactTable], known: Sources, where: str) -> dict[str, tuple[Fact, ...]]:
    grouped: dict[str, list[tuple[Fact, bool]]] = {}
    for i, table in enumerate(tables, 1):
        grouped.setdefault(table.quantity, []).append((fact(table, known, f"{where}: fact {i}"), table.chosen))
    found = {}
    for quantity, group in grouped.items():
        ordered = settled(group, where)
        found[f"{quantity} (rejected)" if ordered[0].rejected else quantity] = ordered
    return found


def chip(table: ChipTable, known: Sources, where: str) -> Chip:
    """Read a chip that is itself, not a belief."""
    if not table.family or not table.fact:
        raise EvidenceError(f"{where}: family: a chip needs a family and facts; add family = \"...\" and [[fact]] tables, or [[hypothesis]] tables")
    return Chip(id=table.id, name=table.name, vendor=table.vendor, family=table.family, released=table.released,
                cluster=table.cluster, notes=tuple(table.notes), facts=_facts(table.fact, known, where))  # fmt: skip


def belief(table: ChipTable, known: Sources, others: Mapping[str, Chip], where: str) -> Belief[Chip]:
    """Read a chip that is weighted hypotheses, each a chip of its own or (`chip`) one of `others`."""
    if table.fact:
        raise EvidenceError(f"{where}: fact: a chip with hypotheses has no facts beside them; move each into a hypothesis")
    found = []
    for h in table.hypothesis:
        inner = others.get(h.chip) or chip(
            ChipTable(id=f"{table.id}:{h.key}", name=f"{table.name} ({h.title})", vendor=table.vendor, family=h.family,
                      released=table.released, cluster=h.cluster, notes=h.notes, fact=h.fact),
            known, f"{where}: hypothesis {h.key}")  # fmt: skip
        found.append(Hypothesis(key=h.key, title=h.title, weight=h.weight, reason=h.reason, value=inner))
    try:
        return Belief(hypotheses=tuple(found))
    except EvidenceError as problem:
        raise EvidenceError(f"{where}: hypothesis.weight: {problem}") from None


def _tier(table: TierTable, known: Sources, where: str) -> Tier:
    where = f"{where}: tier {table.name}"
    told = FactTable(quantity=f"{table.name}_bandwidth", value=table.bandwidth, low=table.low, high=table.high, unit="B/s",
                     sense=table.sense, source=table.source, note=table.note)  # fmt: skip
    latency = _number(table.latency, "s", f"{where}.latency")
    return Tier(name=table.name, size=table.size, bandwidth=widened(fact(told, known, where), ()), latency=latency,
                topology=table.topology, oversubscription=table.oversubscription)  # fmt: skip


def cluster(table: ClusterTable, known: Sources, where: str) -> Cluster:
    """Read a cluster; several chips that fit the same machine are listed with commas."""
    if table.node < 1:
        raise EvidenceError(f"{where}: node: {table.node} chips to a host; write at least 1")
    power = fact(table.host_power, known, where) if table.host_power else None
    names = table.chip if isinstance(table.chip, str) else ", ".join(table.chip)
    try:
        return Cluster(id=table.id, name=table.name, chip=names, node=table.node, host_power=power, notes=tuple(table.notes),
                       tiers=tuple(_tier(t, known, where) for t in table.tier))  # fmt: skip
    except EvidenceError as problem:
        raise EvidenceError(str(problem) if str(problem).startswith(where) else f"{where}: {problem}") from None


def job(table: JobTable, where: str) -> Job:
    """Read a job."""
    tokens = _number(table.tokens, "tokens", f"{where}: tokens")
    try:
        return Job(id=table.id, title=table.title, phase=table.phase, model=table.model, chips=table.chips, length=table.length,
                   batch=table.batch, tokens=tokens, precisions=tuple(table.precisions), source=table.source)  # fmt: skip
    except EvidenceError as problem:
        raise EvidenceError(f"{where}: {problem}") from None


def framework(table: FrameworkTable, where: str) -> Framework:
    """Read a framework."""
    if abs(sum(table.recompute.values()) - 1) > 1e-9 or min(table.recompute.values()) <= 0:
        raise EvidenceError(f"{where}: recompute: the weights are positive and sum to 1; correct them")
    return Framework(id=table.id, name=table.name, matches=tuple(table.matches), sharding=table.sharding, recompute=tuple(table.recompute.items()),
                     master_bytes=table.master_bytes, gradient_bytes=table.gradient_bytes, overlaps=tuple(table.overlaps),
                     source=table.source, date=table.date)  # fmt: skip
