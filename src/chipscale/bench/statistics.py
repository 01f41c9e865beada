"""What is said about repeated measurements: a median, how far it may be off, and how the samples spread."""

from __future__ import annotations

import math
from collections.abc import Sequence

#: probability with which the median lies outside its interval
OUTSIDE = 0.05


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the quantile of ascending values, linear between two of them.

    >>> quantile([1.0, 2.0, 3.0, 4.0], 0.5)
    2.5
    """
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def rank(n: int) -> int:
    """Return how many of the lowest and highest of n samples lie outside the 95 % interval of the median.

    The largest r with P(Binomial(n, 1/2) < r) <= 2.5 %; 0 where n is below 6, the interval then runs from least to most.

    Holds when samples are independent; no shape of their distribution is assumed.
    Source: david-2003, section 7.1 (distribution-free confidence intervals for quantiles).

    >>> rank(5), rank(6), rank(10), rank(100)
    (0, 1, 2, 40)
    """
    if n > 1000:
        return math.floor(n / 2 - 1.96 * math.sqrt(n) / 2)
    below, r = 0.0, 0
    while (below := below + math.comb(n, r) / 2.0**n) <= OUTSIDE / 2:
        r += 1
    return r


def interval(ordered: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % confidence interval of the median of ascending values, by order statistics.

    >>> interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0])
    (2.0, 9.0)
    """
    outside = max(rank(len(ordered)) - 1, 0)
    return ordered[outside], ordered[len(ordered) - 1 - outside]


def stable(samples: Sequence[float], tolerance: float, least: int) -> bool:
    """Say whether the median of at least `least` samples is known to within a share of `tolerance` either side.

    >>> stable([1.0] * 10, 0.01, 10), stable([1.0, 2.0] * 5, 0.01, 10)
    (True, False)
    """
    if len(samples) < least:
        return False
    ordered = sorted(samples)
    low, high = interval(ordered)
    return (high - low) / 2 <= tolerance * quantile(ordered, 0.5)
