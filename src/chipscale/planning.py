"""train(MODEL, CHIP, N): the best plans of one training job, or a given one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from chipscale.catalog import Catalog
from chipscale.cost.calibration import Calibration, constants, read_calibration, read_vendors
from chipscale.cost.hardware import hardware, peak_of
from chipscale.evidence import Belief, EvidenceError
from chipscale.facts.chip import Chip
from chipscale.facts.job import Job
from chipscale.facts.model import Model
from chipscale.facts.parameters import parameters
from chipscale.plan import SCHEDULES, Plan, degrees, parse
from chipscale.schedules.forms import in_flight, refuse
from chipscale.search import Evaluator, Problem, best, check, evaluator, most_tp, space
from chipscale.simulators.event import Replay, replayed
from chipscale.step import CAUSES
from chipscale.verdict.contest import precisions
from chipscale.verdict.nouns import Interval, Side
from chipscale.verdict.weighing import MAPE_TO_SIGMA, candidate, context

#: precisions of matrix products in training, where a chip has them
TRAINED = ("bf16", "fp16", "fp8", "mxfp8", "nvfp4")


def train(catalog: Catalog, model: str, chip: str, chips: int, *, length: int | None = None, batch: int | None = None, tokens: float | None = None,
          precision: str | None = None, framework: str | None = None, plan: str | None = None, top: int = 1,
          assume: Mapping[str, str] | None = None) -> tuple[Side, ...]:  # fmt: skip
    """Return the `top` best plans that fit, fastest first, or the one that `plan` states; one group for each hypothesis of a believed chip or model, the likeliest first.

    `length` in tokens (4,096 unless given), `batch` in sequences (4 M tokens a step, rounded to the chips, unless given).
    Errors: unknown names, a precision that the chip lacks, degrees that do not multiply, a plan that does not fit, an assumption about neither.
    """
    length = 4096 if length is None else length
    for name, n, most in (("chips", chips, 10**7), ("length", length, 10**8), ("top", top, 1000)):
        if not 1 <= n <= most:
            raise EvidenceError(f"{name} = {n}: it must be from 1 to {most:,}")
    if precision is not None and precision not in TRAINED:
        raise EvidenceError(f"--precision {precision}: training is planned in {', '.join(TRAINED)}; choose one of these")
    held, c = believed(catalog, model, chip, assume or {}), candidate(catalog, chip, assume or {})
    job = training_job(model, chips, length=length, batch=batch, tokens=tokens, precision=precision)
    calibration = read_calibration(catalog)
    worlds = [(m, h, cluster) for m in held.hypotheses for h, cluster in zip(c.belief.hypotheses, c.clusters, strict=True)]
    sides: list[Side] = []
    for m, h, cluster in sorted(worlds, key=lambda world: -world[0].weight * world[1].weight):
        cluster.seat(chips)
        chosen = precisions(job, h.value) if precision is None else (precision,)
        listed = [_evaluator(catalog, job, m.value, h.value, p, calibration, framework) for p in chosen]
        group = [
            _side(e, one, h.value, taken_as(m.key, h.key), cluster.id, job, p, calibration) for e, p in listed for one in _plans(e, job, plan, top)
        ]
        sides += sorted(group, key=lambda s: s.seconds.median)[:top]
    return tuple(sides)


def believed(catalog: Catalog, model: str, chip: str, assume: Mapping[str, str]) -> Belief[Model]:
    """Look a model up and pin a hypothesis where one is assumed; an assumption about neither model nor chip is refused."""
    names = {model.lower(), model.rpartition("/")[2].lower()}
    held = catalog.believed_model(model)
    for name, key in assume.items():
        if name.rpartition("/")[2].lower() in names:
            held = held.pinned(key)
        elif catalog.aliases().get(name.lower()) != catalog.aliases().get(chip.lower()):
            raise EvidenceError(f"--assume {name}={key}: {name!r} is neither the model ({model}) nor the chip ({chip})")
    return held


def taken_as(model: str, chip: str) -> str:
    """Name the hypotheses that hold, model first; what is known needs no name.

    >>> taken_as("v4-pro", "known"), taken_as("known", "known"), taken_as("v4-pro", "quad-die")
    ('v4-pro', 'known', 'v4-pro, quad-die')
    """
    return ", ".join(key for key in (model, chip) if key != "known") or "known"


def training_job(model: str, chips: int, *, length: int | None = None, batch: int | None = None, tokens: float | None = None,
                 precision: str | None = None) -> Job:  # fmt: skip
    """State a training job whole: sequences of 4,096 tokens and 4 M tokens a step unless given."""
    length = 4096 if length is None else length
    sequences = batch if batch is not None else max(chips, round(2**22 / length / chips) * chips)
    if not 1 <= sequences <= 10**9:
        raise EvidenceError(f"--batch {sequences}: it must be from 1 to 1,000,000,000 sequences")
    return Job(id=f"train {model}", title=f"train {model}", phase="train", model=model, chips=chips, length=length, batch=sequences,
               tokens=tokens or 1.0, precisions=("bf16", "fp8", "mxfp8") if precision is None else (precision,))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A side's step, replayed; `layer_bytes` are the activations of one layer and micro-batch."""

    replay: Replay
    layer_bytes: float


def taken(catalog: Catalog, model: str, chip: str, side: Side) -> tuple[Model, Chip]:
    """Return the model and the chip as the hypotheses of a side take them."""
    held, c = catalog.believed_model(model), candidate(catalog, chip, {})
    return next((m.value, h.value) for m in held.hypotheses for h in c.belief.hypotheses if taken_as(m.key, h.key) == side.hypothesis)


def replay(catalog: Catalog, chip: str, side: Side, job: Job, *, framework: str | None = None,
           layers: Sequence[int] | None = None) -> Replayed:  # fmt: skip
    """Replay the step of a side that `train` found, event by event; `layers` deals them to the stages otherwise than evenly.

    Errors: layers that do not fit the stages, a schedule that cannot hold the micro-batches.
    """
    model, one = taken(catalog, job.model, chip, side)
    e, _ = _evaluator(catalog, job, model, one, side.precision, read_calibration(catalog), framework)
    plan = parse(side.plan, job.chips)
    d = degrees(plan)
    found = replayed(e.times(d), e.sizes, plan, e.hardware, e.constants, layers=layers)
    kept = in_flight(d, float(found.timeline.order.batches)) * e.sizes.layers / plan.pp
    return Replayed(replay=found, layer_bytes=float(e.need(d).activations / kept))


def _evaluator(
    catalog: Catalog, job: Job, model: Model, chip: Chip, precision: str, calibration: Calibration, framework: str | None
) -> tuple[Evaluator, str]:
    peak_of(chip, precision)
    k = constants(calibration.coefficients(), context(catalog, chip, job, precision, framework))
    problem = Problem(model=model, length=float(job.length), batch=float(job.batch), precision=precision)
    keeping = catalog.framework(framework or read_vendors(catalog).get(chip.vendor.lower(), "unknown")).keeping
    return evaluator(problem, hardware(chip, catalog.cluster_for(chip), precision), k, keeping), precision


def _plans(e: Evaluator, job: Job, stated: str | None, top: int) -> list[Plan]:
    if stated is None:
        kept = best(e, space(e.problem.model, job.chips, job.batch, most_tp(e.hardware)), top)
        return [kept.row(i) for i in range(len(kept))]
    plan = parse(stated, job.chips)
    _divides(plan, e, job)
    check(e, plan, space(e.problem.model, job.chips, job.batch, most_tp(e.hardware)))
    return [plan]


def _divides(plan: Plan, e: Evaluator, job: Job) -> None:
    """Refuse degrees that the model or the batch cannot be divided by."""
    model = e.problem.model
    heads = min(getattr(b.mixer, "heads", getattr(b.mixer, "value_heads", 1)) for b in model.blocks)
    experts = max((getattr(b.feed, "count", 0) for b in model.blocks), default=0)
    each = job.batch / (plan.dp * plan.micro_batch)
    problems = (
        (heads % plan.tp, f"tp={plan.tp} does not divide {heads} attention heads"),
        (plan.pp > model.layers, f"pp={plan.pp} is more than the {model.layers} layers"),
        (plan.ep * plan.etp > 1 and not experts, f"ep={plan.ep}, etp={plan.etp}: {model.id} has no experts"),
        (plan.ep > 1 and experts and experts % plan.ep, f"ep={plan.ep} does not divide {experts} experts"),
        (each != int(each) or each < 1, f"dp x micro-batch = {plan.dp * plan.micro_batch} does not divide a batch of {job.batch} sequences"),
    )
    for bad, why in problems:
        if bad:
            raise EvidenceError(f"--plan: {why}; choose another degree")
    refuse(SCHEDULES[plan.schedule], plan.pp, plan.vpp, int(each), model.layers)


def _side(e: Evaluator, plan: Plan, chip: Chip, hypothesis: str, cluster: str, job: Job, precision: str, calibration: Calibration) -> Side:
    step = e.step(degrees(plan))
    seconds = float(np.asarray(step.seconds))
    count = parameters(e.problem.model)
    arch = "moe" if count.experts_routed else "dense"
    known = f"gemm.family.{chip.family}" in calibration.names
    wrong = calibration.scores[f"left_out_{'source_group' if known else 'chip'}_{arch}"] * (1.0 if known else 1.5)
    spread = math.exp(1.2815515655446004 * MAPE_TO_SIGMA * wrong)
    tokens = float(job.batch) * job.length
    rate = tokens / seconds / job.chips
    need = e.need(degrees(plan))
    held = tuple((f.name, float(np.asarray(getattr(need, f.name)))) for f in fields(need))
    mfu = 6.0 * count.active_without_embedding * rate / float(np.asarray(e.hardware.peak))
    return Side(chip=chip.id, cluster=cluster, hypothesis=hypothesis, plan=str(plan), precision=precision,
                seconds=Interval(median=seconds, low=seconds / spread, high=seconds * spread), rate=Interval(median=rate, low=rate / spread, high=rate * spread),
                mfu=mfu, memory_bytes=float(np.asarray(need.total)), held=held, memory_capacity=chip.value("memory_bytes"), fits=1.0,
                parts=tuple((c, float(np.asarray(p))) for c, p in zip(CAUSES, step.parts, strict=True) if float(np.asarray(p)) > 0))  # fmt: skip
