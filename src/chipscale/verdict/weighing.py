"""weigh(A, B) -> Verdict."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from chipscale.catalog import Catalog
from chipscale.cost.calibration import Calibration, Context, read_calibration, read_prior, usual_framework
from chipscale.cost.constants import Constants
from chipscale.cost.hardware import Hardware
from chipscale.evidence import Belief, EvidenceError, Hypothesis
from chipscale.facts.chip import Chip
from chipscale.facts.cluster import Cluster
from chipscale.facts.framework import GRAPHS
from chipscale.facts.job import Job
from chipscale.facts.parameters import parameters
from chipscale.plan import degrees
from chipscale.step import CAUSES
from chipscale.units import TERA
from chipscale.verdict.contest import Option, options, precisions, swapped
from chipscale.verdict.draws import QUANTITIES, Draws, Theta, deal, hardware_draws, theta_draws, theta_names
from chipscale.verdict.nouns import HypothesisShare, Interval, JobVerdict, Sensitivity, Side, Verdict
from chipscale.verdict.words import headline, settle_test

FOUNDING = ("train-deepseek-v3", "train-llama-3.1-405b", "train-llama-3.1-8b", "prefill-deepseek-v3", "decode-deepseek-v3")
#: log-scale error of a serving pass at roofline level (assumed until the serving tables are held against measurements)
SERVING_SIGMA = 0.25
MAPE_TO_SIGMA = 1.25
#: ratio given to draws in which A's chip cannot hold the job at all
FLOOR = 1e-3
#: capacity first, since nothing runs where the job does not fit
STEPS = (("capacity", ("memory_bytes",)), ("compute", ("peak", "peak16", "power")), ("memory", ("memory_bandwidth",)),
         ("fabric", ("inner_size", "inner_bandwidth", "inner_latency", "outer_bandwidth", "outer_latency", "node", "mesh", "axes", "middle_size",
          "middle_bandwidth", "middle_latency")))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A chip by its key: hypotheses with weights, each on its cluster."""

    key: str
    belief: Belief[Chip]
    clusters: tuple[Cluster, ...]

    @property
    def certain(self) -> bool:
        return len(self.belief.hypotheses) == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One candidate on one job over the draws: seconds by hypothesis, the options searched, and the mixture."""

    options: tuple[tuple[Option, ...], ...]
    hardware: tuple[Hardware, ...]
    by_hypothesis: tuple[np.ndarray, ...]
    seconds: np.ndarray
    power: np.ndarray
    price: np.ndarray
    which: np.ndarray
    best: tuple[int, int]


def candidate(catalog: Catalog, name: str, assume: Mapping[str, str]) -> Candidate:
    """Look a chip up, pin a hypothesis where one is assumed, and put each hypothesis on its cluster."""
    found = catalog.chip(name)
    key = catalog.aliases()[name.lower()]
    belief = (
        found
        if isinstance(found, Belief)
        else Belief(hypotheses=(Hypothesis(key="known", title=found.name, weight=1.0, reason="a product", value=found),))
    )
    pins = [h for n, h in assume.items() if catalog.aliases().get(n.lower()) == key]
    for pin in pins:
        belief = belief.pinned(pin)
    return Candidate(key=key, belief=belief, clusters=tuple(catalog.cluster_for(h.value) for h in belief.hypotheses))


def context(catalog: Catalog, chip: Chip, job: Job, precision: str, framework: str | None = None) -> Context:
    """Return what selects coefficients for a chip: a training framework, its vendor's usual one unless named, with all that it can do by now,
    or a serving engine with captured graphs.
    """
    peak = chip.value(next(p for p in ("peak_bf16", "peak_fp16") if chip.has(p)))
    watts = chip.value("power") / peak * TERA if chip.has("power") else math.nan
    vendor = chip.vendor.lower()
    used = usual_framework(catalog, vendor, framework)
    training = job.phase == "train"
    return Context(
        family=chip.family,
        vendor=vendor,
        framework=used.id if training else "serving",
        precision=precision,
        flags=tuple(
            dict.fromkeys(
                (
                    "tp_overlap",
                    *(f for f, _ in used.since if training),
                    *(GRAPHS[used.graph_in(math.inf)] if training else ()),
                    *(f"no_{f}" for f in used.lacks if training),
                )
            )
        ),
        watts_per_tflop=watts,
        legacy_share=catalog.legacy_share(chip),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What all jobs share: draws, coefficients, calibration."""

    catalog: Catalog
    draws: Draws
    theta: Theta
    calibration: Calibration

    def constants(self, chip: Chip, job: Job, precision: str, *, nominal: bool) -> Constants:
        return self.theta.constants(context(self.catalog, chip, job, precision), nominal)

    def sigma(self, chip: Chip, job: Job) -> float:
        """Return the log error of one chip that another does not share: known families from left-out sources, others from left-out chips."""
        if job.phase != "train":
            return SERVING_SIGMA / math.sqrt(2.0)
        arch = "moe" if any(hasattr(b.feed, "top_k") for b in self.catalog.model(job.model).blocks) else "dense"
        label = "source_group" if f"gemm.family.{chip.family}" in self.calibration.names else "chip"
        wrong = max(self.calibration.scores[f"left_out_{label}_{arch}"], self.calibration.scores[f"left_out_source_group_{arch}"])
        return MAPE_TO_SIGMA * wrong * (1.0 if label == "source_group" else 1.5)


def run(world: World, c: Candidate, job: Job) -> Run:
    """Search and draw one candidate on one job."""
    searched, hardwares, each, errors = [], [], [], world.draws.normal(f"error:{c.key}:{job.id}")
    for h, cluster in zip(c.belief.hypotheses, c.clusters, strict=True):
        chip = h.value
        nominal = {p: world.constants(chip, job, p, nominal=True) for p in precisions(job, chip)}
        found = options(world.catalog, job, chip, cluster, nominal)
        drawn = [hardware_draws(o.hardware, chip, cluster, c.key, world.draws) for o in found]
        seconds = np.min([o.seconds(hw, world.constants(chip, job, o.precision, nominal=False)) for o, hw in zip(found, drawn, strict=True)], axis=0)
        each.append(seconds * np.exp(errors * world.sigma(chip, job)))
        searched.append(found)
        hardwares.append(drawn[0])
    which = np.searchsorted(np.cumsum([h.weight for h in c.belief.hypotheses])[:-1], world.draws.columns[f"belief:{c.key}"], side="right")
    power = np.stack([np.broadcast_to(np.asarray(hw.power), errors.shape) for hw in hardwares])
    price = [h.value.value("price") if h.value.has("price") else math.nan for h in c.belief.hypotheses]
    index = np.arange(len(errors))
    likely = int(np.argmax([h.weight for h in c.belief.hypotheses]))
    fastest = [
        float(np.median(o.seconds(o.hardware, world.constants(c.belief.hypotheses[likely].value, job, o.precision, nominal=True))))
        for o in searched[likely]
    ]
    return Run(options=tuple(searched), hardware=tuple(hardwares), by_hypothesis=tuple(each), seconds=np.stack(each)[which, index],
               power=power[which, index], price=np.array(price)[which], which=which, best=(likely, int(np.argmin(fastest))))  # fmt: skip


def interval(values: np.ndarray) -> Interval:
    """Return median and 80 % interval."""
    low, median, high = np.quantile(values, [0.1, 0.5, 0.9])
    return Interval(median=float(median), low=float(low), high=float(high))


def side(world: World, c: Candidate, job: Job, r: Run) -> Side:
    """Describe one chip at its most likely hypothesis and best plan."""
    h, o = r.best
    hypothesis, option = c.belief.hypotheses[h], r.options[r.best[0]][o]
    plan, step = option.best(world.constants(hypothesis.value, job, option.precision, nominal=True))
    tokens = float(job.batch) * (1.0 if job.phase == "decode" else float(job.length))
    total = float(np.asarray(step.seconds))
    flop = 6.0 if job.phase == "train" else 2.0
    count = parameters(world.catalog.model(job.model))
    mfu = flop * count.active_without_embedding * tokens / (total * job.chips * float(np.asarray(option.hardware.peak)))
    held = float(np.asarray(option.runner.bytes(degrees(plan))))
    return Side(chip=hypothesis.value.id, cluster=c.clusters[h].id, hypothesis=hypothesis.key, plan=str(plan), precision=option.precision, seconds=interval(r.seconds),
                rate=interval(tokens / r.seconds / job.chips), mfu=mfu, memory_bytes=held, memory_capacity=hypothesis.value.value("memory_bytes"),
                parts=tuple((cause, float(np.asarray(p))) for cause, p in zip(CAUSES, step.parts, strict=True) if float(np.asarray(p)) > 0),
                fits=float(np.mean(np.isfinite(r.seconds))))  # fmt: skip


def contributions(world: World, job: Job, a: Candidate, b: Candidate, ra: Run, rb: Run) -> tuple[tuple[str, float], ...]:
    """Factor the nominal ratio: take B's chip and turn it into A's, one kind of number at a time, best plan each time.

    All are factors at 16 bit, and precision is what the narrow formats add on top; where 16 bit does not fit, all are at the
    narrow precision and precision stands inside compute.
    """
    oa, ob = ra.options[ra.best[0]], rb.options[rb.best[0]]
    chip_a, chip_b = a.belief.hypotheses[ra.best[0]].value, b.belief.hypotheses[rb.best[0]].value

    def alone(chip: Chip, o: Option) -> float:
        return float(o.seconds(o.hardware, world.constants(chip, job, o.precision, nominal=True)).min())

    times_a, times_b = [alone(chip_a, o) for o in oa], [alone(chip_b, o) for o in ob]
    wide = math.isfinite(times_a[0]) and math.isfinite(times_b[0])
    ia, ib = (0, 0) if wide else (int(np.argmin(times_a)), int(np.argmin(times_b)))
    ka, kb = world.constants(chip_a, job, oa[ia].precision, nominal=True), world.constants(chip_b, job, ob[ib].precision, nominal=True)
    hw, end, last = ob[ib].hardware, oa[ia].hardware, times_b[ib]
    factors: list[tuple[str, float]] = []
    for name, fields_ in STEPS:
        hw = swapped(hw, end, fields_)
        now = float(min(oa[ia].seconds(hw, kb).min(), ob[ib].seconds(hw, kb).min()))
        factors.append((name, last / now))
        last = now
    factors.append(("software", last / float(min(oa[ia].seconds(end, ka).min(), ob[ib].seconds(end, ka).min()))))
    if wide:
        factors.append(("precision", (times_a[0] / min(times_a)) / (times_b[0] / min(times_b))))
    return tuple(factors)


def sensitivities(draws: Draws, log_ratio: np.ndarray, names: Sequence[str]) -> tuple[Sensitivity, ...]:
    """Estimate first-order Sobol shares from the draws themselves: variance of the mean over equal slices of each column.

    S_i = Var(E[y | x_i]) / Var(y), less what slices of noise would give;  narrows: 1 - mean width of a slice / width of all.

    Holds when slices hold enough draws (32 and more).
    Source: plischke-2013 (given-data sensitivity).
    """
    count = 16
    whole = float(np.var(log_ratio))
    width = float(np.subtract(*np.quantile(log_ratio, [0.9, 0.1])))
    if whole < 1e-12:
        return ()
    found = []
    for name in names:
        slices = np.array_split(log_ratio[np.argsort(draws.columns[name], kind="stable")], count)
        share = float(np.var([s.mean() for s in slices])) / whole - (count - 1) / len(log_ratio)
        narrow = 1.0 - float(np.mean([np.subtract(*np.quantile(s, [0.9, 0.1])) for s in slices])) / width
        if share > 0.005:
            found.append(Sensitivity(fact=name, test=settle_test(name), share=share, narrows=max(narrow, 0.0)))
    return tuple(sorted(found, key=lambda s: -s.share))


def ties(ratio: np.ndarray) -> float:
    """Return the share of draws in which A is at least B, ties counted half."""
    return float(np.mean(ratio > 1.0) + 0.5 * np.mean(ratio == 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratios:
    """A over B in each draw: work a chip, power and cost of a unit of work, and the ratio that is judged, for what is `scale`d to be equal."""

    work: np.ndarray
    power: np.ndarray
    cost: np.ndarray
    judged: np.ndarray
    scale: np.ndarray | float


def matched(a: Candidate, b: Candidate, ra: Run, rb: Run, match: str) -> Ratios:
    """Divide two runs draw by draw, both sides made equal in chips, power or cost."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(np.isinf(ra.seconds) & np.isinf(rb.seconds), 1.0, rb.seconds / ra.seconds)
        power, cost = ra.power / rb.power / ratio, ra.price / rb.price / ratio
    scale: np.ndarray | float = {"chips": 1.0, "power": rb.power / ra.power, "cost": rb.price / ra.price}[match]
    judged = np.maximum(ratio * scale, FLOOR)
    if not np.all(np.isfinite(judged)):
        if match != "chips":
            what, values = ("power", (ra.power, rb.power)) if match == "power" else ("price", (ra.price, rb.price))
            blank = [c.key for c, v in zip((a, b), values, strict=True) if not np.all(np.isfinite(v))] or [a.key, b.key]
            raise EvidenceError(
                f"--match {match}: the {what} of {' and '.join(dict.fromkeys(blank))} is not known; add it to a chip file (--catalog DIR)"
            )
        judged = np.where(np.isfinite(judged), judged, 1e9)
    return Ratios(work=ratio, power=power, cost=cost, judged=judged, scale=scale)


def compare(world: World, a: Candidate, b: Candidate, job: Job, match: str) -> JobVerdict:
    """Weigh A against B on one job."""
    ra = run(world, a, job)
    rb = ra if a == b else run(world, b, job)
    found = matched(a, b, ra, rb, match)
    ratio, power, cost, judged, scale = found.work, found.power, found.cost, found.judged, found.scale
    names = [n for n in world.draws.columns if not n.startswith("theta:") and not (n.startswith("error:") and not n.endswith(":" + job.id))]
    edges = np.linspace(math.log(max(judged.min(), 1e-3)), math.log(max(judged.max(), 1e-3)) + 1e-9, 33)
    heights, _ = np.histogram(np.log(np.maximum(judged, 1e-3)), bins=edges)
    probability = ties(judged)
    call = "at least equal" if probability >= 0.8 else "less" if probability <= 0.2 else "too close to call"
    by = tuple(
        (h.key, interval(rb.seconds / s * (scale if match == "chips" else 1.0))) for h, s in zip(a.belief.hypotheses, ra.by_hypothesis, strict=True)
    )
    finite_cost = bool(np.all(np.isfinite(cost)))
    return JobVerdict(
        job=job, a=side(world, a, job, ra), b=side(world, b, job, rb), ratio=interval(judged), p_at_least=probability, a_per_1000_b=interval(1000.0 / np.clip(ratio, FLOOR, 1e9)),
        power_ratio=interval(power), cost_ratio=interval(cost) if finite_cost else None, call=call, contributions=contributions(world, job, a, b, ra, rb),
        sensitivities=sensitivities(world.draws, np.log(np.maximum(judged, 1e-9)), names), by_hypothesis=by,
        histogram=tuple((float(np.exp((x + y) / 2)), float(n) / len(judged)) for x, y, n in zip(edges[:-1], edges[1:], heights, strict=True)),
    )  # fmt: skip


def evidence_counts(c: Candidate) -> tuple[tuple[str, int], ...]:
    """Count the facts behind a candidate by class."""
    facts = {
        (f.quantity, f.value, f.source.key): f.source.kind for h in c.belief.hypotheses for fs in h.value.facts.values() for f in fs if not f.rejected
    }
    return tuple(sorted(((str(k), n) for k, n in Counter(facts.values()).items()), key=lambda kn: -kn[1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A question ready to be answered: the draws, both candidates and the jobs."""

    world: World
    a: Candidate
    b: Candidate
    jobs: tuple[Job, ...]


def opened(catalog: Catalog, a: str, b: str, jobs: Sequence[str] = (), *, match: str = "chips", seed: int = 0, draws: int = 1024,
           assume: Mapping[str, str] | None = None, tests: bool = False) -> Opened:  # fmt: skip
    """Check a question and deal its draws; with `tests`, a column for the chance result of each test too.

    Errors: unknown names, a hypothesis that is not held, fewer than 1,024 draws.
    """
    if match not in ("chips", "power", "cost"):
        raise EvidenceError(f"--match {match}: it is chips, power or cost")
    if not 1024 <= draws <= 2**17:
        raise EvidenceError(f"--draws {draws}: from 1024 to {2**17} (a power of two is best)")
    if seed < 0:
        raise EvidenceError(f"--seed {seed}: a whole number of at least 0")
    held = dict(assume or {})
    ca, cb = candidate(catalog, a, held), candidate(catalog, b, held)
    unused = [n for n in held if catalog.aliases().get(n.lower()) not in (ca.key, cb.key)]
    if unused:
        raise EvidenceError(f"--assume {unused[0]}={held[unused[0]]}: {unused[0]!r} is not one of the chips weighed ({ca.key}, {cb.key})")
    listed = tuple(catalog.job(j) for j in (jobs or FOUNDING))
    calibration, prior = read_calibration(catalog), read_prior(catalog.text("calibration/prior.toml"))
    contexts = [context(catalog, h.value, j, p) for c in (ca, cb) for h in c.belief.hypotheses for j in listed for p in precisions(j, h.value)]
    names = theta_names(contexts)
    columns = [f"{c.key}:{q}" for c in (ca, cb) for q in QUANTITIES] + [f"belief:{c.key}" for c in (ca, cb)]
    columns += [f"error:{c.key}:{j.id}" for c in (ca, cb) for j in listed] + [f"theta:{n}" for n in names]
    if tests:
        columns += [f"test:{c.key}:{what}" for c in (ca, cb) for what in (*QUANTITIES, *(j.id for j in listed))]
    dealt = deal(columns, draws, seed)
    world = World(catalog=catalog, draws=dealt, theta=theta_draws(names, calibration, prior, dealt), calibration=calibration)
    return Opened(world=world, a=ca, b=cb, jobs=listed)


def weigh(catalog: Catalog, a: str, b: str, jobs: Sequence[str] = (), *, match: str = "chips", seed: int = 0, draws: int = 1024,
          assume: Mapping[str, str] | None = None) -> Verdict:  # fmt: skip
    """Weigh chip A against chip B on jobs (the founding ones if none is named).

    Errors: unknown names, a hypothesis that is not held, a job that does not fit, fewer than 1,024 draws.
    """
    o = opened(catalog, a, b, jobs, match=match, seed=seed, draws=draws, assume=assume)
    ca, cb = o.a, o.b
    found = tuple(compare(o.world, ca, cb, j, match) for j in o.jobs)
    return Verdict(
        question=f"Can the {title(ca)} replace the {title(cb)}?", headline=headline(found, title(ca), match), a=title(ca), b=title(cb), match=match, jobs=found,
        hypotheses=tuple((c.key, tuple(HypothesisShare(key=h.key, title=h.title, weight=h.weight, reason=h.reason) for h in c.belief.hypotheses))
                         for c in (ca, cb) if not c.certain or c.belief.hypotheses[0].key != "known"),
        evidence=((ca.key, evidence_counts(ca)), (cb.key, evidence_counts(cb))), settle=_settle(found), wrongness=_wrongness(o.world.calibration), seed=seed, draws=draws,
    )  # fmt: skip


def title(c: Candidate) -> str:
    """Return the name of a chip, without its hypothesis."""
    return c.belief.hypotheses[0].value.name.split(" (")[0]


def _settle(jobs: Sequence[JobVerdict]) -> tuple[Sensitivity, ...]:
    """Merge the sensitivities of all jobs by test, strongest first."""
    best: dict[str, Sensitivity] = {}
    for job in jobs:
        for s in job.sensitivities:
            if s.test not in best or s.narrows > best[s.test].narrows:
                best[s.test] = s
    return tuple(sorted(best.values(), key=lambda s: -s.narrows)[:6])


def _wrongness(c: Calibration) -> tuple[str, ...]:
    def percent(name: str) -> str:
        return f"{100.0 * c.scores[f'left_out_{name}']:.0f} %"

    kinds = f"dense {percent('source_group_dense')}, MoE {percent('source_group_moe')}, Ascend {percent('source_group_ascend')}"
    return (
        f"training, a source never seen: {percent('source_group')} (n = {c.rows}; {kinds})",
        f"training, a chip never seen: {percent('chip')}",
        "prefill and decode: roofline level, not yet held against measurements",
    )
