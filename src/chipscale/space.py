"""Every plan that a training job allows."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import product

import numpy as np

from chipscale.evidence import EvidenceError
from chipscale.facts.model import Experts, Model
from chipscale.plan import RECOMPUTE, SCHEDULES, SHARDING, Degrees, Ints, Plan, PlanTable, degrees
from chipscale.schedules.forms import fits

#: settings of sharding and of recompute that every row of a space is crossed with
INNER = (len(SHARDING), len(RECOMPUTE))
EACH = len(SHARDING) * len(RECOMPUTE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Each row of `outer` with every sharding and every recompute of `RECOMPUTE`.

    Rows are numbered recompute first, then sharding, then `outer`, whose own sharding and recompute are not read.
    """

    outer: PlanTable

    def __len__(self) -> int:
        return EACH * len(self.outer)

    def row(self, i: int) -> Plan:
        """Return row `i` as a Plan."""
        return self.take(np.array([i])).row(0)

    def take(self, rows: Ints) -> PlanTable:
        """Return the table of these rows."""
        outer, inner = np.divmod(rows, EACH)
        sharding, recompute = np.divmod(inner, len(RECOMPUTE))
        return replace(self.outer.take(outer), sharding=sharding, recompute=recompute)

    def table(self) -> PlanTable:
        """Return the table of all rows."""
        return self.take(np.arange(len(self)))

    def degrees(self, part: slice) -> Degrees:
        """Return these rows of `outer` as floats along the last axis, sharding along the first, recompute along the second."""
        sharding, recompute = (np.arange(n, dtype=np.float64) for n in INNER)
        return replace(degrees(self.outer.take(part)), sharding=sharding[:, None, None], recompute=recompute[:, None])


def divisors(n: int, most: int) -> list[int]:
    """List the divisors of n up to `most`."""
    return [d for d in range(1, min(n, most) + 1) if n % d == 0]


@cache
def space(model: Model, chips: int, batch: int, most_tp: int, schedules: tuple[str, ...] = ("1f1b",)) -> Space:
    """List every plan of the space: degrees that divide the chips, the heads and the experts, micro-batches that divide the batch.

    tp up to `most_tp`, pp up to the layers, interleave up to 8 chunks, every ZeRO stage and recompute; `schedules` beside 1f1b are tried
    where they can hold the micro-batches.
    """
    experts = max((b.feed.count for b in model.blocks if isinstance(b.feed, Experts)), default=0)
    heads = min(getattr(b.mixer, "heads", getattr(b.mixer, "value_heads", 1)) for b in model.blocks)
    tables: list[Ints] = []
    for tp in (t for t in divisors(chips, min(heads, most_tp)) if heads % t == 0):
        for pp, cp in product(divisors(chips // tp, min(model.layers, 128)), (1, 2, 4, 8)):
            dp, rest = divmod(chips, tp * pp * cp)
            if rest or batch % dp:
                continue
            ranks = tp * cp * dp
            splits = [(e, t) for e in (divisors(experts, ranks) if experts else [1]) for t in ({1, tp} if experts else {1}) if ranks % (e * t) == 0]
            vpps = [v for v in (1, 2, 3, 4, 6, 8) if v == 1 or (pp > 1 and -(-model.layers // pp) >= v)]
            micros = [m for m in (1, 2, 4, 8, 16) if (batch // dp) % m == 0]
            tables += [_crossed((tp, pp, cp, dp), splits, *kept) for kept in _schedules(schedules, pp, batch // dp, model.layers, vpps, micros)]
    if not tables:
        raise EvidenceError(f"no plan spreads {batch} sequences over {chips} chips; choose a batch that is a multiple of the chips over tp x pp x cp")
    grid = np.concatenate(tables, axis=1)
    return Space(outer=PlanTable(**{f.name: np.ascontiguousarray(grid[i]) for i, f in enumerate(fields(PlanTable))}))


def _schedules(names: tuple[str, ...], pp: int, each: int, layers: int, vpps: list[int], micros: list[int]) -> list[tuple[list[int], list[int], int]]:
    """List (interleaves, micro-batch sizes, schedule) of the schedules that run on these stages and micro-batches."""
    found = []
    for name in names:
        interleaves = vpps if name == "1f1b" else [1]
        fit = [m for m in micros if name == "1f1b" or fits(name, pp, each // m, layers)]
        if fit:
            found.append((interleaves, fit, SCHEDULES.index(name)))
    return found


def _crossed(fixed: tuple[int, int, int, int], splits: list[tuple[int, int]], vpps: list[int], micros: list[int], schedule: int) -> Ints:
    """Cross the free axes of one (tp, pp, cp, dp) and schedule; the rows of the result are the fields of PlanTable in order."""
    s, v, m = (i.ravel() for i in np.indices((len(splits), len(vpps), len(micros))))
    ep, etp = np.array(splits).T
    tp, pp, cp, dp, kind, none = (np.full(len(s), n, dtype=np.int64) for n in (*fixed, schedule, 0))
    return np.stack([tp, pp, np.array(vpps)[v], cp, ep[s], etp[s], dp, np.array(micros)[m], none, none, none, kind])
