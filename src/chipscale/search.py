"""Plans that fit, best first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from itertools import product

import numpy as np

from chipscale.cost.constants import Constants
from chipscale.cost.hardware import WIDTH, Hardware
from chipscale.evidence import EvidenceError
from chipscale.facts.framework import MIXED, Keeping
from chipscale.facts.model import Experts, Model
from chipscale.graph import Shard, build
from chipscale.memory import RESERVED, Holds, Need, by_stage, holds, need, peak
from chipscale.plan import SCHEDULES, Degrees, Ints, Plan, PlanTable, degrees
from chipscale.schedules.forms import fits
from chipscale.simulators.closed_form import simulate, times
from chipscale.step import Sizes, Step, Times, sizes

#: rows evaluated at a time, so that temporaries stay in cache
BLOCK = 16_384
KEYS = ("tp", "cp", "ep", "etp", "micro_batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A model trained with `batch` sequences of `length` tokens at a matmul precision."""

    model: Model
    length: float
    batch: float
    precision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """Seconds and bytes of every row of a table."""

    seconds: np.ndarray
    bytes: np.ndarray


def divisors(n: int, most: int) -> list[int]:
    """List the divisors of n up to `most`."""
    return [d for d in range(1, min(n, most) + 1) if n % d == 0]


def spreads(model: Model, chips: int, batch: int, most_tp: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield every (tp, pp, cp, dp) that multiplies to the chips, divides the heads and the batch, and has at most a layer a stage."""
    heads = min(getattr(b.mixer, "heads", getattr(b.mixer, "value_heads", 1)) for b in model.blocks)
    for tp in (t for t in divisors(chips, min(heads, most_tp)) if heads % t == 0):
        for pp, cp in product(divisors(chips // tp, min(model.layers, 128)), (1, 2, 4, 8)):
            dp, rest = divmod(chips, tp * pp * cp)
            if not rest and batch % dp == 0:
                yield tp, pp, cp, dp


@cache
def space(model: Model, chips: int, batch: int, most_tp: int, schedules: tuple[str, ...] = ("1f1b",)) -> PlanTable:
    """List every plan of the space: degrees that divide the chips, the heads and the experts, micro-batches that divide the batch.

    tp up to `most_tp`, pp up to the layers, interleave up to 8 chunks, every ZeRO stage and recompute; `schedules` beside 1f1b are tried
    where they can hold the micro-batches.
    """
    experts = max((b.feed.count for b in model.blocks if isinstance(b.feed, Experts)), default=0)
    tables: list[Ints] = []
    for tp, pp, cp, dp in spreads(model, chips, batch, most_tp):
        ranks = tp * cp * dp
        splits = [(e, t) for e in (divisors(experts, ranks) if experts else [1]) for t in ({1, tp} if experts else {1}) if ranks % (e * t) == 0]
        vpps = [v for v in (1, 2, 3, 4, 6, 8) if v == 1 or (pp > 1 and -(-model.layers // pp) >= v)]
        micros = [m for m in (1, 2, 4, 8, 16) if (batch // dp) % m == 0]
        tables += [_crossed((tp, pp, cp, dp), splits, *kept) for kept in _schedules(schedules, pp, batch // dp, model.layers, vpps, micros)]
    if not tables:
        raise EvidenceError(f"no plan spreads {batch} sequences over {chips} chips; choose a batch that is a multiple of the chips over tp x pp x cp")
    grid = np.concatenate(tables, axis=1)
    return PlanTable(**{f.name: np.ascontiguousarray(grid[i]) for i, f in enumerate(fields(PlanTable))})


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
    s, v, m, z, r = (i.ravel() for i in np.indices((len(splits), len(vpps), len(micros), 4, 3)))
    ep, etp = np.array(splits).T
    tp, pp, cp, dp, kind = (np.full(len(s), n, dtype=np.int64) for n in (*fixed, schedule))
    return np.stack([tp, pp, np.array(vpps)[v], cp, ep[s], etp[s], dp, np.array(micros)[m], z, r, 0 * r, kind])


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
        return simulate(self.times(plan), self.sizes, plan, self.hardware, self.constants)

    def need(self, plan: Degrees) -> Need:
        """Return what the fullest chip holds."""
        return need(self.by_stage(plan), self.keeping)

    def by_stage(self, plan: Degrees) -> tuple[Need, ...]:
        """Return what the stages hold that may be the fullest."""
        tokens = plan.micro_batch * self.problem.length / plan.cp
        return by_stage(self.holds, plan, tokens, self.problem.batch / (plan.dp * plan.micro_batch), self.keeping)

    def evaluate(self, plans: PlanTable) -> Evaluated:
        """Return seconds and bytes of every row."""
        unique, inverse = _unique(plans)
        keyed = self.times(degrees(unique))
        shape = (len(unique),)
        flat = {f.name: np.broadcast_to(np.asarray(getattr(keyed, f.name), dtype=np.float64), shape) for f in fields(Times)}
        seconds, held = np.empty(len(plans)), np.empty(len(plans))
        for start in range(0, len(plans), BLOCK):
            part = slice(start, start + BLOCK)
            plan = degrees(plans.take(part))
            t = Times(**{name: values[inverse[part]] for name, values in flat.items()})
            seconds[part] = simulate(t, self.sizes, plan, self.hardware, self.constants).seconds
            held[part] = peak(self.by_stage(plan), self.keeping)
        return Evaluated(seconds=seconds, bytes=held)


def _unique(plans: PlanTable) -> tuple[PlanTable, Ints]:
    """Return one row for each combination of the axes that the graph depends on, and where each row finds its own."""
    code = np.zeros(len(plans), dtype=np.int64)
    for name in KEYS:
        column = getattr(plans, name)
        code = code * (int(column.max()) + 1) + column
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


def best(e: Evaluator, plans: PlanTable, top: int) -> PlanTable:
    """Return the `top` fastest plans that fit, fastest first; no plan that fits is an error that says how far the nearest is off."""
    found = e.evaluate(plans)
    fits = found.bytes <= usable(e.hardware)
    if not fits.any():
        nearest = int(np.argmin(found.bytes))
        short = found.bytes[nearest] - usable(e.hardware)
        raise EvidenceError(
            f"{e.problem.model.id} does not fit: the leanest plan ({plans.row(nearest)}) is {show_bytes(short)} over the "
            f"{show_bytes(usable(e.hardware))} that a chip can give; use more chips or a smaller batch"
        )
    order = np.argsort(np.where(fits, found.seconds, np.inf), kind="stable")[: min(top, int(fits.sum()))]
    return plans.take(order)


def show_bytes(n: float) -> str:
    from chipscale.units import show

    return show(n, "B")


def check(e: Evaluator, plan: Plan, plans: PlanTable) -> None:
    """Refuse a plan that does not fit: by how much, what is too big, and the nearest plan that does."""
    held = e.need(degrees(plan))
    total, limit = float(np.asarray(held.total)), usable(e.hardware)
    if total <= limit:
        return
    kinds = {f.name: float(np.asarray(getattr(held, f.name))) for f in fields(Need)}
    largest = max(kinds, key=lambda name: kinds[name])
    found = e.evaluate(plans)
    far = sum(np.abs(np.log2(getattr(plans, n) / getattr(plan, n))) for n in ("tp", "pp", "vpp", "cp", "ep", "etp", "dp", "micro_batch"))
    far = far + np.abs(plans.sharding - plan.sharding) + np.abs(plans.recompute - plan.recompute)
    far = np.where(found.bytes <= limit, far, np.inf)
    near = f"the nearest plan that fits is {plans.row(int(np.argmin(far)))}" if np.isfinite(far).any() else "no plan on these chips fits"
    raise EvidenceError(
        f"--plan: {plan} needs {show_bytes(total)} a chip, {show_bytes(total - limit)} more than the {show_bytes(limit)} usable; "
        f"largest: {largest} {show_bytes(kinds[largest])}; {near}"
    )
