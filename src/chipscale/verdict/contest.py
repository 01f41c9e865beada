"""Contest: one chip on one job, its best plans, and its seconds over the draws."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from chipscale.catalog import Catalog
from chipscale.cost.calibration import usual_framework
from chipscale.cost.constants import Constants
from chipscale.cost.hardware import Hardware, hardware, peak_of
from chipscale.evidence import EvidenceError
from chipscale.facts.chip import Chip
from chipscale.facts.cluster import Cluster
from chipscale.facts.job import Job
from chipscale.facts.model import Model
from chipscale.graph import Shard, build
from chipscale.memory import RESERVED
from chipscale.ops.work import Num
from chipscale.plan import Degrees, Plan, PlanTable, degrees
from chipscale.search import Problem, Space, evaluator, most_tp, space
from chipscale.simulators.forward import Forward, deployments
from chipscale.step import Step, sizes

#: plans kept for the draws: the fastest at each of several capacities
KEPT = 4
CAPACITIES = (0.3, 0.45, 0.6, 0.8, 1.0, 1.2)


class Runner(Protocol):
    """What a job asks: the step of some degrees on some hardware, and the bytes they need."""

    def step(self, plan: Degrees, hardware: Hardware, constants: Constants) -> Step: ...

    def bytes(self, plan: Degrees) -> Num: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A training job's step."""

    problem: Problem

    def step(self, plan: Degrees, hardware: Hardware, constants: Constants) -> Step:
        return evaluator(self.problem, hardware, constants).step(plan)

    def bytes(self, plan: Degrees) -> Num:
        e = evaluator(self.problem, _NO_HARDWARE, _NO_CONSTANTS)
        return e.need(plan).total


_NO_HARDWARE = Hardware(peak=1.0, peak16=1.0, power=1.0, memory_bandwidth=1.0, memory_bytes=1.0, inner_size=1.0, inner_bandwidth=1.0, inner_latency=0.0,
                        outer_bandwidth=1.0, outer_latency=0.0, node=1.0, mesh=0.0)  # fmt: skip
_NO_CONSTANTS = Constants(**dict.fromkeys(Constants.__dataclass_fields__, 1.0))


def runner(model: Model, job: Job, precision: str) -> Runner:
    """Return what runs a job at a matmul precision."""
    if job.phase == "train":
        return Training(problem=Problem(model=model, length=float(job.length), batch=float(job.batch), precision=precision))
    graph = build(model, Shard(length=float(job.length), tokens=1.0, train=False))
    return Forward(model=model, job=job, precision=precision, sizes=sizes(model, graph, length=float(job.length), batch=float(job.batch)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A precision that a chip and a job both have, with the plans kept for it."""

    precision: str
    runner: Runner
    hardware: Hardware
    plans: PlanTable
    bytes: np.ndarray

    def seconds(self, hw: Hardware, k: Constants) -> np.ndarray:
        """Return the seconds of the best plan that fits, for each draw; infinite where none does."""
        plan = degrees(self.plans)
        column = Degrees(**{n: np.asarray(getattr(plan, n))[:, None] for n in Degrees.__dataclass_fields__})
        found = np.asarray(self.runner.step(column, hw, k).seconds)
        capacity = np.atleast_1d(np.asarray(hw.memory_bytes)) * (1.0 - RESERVED)
        best: np.ndarray = np.min(np.where(self.bytes[:, None] <= capacity, found, np.inf), axis=0)
        return best

    def best(self, k: Constants) -> tuple[Plan, Step]:
        """Return the best plan at nominal values and its step."""
        fits = self.bytes <= float(np.asarray(self.hardware.memory_bytes)) * (1.0 - RESERVED)
        found = np.asarray(self.runner.step(degrees(self.plans), self.hardware, k).seconds)
        i = int(np.argmin(np.where(fits, found, np.inf)))
        plan = self.plans.row(i)
        return plan, self.runner.step(degrees(plan), self.hardware, k)


def precisions(job: Job, chip: Chip) -> tuple[str, ...]:
    """Return the 16-bit precision of a chip and the fastest narrow one that the job allows."""
    wide = next((p for p in ("bf16", "fp16") if chip.has(f"peak_{p}")), None)
    if wide is None:
        raise EvidenceError(f"{chip.id}: no 16-bit matrix peak is known; add peak_bf16 with a source to a chip file (--catalog DIR)")
    narrow = [p for p in job.precisions if p not in ("bf16", "fp16") and chip.has(f"peak_{p}")]
    if not narrow:
        if not {"bf16", "fp16"} & set(job.precisions):
            raise EvidenceError(
                f"job {job.id}: {chip.id} has none of its precisions ({', '.join(job.precisions)}); allow bf16, or choose another chip"
            )
        return (wide,)
    return wide, max(narrow, key=lambda p: peak_of(chip, p))


def options(catalog: Catalog, job: Job, chip: Chip, cluster: Cluster, k: dict[str, Constants]) -> tuple[Option, ...]:
    """Search a job on a chip at each precision and keep the best plans; no plan that fits is an error that says by how much."""
    model = catalog.model(job.model)
    found: list[Option] = []
    plans: PlanTable | None = None
    cluster.seat(job.chips)
    for precision in precisions(job, chip):
        hw = hardware(chip, cluster, precision)
        run = runner(model, job, precision)
        if plans is None and isinstance(run, Training):
            e = evaluator(run.problem, hw, k[precision])
            kinds = usual_framework(catalog, chip.vendor).cp_kinds
            every = space(model, job.chips, job.batch, most_tp(hw), cp_kinds=kinds, tier=int(hw.inner_size))
            all_found = e.evaluate(every)
            plans = _kept(every, all_found.seconds, all_found.bytes, chip, job)
        elif not isinstance(run, Training):
            table = deployments(model, job.chips, job.batch)
            held = np.broadcast_to(np.asarray(run.bytes(degrees(table))), (len(table),))
            plans = _kept(table, np.asarray(run.step(degrees(table), hw, k[precision]).seconds), held, chip, job)
        assert plans is not None
        bytes_ = np.broadcast_to(np.asarray(run.bytes(degrees(plans)), dtype=np.float64), (len(plans),))
        found.append(Option(precision=precision, runner=run, hardware=hw, plans=plans, bytes=bytes_))
    return tuple(found)


def _kept(table: PlanTable | Space, seconds: np.ndarray, held: np.ndarray, chip: Chip, job: Job) -> PlanTable:
    capacity = chip.value("memory_bytes") * (1.0 - RESERVED)
    if held.min() > capacity * CAPACITIES[-1]:
        from chipscale.units import show

        i = int(np.argmin(held))
        raise EvidenceError(f"{job.id} does not fit on {job.chips} x {chip.id}: the leanest plan ({table.row(i)}) needs {show(float(held[i]), 'B')} a chip, "
                            f"{show(float(held[i]) - capacity, 'B')} more than the {show(capacity, 'B')} usable; use more chips")  # fmt: skip
    rows: list[int] = []
    for share in CAPACITIES:
        fitting = np.where(held <= capacity * share, seconds, np.inf)
        order = np.argpartition(fitting, min(KEPT, len(fitting) - 1))[:KEPT]
        rows += [int(i) for i in order if np.isfinite(fitting[i])]
    return table.take(np.array(sorted(set(rows)), dtype=np.int64))


def swapped(base: Hardware, other: Hardware, names: tuple[str, ...]) -> Hardware:
    """Return `base` with these fields of `other`."""
    return replace(base, **{n: getattr(other, n) for n in names})
