"""plan(...) -> Plan: which test would narrow a verdict most, by conditioning its draws on what the test would show."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from chipscale.bench.suite import parsed as suite
from chipscale.catalog import Catalog
from chipscale.evidence import EvidenceError, Fact
from chipscale.facts.chip import Chip
from chipscale.facts.cluster import Cluster
from chipscale.verdict.draws import QUANTITIES
from chipscale.verdict.weighing import arena_of, matched, opened, title
from chipscale.verdict.words import settle_test
from chipscale.verdict.world import Candidate, World
from chipscale.verify.usual import read

FILE = "verify/tests.toml"
SLICES = 16
#: shuffles that tell what slices of noise would seem to narrow
SHUFFLES = 8
#: below this a test tells nothing
LEAST = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of test: log-scale spread of its result around the fact, and minutes of machine time, None where no suite has it."""

    spread: float
    minutes: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A test: by how much it is expected to narrow the interval of the log ratio, over all jobs, in a minute of machine time, and by job."""

    key: str
    title: str
    narrows: float
    minutes: float | None
    per_minute: float | None
    by_job: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The tests that would settle a verdict, the most telling first."""

    question: str
    jobs: tuple[str, ...]
    tests: tuple[Experiment, ...]
    cheapest: str
    seed: int
    draws: int


def kinds(catalog: Catalog) -> Mapping[str, Kind]:
    """Return what each kind of test tells and takes, from data/verify/tests.toml, the measured shares and the quick suite."""
    shares, quick = read(catalog), suite(catalog.text("bench/quick.toml"), "bench/quick.toml")
    seconds = {t.name: t.accelerator.budget for t in quick.test if t.accelerator is not None}
    found = {}
    for key, table in tomllib.loads(catalog.text(FILE)).items():
        usual = shares.usual(table["usual"]) if "usual" in table else None
        spread = usual.spread if usual else table.get("spread")
        if spread is None or ("suite" in table and table["suite"] not in seconds):
            raise EvidenceError(f"{FILE}: field {key}: needs usual or spread, and a suite test of bench/quick.toml; correct it")
        found[key] = Kind(spread=float(spread), minutes=seconds[table["suite"]] / 60.0 if "suite" in table else None)
    return found


def facts_of(chip: Chip, cluster: Cluster) -> Mapping[str, Fact]:
    """Return the facts that verdicts draw, by their column."""
    peak = next(p for p in ("peak_bf16", "peak_fp16") if chip.has(p))
    own = {"peak": peak, **{q: q for q in ("memory_bandwidth", "memory_bytes", "power")}}
    links = {"inner": cluster.tiers[0].bandwidth, "outer": cluster.tiers[-1].bandwidth}
    return {**{name: chip.fact(q) for name, q in own.items() if chip.has(q)}, **links}


def observations(
    world: World, c: Candidate, seconds: Sequence[np.ndarray], jobs: Sequence[str], known: Mapping[str, Kind]
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield every test of one chip as its column, its kind and what it would show in each draw; `seconds` are those of each job.

    y = ln x + s e: x is the fact in the hypothesis drawn, s the spread of the test, e a standard normal of its own.
    """
    draws, held = world.draws, c.belief.hypotheses
    which = np.searchsorted(np.cumsum([h.weight for h in held])[:-1], draws.columns[f"belief:{c.key}"], side="right")
    each = [facts_of(h.value, cluster) for h, cluster in zip(held, c.clusters, strict=True)]
    for q in QUANTITIES:
        if all(q in facts for facts in each):
            values = np.stack([draws.of(facts[q], f"{c.key}:{q}") for facts in each])[which, np.arange(len(which))]
            yield f"{c.key}:{q}", q, np.log(values) + known[q].spread * draws.normal(f"test:{c.key}:{q}")
    if not c.certain:
        yield f"belief:{c.key}", "belief", which.astype(np.float64)
    for job, t in zip(jobs, seconds, strict=True):
        if np.all(np.isfinite(t)):
            yield f"error:{c.key}:{job}", "error", np.log(t) + known["error"].spread * draws.normal(f"test:{c.key}:{job}")


def width(values: np.ndarray) -> float:
    """Return the width of the 80 % interval."""
    return float(np.subtract(*np.quantile(values, [0.9, 0.1])))


def narrowed(log_ratio: np.ndarray, seen: np.ndarray, seed: int = 0) -> float:
    """Return the share by which the 80 % interval is expected to shrink once a test's result is seen.

    1 - sum_k p_k W(y | x in slice k) / W(y), less what slices of shuffled results would give

    Holds when a slice holds 32 draws or more, or a result takes few values.
    Source: plischke-2013 (given-data sensitivity), with the width of the interval in place of the variance.
    """
    whole = width(log_ratio)
    if whole < 1e-9:
        return 0.0

    def share(order: np.ndarray) -> float:
        parts = _slices(order)
        return 1.0 - sum(len(p) * width(log_ratio[p]) for p in parts) / len(log_ratio) / whole

    rng = np.random.default_rng(seed)
    noise = float(np.mean([share(rng.permutation(seen)) for _ in range(SHUFFLES)]))
    return max(share(seen) - noise, 0.0)


def _slices(seen: np.ndarray) -> list[np.ndarray]:
    """Return the rows of each value where a result takes few, else of equal slices of the results in order."""
    values = np.unique(seen)
    if len(values) <= SLICES:
        return [np.flatnonzero(seen == v) for v in values]
    return list(np.array_split(np.argsort(seen, kind="stable"), SLICES))


def plan(catalog: Catalog, a: str, b: str, jobs: Sequence[str] = (), *, match: str = "chips", seed: int = 0, draws: int = 1024,
         assume: Mapping[str, str] | None = None) -> Plan:  # fmt: skip
    """Rank the tests of two chips by how much each is expected to narrow the verdict on jobs (the founding ones if none is named).

    Errors: as `weigh`.
    """
    known = kinds(catalog)
    o = opened(catalog, a, b, jobs, match=match, seed=seed, draws=draws, assume=assume, tests=True)
    names = [j.id for j in o.jobs]
    ra = [arena_of(j).run(o.world, o.a, j) for j in o.jobs]
    rb = ra if o.a == o.b else [arena_of(j).run(o.world, o.b, j) for j in o.jobs]
    ratios = [np.log(np.maximum(matched(o.a, o.b, x, y, match).judged, 1e-9)) for x, y in zip(ra, rb, strict=True)]
    found = []
    sides = [(o.a, ra)] if o.a == o.b else [(o.a, ra), (o.b, rb)]
    for c, runs in sides:
        for column, kind, seen in observations(o.world, c, [r.seconds for r in runs], names, known):
            by = tuple((name, narrowed(ratio, seen, seed)) for name, ratio in zip(names, ratios, strict=True))
            mean = float(np.mean([share for _, share in by]))
            if mean > LEAST:
                label = settle_test(column) + (f": {column.rpartition(':')[2]}" if kind == "error" else "")
                minutes = known[kind].minutes
                found.append(
                    Experiment(key=column, title=label, narrows=mean, minutes=minutes, per_minute=mean / minutes if minutes else None, by_job=by)
                )
    tests = tuple(sorted(found, key=lambda t: -t.narrows))
    timed = [t for t in tests if t.per_minute is not None]
    best = max(timed, key=lambda t: t.per_minute or 0.0, default=None)
    cheapest = f"{best.title} ({100 * (best.per_minute or math.nan):.0f} % a minute)" if best else ""
    return Plan(question=f"{title(o.a)} against {title(o.b)}", jobs=tuple(names), tests=tests, cheapest=cheapest, seed=seed, draws=draws)
