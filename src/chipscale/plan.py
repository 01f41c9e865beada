"""Plan and PlanTable: degrees by axis, schedule, sharding, recompute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from chipscale.evidence import EvidenceError
from chipscale.ops.work import Num

Ints = npt.NDArray[np.int64]
SHARDING = ("none", "zero1", "zero2", "zero3")
RECOMPUTE = ("none", "selective", "full")
#: what recomputing drops, bit by bit: 1 is "selective", 2 "full"; `op` keeps every second product and attention's output
MODULES = ("core_attn", "full", "mla_up_proj", "layernorm", "mlp", "moe_act", "moe", "shared_experts", "op")
SCHEDULES = ("1f1b", "gpipe", "zb-h1", "zb-v", "dualpipe", "dualpipe-v")
#: how context-parallel ranks share keys and values: round a ring, gathered, or heads for tokens (Ulysses); Megatron's `cp_comm_type`
CP_KINDS = ("p2p", "all_gather", "a2a")
#: what lies in the host's memory while it is not used, bit by bit: 1 the optimizer's states, 2 what layers keep for the backward pass
OFFLOAD = ("none", "optimizer", "activations", "both")
#: fields of Plan that are positions in a list of words
WORDS = {"sharding": SHARDING, "schedule": SCHEDULES, "cp_kind": CP_KINDS, "offload": OFFLOAD}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One way to spread a training step over chips.

    tp x cp x pp x dp = chips; ep x etp divides tp x cp x dp. `sharding` is a position in `SHARDING`, `schedule` in `SCHEDULES`, `cp_kind` in
    `CP_KINDS` (0 where cp is 1), `offload` in `OFFLOAD`. What is sharded is held whole by each of `dp_replicate` groups of ranks (hybrid sharding).
    `recompute` has a bit for each of `MODULES`, so that 0, 1 and 2 are those of `RECOMPUTE`; full recompute spares all but `recompute_layers` layers
    of a stage where that is not 0; `vpp` is the number of model chunks a stage (interleaving).
    """

    tp: int = 1
    pp: int = 1
    vpp: int = 1
    cp: int = 1
    ep: int = 1
    etp: int = 1
    dp: int = 1
    micro_batch: int = 1
    sharding: int = 1
    recompute: int = 0
    recompute_layers: int = 0
    schedule: int = 0
    cp_kind: int = 0
    dp_replicate: int = 1
    offload: int = 0

    def __post_init__(self) -> None:
        for name in ("tp", "pp", "vpp", "cp", "ep", "etp", "dp", "micro_batch", "dp_replicate"):
            if getattr(self, name) < 1:
                raise EvidenceError(f"plan: {name}={getattr(self, name)} must be at least 1")
        for name, words in WORDS.items():
            if not 0 <= getattr(self, name) < len(words):
                raise EvidenceError(f"plan: {name}={getattr(self, name)} is not a position in {', '.join(words)}; use 0 to {len(words) - 1}")
        if not (0 <= self.recompute < 1 << len(MODULES) and self.recompute_layers >= 0):
            raise EvidenceError(f"plan: recompute is one of {', '.join(RECOMPUTE)} or modules, recompute_layers at least 0")
        if self.cp_kind and self.cp == 1:
            raise EvidenceError(
                f"plan: cp_kind={CP_KINDS[self.cp_kind]} says how context-parallel ranks talk, but cp=1; state cp or leave cp_kind out"
            )
        self._check_groups()
        if (self.tp * self.cp * self.dp) % (self.ep * self.etp):
            raise EvidenceError(
                f"plan: ep x etp = {self.ep * self.etp} must divide tp x cp x dp = {self.tp * self.cp * self.dp}; choose other degrees"
            )

    def _check_groups(self) -> None:
        """Refuse groups of replicas that dp or the experts cannot be divided into."""
        copies, group = self.dp_replicate, self.tp * self.cp * self.dp // self.dp_replicate
        if copies > 1 and not self.sharding:
            raise EvidenceError(f"plan: dp_replicate={copies} is about what is sharded, but sharding=none; choose zero1 to zero3 or leave it out")
        if self.dp % copies:
            raise EvidenceError(f"plan: dp_replicate={copies} does not divide dp={self.dp}; choose a divisor")
        if copies > 1 and group % (self.ep * self.etp):
            raise EvidenceError(
                f"plan: dp_replicate={copies} leaves groups of {group} ranks, which ep x etp = {self.ep * self.etp} does not divide; choose other degrees"
            )

    @property
    def group(self) -> int:
        """Return how many ranks share what is sharded."""
        return self.cp * self.dp // self.dp_replicate

    @property
    def chips(self) -> int:
        return self.tp * self.cp * self.pp * self.dp

    def __str__(self) -> str:
        kind = f"{self.cp},cp_kind={CP_KINDS[self.cp_kind]}"
        degrees = [f"{n}={kind if n == 'cp' else getattr(self, n)}" for n in ("tp", "pp", "vpp", "cp", "ep", "etp") if getattr(self, n) > 1]
        away = [f"offload={OFFLOAD[self.offload]}"] if self.offload else []
        layers = [f"recompute_layers={self.recompute_layers}"] if self.recompute_layers else []
        groups = [f"dp_replicate={self.dp_replicate}"] if self.dp_replicate > 1 else []
        schedule = [f"schedule={SCHEDULES[self.schedule]}"] if self.schedule else []
        return ",".join(
            [
                *degrees,
                *schedule,
                f"dp={self.dp}",
                *groups,
                f"mb={self.micro_batch}",
                SHARDING[self.sharding],
                f"recompute={named(self.recompute)}",
                *layers,
                *away,
            ]
        )


def named(recompute: int) -> str:
    """Return a recompute setting's name.

    >>> named(2), named(bits("mla_up_proj+layernorm"))
    ('full', 'mla_up_proj+layernorm')
    """
    return RECOMPUTE[recompute] if recompute < len(RECOMPUTE) else "+".join(m for i, m in enumerate(MODULES) if recompute >> i & 1)


def bits(text: str) -> int:
    """Read "none", "selective", "full" or modules joined by "+"; an unknown one is an error that names it."""
    if text in RECOMPUTE:
        return RECOMPUTE.index(text)
    parts = text.split("+")
    unknown = [p for p in parts if p not in MODULES]
    if unknown:
        raise EvidenceError(
            f"plan: recompute={text!r}: {unknown[0]!r} is not one of {', '.join(RECOMPUTE)}, or of {', '.join(MODULES)} joined by +; correct it"
        )
    return sum(1 << MODULES.index(p) for p in set(parts))


FIELDS = tuple(f.name for f in fields(Plan))


@dataclass(frozen=True, slots=True, kw_only=True)
class Degrees:
    """The fields of Plan as floats or float arrays: what formulas read."""

    tp: Num
    pp: Num
    vpp: Num
    cp: Num
    ep: Num
    etp: Num
    dp: Num
    micro_batch: Num
    sharding: Num
    recompute: Num
    recompute_layers: Num
    schedule: Num
    cp_kind: Num
    dp_replicate: Num
    offload: Num

    @property
    def group(self) -> Num:
        """Return how many ranks share what is sharded: c d / r."""
        return self.cp * self.dp / self.dp_replicate

    @property
    def sp(self) -> Num:
        """Sequence parallelism goes with tensor parallelism."""
        return self.tp


FULL = np.array([float(setting >> 1 & 1) for setting in range(1 << len(MODULES))])


def fully(plan: Degrees, layers: Num) -> Num:
    """Return the share of a stage's layers that run again as a whole.

    1 under full recompute, min(k / n, 1) where only k of n layers are; else 0.

    Holds when the same number of layers of every stage are recomputed.
    Source: korthikanti-2022, section 5.
    """
    some = np.minimum(plan.recompute_layers / layers, 1.0)
    return FULL[np.asarray(plan.recompute, dtype=np.int64)] * np.where(plan.recompute_layers > 0.0, some, 1.0)


def degrees(plan: Plan | PlanTable) -> Degrees:
    """Return a plan's, or a table's, degrees as floats."""
    return Degrees(**{name: np.asarray(getattr(plan, name), dtype=np.float64) for name in FIELDS})


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanTable:
    """The fields of Plan as int64 arrays of one length, one plan a row."""

    tp: Ints
    pp: Ints
    vpp: Ints
    cp: Ints
    ep: Ints
    etp: Ints
    dp: Ints
    micro_batch: Ints
    sharding: Ints
    recompute: Ints
    recompute_layers: Ints
    schedule: Ints
    cp_kind: Ints
    dp_replicate: Ints
    offload: Ints

    def __len__(self) -> int:
        return len(self.tp)

    def row(self, i: int) -> Plan:
        """Return row `i` as a Plan."""
        return Plan(**{name: int(getattr(self, name)[i]) for name in FIELDS})

    def take(self, rows: Ints | slice) -> PlanTable:
        """Return the table of these rows."""
        return PlanTable(**{name: getattr(self, name)[rows] for name in FIELDS})

    def degrees(self, part: slice) -> Degrees:
        """Return the degrees of these rows as floats."""
        return degrees(self.take(part))


def table(plans: list[Plan]) -> PlanTable:
    """Return the table of these plans."""
    return PlanTable(**{name: np.array([getattr(p, name) for p in plans], dtype=np.int64) for name in FIELDS})


def joined(tables: Sequence[PlanTable]) -> PlanTable:
    """Return the rows of some tables, one after the other."""
    return PlanTable(**{name: np.concatenate([getattr(t, name) for t in tables]) for name in FIELDS})


def offloads(text: str | None) -> tuple[str, ...]:
    """Read what a search may move to the host, "none" always among it.

    >>> offloads("optimizer,activations")
    ('none', 'optimizer', 'activations')
    """
    found = [name.strip() for name in (text or "").split(",") if name.strip()]
    if unknown := [name for name in found if name not in OFFLOAD]:
        raise EvidenceError(f"--offload {text}: {unknown[0]!r} is not one of {', '.join(OFFLOAD)}; correct it")
    return tuple(dict.fromkeys((OFFLOAD[0], *found)))


ALIASES = {
    "mb": "micro_batch",
    "mbs": "micro_batch",
    "zero": "sharding",
    "vp": "vpp",
    "cp_comm_type": "cp_kind",
    "data_parallel_replicate_degree": "dp_replicate",
}
#: other words for values
MEANT = {"ring": "p2p", "ulysses": "a2a", "all-gather": "all_gather", "allgather": "all_gather"}


def parse(text: str, chips: int, *, cp_kind: int = 0) -> Plan:
    """Read "tp=8,pp=16,mb=1,zero=1,recompute=full"; dp follows from `chips` where it is not given, and `cp_kind` is taken where cp has none.

    Errors: an unknown name, a value that is no whole number, degrees that do not multiply to `chips`.
    """
    values: dict[str, int] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals and part in SHARDING:  # as plans are printed
            name, value = "sharding", part
        name, value = ALIASES.get(name.strip(), name.strip()), value.strip()
        if name not in FIELDS:
            raise EvidenceError(f"--plan: unknown degree {name!r}; use {', '.join(FIELDS)} (or mb, zero)")
        if name in values:
            raise EvidenceError(f"--plan: {name} stands twice; keep one")
        if name == "recompute" and not value.isdigit():
            values[name] = bits(value)
            continue
        words = {**WORDS, "recompute": RECOMPUTE}.get(name, ())
        digits = value.isascii() and value.isdigit() and len(value) < 10
        value = MEANT.get(value, value)
        if value in words:
            values[name] = words.index(value)
        elif digits and (int(value) < len(words) if words else int(value) > 0):
            values[name] = int(value)
        else:
            may = f"one of {', '.join(words)} or 0 to {len(words) - 1}" if words else "a whole number from 1 to 999,999,999"
            raise EvidenceError(f"--plan: {name}={value!r} is not {may}; correct it")
    if values.get("cp", 1) > 1:
        values.setdefault("cp_kind", cp_kind)
    busy = values.get("tp", 1) * values.get("pp", 1) * values.get("cp", 1)
    if "dp" not in values:
        if chips % busy:
            raise EvidenceError(f"--plan: tp x pp x cp = {busy} does not divide {chips} chips; choose degrees whose product divides them")
        values["dp"] = chips // busy
    plan = Plan(**values)
    if plan.chips != chips:
        raise EvidenceError(f"--plan: tp x cp x pp x dp = {plan.chips}, but there are {chips} chips; leave dp out or correct a degree")
    return plan
