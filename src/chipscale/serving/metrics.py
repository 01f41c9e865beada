"""Metrics: what users of a service felt and what it delivered, by the common definitions, with intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from chipscale.evidence import EvidenceError
from chipscale.serving.served import Served

#: sections of a run that intervals rest on, and the share of runs that an interval covers
SECTIONS, LEVEL = 10, 0.8
HOUR, MILLION = 3600.0, 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistic:
    """A number with its 80 % interval; the interval is infinite where the run is too short to tell."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """Mean and percentiles of a quantity over requests, or over gaps between tokens."""

    mean: Statistic
    p50: Statistic
    p90: Statistic
    p95: Statistic
    p99: Statistic

    def of(self, statistic: str) -> Statistic:
        """Return the statistic of that name, `median` being p50."""
        found: Statistic = getattr(self, "p50" if statistic == "median" else statistic)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A service-level objective: most seconds to the first token and most seconds a token after it."""

    ttft: float
    tpot: float

    def __post_init__(self) -> None:
        if not (self.ttft > 0.0 and self.tpot > 0.0):
            raise EvidenceError(f"an SLO of {self.ttft:g} s to the first token and {self.tpot:g} s a token cannot be met; give seconds above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """What the counted requests of a run felt, in seconds, and what they got, a second.

    `ttft` from arrival to the first token that the client sees; `tpot` seconds a token after it; `itl` gaps between tokens (of all requests, warm-up included); `latency` from arrival
    to the last token; `queueing` until the prompt is first computed, `service` from then on. `requests` and `tokens` (of answers) a second between the first arrival and the last
    end, `seconds` apart; `user` tokens a second of a user once they come; `chip` tokens a second and chip; `goodput` requests a second that met the objective.
    """

    ttft: Distribution
    tpot: Distribution
    itl: Distribution
    latency: Distribution
    queueing: Distribution
    service: Distribution
    seconds: float
    requests: float
    tokens: float
    user: float
    chip: float
    goodput: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """Joules and dollars of a million tokens of answers."""

    joules: float
    dollars: float


def measure(served: Served, chips: float, objective: Objective | None = None) -> Metrics:
    """Return the metrics of a run on `chips` chips; without an objective every request counts as good.

    TTFT = first - arrival; TPOT = (end - first) / (output - 1); goodput = requests with TTFT <= limit and TPOT <= limit, a second.

    Holds when requests of one token, which have no TPOT, are left out of it.
    Source: distserve-2024, section 2 (TTFT, TPOT, goodput).
    """
    last = slice(len(served.end) - served.counted, None)
    arrival, start, first, end, output = (x[last] for x in (served.arrival, served.start, served.first, served.end, served.output))
    seconds = float(end.max() - arrival.min())
    several = output > 1
    tpot = (end - first)[several] / (output - 1)[several]
    slow = np.zeros(len(end), dtype=bool)
    if objective is not None:
        slow = first - arrival > objective.ttft
        slow[several] |= tpot > objective.tpot
    found = distribution(tpot)
    tokens = float(output.sum()) / seconds
    return Metrics(
        ttft=distribution(first - arrival), tpot=found, itl=distribution(served.gaps, served.weights), latency=distribution(end - arrival),
        queueing=distribution(start - arrival), service=distribution(end - start), seconds=seconds, requests=len(end) / seconds, tokens=tokens,
        user=1.0 / found.mean.value if found.mean.value > 0.0 else math.nan, chip=tokens / chips, goodput=float(np.sum(~slow)) / seconds,
    )  # fmt: skip


def bill(metrics: Metrics, watts: float, price: float) -> Bill:
    """Return the energy and price of a million tokens of a service that draws `watts` and costs `price` dollars an hour, all chips and all around them counted.

    E = watts / tokens 10^6; D = price / 3600 / tokens 10^6.

    Holds when power and price do not depend on the load.
    Source: by definition.

    >>> even = Statistic(value=1.0, low=1.0, high=1.0)
    >>> all_one = Distribution(mean=even, p50=even, p90=even, p95=even, p99=even)
    >>> bill(Metrics(ttft=all_one, tpot=all_one, itl=all_one, latency=all_one, queueing=all_one, service=all_one, seconds=1, requests=1, tokens=2000, user=1, chip=1, goodput=1), 700.0, 3.6)
    Bill(joules=350000.0, dollars=0.5)
    """
    if not (watts >= 0.0 and price >= 0.0):
        raise EvidenceError(f"{watts:g} W and {price:g} dollars an hour are no cost; give numbers of 0 or more")
    return Bill(joules=watts / metrics.tokens * MILLION, dollars=price / HOUR / metrics.tokens * MILLION)


def distribution(values: np.ndarray, weights: np.ndarray | None = None) -> Distribution:
    """Return mean and percentiles of `values` in order of time, each of `weights` (1 where None), with intervals by sectioning.

    z +- t_(k-1) sqrt(sum (z_i - z)^2 / (k (k - 1))), z over all values, z_i over the i-th of k sections.

    Holds when sections are long enough to be nearly independent.
    Source: law-2015, section 9.5.3 (batch means; here about the estimate over all values, which serves percentiles too).
    """
    from scipy.special import stdtrit

    weights = np.ones(len(values)) if weights is None else weights
    sections = [i for i in np.array_split(np.arange(len(values)), SECTIONS) if len(i)]
    whole, parts = _figures(values, weights), np.array([_figures(values[i], weights[i]) for i in sections])
    k = len(sections)
    half = (
        float(stdtrit(k - 1, 0.5 + LEVEL / 2.0)) * np.sqrt(np.sum((parts - whole) ** 2, axis=0) / (k * (k - 1)))
        if k == SECTIONS
        else np.full(5, np.inf)
    )
    mean, p50, p90, p95, p99 = (Statistic(value=float(z), low=float(z - h), high=float(z + h)) for z, h in zip(whole, half, strict=True))
    return Distribution(mean=mean, p50=p50, p90=p90, p95=p95, p99=p99)


def _figures(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return mean, median, 90th, 95th and 99th percentile; not a number where there is no value."""
    if not weights.sum() > 0.0:
        return np.full(5, np.nan)
    order = np.argsort(values)
    share = np.cumsum(weights[order]) / weights.sum()
    at = np.minimum(np.searchsorted(share, np.array([0.5, 0.9, 0.95, 0.99]) - 1e-12), len(values) - 1)
    return np.array([np.average(values, weights=weights), *values[order][at]])
