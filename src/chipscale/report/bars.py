"""Intervals drawn with characters on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from chipscale.verdict.nouns import Interval

TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0, 20.0, 50.0, 100.0)


def _drawable(interval: Interval) -> bool:
    return all(math.isfinite(x) and x > 0 for x in (interval.low, interval.median, interval.high))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A logarithmic axis from `low` to `high` over `width` characters."""

    low: float
    high: float
    width: int

    def at(self, value: float) -> int:
        """Return the column of a value, at the border where it lies beyond."""
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return min(max(round(share * (self.width - 1)), 0), self.width - 1)

    def ticks(self) -> list[float]:
        """Return the round numbers on this axis, 1 always among them."""
        return [t for t in TICKS if self.low <= t <= self.high]


def scale_of(intervals: Sequence[Interval], width: int) -> Scale:
    """Fit an axis around intervals and parity."""
    ends = [1.0, *(e for i in intervals if _drawable(i) for e in (i.low, i.high))]
    low, high = max(min(ends), TICKS[0]), min(max(ends), TICKS[-1])
    return Scale(low=min(low, 0.8) / 1.08, high=max(high, 1.25) * 1.08, width=width)


def bar(interval: Interval, scale: Scale) -> Text:
    """Draw an interval as a line, its median as a dot and parity as an upright stroke."""
    if not _drawable(interval):
        return Text("no answer".ljust(scale.width)[: scale.width])
    low, mid, high, parity = (scale.at(v) for v in (interval.low, interval.median, interval.high, 1.0))
    cells = [" "] * scale.width
    for i in range(low, high + 1):
        cells[i] = "━"
    cells[parity] = "┿" if low <= parity <= high else "│"
    cells[mid] = "●"
    text = Text("".join(cells))
    text.stylize("red" if interval.high < 1 else "green" if interval.low > 1 else "yellow", low, high + 1)
    text.stylize("bold", mid, mid + 1)
    return text


def axis(scale: Scale) -> Text:
    """Write the round numbers below the bars, each centred under its column, parity first to get its place."""
    cells = [" "] * scale.width
    for tick in sorted(scale.ticks(), key=lambda t: abs(math.log(t))):
        label = f"{tick:g}"
        start = min(max(scale.at(tick) - len(label) // 2, 0), scale.width - len(label))
        if all(c == " " for c in cells[max(start - 1, 0) : start + len(label) + 1]):
            cells[start : start + len(label)] = label
    return Text("".join(cells), style="dim")
