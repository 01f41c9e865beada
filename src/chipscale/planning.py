"""train(MODEL, CHIP, N): the best plans of one training job, or a given one."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from chipscale.catalog import Catalog
from chipscale.cost.calibration import Calibration, constants, read_calibration, read_vendors
from chipscale.cost.hardware import hardware, peak_of
from chipscale.evidence import EvidenceError
from chipscale.facts.chip import Chip
from chipscale.facts.job import Job
from chipscale.facts.parameters import parameters
from chipscale.plan import Plan, degrees, parse
from chipscale.search import Evaluator, Problem, best, check, evaluator, most_tp, space
from chipscale.step import CAUSES
from chipscale.verdict.contest import precisions
from chipscale.verdict.nouns import Interval, Side
from chipscale.verdict.weighing import MAPE_TO_SIGMA, candidate, context

#: precisions of matrix products in training, where a chip has them
TRAINED = ("bf16", "fp16", "fp8", "mxfp8", "nvfp4")


def train(catalog: Catalog, model: str, chip: str, chips: int, *, length: int | None = None, batch: int | None = None, tokens: float | None = None,
          precision: str | None = None, framework: str | None = None, plan: str | None = None, top: int = 1,
          assume: Mapping[str, str] | None = None) -> tuple[Side, ...]:  # fmt: skip
    """Return the `top` best plans that fit, fastest first, or the one that `plan` states; one group for each hypothesis of a believed chip, the likeliest first.

    `length` in tokens (4,096 unless given), `batch` in sequences (4 M tokens a step, rounded to the chips, unless given).
    Errors: unknown names, a precision that the chip lacks, degrees that do not multiply, a plan that does not fit.
    """
    length = 4096 if length is None else length
    for name, n, most in (("chips", chips, 10**7), ("length", length, 10**8), ("top", top, 1000)):
        if not 1 <= n <= most:
            raise EvidenceError(f"{name} = {n}: it must be from 1 to {most:,}")
    if precision is not None and precision not in TRAINED:
        raise EvidenceError(f"--precision {precision}: training is planned in {', '.join(TRAINED)}; choose one of these")
    found = catalog.model(model)
    sequences = batch if batch is not None else max(chips, round(2**22 / length / chips) * chips)
    if not 1 <= sequences <= 10**9:
        raise EvidenceError(f"--batch {sequences}: it must be from 1 to 1,000,000,000 sequences")
    job = Job(id=f"train {found.id}", title=f"train {found.name}", phase="train", model=model, chips=chips, length=length, batch=sequences,
              tokens=tokens or 1.0, precisions=("bf16", "fp8", "mxfp8") if precision is None else (precision,))  # fmt: skip
    calibration, c = read_calibration(catalog), candidate(catalog, chip, assume or {})
    sides: list[Side] = []
    ranked = sorted(zip(c.belief.hypotheses, c.clusters, strict=True), key=lambda pair: -pair[0].weight)
    for h, cluster in ranked:
        cluster.seat(chips)
        listed = [
            _evaluator(catalog, job, h.value, p, calibration, framework) for p in (precisions(job, h.value) if precision is None else (precision,))
        ]
        for e, p in listed:
            sides += [_side(e, one, h.value, h.key, cluster.id, job, p, calibration) for one in _plans(e, job, plan, top)]
    order = sorted(sides, key=lambda s: ([h.key for h, _ in ranked].index(s.hypothesis), s.seconds.median))
    return tuple(s for key in dict.fromkeys(s.hypothesis for s in order) for s in [o for o in order if o.hypothesis == key][:top])


def _evaluator(catalog: Catalog, job: Job, chip: Chip, precision: str, calibration: Calibration, framework: str | None) -> tuple[Evaluator, str]:
    peak_of(chip, precision)
    vendors = dict(read_vendors(catalog))
    if framework is not None:
        vendors[chip.vendor.lower()] = catalog.framework(framework).id
    k = constants(calibration.coefficients(), context(chip, job, precision, vendors))
    problem = Problem(model=catalog.model(job.model), length=float(job.length), batch=float(job.batch), precision=precision)
    return evaluator(problem, hardware(chip, catalog.cluster_for(chip), precision), k), precision


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
        (plan.pp * plan.vpp > model.layers and plan.vpp > 1, f"pp x vpp = {plan.pp * plan.vpp} is more than the {model.layers} layers"),
        (plan.ep * plan.etp > 1 and not experts, f"ep={plan.ep}, etp={plan.etp}: {model.id} has no experts"),
        (plan.ep > 1 and experts and experts % plan.ep, f"ep={plan.ep} does not divide {experts} experts"),
        (each != int(each) or each < 1, f"dp x micro-batch = {plan.dp * plan.micro_batch} does not divide a batch of {job.batch} sequences"),
    )
    for bad, why in problems:
        if bad:
            raise EvidenceError(f"--plan: {why}; choose another degree")


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
    held = float(np.asarray(e.need(degrees(plan)).total))
    mfu = 6.0 * count.active_without_embedding * rate / float(np.asarray(e.hardware.peak))
    return Side(chip=chip.id, cluster=cluster, hypothesis=hypothesis, plan=str(plan), precision=precision,
                seconds=Interval(median=seconds, low=seconds / spread, high=seconds * spread), rate=Interval(median=rate, low=rate / spread, high=rate * spread),
                mfu=mfu, memory_bytes=held, memory_capacity=chip.value("memory_bytes"), fits=1.0,
                parts=tuple((c, float(np.asarray(p))) for c, p in zip(CAUSES, step.parts, strict=True) if float(np.asarray(p)) > 0))  # fmt: skip
