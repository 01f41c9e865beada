"""train(MODEL, CHIP, N): the best plans of one training job, or a given one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from chipscale.catalog import Catalog
from chipscale.cost.calibration import Calibration, constants, read_calibration, usual_framework
from chipscale.cost.hardware import hardware, peak_of
from chipscale.evidence import Belief, EvidenceError
from chipscale.facts.chip import Chip
from chipscale.facts.framework import Framework
from chipscale.facts.job import Job
from chipscale.facts.model import Model
from chipscale.facts.parameters import parameters
from chipscale.plan import CP_KINDS, OFFLOAD, SCHEDULES, Plan, degrees, parse
from chipscale.schedules.forms import in_flight, refuse
from chipscale.search import Evaluated, Evaluator, Problem, Space, Watch, best, check, evaluator, fitting, frontier, most_tp, silent, space
from chipscale.simulators.event import Replay, replayed
from chipscale.space import fewest_heads
from chipscale.step import CAUSES
from chipscale.verdict.contest import precisions
from chipscale.verdict.nouns import Interval, Loss, Side
from chipscale.verdict.world import MAPE_TO_SIGMA, candidate, context

#: precisions of matrix products in training, where a chip has them
TRAINED = ("bf16", "fp16", "fp8", "mxfp8", "nvfp4")


def train(catalog: Catalog, model: str, chip: str, chips: int, *, length: int | None = None, batch: int | None = None, tokens: float | None = None,
          precision: str | None = None, framework: str | None = None, plan: str | None = None, top: int = 1,
          assume: Mapping[str, str] | None = None, offloads: Sequence[str] = OFFLOAD[:1],
          watch: Watch = silent) -> tuple[Side, ...]:  # fmt: skip
    """Return the `top` best plans that fit, fastest first, each with what it loses against the first, or the one that `plan` states; one group for each hypothesis of a believed chip or model, the likeliest first.

    The search tries each of `offloads` (`plan.OFFLOAD`). `length` in tokens (4,096 unless given), `batch` in sequences (4 M tokens a step, rounded to the chips, unless given).
    Errors: unknown names, a precision that the chip lacks, degrees that do not multiply, a plan that does not fit, an assumption about neither.
    """
    _in_range(chips=chips, length=4096 if length is None else length, top=top)
    job = training_job(model, chips, length=length, batch=batch, tokens=tokens, precision=precision)
    runs = _runs(catalog, chip, job, precision, framework, assume or {}, tuple(offloads))
    sides: list[Side] = []
    for run, told in zip(runs, _shared(watch, len(runs)), strict=True):
        sides += [run.side(one) for one in _plans(run, plan, top, told)]
    found = []
    for key in dict.fromkeys(run.hypothesis for run in runs):
        first, *others = sorted((s for s in sides if s.hypothesis == key), key=lambda s: s.seconds.median)[:top]
        found += [first, *(replace(s, loss=loss(first, s)) for s in others)]
    return tuple(found)


def pareto(catalog: Catalog, model: str, chip: str, sizes: Sequence[int], *, length: int | None = None, batch: int | None = None,
           precision: str | None = None, framework: str | None = None, assume: Mapping[str, str] | None = None, offloads: Sequence[str] = OFFLOAD[:1],
           watch: Watch = silent) -> tuple[Side, ...]:  # fmt: skip
    """Return every plan on these numbers of chips that none beats in seconds, bytes a chip or chips without losing in another of them.

    All plans that fit are compared, at every precision; hypotheses of a believed chip apart, the likeliest first. The batch is the same on all sizes,
    that of the largest unless given. Sizes that no plan fits are left out; that all are is an error, as is what `train` refuses.
    """
    jobs = []
    for n in sorted(set(sizes)):
        _in_range(chips=n, length=4096 if length is None else length, top=1)
        same = training_job(model, max(sizes), length=length, batch=batch, precision=precision).batch
        jobs.append(training_job(model, n, length=length, batch=same, precision=precision))
    runs = [run for job in jobs for run in _runs(catalog, chip, job, precision, framework, assume or {}, tuple(offloads))]
    told, keys = iter(_shared(watch, len(runs))), dict.fromkeys(run.hypothesis for run in runs)
    return tuple(side for key in keys for side in _frontier([run for run in runs if run.hypothesis == key], told))


def _frontier(runs: Sequence[Run], told: Iterator[Watch]) -> list[Side]:
    """Return the frontier of all rows of all runs that fit."""
    spaces = [r.space for r in runs]
    found, refusals = [], []
    for run, plans in zip(runs, spaces, strict=True):
        try:
            found.append(fitting(run.evaluator, plans, next(told)))
        except EvidenceError as problem:
            refusals.append(problem)
            found.append(Evaluated(rows=np.zeros(0, dtype=np.int64), seconds=np.zeros(0), bytes=np.zeros(0)))
    if len(refusals) == len(runs):
        raise refusals[-1]
    at = np.repeat(np.arange(len(runs)), [len(f.rows) for f in found])
    rows, seconds, held = (np.concatenate([getattr(f, name) for f in found]) for name in ("rows", "seconds", "bytes"))
    kept = frontier(seconds, held, np.array([r.job.chips for r in runs])[at])
    return [replace(runs[at[i]].side(spaces[at[i]].row(int(rows[i]))), chips=runs[at[i]].job.chips) for i in kept]


def loss(best: Side, other: Side) -> Loss:
    """Say what a plan loses against the best: the cause that takes most more, as shares of the best's seconds, and further bytes."""
    parts, whole = dict(best.parts), best.seconds.median
    more = {cause: t - parts.get(cause, 0.0) for cause, t in other.parts}
    cause = max(more, key=lambda name: more[name])
    return Loss(slower=other.seconds.median / whole - 1.0, cause=cause, more=more[cause] / whole, memory=other.memory_bytes - best.memory_bytes)


def _in_range(**values: int) -> None:
    for (name, n), most in zip(values.items(), (10**7, 10**8, 1000), strict=True):
        if not 1 <= n <= most:
            raise EvidenceError(f"{name} = {n}: it must be from 1 to {most:,}")


def _shared(watch: Watch, parts: int) -> list[Watch]:
    """Return a watch for each of some equal parts, one after the other."""

    def told(i: int) -> Watch:
        return lambda share: watch((i + share) / parts)

    return [told(i) for i in range(parts)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A job on one hypothesis of a chip at one precision; `wrong` is the mean relative error on chips and models of its kind."""

    job: Job
    chip: Chip
    hypothesis: str
    cluster: str
    precision: str
    wrong: float
    evaluator: Evaluator
    framework: Framework
    offloads: tuple[str, ...]

    @property
    def space(self) -> Space:
        """Return every plan that the job and the framework allow."""
        e = self.evaluator
        return space(e.problem.model, self.job.chips, self.job.batch, most_tp(e.hardware), cp_kinds=self.framework.cp_kinds,
                     tier=int(e.hardware.inner_size), offloads=self.offloads)  # fmt: skip

    def side(self, plan: Plan) -> Side:
        """Return what a plan does and holds, with its 80 % interval."""
        return _side(self, plan)


def check_precision(precision: str | None) -> None:
    """Refuse a precision that no training is planned in."""
    if precision is not None and precision not in TRAINED:
        raise EvidenceError(f"--precision {precision}: training is planned in {', '.join(TRAINED)}; choose one of these")


def _runs(catalog: Catalog, chip: str, job: Job, precision: str | None, framework: str | None, assume: Mapping[str, str],
          offloads: tuple[str, ...]) -> list[Run]:  # fmt: skip
    """List the runs of a job, the likeliest hypothesis first."""
    check_precision(precision)
    calibration, held, c = read_calibration(catalog), believed(catalog, job.model, chip, assume), candidate(catalog, chip, assume)
    worlds = [(m, h, cluster) for m in held.hypotheses for h, cluster in zip(c.belief.hypotheses, c.clusters, strict=True)]
    found = []
    for m, h, cluster in sorted(worlds, key=lambda world: -world[0].weight * world[1].weight):
        cluster.seat(job.chips)
        known, arch = f"gemm.family.{h.value.family}" in calibration.names, "moe" if parameters(m.value).experts_routed else "dense"
        wrong = calibration.scores[f"left_out_{'source_group' if known else 'chip'}_{arch}"] * (1.0 if known else 1.5)
        if set(offloads) - {OFFLOAD[0]}:
            host_link(h.value, "--offload")
        used = usual_framework(catalog, h.value.vendor, framework)
        for p in precisions(job, h.value) if precision is None else (precision,):
            e = _evaluator(catalog, job, m.value, h.value, p, calibration, framework)
            found.append(Run(job=job, chip=h.value, hypothesis=taken_as(m.key, h.key), cluster=cluster.id, precision=p, wrong=wrong, evaluator=e,
                             framework=used, offloads=offloads))  # fmt: skip
    return found


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
    e = _evaluator(catalog, job, model, one, side.precision, read_calibration(catalog), framework)
    plan = parse(side.plan, job.chips)
    d = degrees(plan)
    found = replayed(e.times(d), e.sizes, plan, e.hardware, e.constants, layers=layers, moved=e.moved(d))
    kept = in_flight(d, float(found.timeline.order.batches)) * e.sizes.layers / plan.pp
    activations = e.need(degrees(replace(plan, offload=plan.offload & 1))).activations
    return Replayed(replay=found, layer_bytes=float(activations / kept))


def _evaluator(catalog: Catalog, job: Job, model: Model, chip: Chip, precision: str, calibration: Calibration, framework: str | None) -> Evaluator:
    peak_of(chip, precision)
    k = constants(calibration.coefficients(), context(catalog, chip, job, precision, framework))
    problem = Problem(model=model, length=float(job.length), batch=float(job.batch), precision=precision)
    keeping = usual_framework(catalog, chip.vendor, framework).keeping
    return evaluator(problem, hardware(chip, catalog.cluster_for(chip), precision), k, keeping)


def _plans(run: Run, stated: str | None, top: int, watch: Watch) -> list[Plan]:
    e, job = run.evaluator, run.job
    if stated is None:
        kept = best(e, run.space, top, watch)
        return [kept.row(i) for i in range(len(kept))]
    kinds = run.framework.cp_kinds
    plan = parse(stated, job.chips, cp_kind=CP_KINDS.index(kinds[0]))
    if plan.cp > 1 and CP_KINDS[plan.cp_kind] not in kinds:
        raise EvidenceError(
            f"--plan: {run.framework.name} has no cp_kind={CP_KINDS[plan.cp_kind]}; choose one of {', '.join(kinds)}, or another --framework"
        )
    if plan.offload:
        host_link(run.chip, f"--plan: offload={OFFLOAD[plan.offload]}")
    _divides(plan, e, job)
    check(e, plan, run.space)
    return [plan]


def host_link(chip: Chip, asked: str) -> None:
    """Refuse what is asked of a chip whose link to the host is not known."""
    if not chip.has("host_bandwidth"):
        raise EvidenceError(f"{asked} copies over the link to the host, and nothing is known of that of {chip.id}; "
                            "add a [[fact]] host_bandwidth with a source to a chip file of your own (--catalog DIR), or leave it out")  # fmt: skip


def _divides(plan: Plan, e: Evaluator, job: Job) -> None:
    """Refuse degrees that the model or the batch cannot be divided by."""
    model = e.problem.model
    heads = fewest_heads(model)
    experts = max((getattr(b.feed, "count", 0) for b in model.blocks), default=0)
    each = job.batch / (plan.dp * plan.micro_batch)
    problems = (
        (heads % plan.tp, f"tp={plan.tp} does not divide {heads} attention heads"),
        (
            CP_KINDS[plan.cp_kind] == "a2a" and heads % (plan.tp * plan.cp),
            f"cp_kind=a2a deals heads to ranks, and tp x cp = {plan.tp * plan.cp} does not divide {heads} attention heads",
        ),
        (plan.pp > model.layers, f"pp={plan.pp} is more than the {model.layers} layers"),
        (plan.ep * plan.etp > 1 and not experts, f"ep={plan.ep}, etp={plan.etp}: {model.id} has no experts"),
        (plan.ep > 1 and experts and experts % plan.ep, f"ep={plan.ep} does not divide {experts} experts"),
        (each != int(each) or each < 1, f"dp x micro-batch = {plan.dp * plan.micro_batch} does not divide a batch of {job.batch} sequences"),
    )
    for bad, why in problems:
        if bad:
            raise EvidenceError(f"--plan: {why}; choose another degree")
    refuse(SCHEDULES[plan.schedule], plan.pp, plan.vpp, int(each), model.layers)


def _side(run: Run, plan: Plan) -> Side:
    e, job, chip = run.evaluator, run.job, run.chip
    step = e.step(degrees(plan))
    seconds = float(np.asarray(step.seconds))
    spread = math.exp(1.2815515655446004 * MAPE_TO_SIGMA * run.wrong)
    tokens = float(job.batch) * job.length
    rate = tokens / seconds / job.chips
    need = e.need(degrees(plan))
    held = tuple((f.name, float(np.asarray(getattr(need, f.name)))) for f in fields(need))
    mfu = 6.0 * parameters(e.problem.model).active_without_embedding * rate / float(np.asarray(e.hardware.peak))
    return Side(chip=chip.id, cluster=run.cluster, hypothesis=run.hypothesis, plan=str(plan), precision=run.precision,
                seconds=Interval(median=seconds, low=seconds / spread, high=seconds * spread), rate=Interval(median=rate, low=rate / spread, high=rate * spread),
                mfu=mfu, memory_bytes=float(np.asarray(need.total)), held=held, memory_capacity=chip.value("memory_bytes"), fits=1.0,
                parts=tuple((c, float(np.asarray(p))) for c, p in zip(CAUSES, step.parts, strict=True) if float(np.asarray(p)) > 0))  # fmt: skip
