"""Every plan that a training job allows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import numpy as np

from chipscale.evidence import EvidenceError
from chipscale.facts.model import Experts, Model
from chipscale.plan import CP_KINDS, FIELDS, OFFLOAD, RECOMPUTE, SCHEDULES, SHARDING, Degrees, Ints, Plan, PlanTable, degrees
from chipscale.schedules.forms import fits


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Each row of `outer` with each of some interleaves, every sharding and every recompute of `RECOMPUTE`.

    Where `hybrid`, the last sharding stands once more, in the groups that `outer.dp_replicate` makes; all others know one group.
    Rows are numbered recompute first, then sharding, interleave, and `outer`, whose own columns of these are not read.
    """

    outer: PlanTable
    vpps: tuple[int, ...]
    hybrid: bool = False

    @property
    def shardings(self) -> tuple[int, ...]:
        """List the positions in `SHARDING` along the axis of shardings."""
        return (*range(len(SHARDING)), *([len(SHARDING) - 1] if self.hybrid else []))

    @property
    def inner(self) -> tuple[int, int, int]:
        """How many interleaves, shardings and recomputes each row of `outer` has."""
        return len(self.vpps), len(self.shardings), len(RECOMPUTE)

    def __len__(self) -> int:
        return len(self.outer) * math.prod(self.inner)

    def take(self, rows: Ints) -> PlanTable:
        """Return the table of these rows."""
        outer, v, sharding, recompute = np.unravel_index(rows, (len(self.outer), *self.inner))
        mine = self.outer.take(outer)
        return replace(mine, vpp=np.array(self.vpps)[v], sharding=np.array(self.shardings)[sharding], recompute=recompute,
                       dp_replicate=np.where(sharding == len(SHARDING), mine.dp_replicate, 1))  # fmt: skip

    def degrees(self, part: slice) -> Degrees:
        """Return these rows of `outer` as floats along the last axis; interleave, sharding and recompute are the axes before it."""
        v, sharding, recompute = (np.array(n, dtype=np.float64) for n in (self.vpps, self.shardings, range(len(RECOMPUTE))))
        mine = degrees(self.outer.take(part))
        again = np.arange(len(self.shardings))[:, None, None] == len(SHARDING)
        return replace(mine, vpp=v[:, None, None, None], sharding=sharding[:, None, None], recompute=recompute[:, None],
                       dp_replicate=np.where(again, mine.dp_replicate, 1.0) if self.hybrid else np.array(1.0))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Grids one after the other, whose rows are numbered through."""

    grids: tuple[Grid, ...]

    def __len__(self) -> int:
        return sum(len(g) for g in self.grids)

    def row(self, i: int) -> Plan:
        """Return row `i` as a Plan."""
        return self.take(np.array([i])).row(0)

    def take(self, rows: Ints) -> PlanTable:
        """Return the table of these rows, in their order."""
        ends = np.cumsum([len(g) for g in self.grids])
        where = np.searchsorted(ends, rows, side="right")
        grid = np.empty((len(FIELDS), len(rows)), dtype=np.int64)
        for i, g in enumerate(self.grids):
            mine = where == i
            found = g.take(rows[mine] - (ends[i] - len(g)))
            grid[:, mine] = [getattr(found, name) for name in FIELDS]
        return _table(grid)

    def table(self) -> PlanTable:
        """Return the table of all rows."""
        return self.take(np.arange(len(self)))


def divisors(n: int, most: int) -> list[int]:
    """List the divisors of n up to `most`."""
    return [d for d in range(1, min(n, most) + 1) if n % d == 0]


def fewest_heads(model: Model) -> int:
    """Return the heads of the layer that has fewest."""
    return int(min(getattr(b.mixer, "heads", getattr(b.mixer, "value_heads", 1)) for b in model.blocks))


def spreads(model: Model, chips: int, batch: int, most_tp: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield every (tp, pp, cp, dp) that multiplies to the chips, divides the heads and the batch, and has at most a layer a stage."""
    heads = fewest_heads(model)
    for tp in (t for t in divisors(chips, min(heads, most_tp)) if heads % t == 0):
        for pp, cp in product(divisors(chips // tp, min(model.layers, 128)), (1, 2, 4, 8)):
            dp, rest = divmod(chips, tp * pp * cp)
            if not rest and batch % dp == 0:
                yield tp, pp, cp, dp


@cache
def space(
    model: Model,
    chips: int,
    batch: int,
    most_tp: int,
    schedules: tuple[str, ...] = ("1f1b",),
    cp_kinds: tuple[str, ...] = CP_KINDS[:1],
    tier: int = 0,
    offloads: tuple[str, ...] = OFFLOAD[:1],
) -> Space:
    """List every plan of the space: degrees that divide the chips, the heads and the experts, micro-batches that divide the batch.

    tp up to `most_tp`, pp up to the layers, interleave up to 8 chunks, every ZeRO stage and recompute; `schedules` beside 1f1b are tried
    where they can hold the micro-batches. Context-parallel ranks talk in each of `cp_kinds`, in heads for tokens where cp divides the heads of a rank.
    ZeRO-3 is tried over all ranks and, where that is fewer, over as many as share a tier of `tier` chips with their replicas beyond.
    Each of `offloads` is tried of what may lie in the host's memory.
    """
    experts = max((b.feed.count for b in model.blocks if isinstance(b.feed, Experts)), default=0)
    tables: dict[tuple[int, ...], list[Ints]] = {}
    for tp, pp, cp, dp in spreads(model, chips, batch, most_tp):
        ranks = tp * cp * dp
        splits = [(e, t) for e in (divisors(experts, ranks) if experts else [1]) for t in ({1, tp} if experts else {1}) if ranks % (e * t) == 0]
        vpps = tuple(v for v in (1, 2, 3, 4, 6, 8) if v == 1 or (pp > 1 and -(-model.layers // pp) >= v))
        micros = [m for m in (1, 2, 4, 8, 16) if (batch // dp) % m == 0]
        for several, fit, kind in _schedules(schedules, pp, batch // dp, model.layers, vpps, micros):
            for talk in _talks(cp_kinds, cp, fewest_heads(model) // tp):
                tables.setdefault(several, []).append(_crossed((tp, pp, cp, dp), splits, fit, kind, talk, _replicas(tp, cp, dp, tier)))
    if not tables:
        raise EvidenceError(f"no plan spreads {batch} sequences over {chips} chips; choose a batch that is a multiple of the chips over tp x pp x cp")
    away = [OFFLOAD.index(name) for name in offloads]
    return Space(grids=tuple(grid for vpps, some in tables.items() for grid in _grids(_offloaded(np.concatenate(some, axis=1), away), vpps)))


def _offloaded(columns: Ints, away: list[int]) -> Ints:
    """Repeat the rows with each of some offloads."""
    several = np.tile(columns, (1, len(away)))
    several[FIELDS.index("offload")] = np.repeat(away, columns.shape[1])
    return several


def _grids(columns: Ints, vpps: tuple[int, ...]) -> list[Grid]:
    """Part the rows that know groups of replicas from those that do not."""
    hybrid = columns[FIELDS.index("dp_replicate")] > 1
    return [Grid(outer=_table(columns[:, rows]), vpps=vpps, hybrid=flag) for flag, rows in ((False, ~hybrid), (True, hybrid)) if rows.any()]


def _replicas(tp: int, cp: int, dp: int, tier: int) -> int:
    """Return the fewest groups that dp divides into whose ranks, tp and cp included, share a tier; 1 where none does."""
    return next((r for r in divisors(dp, dp) if tp * cp * dp // r <= tier), 1)


def _table(columns: Ints) -> PlanTable:
    return PlanTable(**dict(zip(FIELDS, columns, strict=True)))


def _schedules(
    names: tuple[str, ...], pp: int, each: int, layers: int, vpps: tuple[int, ...], micros: list[int]
) -> list[tuple[tuple[int, ...], list[int], int]]:
    """List (interleaves, micro-batch sizes, schedule) of the schedules that run on these stages and micro-batches."""
    found = []
    for name in names:
        interleaves = vpps if name == "1f1b" else (1,)
        fit = [m for m in micros if name == "1f1b" or fits(name, pp, each // m, layers)]
        if fit:
            found.append((interleaves, fit, SCHEDULES.index(name)))
    return found


def _talks(kinds: tuple[str, ...], cp: int, heads: int) -> list[int]:
    """List how cp ranks may talk that have so many heads each; one rank does not."""
    return [CP_KINDS.index(kind) for kind in kinds if kind != "a2a" or heads % cp == 0] if cp > 1 else [0]


def _crossed(fixed: tuple[int, int, int, int], splits: list[tuple[int, int]], micros: list[int], schedule: int, talk: int, replicas: int) -> Ints:
    """Cross the splits and micro-batches of one (tp, pp, cp, dp), schedule and kind of context parallelism; the rows of the result are `FIELDS`."""
    s, m = (i.ravel() for i in np.indices((len(splits), len(micros))))
    ep, etp = np.array(splits).T
    ranks = fixed[0] * fixed[2] * fixed[3] // replicas
    groups = np.where(ranks % (ep * etp)[s] == 0, replicas, 1)
    tp, pp, cp, dp, kind, talks, one, none = (np.full(len(s), n, dtype=np.int64) for n in (*fixed, schedule, talk, 1, 0))
    return np.stack([tp, pp, one, cp, ep[s], etp[s], dp, np.array(micros)[m], none, none, none, kind, talks, groups, none])
