"""weigh(A, B) -> Verdict."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chipscale.catalog import Catalog
from chipscale.cost.calibration import Calibration, read_calibration, read_prior
from chipscale.evidence import EvidenceError
from chipscale.facts.job import Job
from chipscale.verdict import serving, stepping
from chipscale.verdict.contest import precisions
from chipscale.verdict.draws import QUANTITIES, Draws, deal, theta_draws, theta_names
from chipscale.verdict.nouns import HypothesisShare, JobVerdict, Sensitivity, Side, Verdict
from chipscale.verdict.words import headline, settle_test
from chipscale.verdict.world import Candidate, World, candidate, context, interval

FOUNDING = ("train-deepseek-v3", "train-llama-3.1-405b", "train-llama-3.1-8b", "serve-deepseek-v3", "serve-llama-3.1-8b")
#: ratio given to draws in which A's chip cannot hold the job at all
FLOOR = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Arena:
    """How a kind of job is run by one candidate over the draws, how its side is described, and where a ratio of two comes from.

    What `run` returns has `seconds` (of a fixed amount of work on the job's chips), `by_hypothesis`, `power` and `price`, one element a draw.
    """

    run: Callable[[World, Candidate, Job], Any]
    side: Callable[[World, Candidate, Job, Any], Side]
    contributions: Callable[[World, Job, Candidate, Candidate, Any, Any], tuple[tuple[str, float], ...]]


STEPPING = Arena(run=stepping.run, side=stepping.side, contributions=stepping.contributions)
SERVING = Arena(run=serving.run, side=serving.side, contributions=serving.contributions)


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


def arena_of(job: Job) -> Arena:
    """Return how a job is weighed."""
    return SERVING if job.phase == "serve" else STEPPING


def compare(world: World, a: Candidate, b: Candidate, job: Job, match: str) -> JobVerdict:
    """Weigh A against B on one job."""
    return judged_by(arena_of(job), world, a, b, job, match)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratios:
    """A over B in each draw: work a chip, power and cost of a unit of work, and the ratio that is judged, for what is `scale`d to be equal."""

    work: np.ndarray
    power: np.ndarray
    cost: np.ndarray
    judged: np.ndarray
    scale: np.ndarray | float


def matched(a: Candidate, b: Candidate, ra: Any, rb: Any, match: str) -> Ratios:
    """Divide two runs of an arena draw by draw, both sides made equal in chips, power or cost."""
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


def judged_by(arena: Arena, world: World, a: Candidate, b: Candidate, job: Job, match: str) -> JobVerdict:
    """Weigh A against B by what an arena says of each."""
    ra = arena.run(world, a, job)
    rb = ra if a == b else arena.run(world, b, job)
    ratios = matched(a, b, ra, rb, match)
    ratio, power, cost, judged, scale = ratios.work, ratios.power, ratios.cost, ratios.judged, ratios.scale
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
        job=job, a=arena.side(world, a, job, ra), b=arena.side(world, b, job, rb), ratio=interval(judged), p_at_least=probability, a_per_1000_b=interval(1000.0 / np.clip(ratio, FLOOR, 1e9)),
        power_ratio=interval(power), cost_ratio=interval(cost) if finite_cost else None, call=call, contributions=arena.contributions(world, job, a, b, ra, rb),
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


def opened(catalog: Catalog, a: str, b: str, jobs: Sequence[str | Job] = (), *, match: str = "chips", seed: int = 0, draws: int = 1024,
           assume: Mapping[str, str] | None = None, tests: bool = False) -> Opened:  # fmt: skip
    """Check a question and deal its draws; with `tests`, a column for the chance in each test's result too.

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
    listed = tuple(catalog.job(j) if isinstance(j, str) else j for j in (jobs or FOUNDING))
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


def weigh(catalog: Catalog, a: str, b: str, jobs: Sequence[str | Job] = (), *, match: str = "chips", seed: int = 0, draws: int = 1024,
          assume: Mapping[str, str] | None = None) -> Verdict:  # fmt: skip
    """Weigh chip A against chip B on jobs, by name or as they are (the founding ones if none is named).

    Errors: unknown names, a hypothesis that is not held, a job that does not fit, fewer than 1,024 draws.
    """
    o = opened(catalog, a, b, jobs, match=match, seed=seed, draws=draws, assume=assume)
    ca, cb = o.a, o.b
    found = tuple(compare(o.world, ca, cb, j, match) for j in o.jobs)
    return Verdict(
        question=f"Can the {title(ca)} replace the {title(cb)}?", headline=headline(found, title(ca), match), a=title(ca), b=title(cb), match=match, jobs=found,
        hypotheses=tuple((c.key, tuple(HypothesisShare(key=h.key, title=h.title, weight=h.weight, reason=h.reason) for h in c.belief.hypotheses))
                         for c in (ca, cb) if not c.certain or c.belief.hypotheses[0].key != "known"),
        evidence=((ca.key, evidence_counts(ca)), (cb.key, evidence_counts(cb))), settle=_settle(found), wrongness=_wrongness(o.world.calibration, found), seed=seed, draws=draws,
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


def _wrongness(c: Calibration, jobs: Sequence[JobVerdict]) -> tuple[str, ...]:
    """Say how far predictions of the phases weighed were from measurements."""

    def percent(name: str) -> str:
        return f"{100.0 * c.scores[f'left_out_{name}']:.0f} %"

    kinds = f"dense {percent('source_group_dense')}, MoE {percent('source_group_moe')}, Ascend {percent('source_group_ascend')}"
    phases, said = {j.job.phase for j in jobs}, []
    if "train" in phases:
        said += [
            f"training, a source never seen: {percent('source_group')} (n = {c.rows}; {kinds})",
            f"training, a chip never seen: {percent('chip')}",
        ]
    if "serve" in phases:
        steps = dict.fromkeys(
            (s.chip, s.seconds.low / s.seconds.median, s.seconds.high / s.seconds.median) for j in jobs if j.job.phase == "serve" for s in (j.a, j.b)
        )
        worst = (min(low for _, low, _ in steps), max(high for _, _, high in steps))
        said.append(
            f"serving: 80 % of measured times a token within {100.0 * (worst[0] - 1.0):+.0f} % and {100.0 * (worst[1] - 1.0):+.0f} % of the prediction"
        )
    if phases & {"prefill", "decode"}:
        said.append("prefill and decode: roofline level, not yet held against measurements")
    return tuple(said)
