"""The smallest number of chips that meets a deadline."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from chipscale.evidence import EvidenceError


def round_counts(node: int, most: int) -> list[int]:
    """List whole numbers of nodes up to `most` chips that clusters are built in: nodes times powers of 2, 3 and 5.

    >>> round_counts(8, 100)
    [8, 16, 24, 32, 40, 48, 64, 72, 80, 96]
    """
    powers = [[p**i for i in range(most.bit_length()) if p**i <= most] for p in (2, 3, 5)]
    return sorted({node * a * b * c for a in powers[0] for b in powers[1] for c in powers[2] if node * a * b * c <= most})


def rungs(counts: Sequence[int]) -> list[int]:
    """List positions of ascending counts: the first of each doubling, and the last.

    >>> rungs([8, 16, 24, 32, 40])
    [0, 1, 3, 4]
    """
    firsts = [i for i, n in enumerate(counts) if i == 0 or n.bit_length() > counts[i - 1].bit_length()]
    return firsts if firsts[-1] == len(counts) - 1 else [*firsts, len(counts) - 1]


def fewest(days: Callable[[int], float], counts: Sequence[int], limit: float) -> int:
    """Return the smallest of ascending `counts` whose `days` are within `limit`: the first doubling that is, then upwards from the one before.

    `days` is infinite where nothing fits. It falls from doubling to doubling until failures, or too small a share of the batch, eat what
    chips add; between two of them it may go up and down, since some counts share out worse than others. Asked about are the doublings
    and the counts of one octave, 60 of them for a million chips.
    Errors: no doubling meets the limit; the message names the fastest.
    """
    ladder = rungs(counts)
    seen: dict[int, float] = {}
    for below, at in zip([-1, *ladder], ladder, strict=False):
        seen[at] = days(counts[at])
        if seen[at] <= limit:
            return next(n for n in counts[below + 1 : at + 1] if n == counts[at] or days(n) <= limit)
    best = min(seen, key=lambda i: seen[i])
    takes = f"{counts[best]:,} chips, the fastest, take {seen[best]:,.1f} days" if math.isfinite(seen[best]) else "none of them ends"
    raise EvidenceError(f"--days {limit:g}: no number of chips up to {counts[-1]:,} meets it: {takes}; allow more days, more chips or fewer tokens")
