"""weigh(job, candidates) -> Verdict."""

from __future__ import annotations

from dataclasses import dataclass

from chipscale.facts.job import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Median and the 80 % interval of a quantity."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Why a plan loses against the best: `slower` by a share of the best's seconds, of which `cause` takes `more`; `memory` is further bytes a chip."""

    slower: float
    cause: str
    more: float
    memory: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One chip on one job, at its most likely hypothesis and best plan.

    `seconds` is per step (training), per full batch of prompts (prefill), per token (decode) or per mean decode step (serve);
    `rate` is tokens per second and chip. `parts` are seconds by cause and sum to the median step; `held` are bytes by kind,
    `chips` how many there are where that is not the job's own, `loss` is what a plan that is not the best loses.
    `front` of a serving job: tokens a second of a user and of a chip, where no other deployment gives more of both.
    """

    chip: str
    cluster: str
    hypothesis: str
    plan: str
    precision: str
    seconds: Interval
    rate: Interval
    mfu: float
    memory_bytes: float
    memory_capacity: float
    parts: tuple[tuple[str, float], ...]
    fits: float
    held: tuple[tuple[str, float], ...] = ()
    chips: int = 0
    loss: Loss | None = None
    front: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """A fact that is not certain: `share` of the variance of the log ratio, and by how much its measurement narrows the interval."""

    fact: str
    test: str
    share: float
    narrows: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobVerdict:
    """A against B on one job; ratio > 1 means that A does more work per chip and second.

    `ratio` and `p_at_least` are for what is matched (chips, watts, money); `a_per_1000_b` counts chips in any case.
    `contributions` are factors by cause (compute, memory, fabric, capacity, precision) that multiply to the nominal ratio.
    """

    job: Job
    a: Side
    b: Side
    ratio: Interval
    p_at_least: float
    a_per_1000_b: Interval
    power_ratio: Interval
    cost_ratio: Interval | None
    call: str
    contributions: tuple[tuple[str, float], ...]
    sensitivities: tuple[Sensitivity, ...]
    by_hypothesis: tuple[tuple[str, Interval], ...]
    histogram: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HypothesisShare:
    """A hypothesis of a believed chip, for print."""

    key: str
    title: str
    weight: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer to "can A replace B?", with all that it rests on."""

    question: str
    headline: str
    a: str
    b: str
    match: str
    jobs: tuple[JobVerdict, ...]
    hypotheses: tuple[tuple[str, tuple[HypothesisShare, ...]], ...]
    evidence: tuple[tuple[str, tuple[tuple[str, int], ...]], ...]
    settle: tuple[Sensitivity, ...]
    wrongness: tuple[str, ...]
    seed: int
    draws: int
