"""serve(model, chips) -> Serving: search in closed form, confirm by simulation, put intervals, energy and money beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from chipscale.border import inside
from chipscale.catalog import Catalog
from chipscale.evidence import EvidenceError
from chipscale.facts.chip import Chip
from chipscale.facts.model import Model
from chipscale.provision.bills import bills
from chipscale.provision.nouns import SPREAD, Choice, Felt, Serving, Wish
from chipscale.serving import calibration
from chipscale.serving.calibration import Spread
from chipscale.serving.capacity import capacity
from chipscale.serving.causes import causes
from chipscale.serving.choose import Grid, Offer, at_rate, at_users, best, front, front_of, grid, offer, with_users, within
from chipscale.serving.confirm import Confirmed, confirmed
from chipscale.serving.deployment import FORMATS, Deployment, Format
from chipscale.serving.load import Lengths, Open, Trace
from chipscale.serving.metrics import Distribution, Objective
from chipscale.serving.parts import Bench
from chipscale.serving.plans import Fleet, Question, fleet, parse, title, usual_formats
from chipscale.serving.rows import CALLED, formats_of
from chipscale.serving.rules import Speculation
from chipscale.serving.split import again, split
from chipscale.serving.trace import read_trace
from chipscale.verdict.nouns import Interval
from chipscale.verdict.world import candidate

#: deployments shown beside the best, and points of the front
OTHERS, FRONT = 6, 12
#: share of the tokens of a deployment at which one of fewer stages takes its place
NEARLY = 0.98
#: seconds a token beyond which no point of the front is shown: slower than anybody reads
SLOWEST = 0.25
#: seconds to the first token beyond which a point of the front is left out where no limit is stated
PATIENCE = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One question under one hypothesis of the chip and one assumption about speculation."""

    question: Question
    wish: Wish
    arrival: Open | Trace | None
    chip: str
    hypothesis: str
    weight: float
    assumed: str = ""


def serve(catalog: Catalog, model: str, chip: str, chips: int, wish: Wish | None = None, assume: Mapping[str, str] | None = None) -> list[Serving]:
    """Find the best deployment of a model on chips of a kind for a wish, one answer for each hypothesis of the chip (the likeliest first) and each assumption about drafts.

    Errors: unknown names, a model that does not fit (by how much, on how many chips it would), limits that cannot be kept (with the best that can), an unstable load (with the capacity),
    a malformed trace (with the line).

    >>> import chipscale
    >>> answer = chipscale.serve(chipscale.load(), "meta-llama/Meta-Llama-3.1-8B", "h100", 1, chipscale.Wish(input=512, output=128, concurrency=8))[0]
    >>> answer.best.plan, answer.tpot.mean.low < answer.tpot.mean.median < answer.tpot.mean.high
    ('tp1 fp8', True)
    """
    wish = wish or Wish()
    known = catalog.model(model)
    held = candidate(catalog, chip, dict(assume or {}))
    unused = [n for n in assume or {} if catalog.aliases().get(n.lower()) != held.key]
    if unused:
        raise EvidenceError(f"--assume {unused[0]}: {unused[0]!r} is not the chip served on ({held.key})")
    arrival = read_trace(wish.trace) if wish.trace is not None else Open(rate=wish.rate, variation=wish.burst) if wish.rate is not None else None
    return [
        answer(case)
        for h in sorted(held.belief.hypotheses, key=lambda h: -h.weight)
        for case in _cases(catalog, known, h.value, chips, wish, arrival, (held.key, h.key, h.weight))
    ]


def _cases(
    catalog: Catalog, model: Model, chip: Chip, chips: int, wish: Wish, arrival: Open | Trace | None, named: tuple[str, str, float]
) -> list[Case]:
    """State the question under each assumption about drafts."""
    key, hypothesis, weight = named
    accepted = (wish.accepted,) if wish.accepted is not None else (0.0,) if not wish.drafts else (0.0, float(wish.drafts))
    return [
        Case(question=question(catalog, model, chip, chips, wish, arrival, Speculation(drafts=wish.drafts, accepted=a)), wish=wish, arrival=arrival, chip=key,
             hypothesis=hypothesis, weight=weight, assumed=f"{a:g} of {wish.drafts} drafts right in each step" if wish.drafts else "")
        for a in accepted
    ]  # fmt: skip


def question(catalog: Catalog, model: Model, chip: Chip, chips: int, wish: Wish, arrival: Open | Trace | None, drafts: Speculation) -> Question:
    """State what is asked; lengths are those of the trace where there is one."""
    bench = Bench(catalog=catalog, chip=chip, engine=catalog.engine(wish.engine))
    lengths = Lengths(input=wish.input, output=wish.output, low=SPREAD[0], high=SPREAD[1])
    if isinstance(arrival, Trace):
        lengths = Lengths(
            input=max(round(float(np.mean(arrival.input))), 1), output=max(round(float(np.mean(arrival.output))), 1), low=SPREAD[0], high=SPREAD[1]
        )
    if model.max_length and lengths.input + lengths.output > model.max_length:
        raise EvidenceError(
            f"--input {lengths.input} and --output {lengths.output}: {model.name} reads {model.max_length:,} tokens at most; shorten them"
        )
    return Question(bench=bench, model=model, chips=chips, lengths=lengths, formats=formats(model, chip, wish.formats), kv=wish.kv,
                    speculation=drafts, cached=wish.prefix)  # fmt: skip


def formats(model: Model, chip: Chip, named: Sequence[str]) -> tuple[tuple[Format, Format], ...]:
    """Return the formats named, as the chip runs the model's dense layers and experts in them, or the usual ones."""
    for name in named:
        if name not in CALLED:
            raise EvidenceError(f"--precision {name}: it is one of {', '.join(n for n in FORMATS if n in CALLED)}")
    with inside("--precision"):
        return tuple(dict.fromkeys(formats_of(n, n, n, model, chip) for n in named)) or usual_formats(model, chip)


def answer(case: Case) -> Serving:
    """Search, confirm and describe."""
    q, wish = case.question, case.wish
    limits = Objective(ttft=wish.bound[0], tpot=wish.bound[1])
    found = fleet(q, parse(wish.plan, q) if wish.plan else None)
    whole = grid(q, found)
    paired = wish.split == "auto" and not wish.plan
    two, points = split(q, found, limits, wish.concurrency) if paired and case.arrival is None else ([], [])
    offers = sorted(
        [*_offers(case, found, whole, limits), *two], key=lambda o: -o.tokens if case.arrival is None else o.ttft + o.tpot * q.lengths.mean_output
    )
    offers = _simplest(offers)
    if not offers:
        raise EvidenceError(_best_that_can(case, found, whole, limits, paired))
    top = confirmed(
        q, offers, limits, case.arrival, wish.statistic, wish.seed, _lowering(q, found) if case.arrival is None and wish.concurrency is None else None
    )
    points = [p for p in front([*front_of(q, whole, min(limits.ttft, PATIENCE)), *points]) if p.tpot <= SLOWEST]
    return described(case, top, offers, points)


def _simplest(offers: Sequence[Offer]) -> list[Offer]:
    """Keep, of offers that differ in pipeline stages alone, the one of the fewest stages that is nearly the first of them; order stays."""
    kept: dict[object, Offer] = {}
    for o in offers:
        first = kept.setdefault(_kind(o), o)
        if _stages(o) < _stages(first) and o.tokens >= NEARLY * first.tokens:
            kept[_kind(o)] = o
    return list(kept.values())


def _kind(o: Offer) -> tuple[Deployment | None, Deployment]:
    """Return what an offer is but for its stages."""
    return o.prefill and replace(o.prefill, pp=1), replace(o.decode, pp=1)


def _stages(o: Offer) -> int:
    return o.decode.pp * (o.prefill.pp if o.prefill else 1)


def _offers(case: Case, found: Fleet, whole: Grid, limits: Objective) -> list[Offer]:
    """Return the offers of one pool that keep the limits."""
    q, wish, rate = case.question, case.wish, _rate(case.arrival)
    if rate is None and wish.concurrency is None:
        return best(q, whole, limits, 24)
    given = at_rate(q, whole, rate) if rate is not None else at_users(q, found, wish.concurrency or 1)
    meets = within(given, limits)
    return [offer(q, given, i, 0) for i in range(len(given.fleet)) if meets[i, 0]]


def _lowering(q: Question, found: Fleet) -> Callable[[Offer, int], Offer]:
    """Return what looks at an offer again with fewer users."""

    def lower(o: Offer, users: int) -> Offer:
        return again(q, found, o, np.array([float(users)]))[0] if o.prefill is not None else with_users(q, found, o, users)

    return lower


def _rate(arrival: Open | Trace | None) -> float | None:
    """Return the mean requests a second of an open load."""
    if isinstance(arrival, Trace):
        return len(arrival.arrival) / float(max(arrival.arrival[-1], 1e-9)) if len(arrival.arrival) > 1 else 1e-6
    return arrival.rate if isinstance(arrival, Open) else None


def _best_that_can(case: Case, found: Fleet, whole: Grid, limits: Objective, paired: bool) -> str:
    """Say which limits can be kept instead."""
    q, wish = case.question, case.wish
    rate = _rate(case.arrival)
    given = at_rate(q, whole, rate) if rate is not None else whole if wish.concurrency is None else at_users(q, found, wish.concurrency)
    points = [
        (float(t), float(p), title(given.fleet.deployments[i]))
        for i, row in enumerate(zip(given.ttft, given.tpot, strict=True))
        for t, p in zip(*row, strict=True)
    ]
    if paired and rate is None:
        free = Objective(ttft=math.inf, tpot=math.inf)
        points += [
            (o.ttft, o.tpot, f"{title(o.prefill or o.decode)} -> {title(o.decode)}") for o in split(q, found, free, wish.concurrency or q.chips)[0]
        ]
    points = [p for p in points if math.isfinite(p[1])] or points
    quick, fast = min(points), min(points, key=lambda p: p[1])
    near = min(points, key=lambda p: max(p[0] / limits.ttft, p[1] / limits.tpot))
    asked = " and ".join(
        text for text, on in ((f"TTFT {limits.ttft:g} s", limits.ttft < math.inf), (f"TPOT {1e3 * limits.tpot:g} ms", limits.tpot < math.inf)) if on
    )
    return (f"no deployment of {q.model.name} on {q.chips} x {q.bench.chip.id} keeps {asked}: the nearest is {near[2]} with TTFT {near[0]:.3g} s and TPOT {1e3 * near[1]:.3g} ms; the shortest TTFT is "
            f"{quick[0]:.3g} s, the shortest TPOT {1e3 * fast[1]:.3g} ms; relax --slo-ttft or --slo-tpot, or give more chips")  # fmt: skip


def described(case: Case, top: Confirmed, offers: Sequence[Offer], points: Sequence[Offer]) -> Serving:
    """Put everything that is known of the best deployment into the answer."""
    q, wish, o, m = case.question, case.wish, top.offer, top.metrics
    spread = calibration.interval(q.bench.catalog, engine=q.engine, chip=q.bench.chip, model=q.model, split=o.prefill is not None)
    ttft, tpot = _felt(m.ttft, spread.ttft), _felt(m.tpot, spread.tpot)
    rate = _answered(top.tokens, m.latency.mean.value, ttft.mean, tpot.mean, q.lengths.mean_output, open_=case.arrival is not None)
    per_chip = Interval(median=rate.median / q.chips, low=rate.low / q.chips, high=rate.high / q.chips)
    bill = bills(q, wish, per_chip)
    room, answered = o.room, top.tokens / q.lengths.mean_output
    return Serving(
        model=q.model.id, chip_id=case.chip, hypothesis=case.hypothesis, weight=case.weight, cluster=q.cluster.id, chips=q.chips, engine=q.engine.name,
        load=_load(case, o), limits=wish.bound, statistic=wish.statistic, assumed=case.assumed, best=choice(o, o), precision=_formats(o.decode), kv=o.decode.kv,
        ttft=ttft, tpot=tpot, waiting=m.queueing.mean.value, service=m.ttft.mean.value - m.queueing.mean.value, latency=m.latency.mean.value, step=o.step,
        running=o.running, parts=causes(q, o), requests=answered, goodput=answered * m.goodput / m.requests, capacity=capacity(o.service, q.lengths), tokens=rate, chip=per_chip,
        user=Interval(median=1.0 / tpot.mean.median, low=1.0 / tpot.mean.high, high=1.0 / tpot.mean.low), held=(("weights", room.weights), ("cache", room.memory - room.weights)),
        memory=q.bench.chip.value("memory_bytes"), cached=room.tokens, watts=bill.watts, joules=bill.joules, rent=bill.rent, electricity=bill.electricity,
        others=_others(o, offers, q.lengths.mean_output if case.arrival is not None else 0.0), front=tuple(choice(p, p) for p in _thinned(points)),
        notes=_notes(case, top, spread, bill.missing), seed=wish.seed,
    )  # fmt: skip


def _felt(d: Distribution, factors: tuple[float, float]) -> Felt:
    """Join the model's error to the mean of a simulation."""
    mean = d.mean.value
    return Felt(mean=Interval(median=mean, low=mean * factors[0], high=mean * factors[1]), p50=d.p50.value, p90=d.p90.value, p99=d.p99.value)


def _answered(tokens: float, latency: float, ttft: Interval, tpot: Interval, output: float, *, open_: bool) -> Interval:
    """Return tokens a second with the interval that TTFT and TPOT leave; what comes by itself is answered as fast as it comes.

    X = C o / (TTFT + (o - 1) TPOT).

    Holds when users of a closed loop ask again at once.
    Source: little-1961.
    """
    if open_:
        return Interval(median=tokens, low=tokens, high=tokens)
    slow, fast = (getattr(ttft, end) + (output - 1.0) * getattr(tpot, end) for end in ("high", "low"))
    return Interval(median=tokens, low=tokens * latency / max(slow, latency), high=tokens * latency / min(fast, latency))


def choice(o: Offer, top: Offer, output: float = 0.0) -> Choice:
    """Write an offer, and what it loses against the best, both in closed form: tokens, or, where `output` is the length of answers that come as fast as they are asked for, speed."""
    reading = o.prefill_replicas * o.service.prefill.chips if o.service.prefill is not None else 0.0
    return Choice(plan=title(o.decode), reads=title(o.prefill) if o.prefill is not None else "", reading=round(reading), replicas=o.replicas / o.decode.pp, users=o.users,
                  ttft=o.ttft, tpot=o.tpot, chip=o.chip, user=o.user, loses=1.0 - (_seconds(top, output) / _seconds(o, output) if output else o.tokens / top.tokens), stops=o.stops)  # fmt: skip


def _seconds(o: Offer, output: float) -> float:
    """Return the seconds of a whole answer."""
    return o.ttft + o.tpot * output


def _others(top: Offer, offers: Sequence[Offer], output: float) -> tuple[Choice, ...]:
    """List further deployments, the best of each way of serving and each format among them."""
    ways = [[o for o in offers if _kind(o) != _kind(top) and (o.prefill is None) == one] for one in (True, False)]
    first = {o.decode.dense.id: o for o in reversed(ways[0])}
    chosen = {id(o): o for o in [*first.values(), *ways[0][: OTHERS // 2], *ways[1][: OTHERS // 2]]}
    return tuple(choice(o, top, output) for o in sorted(chosen.values(), key=lambda o: _seconds(o, output) if output else -o.tokens))


def _formats(on: Deployment) -> str:
    """Name the number formats of weights."""
    return on.dense.id if on.dense == on.experts else f"{on.dense.id}, experts {on.experts.id}"


def _thinned(points: Sequence[Offer]) -> list[Offer]:
    """Return some points of a front, evenly spread in the logarithm of a user's speed."""
    if len(points) <= FRONT:
        return list(points)
    speeds = np.log([p.user for p in points])
    wanted = np.linspace(speeds[0], speeds[-1], FRONT)
    return [points[i] for i in dict.fromkeys(int(np.argmin(np.abs(speeds - w))) for w in wanted)]


def _load(case: Case, o: Offer) -> str:
    """Say what load the figures are of."""
    lengths = case.question.lengths
    tokens = f"{lengths.input:,} tokens in, {lengths.output:,} out (80 % to 120 % of it)"
    if isinstance(case.arrival, Trace):
        return f"{len(case.arrival.arrival):,} requests of a trace, {_rate(case.arrival):.4g} a second; means {lengths.input:,} tokens in, {lengths.output:,} out"
    if isinstance(case.arrival, Open):
        kind = "Poisson" if case.arrival.variation == 1.0 else f"gamma, variation {case.arrival.variation:g}"
        return f"{case.arrival.rate:g} requests a second ({kind}); {tokens}"
    return f"{o.users:,} requests under way; {tokens}"


def _notes(case: Case, top: Confirmed, spread: Spread, missing: Sequence[str]) -> tuple[str, ...]:
    """Say what the figures rest on."""
    o = top.offer
    part = f"one of {top.share} equal parts, " if top.share > 1 else ""
    found = [
        f"simulated: {part}{top.load.requests:,} requests behind {top.load.warmup:,} of warm-up, seed {top.load.seed}; closed form: TTFT {o.ttft:.3g} s, TPOT {1e3 * o.tpot:.3g} ms"
    ]
    found.append(
        f"80 % intervals: measured over predicted {spread.ttft[0]:.2f} to {spread.ttft[1]:.2f} for TTFT, {spread.tpot[0]:.2f} to {spread.tpot[1]:.2f} for TPOT"
    )
    if isinstance(case.arrival, Trace) and (rate := _rate(case.arrival)) is not None and rate > capacity(o.service, case.question.lengths):
        found.append("the trace brings more than can be answered for ever; the queue grows while it lasts")
    if case.wish.statistic != "mean":
        found.append(f"limits hold for {case.wish.statistic} of the simulated requests")
    return (*found, *missing)
