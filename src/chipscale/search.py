"""Plans that fit, best first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from chipscale.cost.constants import Constants
from chipscale.cost.hardware import WIDTH, Hardware
from chipscale.evidence import EvidenceError
from chipscale.facts.framework import MIXED, Keeping
from chipscale.facts.model import Model
from chipscale.graph import Shard, build
from chipscale.memory import RESERVED, Holds, Need, by_stage, holds, kept_bytes, need, peak
from chipscale.plan import Degrees, Ints, Plan, PlanTable, degrees, joined
from chipscale.simulators.closed_form import held_states, simulate, times
from chipscale.space import Grid, Space, space
from chipscale.step import STAYS, Moved, Sizes, Step, Times, sizes

__all__ = ["Evaluated", "Evaluator", "Problem", "Space", "best", "check", "evaluator", "most_tp", "space", "usable"]

#: rows evaluated at a time, so that temporaries stay in cache
BLOCK = 131_072
KEYS = ("tp", "cp", "ep", "etp", "micro_batch")

#: is told what share of a search is done
Watch = Callable[[float], None]


def silent(_share: float) -> None:
    """Watch a search and say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A model trained with `batch` sequences of `length` tokens at a matmul precision."""

    model: Model
    length: float
    batch: float
    precision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """Seconds and bytes of rows of a table; `rows` are their numbers."""

    rows: Ints
    seconds: np.ndarray
    bytes: np.ndarray


def most_tp(hardware: Hardware) -> int:
    """Return the widest tensor parallelism worth listing: two inner tiers, from 8 to 64."""
    return int(min(max(8.0, 2.0 * float(np.asarray(hardware.inner_size))), 64.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluator:
    """Costs and memory of one problem on one chip; what depends on few axes is computed once on those axes."""

    problem: Problem
    hardware: Hardware
    constants: Constants
    sizes: Sizes
    holds: Holds
    keeping: Keeping

    def times(self, plan: Degrees) -> Times:
        """Cost a micro-batch under these degrees."""
        p = self.problem
        shard = Shard(length=p.length, tokens=plan.micro_batch * p.length / plan.cp, tp=plan.tp, sp=plan.tp, ep=plan.ep, etp=plan.etp,
                      width=WIDTH[p.precision])  # fmt: skip
        return times(build(p.model, shard), self.hardware, self.constants)

    def step(self, plan: Degrees) -> Step:
        """Return the step of these degrees, exactly."""
        return simulate(self.times(plan), self.sizes, plan, self.hardware, self.constants, self.moved(plan))

    def moved(self, plan: Degrees) -> Moved:
        """Return what a plan moves to the host and back."""
        if not np.any(plan.offload):
            return STAYS
        states, activations = (plan.offload == 1.0) | (plan.offload == 3.0), plan.offload >= 2.0
        tokens = plan.micro_batch * self.problem.length / plan.cp
        return Moved(activations=activations * kept_bytes(self.holds, plan, tokens, self.keeping),
                     optimizer=states * self.keeping.optimizer * held_states(self.sizes, plan))  # fmt: skip

    def need(self, plan: Degrees) -> Need:
        """Return what the fullest chip holds."""
        return need(self.by_stage(plan), self.keeping)

    def by_stage(self, plan: Degrees) -> tuple[Need, ...]:
        """Return what the stages hold that may be the fullest."""
        tokens = plan.micro_batch * self.problem.length / plan.cp
        return by_stage(self.holds, plan, tokens, self.problem.batch / (plan.dp * plan.micro_batch), self.keeping)

    def evaluate(self, plans: PlanTable | Space, watch: Watch = silent) -> Evaluated:
        """Return seconds and bytes of every row; `watch` is told the share that is done.

        What interleave, sharding and recompute do not touch is computed once for all rows of a grid that differ in these alone.
        """
        grids: Sequence[Grid | PlanTable] = plans.grids if isinstance(plans, Space) else (plans,)
        seconds, held, done = np.empty(len(plans)), np.empty(len(plans)), 0
        for grid, keyed in zip(grids, self._keyed(grids), strict=True):
            shape = (len(np.asarray(keyed.forward)), *(grid.inner if isinstance(grid, Grid) else ()))
            end = done + len(grid)
            t, b = seconds[done:end].reshape(shape), held[done:end].reshape(shape)
            size = BLOCK // math.prod(shape[1:])
            for start in range(0, shape[0], size):
                part = slice(start, start + size)
                plan, one = grid.degrees(part), Times(**{f.name: getattr(keyed, f.name)[part] for f in fields(Times)})
                t[part] = np.moveaxis(np.asarray(simulate(one, self.sizes, plan, self.hardware, self.constants, self.moved(plan)).seconds), -1, 0)
                b[part] = np.moveaxis(np.asarray(peak(self.by_stage(plan), self.keeping)), -1, 0)
                watch((done + t[: start + size].size) / len(plans))
            done = end
        return Evaluated(rows=np.arange(len(plans)), seconds=seconds, bytes=held)

    def _keyed(self, grids: Sequence[Grid | PlanTable]) -> list[Times]:
        """Cost a micro-batch of every outer row of each grid, once for each combination of the axes that the graph depends on."""
        outer = [g.outer if isinstance(g, Grid) else g for g in grids]
        unique, inverse = _unique(joined(outer))
        found = self.times(degrees(unique))
        flat = {f.name: np.broadcast_to(np.asarray(getattr(found, f.name), dtype=np.float64), (len(unique),)) for f in fields(Times)}
        return [Times(**{name: values[rows] for name, values in flat.items()}) for rows in np.split(inverse, np.cumsum([len(t) for t in outer])[:-1])]


def _unique(plans: PlanTable) -> tuple[PlanTable, Ints]:
    """Return one row for each combination of the axes that the graph depends on, and where each row finds its own."""
    code = np.zeros(len(plans), dtype=np.int64)
    for name in KEYS:
        column = getattr(plans, name)
        code = code * (int(column.max(initial=0)) + 1) + column
    _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
    return plans.take(first), inverse


def evaluator(problem: Problem, hardware: Hardware, constants: Constants, keeping: Keeping = MIXED) -> Evaluator:
    """Prepare the evaluation of one problem; without `keeping` mixed precision of 2 + 4 + 12 bytes a parameter."""
    graph = build(problem.model, Shard(length=problem.length, tokens=problem.length))
    return Evaluator(problem=problem, hardware=hardware, constants=constants, keeping=keeping,
                     holds=holds(problem.model, operand=min(2.0, max(1.0, WIDTH[problem.precision]))),
                     sizes=sizes(problem.model, graph, length=problem.length, batch=problem.batch))  # fmt: skip


def usable(hardware: Hardware) -> float:
    """Return the bytes of a chip that a plan may fill."""
    return float(np.max(np.asarray(hardware.memory_bytes))) * (1.0 - RESERVED)


def frontier(seconds: np.ndarray, held: np.ndarray, chips: np.ndarray) -> Ints:
    """Return the rows that no other row beats in one of seconds, bytes and chips without losing in another; of equal rows the first, fewest chips and then fastest first.

    O(n log n): sizes ascending, each sorted by seconds; a row stays where it is leaner than all that are as fast, on as many chips or fewer.
    """
    kept: list[Ints] = []
    before = np.zeros(0, dtype=np.int64)
    for n in np.unique(chips):
        rows = _leaner(np.flatnonzero(chips == n), seconds, held)
        least = np.concatenate(([np.inf], held[before]))[np.searchsorted(seconds[before], seconds[rows], side="right")]
        kept.append(rows[held[rows] < least])
        before = _leaner(np.concatenate((before, kept[-1])), seconds, held)
    return np.concatenate(kept)


def _leaner(rows: Ints, seconds: np.ndarray, held: np.ndarray) -> Ints:
    """Sort rows by seconds and keep those that hold less than all before them."""
    rows = rows[np.lexsort((held[rows], seconds[rows]))]
    least = np.minimum.accumulate(np.concatenate(([np.inf], held[rows])))[:-1]
    return rows[held[rows] < least]


def best(e: Evaluator, plans: PlanTable | Space, top: int, watch: Watch = silent) -> PlanTable:
    """Return the `top` fastest plans that fit, fastest first and of equals the leanest; none that fits is an error that says how far the nearest is off."""
    found = fitting(e, plans, watch)
    return plans.take(found.rows[np.lexsort((found.bytes, found.seconds))[:top]])


def fitting(e: Evaluator, plans: PlanTable | Space, watch: Watch = silent) -> Evaluated:
    """Return the rows that fit with their seconds and bytes; none that does is an error that says how far the nearest is off."""
    found = e.evaluate(plans, watch)
    fits = found.bytes <= usable(e.hardware)
    if not fits.any():
        nearest = int(np.argmin(found.bytes))
        short = found.bytes[nearest] - usable(e.hardware)
        raise EvidenceError(
            f"{e.problem.model.id} does not fit: the leanest plan ({plans.row(nearest)}) is {show_bytes(short)} over the "
            f"{show_bytes(usable(e.hardware))} that a chip can give; use more chips or a smaller batch"
        )
    return Evaluated(rows=found.rows[fits], seconds=found.seconds[fits], bytes=found.bytes[fits])


def show_bytes(n: float) -> str:
    from chipscale.units import show

    return show(n, "B")


def check(e: Evaluator, plan: Plan, plans: Space) -> None:
    """Refuse a plan that does not fit: by how much, what is too big, and the nearest plan that does."""
    held = e.need(degrees(plan))
    total, limit = float(np.asarray(held.total)), usable(e.hardware)
    if total <= limit:
        return
    kinds = {f.name: float(np.asarray(getattr(held, f.name))) for f in fields(Need)}
    largest = max(kinds, key=lambda name: kinds[name])
    found, rows = e.evaluate(plans), plans.table()
    far = sum(
        np.abs(np.log2(getattr(rows, n) / getattr(plan, n))) for n in ("tp", "pp", "vpp", "cp", "ep", "etp", "dp", "micro_batch", "dp_replicate")
    )
    far = far + np.abs(rows.sharding - plan.sharding) + np.abs(rows.recompute - plan.recompute)
    far = np.where(found.bytes <= limit, far, np.inf)
    near = f"the nearest plan that fits is {rows.row(int(np.argmin(far)))}" if np.isfinite(far).any() else "no plan on these chips fits"
    raise EvidenceError(
        f"--plan: {plan} needs {show_bytes(total)} a chip, {show_bytes(total - limit)} more than the {show_bytes(limit)} usable; "
        f"largest: {largest} {show_bytes(kinds[largest])}; {near}"
    )
