"""Serving: one candidate on a serving job, from the closed form of its best deployments over the draws of its facts.

Deployments of one pool are searched at the stated facts. Each uncertain fact is then moved alone over its range, the best of the kept deployments found anew, and the effects on the logarithm of
tokens a second are added in each draw. The fitted error of serving stands beside it; half of its variance is common to both chips (assumed) and cancels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from chipscale.cost.kernels.form import Silicon
from chipscale.evidence import EvidenceError, Fact
from chipscale.facts.chip import Chip
from chipscale.facts.cluster import Cluster
from chipscale.facts.job import Job
from chipscale.facts.parameters import parameters
from chipscale.serving import calibration
from chipscale.serving.causes import causes
from chipscale.serving.choose import USERS, best, front_of, grid, reach
from chipscale.serving.deployment import Deployment
from chipscale.serving.load import Lengths
from chipscale.serving.metrics import Objective
from chipscale.serving.parts import Bench
from chipscale.serving.plans import Question, fleet, title
from chipscale.serving.rows import CALLED, formats_of
from chipscale.verdict.draws import Z90, Draws
from chipscale.verdict.nouns import Interval, Side
from chipscale.verdict.world import Candidate, World, interval

#: numbers of kernels that move with a fact
MOVED: Mapping[str, tuple[str, ...]] = {
    "peak": ("peak", "peak16"), "memory_bandwidth": ("memory_bandwidth",), "memory_bytes": (), "inner": ("link_bandwidth",), "outer": ("outer_bandwidth",),
}  # fmt: skip
#: places in a range at which the best deployment is found anew, in 80 % ranges: draws are cut at two standard deviations
ENDS = (-2.0 / Z90, 0.0, 2.0 / Z90)
#: a range narrower than this (as a logarithm) moves nothing
NARROW = 0.01
#: the first of these that a job allows and a chip has is what weights are stored in: narrower ones read less and compute faster
NARROW_FIRST = ("nvfp4", "mxfp4", "fp8", "int8")
#: deployments that are kept for the draws: the best, and the leanest
KEPT, LEAN = 8, 3
#: lengths are uniform within so much of their mean, and users of a replica at which fleets are compared
SPREAD, COARSE = (0.8, 1.2), USERS[::2]
#: how far beyond the limit of TPOT a front is shown
SLOWEST = 4.0
#: numbers of silicon by kind, in the order in which B is turned into A
STEPS = (("compute", ("peak", "peak16", "cores", "exponentials", "pace")), ("memory", ("memory_bandwidth", "cache_bytes")),
         ("fabric", ("link_bandwidth", "outer_bandwidth")))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One hypothesis of a candidate on a serving job: the question, the deployments kept, and tokens a second at the stated facts."""

    question: Question
    kept: tuple[Deployment, ...]
    tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One candidate on a serving job over the draws: seconds that all chips take for a token, by hypothesis and as the mixture."""

    served: tuple[Served, ...]
    by_hypothesis: tuple[np.ndarray, ...]
    seconds: np.ndarray
    power: np.ndarray
    price: np.ndarray
    best: int


def question_of(world: World, job: Job, chip: Chip) -> Question:
    """State a serving job on a chip, in the narrowest format that the job allows and the chip has, or at 16 bit."""
    model = world.catalog.model(job.model)
    allowed = [p for p in job.precisions if p in CALLED and any(chip.has(f"peak_{q}") for q in ((p, "fp16") if p == "bf16" else (p,)))]
    names = [p for p in NARROW_FIRST if p in allowed][:1] or allowed
    if not names:
        raise EvidenceError(f"job {job.id}: {chip.id} has none of its precisions ({', '.join(job.precisions)}); allow bf16, or choose another chip")
    formats = tuple(dict.fromkeys(formats_of(n, n, n, model, chip) for n in names))
    return Question(bench=Bench(catalog=world.catalog, chip=chip, engine=world.catalog.engine(job.engine)), model=model, chips=job.chips,
                    lengths=Lengths(input=job.length, output=job.output, low=SPREAD[0], high=SPREAD[1]), formats=formats, stages=1)  # fmt: skip


def limits_of(job: Job) -> Objective:
    """Return the limits of a serving job."""
    return Objective(ttft=job.ttft, tpot=job.tpot)


def search(question: Question, job: Job) -> Served:
    """Search a serving job at the stated facts; where the limits cannot be kept, tokens are 0."""
    found = fleet(question)
    rate = reach(grid(question, found, COARSE), limits_of(job))
    lean = sorted(range(len(found)), key=lambda i: found.rooms[i].weights)[:LEAN]
    rows = list(dict.fromkeys([*(int(i) for i in np.argsort(-rate, kind="stable")[:KEPT]), *lean]))
    return Served(question=question, kept=tuple(found.deployments[i] for i in rows), tokens=float(rate.max()))


def rate_with(served: Served, job: Job, changed: Mapping[str, float], memory: float = 1.0) -> float:
    """Return the tokens a second of the best deployment kept, on a chip of which some numbers are multiplied; 0 where none fits or keeps the limits."""
    q = served.question
    moved = replace(q, bench=q.bench.with_numbers(changed), given=min(q.given * memory, 1e3))
    try:
        found = fleet(moved, served.kept)
    except EvidenceError:
        return 0.0
    return float(reach(grid(moved, found, COARSE), limits_of(job)).max())


def facts_of(chip: Chip, cluster: Cluster) -> dict[str, Fact]:
    """Return the uncertain facts that a serving job reads."""
    peak = next(p for p in ("peak_bf16", "peak_fp16") if chip.has(p))
    return {"peak": chip.fact(peak), "memory_bandwidth": chip.fact("memory_bandwidth"), "memory_bytes": chip.fact("memory_bytes"),
            "inner": cluster.tiers[0].bandwidth, "outer": cluster.tiers[-1].bandwidth}  # fmt: skip


def drawn(served: Served, job: Job, chip: Chip, cluster: Cluster, key: str, draws: Draws) -> np.ndarray:
    """Return the logarithm of tokens a second in each draw, minus infinity where the limits are not kept.

    ln X = ln X_0 + sum over facts of (ln X(fact alone, at its place in its range) - ln X_0), straight between three places.

    Holds when facts act one by one; what two of them do together is left out.
    Source: saltelli-2008, chapter 3 (effects of one input at a time).
    """
    base = math.log(served.tokens) if served.tokens > 0 else -math.inf
    total = np.full(len(next(iter(draws.columns.values()))), base)
    for quantity, fact in facts_of(chip, cluster).items():
        up, down = math.log(fact.high / fact.value), math.log(fact.value / max(fact.low, fact.value * 1e-3))
        if max(up, down) < NARROW or not np.isfinite(base):
            continue
        ends = []
        for u in ENDS:
            factor = math.exp(u * (up if u > 0 else down))
            tokens = (
                served.tokens
                if u == 0.0
                else rate_with(served, job, dict.fromkeys(MOVED[quantity], factor), factor if quantity == "memory_bytes" else 1.0)
            )
            ends.append(math.log(tokens) - base if tokens > 0 else -math.inf)
        place = np.clip(draws.normal(f"{key}:{quantity}"), -2.0, 2.0) / Z90
        total = total + _between(place, ends)
    return total


def _between(place: np.ndarray, ends: list[float]) -> np.ndarray:
    """Interpolate effects; nothing is delivered in the outer half of a side whose end delivers nothing."""
    known = [e if math.isfinite(e) else 0.0 for e in ends]
    effect = np.interp(place, ENDS, known)
    for i, side_ in ((0, -1.0), (2, 1.0)):
        if not math.isfinite(ends[i]):
            effect = np.where(place * side_ > abs(ENDS[i]) / 2.0, -np.inf, effect)
    return np.asarray(effect)


def sigma_of(question: Question) -> float:
    """Return the log error of one chip that another does not share."""
    tpot = calibration.interval(question.bench.catalog, engine=question.engine, chip=question.bench.chip, model=question.model, split=False).tpot
    return math.log(tpot[1] / tpot[0]) / (2.0 * Z90) / math.sqrt(2.0)


def run(world: World, c: Candidate, job: Job) -> Run:
    """Search and draw one candidate on a serving job.

    Errors: a model that does not fit, limits that the likeliest hypothesis cannot keep.
    """
    searched, each, errors = [], [], world.draws.normal(f"error:{c.key}:{job.id}")
    for h, cluster in zip(c.belief.hypotheses, c.clusters, strict=True):
        served = search(question_of(world, job, h.value), job)
        log = drawn(served, job, h.value, cluster, c.key, world.draws)
        each.append(np.exp(-log + errors * sigma_of(served.question)))
        searched.append(served)
    likely = int(np.argmax([h.weight for h in c.belief.hypotheses]))
    if not searched[likely].tokens > 0:
        chip = c.belief.hypotheses[likely].value.id
        raise EvidenceError(
            f"{job.id}: no deployment on {job.chips} x {chip} keeps TTFT {job.ttft:g} s and TPOT {1e3 * job.tpot:g} ms; relax the limits or take more chips"
        )
    which = np.searchsorted(np.cumsum([h.weight for h in c.belief.hypotheses])[:-1], world.draws.columns[f"belief:{c.key}"], side="right")
    index = np.arange(len(errors))
    power = np.stack([world.draws.of(h.value.fact("power"), f"{c.key}:power") if h.value.has("power") else np.full(len(errors), math.nan)
                      for h in c.belief.hypotheses])  # fmt: skip
    price = np.array([h.value.value("price") if h.value.has("price") else math.nan for h in c.belief.hypotheses])
    return Run(
        served=tuple(searched),
        by_hypothesis=tuple(each),
        seconds=np.stack(each)[which, index],
        power=power[which, index],
        price=price[which],
        best=likely,
    )


def side(world: World, c: Candidate, job: Job, r: Run) -> Side:  # noqa: ARG001  (every arena takes both)
    """Describe one chip at its most likely hypothesis and best deployment; `seconds` are of a mean decode step."""
    served, hypothesis = r.served[r.best], c.belief.hypotheses[r.best]
    q = served.question
    limits = limits_of(job)
    o = best(q, grid(q, fleet(q, served.kept)), limits, 1)[0]
    points = front_of(q, grid(q, fleet(q)), limits.ttft)
    parts = causes(q, o)
    step = sum(t for _, t in parts)
    spread = calibration.interval(q.bench.catalog, engine=q.engine, chip=q.bench.chip, model=q.model, split=False).tpot
    active = 2.0 * parameters(q.model).active_without_embedding
    peak = q.bench.silicon(o.decode.dense.precision).peak
    return Side(chip=hypothesis.value.id, cluster=c.clusters[r.best].id, hypothesis=hypothesis.key, plan=f"{title(o.decode)} for {o.users} users", precision=o.decode.dense.precision,
                seconds=Interval(median=step, low=step * spread[0], high=step * spread[1]), rate=interval(1.0 / r.seconds / job.chips),
                mfu=active * o.tokens * (1.0 + job.length / job.output) / job.chips / float(peak), memory_bytes=o.room.memory,
                memory_capacity=hypothesis.value.value("memory_bytes"), parts=parts, fits=float(np.mean(np.isfinite(r.seconds))),
                held=(("weights", o.room.weights), ("cache", o.room.memory - o.room.weights)), front=tuple((p.user, p.chip) for p in points if p.tpot <= SLOWEST * job.tpot))  # fmt: skip


def contributions(world: World, job: Job, a: Candidate, b: Candidate, ra: Run, rb: Run) -> tuple[tuple[str, float], ...]:  # noqa: ARG001
    """Factor the nominal ratio: take B's chip and turn it into A's, one kind of number at a time, the best of B's deployments each time; what is left is software and formats."""
    one, two = ra.served[ra.best], rb.served[rb.best]
    ours, theirs = one.question.silicon, two.question.silicon
    memory = a.belief.hypotheses[ra.best].value.value("memory_bytes") / b.belief.hypotheses[rb.best].value.value("memory_bytes")
    last = rate_with(two, job, {})
    changed: dict[str, float] = {}
    factors: list[tuple[str, float]] = []
    for name, numbers in (("capacity", ()), *STEPS):
        changed = {**changed, **{n: _over(ours, theirs, n) for n in numbers}}
        now = rate_with(two, job, changed, memory)
        if not now > 0:
            return ()
        factors.append((name, now / last))
        last = now
    return (*factors, ("software", one.tokens / last))


def _over(ours: Silicon, theirs: Silicon, name: str) -> float:
    """Return how many times one chip's number is another's, 1 where one of them is not known."""
    ratio = float(getattr(ours, name)) / float(getattr(theirs, name))
    return ratio if math.isfinite(ratio) and ratio > 0 else 1.0
