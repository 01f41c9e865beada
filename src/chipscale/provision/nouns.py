"""What a service is asked for, and what it delivers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from pathlib import Path

from chipscale.evidence import EvidenceError
from chipscale.units import show
from chipscale.verdict.nouns import Interval

#: what a user may state, and from where to where it makes sense
LIMITS = {
    "input": (1, 1e7, "tokens of a prompt, as in --input 1024"),
    "output": (1, 1e6, "tokens of an answer, as in --output 1024"),
    "concurrency": (1, 1e6, "requests under way at once, as in --concurrency 256"),
    "rate": (1e-6, 1e6, "requests a second, as in --rate 20"),
    "burst": (0.0, 100.0, "the coefficient of variation of the gaps between requests, 1 for Poisson, as in --burst 2"),
    "ttft": (1e-6, 1e5, "seconds to the first token, as in --slo-ttft 2s"),
    "tpot": (1e-6, 1e4, "seconds a token after the first, as in --slo-tpot 50ms"),
    "drafts": (0, 64, "tokens guessed ahead in each step, as in --drafts 1"),
    "accepted": (0.0, 64.0, "drafts that are right in each step on average, as in --accepted 0.8"),
    "prefix": (0.0, 0.999, "the share of a prompt that the prefix cache holds, as in --prefix-hit 0.3"),
    "price": (0.001, 10_000.0, "dollars per chip and hour, as in --price 2.5"),
    "electricity": (0.0, 100.0, "dollars per kWh, as in --electricity 0.08"),
    "watts": (1.0, 1e6, "watts of one chip and all around it, as in --watts 1300"),
}
OPTIONS = {"ttft": "slo-ttft", "tpot": "slo-tpot", "prefix": "prefix-hit"}
STATISTICS = ("mean", "p50", "p90", "p95", "p99")
#: limits where neither limits nor load are stated: a reader's pace, and a wait that people bear
USUAL_TTFT, USUAL_TPOT = 5.0, 0.05
#: lengths are uniform within so much of their mean
SPREAD = (0.8, 1.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a user states of a service; what is left out is sought, or taken from the site and the chip.

    `input` and `output` are mean tokens of a request. The load is `concurrency` requests under way, or `rate` requests a second whose gaps vary by `burst`, or a `trace` file; else
    the highest concurrency within the limits. `ttft` and `tpot` (s) are limits of the `statistic` over requests. `formats` are those of weights, `kv` bytes an element of the cache,
    `plan` a deployment. `split`: "auto" looks at two pools too, "off" does not. `accepted` unknown with `drafts` stated means two answers: none right, all right.
    """

    input: int = 1024
    output: int = 1024
    engine: str = "vllm"
    concurrency: int | None = None
    rate: float | None = None
    burst: float = 1.0
    trace: Path | None = None
    ttft: float | None = None
    tpot: float | None = None
    statistic: str = "mean"
    formats: tuple[str, ...] = ()
    kv: float | None = None
    plan: str | None = None
    split: str = "auto"
    drafts: int = 0
    accepted: float | None = None
    prefix: float = 0.0
    price: float | None = None
    electricity: float | None = None
    watts: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (low, high, meaning) in LIMITS.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:  # also refuses what is no number
                raise EvidenceError(f"--{OPTIONS.get(name, name)} {value:g}: it must be from {low:g} to {high:g}; write {meaning}")
        loads = [n for n in ("concurrency", "rate", "trace") if getattr(self, n) is not None]
        if len(loads) > 1:
            raise EvidenceError(f"--{loads[0]} and --{loads[1]} are two loads; keep one")
        if self.burst != 1.0 and self.rate is None:
            raise EvidenceError(f"--burst {self.burst:g} is about requests that come by themselves; state how many a second with --rate")
        if self.statistic not in STATISTICS:
            raise EvidenceError(f"--slo-at {self.statistic}: it is one of {', '.join(STATISTICS)}")
        if self.split not in ("auto", "off"):
            raise EvidenceError(f"--disaggregated {self.split}: it is auto or off")
        if self.accepted is not None and self.accepted > self.drafts:
            raise EvidenceError(f"--accepted {self.accepted:g} of {self.drafts} drafts a step cannot be right; give --drafts as many or more")
        if self.seed < 0:
            raise EvidenceError(f"--seed {self.seed}: a whole number of at least 0")

    @property
    def bound(self) -> tuple[float, float]:
        """The limits of TTFT and TPOT that hold: those stated; where neither limits nor a load are, the usual ones."""
        free = self.concurrency is None and self.rate is None and self.trace is None and self.ttft is None and self.tpot is None
        unstated = (USUAL_TTFT, USUAL_TPOT) if free else (math.inf, math.inf)
        return (unstated[0] if self.ttft is None else self.ttft, unstated[1] if self.tpot is None else self.tpot)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A deployment at a load, in closed form: `reads` is the pool that reads prompts where there are two, on `reading` of the chips.

    `users` under way in all, `ttft` and `tpot` (s), tokens a second and `chip`, and of a `user`; `loses` is the share of the best one's tokens that it does not deliver, `stops` what keeps it from more
    users: TPOT, TTFT, cache or batch.
    """

    plan: str
    reads: str
    reading: int
    replicas: float
    users: int
    ttft: float
    tpot: float
    chip: float
    user: float
    loses: float
    stops: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Felt:
    """What users feel of one quantity (s), simulated: the mean with the 80 % interval of what a measurement may show, and percentiles."""

    mean: Interval
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A model served on one kind of chip, at its best deployment; figures are simulated event by event, intervals hold 80 % of what a measurement may show.

    `waiting` and `service` are the parts of the mean TTFT before and after the prompt is first computed; `parts` are seconds by cause of one step in which `running` requests decode, and `step` their sum.
    `tokens` (of answers), `requests` and `goodput` (requests within the limits) a second of all chips; `chip` tokens a second and chip, `user` of a user. `capacity` is the requests a second that
    can be answered for ever. `held` are bytes on a chip by kind, `cached` the tokens that fit in the caches of a replica. `watts` are of a chip and all around it; `joules`, `rent` and `electricity` (USD) a million
    tokens of answers. `others` are further deployments, `front` those that none beats in tokens of a chip and of a user.
    """

    model: str
    chip_id: str
    hypothesis: str
    weight: float
    cluster: str
    chips: int
    engine: str
    load: str
    limits: tuple[float, float]
    statistic: str
    assumed: str
    best: Choice
    precision: str
    kv: float
    ttft: Felt
    tpot: Felt
    waiting: float
    service: float
    latency: float
    step: float
    running: float
    parts: tuple[tuple[str, float], ...]
    requests: float
    goodput: float
    capacity: float
    tokens: Interval
    chip: Interval
    user: Interval
    held: tuple[tuple[str, float], ...]
    memory: float
    cached: float
    watts: Interval | None
    joules: Interval | None
    rent: Interval | None
    electricity: Interval | None
    others: tuple[Choice, ...]
    front: tuple[Choice, ...]
    notes: tuple[str, ...]
    seed: int

    def _repr_html_(self) -> str:
        """Show the answer in a notebook."""
        rows = [
            ("deployment", f"{self.best.reads} → {self.best.plan}" if self.best.reads else self.best.plan),
            ("TTFT", _written(self.ttft.mean, "s")),
            ("TPOT", _written(self.tpot.mean, "s")),
            ("tokens per second and chip", _written(self.chip, "")),
            ("tokens per second of a user", _written(self.user, "")),
            ("requests per second", f"{self.requests:.4g}"),
        ]
        body = "".join(f"<tr><th style='text-align:left'>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in rows)
        return f"<table><caption>{escape(self.model)} on {self.chips} {escape(self.chip_id)}, {escape(self.load)}</caption>{body}</table>"


def _written(i: Interval, unit: str) -> str:
    return f"{show(i.median, unit)} ({show(i.low, unit)} – {show(i.high, unit)})"
