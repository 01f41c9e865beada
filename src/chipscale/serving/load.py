"""Load: how a benchmark or a crowd of users asks a service, fully stated, and the requests that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chipscale.evidence import EvidenceError

#: statistics over requests that a harness may report
STATISTICS = ("mean", "median", "p50", "p90", "p95", "p99")


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """`users` users, each of whom sends the next request when the last is answered; all of them start at once."""

    users: int

    def __post_init__(self) -> None:
        if self.users < 1:
            raise EvidenceError(f"concurrency {self.users} asks for nothing; give at least 1 user")


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Requests that come by themselves, `rate` a second; gaps are gamma with coefficient of variation `variation` (1 Poisson, above 1 bursts, 0 a clock)."""

    rate: float
    variation: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.rate < np.inf:
            raise EvidenceError(f"rate {self.rate:g} requests/s never brings a request or brings all at once; give a rate above 0, or a closed loop")
        if not 0.0 <= self.variation < np.inf:
            raise EvidenceError(f"coefficient of variation {self.variation:g} is not 0 or more; give 1 for Poisson, above 1 for bursts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Recorded requests: `arrival` (s, not backwards), prompt and answer lengths `input` and `output` (tokens), each of shape (requests,)."""

    arrival: np.ndarray
    input: np.ndarray
    output: np.ndarray

    def __post_init__(self) -> None:
        if not len(self.arrival) or {len(self.input), len(self.output)} != {len(self.arrival)}:
            raise EvidenceError("a trace needs one arrival, input and output for each request, and at least one request")
        if np.any(np.diff(self.arrival) < 0):
            late = int(np.argmax(np.diff(self.arrival) < 0)) + 1
            raise EvidenceError(f"request {late} of the trace arrives before the one ahead of it; sort the trace by arrival")
        if min(self.input.min(), self.output.min()) < 1:
            raise EvidenceError("a trace holds a request of 0 tokens; every prompt and every answer has at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Nominal tokens of a prompt (`input`) and of an answer (`output`); each is uniform from `low` to `high` times its nominal."""

    input: int
    output: int
    low: float = 1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        for name, tokens in (("input", self.input), ("output", self.output)):
            if tokens < 1:
                raise EvidenceError(f"{name} length {tokens} is no request; give at least 1 token")
        if not 0.0 < self.low <= self.high < np.inf:
            raise EvidenceError(
                f"length spread {self.low:g}..{self.high:g} is not 0 < low <= high; write shares of the nominal length, such as 0.8..1.0"
            )

    @property
    def mean_input(self) -> float:
        """Return the mean tokens of a prompt."""
        return float(np.mean(_bounds(self.input, self)))

    @property
    def mean_output(self) -> float:
        """Return the mean tokens of an answer."""
        return float(np.mean(_bounds(self.output, self)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A load protocol: arrival, number of requests, lengths, seed, and the statistic that the harness reports.

    `warmup` requests come before those that count. Where they are `drained` the service is empty again before the count starts, so they leave nothing behind;
    else the first `warmup` of all requests are served and left out of the statistics. A `Trace` brings its own lengths and number.
    """

    arrival: Closed | Open | Trace
    requests: int
    lengths: Lengths | None = None
    warmup: int = 0
    drained: bool = True
    seed: int = 0
    statistic: str = "mean"

    def __post_init__(self) -> None:
        if self.requests < 1:
            raise EvidenceError(f"{self.requests} requests are no load; give at least 1")
        if self.warmup < 0:
            raise EvidenceError(f"warm-up {self.warmup} is negative; give 0 for none")
        if self.seed < 0:
            raise EvidenceError(f"seed {self.seed} is negative; give 0 or more")
        if self.statistic not in STATISTICS:
            raise EvidenceError(f"statistic {self.statistic!r} is unknown; give one of {', '.join(STATISTICS)}")
        if isinstance(self.arrival, Trace):
            if self.lengths is not None or self.excluded + self.requests > len(self.arrival.arrival):
                raise EvidenceError(
                    f"a trace of {len(self.arrival.arrival)} requests brings its own lengths; leave lengths out and ask for no more requests"
                )
        elif self.lengths is None:
            raise EvidenceError("this load has no lengths; give the tokens of prompts and answers")

    @property
    def excluded(self) -> int:
        """Return how many requests are served without being counted."""
        return 0 if self.drained else self.warmup


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """What a service is asked, each of shape (requests,): `arrival` (s; of a closed loop only the first are sent at 0, the rest wait), `input`, `output` (tokens).

    Of a closed loop `users` requests are under way at once; of an open one `users` is 0.
    """

    arrival: np.ndarray
    input: np.ndarray
    output: np.ndarray
    users: int = 0

    @property
    def most(self) -> int:
        """Return how many requests can be under way at once."""
        return min(self.users or len(self.input), len(self.input))


def requests(load: Load) -> Requests:
    """Draw the requests of a load; the same seed gives the same requests."""
    count = load.requests + load.excluded
    if isinstance(load.arrival, Trace):
        trace = load.arrival
        return Requests(arrival=trace.arrival[:count], input=trace.input[:count], output=trace.output[:count])
    assert load.lengths is not None
    rng = np.random.default_rng(load.seed)
    tokens = [rng.integers(low, high + 1, count) for low, high in (_bounds(n, load.lengths) for n in (load.lengths.input, load.lengths.output))]
    if isinstance(load.arrival, Closed):
        return Requests(arrival=np.zeros(count), input=tokens[0], output=tokens[1], users=load.arrival.users)
    gap, spread = 1.0 / load.arrival.rate, load.arrival.variation**2
    gaps = rng.gamma(1.0 / spread, gap * spread, count) if spread > 0 else np.full(count, gap)
    return Requests(arrival=np.cumsum(gaps), input=tokens[0], output=tokens[1])


def _bounds(nominal: int, lengths: Lengths) -> Sequence[int]:
    """Return the shortest and the longest length that a nominal one stands for."""
    return max(1, int(nominal * lengths.low)), max(1, int(nominal * lengths.high))
