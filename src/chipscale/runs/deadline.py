"""The smallest number of chips that meets a deadline."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

import numpy as np

from chipscale.evidence import EvidenceError
from chipscale.runs.failures import Reliability, shares


def round_counts(node: int, most: int) -> list[int]:
    """List whole numbers of nodes up to `most` chips that clusters are built in: nodes times powers of 2, 3 and 5.

    >>> round_counts(8, 100)
    [8, 16, 24, 32, 40, 48, 64, 72, 80, 96]
    """
    powers = [[p**i for i in range(most.bit_length()) if p**i <= most] for p in (2, 3, 5)]
    return sorted({node * a * b * c for a in powers[0] for b in powers[1] for c in powers[2] if node * a * b * c <= most})


def useful_most(reliability: Reliability, counts: Sequence[int]) -> int:
    """Return the position of the count whose useful chips are most: beyond it, failures eat more than chips add."""
    n = np.array(counts, dtype=np.float64)
    return int(np.argmax(n * np.asarray(shares(reliability, n, 0.0).useful)))


def fewest(days: Callable[[int], float], counts: Sequence[int], limit: float) -> int:
    """Return the smallest of ascending `counts` whose `days` are within `limit`, by bisection.

    `days` falls with the count (infinite where nothing fits) and is asked about log2(len(counts)) times.
    Errors: not even the largest count meets the limit; the message says how long that one takes.
    """
    least = days(counts[-1])
    if not least <= limit:
        raise EvidenceError(f"--days {limit:g}: no number of chips up to that of --on meets it: {counts[-1]:,} chips, the fastest, take {least:,.1f} days; "
                            "allow more days, more chips or fewer tokens")  # fmt: skip
    return counts[bisect_left(counts, -limit, key=lambda n: -days(n))]
