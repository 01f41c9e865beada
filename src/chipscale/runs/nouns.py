"""What a run is asked for, and what it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from chipscale.evidence import EvidenceError
from chipscale.verdict.nouns import Interval, Side

#: what a user may state, and from where to where it makes sense
LIMITS = {
    "price": (0.001, 10_000.0, "dollars per chip and hour, as in --price 2.5"),
    "pue": (1.0, 4.0, "all power over the power of IT, as in --pue 1.2"),
    "mtbf": (1.0, 1e9, "hours between failures of one chip, as in --mtbf 50000"),
    "electricity": (0.0, 100.0, "dollars per kWh, as in --electricity 0.08"),
    "days": (0.01, 1e5, "days that the run may take, as in --days 60"),
}
MOST_TOKENS = 1e18


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the user states of a run; what is left out is taken from the site and the chip, with its range.

    `price` USD per chip and hour, `pue` >= 1, `mtbf` hours of one chip, `electricity` USD per kWh, `days` the most that the run may take.
    """

    price: float | None = None
    pue: float | None = None
    mtbf: float | None = None
    electricity: float | None = None
    days: float | None = None

    def __post_init__(self) -> None:
        for name, (low, high, meaning) in LIMITS.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:  # also refuses what is no number
                raise EvidenceError(f"--{name} {value:g}: it must be from {low:g} to {high:g}; write {meaning}")


def check_tokens(tokens: float) -> float:
    """Return a token budget that can be, or refuse it."""
    if not (math.isfinite(tokens) and 1 <= tokens <= MOST_TOKENS):
        raise EvidenceError(f"{tokens:g} tokens: it must be positive, and 1000000T at most; write as many as are trained on")
    return tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """Energy by part (Wh) and money (USD); what rests on a fact that nobody states is None, and `missing` says which.

    `energy` is the sum of `chips`, `host`, `network` and `cooling`; `power` is the mean draw of all (W). `rent` pays for everything by
    the hour; who owns the cluster pays `capital` and `electricity` instead.
    """

    energy: Interval | None
    chips: Interval | None
    host: Interval | None
    network: Interval | None
    cooling: Interval | None
    power: Interval | None
    rent: Interval | None
    capital: Interval | None
    electricity: Interval | None
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A token budget on one plan: how long it takes, how much of that is useful, and what it costs. Intervals are of 80 %.

    `days` = `ideal_days` / `useful`. `writing`, `restarting` and `repeating` are the other shares of the time; `interval` (s) lies between
    two checkpoints of `checkpoint_bytes`, `between` (s) between two failures. An upper end is infinite where a tenth of the draws never end.
    """

    chips: int
    tokens: float
    steps: float
    site: str
    ideal_days: Interval
    days: Interval
    chip_hours: Interval
    useful: Interval
    writing: float
    restarting: float
    repeating: float
    failures: Interval
    between: Interval
    interval: Interval
    checkpoint_bytes: float
    checkpoint_seconds: Interval
    bill: Bill


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Plans, fastest first, and the run on each, in the same order. With a deadline `runs[0].chips` is the smallest number that meets it."""

    plans: tuple[Side, ...]
    runs: tuple[Run, ...]
