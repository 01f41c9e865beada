"""Numbers and names as a reader wants them: no unit conversion, only writing."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from chipscale.evidence import Belief
from chipscale.facts.model import Model
from chipscale.units import show
from chipscale.verdict.nouns import Interval, Loss

NONE = "–"


def ratio(value: float) -> str:
    """Write a ratio with about three digits.

    >>> ratio(0.514), ratio(12.34), ratio(1234.0), ratio(float("nan"))
    ('0.51', '12.3', '1,234', '–')
    """
    if not math.isfinite(value):
        return NONE
    if 0 < value < 0.095:
        return f"{value:.2g}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def span(interval: Interval) -> str:
    """Write the two ends of an interval."""
    return f"{ratio(interval.low)} – {ratio(interval.high)}"


def count(value: float) -> str:
    """Write a number of chips with at most three digits that mean something.

    >>> count(1963.2), count(87.4), count(float("inf"))
    ('1,960', '87', '–')
    """
    return f"{float(f'{value:.3g}'):,.0f}" if math.isfinite(value) else NONE


def counts(interval: Interval) -> str:
    """Write a number of chips with its interval."""
    return f"{count(interval.median)} ({count(interval.low)} – {count(interval.high)})"


def percent(value: float) -> str:
    """Write a share; certainty is never rounded up to.

    >>> percent(0.061), percent(0.001), percent(0.999), percent(1.0)
    ('6 %', '< 1 %', '> 99 %', '100 %')
    """
    if not math.isfinite(value):
        return NONE
    if 0 < value < 0.005:
        return "< 1 %"
    return "> 99 %" if 0.995 <= value < 1 else f"{value:.0%}".replace("%", " %")


def duration(days: float) -> str:
    """Write a time in days, or in hours or minutes where it is short.

    >>> duration(68.2), duration(1234.5), duration(0.5), duration(0.001)
    ('68 days', '1,234 days', '12.0 hours', '1.4 minutes')
    """
    if days >= 3.0:
        return f"{days:,.0f} days"
    return f"{days * 24.0:.1f} hours" if days * 24.0 >= 1.0 else f"{days * 1440.0:.2g} minutes"


def duration_span(days: Interval) -> str:
    """Write a time with its interval.

    >>> duration_span(Interval(median=20.1, low=14.2, high=28.0))
    '20 days (14 days – 28 days)'
    """
    return f"{duration(days.median)} ({duration(days.low)} – {duration(days.high)})"


def reasons(held: Belief[Model]) -> list[str]:
    """Say what a believed model may be, the likeliest first, each with its weight and reason; nothing of one that is known."""
    if [h.key for h in held.hypotheses] == ["known"]:
        return []
    return [f"{percent(h.weight)} {h.title} [{h.key}]: {h.reason}" for h in sorted(held.hypotheses, key=lambda h: -h.weight)]


def signed(value: float) -> str:
    """Write a signed error in percent.

    >>> signed(0.123), signed(-0.04), signed(float("nan"))
    ('+12.3 %', '-4.0 %', '–')
    """
    return f"{value:+.1%}".replace("%", " %") if math.isfinite(value) else NONE


def tenth(value: float) -> str:
    """Write a share in percent with one decimal.

    >>> tenth(0.1234)
    '12.3 %'
    """
    return f"{value:.1%}".replace("%", " %") if math.isfinite(value) else NONE


def short(name: str) -> str:
    """Shorten a chip's id or name to the word that people say.

    >>> short("huawei-ascend-910d"), short("H100 SXM5 80GB"), short("intel-gaudi-3"), short("google-tpu-v5p")
    ('910D', 'H100', 'Gaudi 3', 'TPU v5p')
    """
    words = re.split(r"[-\s]+", name.partition("=")[0].strip())
    for i, word in enumerate(words):
        if re.fullmatch(r"v\d+[a-z]?", word) and i:
            return f"{words[i - 1].upper()} {word}"
        if re.search(r"\d", word) and re.search(r"[A-Za-z]", word):
            return word.upper() if len(word) <= 6 else word[:1].upper() + word[1:]
    return " ".join(w[:1].upper() + w[1:] for w in words[-2:])


def pair(a: str, b: str) -> tuple[str, str]:
    """Shorten two names, unless that makes them one."""
    one, two = short(a), short(b)
    return (one, two) if one != two else (a, b)


def plural(name: str) -> str:
    """Say several of a chip."""
    return name if name.endswith(("s", "S")) else f"{name}s"


def evidence(counted: tuple[tuple[str, int], ...]) -> str:
    """Say how many facts of each kind a chip rests on; that none was measured is said first.

    >>> evidence((("press", 3), ("rumour", 1))), evidence((("measured", 26), ("datasheet", 4)))
    ('no measured fact; 3 press, 1 rumour', '26 measured, 4 datasheet')
    """
    rest = ", ".join(f"{n:,} {kind}" for kind, n in counted if n)
    measured = any(kind == "measured" and n for kind, n in counted)
    return rest if measured else f"no measured fact; {rest}" if rest else "no fact"


CAUSES: Mapping[str, str] = {
    "gemm": "matrix multiplies", "experts": "experts", "attention": "attention", "head": "vocabulary head", "elementwise": "element-wise",
    "recompute": "recompute", "optimizer": "optimizer", "offload": "copies to the host", "tp": "tensor-parallel traffic", "ep": "expert traffic", "cp": "context traffic",
    "pp": "pipeline traffic", "fsdp": "sharding traffic", "dp": "gradient traffic", "bubble": "pipeline bubble", "imbalance": "imbalance",
    "host": "host", "fixed": "fixed costs",
    "links": "collectives", "stages": "between stages", "prompts": "prompts of others",
}  # fmt: skip


def cause(name: str) -> str:
    """Write out a cause of a step's time.

    >>> cause("dp"), cause("weights")
    ('gradient traffic', 'weights')
    """
    return CAUSES.get(name, name.replace("_", " "))


def losing(loss: Loss) -> str:
    """Write what a plan loses against the best.

    >>> losing(Loss(slower=0.031, cause="bubble", more=0.044, memory=0.0)), losing(Loss(slower=0.0, cause="dp", more=0.0, memory=2e9))
    ('+3.1 %: pipeline bubble +4.4 %', 'as fast, 2 GB more')
    """
    memory = f", {show(loss.memory, 'B')} more" if loss.memory >= 5e6 else ""
    if loss.slower < 5e-6:
        return f"as fast{memory or (', as full' if loss.memory > -5e6 else '')}"
    slower, more = (f"+{100.0 * share:.2g} %" for share in (loss.slower, loss.more))
    return f"{slower}: {cause(loss.cause)} {more}{memory}"


CALLS: Mapping[str, str] = {"less": "{a} does less", "at least equal": "{a} does at least as much"}


def call(text: str, a: str) -> str:
    """Write out which side a job goes to.

    >>> call("less", "910D"), call("too close to call", "910D")
    ('910D does less', 'too close to call')
    """
    return CALLS.get(text, text).replace("{a}", a)


def told(fact: str) -> str:
    """Write out the uncertain thing that a test would tell.

    >>> told("belief:huawei-ascend-910d"), told("error:nvidia-h100:train-x"), told("huawei-ascend-910d:memory_bytes")
    ('which chip the 910D is', 'error of our model, H100, train-x', '910D, memory bytes')
    """
    first, _, rest = fact.partition(":")
    if first == "belief":
        return f"which chip the {short(rest)} is"
    if first == "error":
        chip, _, job = rest.partition(":")
        return f"error of our model, {short(chip)}, {job}"
    return f"{short(first)}, {rest.replace('_', ' ')}" if rest else fact.replace("_", " ")
