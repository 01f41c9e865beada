"""compare(a, b) -> Comparison: do two runs of the same tests differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from chipscale.bench.record import Measure, Record
from chipscale.evidence import EvidenceError

#: settings that tell one case of a test from another; shapes that a search picked are its result, not its case
IDENTIFYING = (
    "size",
    "array_bytes",
    "bytes",
    "ranks",
    "batch",
    "length",
    "d_model",
    "model",
    "model_id",
    "submission_benchmark",
    "max_concurrency",
    "request_rate",
)
#: samples from which a test can tell anything at all: 1 in 10 orderings of 3 + 3 is the most extreme
FEWEST = 3
#: pairs of samples that the shift is taken over at most, per side
MOST = 1000
LEVEL = 0.05
Z975 = 1.959963984540054
Word = Literal["faster", "slower", "higher", "lower", "no difference shown", "too few samples"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One case of a test in both runs: medians, b over a with its 95 % interval, the chance that a value of b beats one of a, p and p for all cases together."""

    test: str
    case: str
    unit: str
    n: tuple[int, int]
    medians: tuple[float, float]
    ratio: float
    low: float
    high: float
    superiority: float
    p: float | None
    adjusted: float | None
    word: Word


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two runs compared. `alone` are the cases that only one has; `tested` is how many tests were made, for which p is adjusted."""

    a: str
    b: str
    remarks: tuple[str, ...]
    differences: tuple[Difference, ...]
    alone: tuple[str, ...]
    tested: int


def _key(m: Measure) -> tuple[object, ...]:
    return (m.test, m.case, m.unit, *((k, m.settings[k]) for k in IDENTIFYING if k in m.settings))


def label(m: Measure) -> str:
    """Name a case with its size."""
    from chipscale.units import show

    size = next((m.settings[k] for k in ("size", "array_bytes", "bytes") if k in m.settings), None)
    return f"{m.case}, {show(float(size), 'B')}" if size is not None else m.case


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Return the chance that a value of b is above one of a (ties half), and the two-sided p that they are drawn alike.

    P(b > a) = U / (n m),  U: pairs in which b is above a, ties half

    Holds when samples of a run are independent. Exact for small samples without ties, normal otherwise.
    Source: mann-whitney-1947.

    >>> mann_whitney([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    (1.0, 0.1)
    """
    from scipy.stats import mannwhitneyu

    found = mannwhitneyu(np.asarray(b), np.asarray(a), alternative="two-sided")
    return float(found.statistic) / (len(a) * len(b)), float(found.pvalue)


def shift(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    """Estimate the factor from a to b: the median ratio over all pairs, with its 95 % interval.

    D = sorted ln b_j - ln a_i,  shift: its median,  interval: D_k to D_(nm - 1 - k),  k = nm / 2 - 1.96 sqrt(nm (n + m + 1) / 12)

    Holds when both runs scatter alike around their own value. Of more than 1,000 samples evenly spaced ones of the ordered sample are taken.
    Source: hodges-lehmann-1963.

    >>> [round(x, 3) for x in shift([1.0, 1.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0])]
    [2.0, 2.0, 2.0]
    """
    x, y = (_thinned(np.log(np.sort(np.asarray(v, dtype=np.float64)))) for v in (a, b))
    pairs = np.sort((y[:, None] - x[None, :]).ravel())
    n, m = len(x), len(y)
    k = max(math.floor(n * m / 2 - Z975 * math.sqrt(n * m * (n + m + 1) / 12)), 0)
    return float(np.exp(np.median(pairs))), float(np.exp(pairs[k])), float(np.exp(pairs[-1 - k]))


def _thinned(values: np.ndarray) -> np.ndarray:
    return values if len(values) <= MOST else values[np.linspace(0, len(values) - 1, MOST).round().astype(int)]


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p-values for how many tests were made, so that one false alarm among all is as rare as the level says.

    p'_(i) = max over j <= i of min(1, (m - j + 1) p_(j))

    Holds for any dependence between the tests.
    Source: holm-1979.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = running
    return [float(x) for x in adjusted]


def compare(a: Record, b: Record) -> Comparison:
    """Compare the cases that two records have in common.

    Errors: one record twice, an official log with another run, nothing in common.
    """
    if a.sha256 == b.sha256:
        raise EvidenceError(f"record {a.sha256[:12]}: is compared with itself; name another run")
    official = [r.suite == "imported: mlperf" for r in (a, b)]
    if official[0] != official[1]:
        raise EvidenceError("a log of MLPerf is not compared with another run: its rules keep official results apart; name two of them, or none")
    left, right = ({_key(m): m for m in r.measures if m.samples} for r in (a, b))
    both = [k for k in left if k in right]
    if not both:
        raise EvidenceError(
            f"records {a.sha256[:12]} and {b.sha256[:12]}: have no test in common ({_tests(a)}; {_tests(b)}); compare two runs of the same suite"
        )
    tests = {k: mann_whitney(left[k].values(), right[k].values()) for k in both if min(len(left[k].samples), len(right[k].samples)) >= FEWEST}
    adjusted = dict(zip(tests, holm([p for _, p in tests.values()]), strict=True)) if tests else {}
    found = tuple(_difference(left[k], right[k], tests.get(k), adjusted.get(k)) for k in both)
    alone = tuple(label(m) for side, other in ((left, right), (right, left)) for k, m in side.items() if k not in other)
    return Comparison(a=a.sha256, b=b.sha256, remarks=tuple(_remarks(a, b)), differences=found, alone=tuple(dict.fromkeys(alone)), tested=len(tests))


def _tests(r: Record) -> str:
    return ", ".join(dict.fromkeys(m.test for m in r.measures)) or "nothing"


def _difference(a: Measure, b: Measure, test: tuple[float, float] | None, adjusted: float | None) -> Difference:
    x, y = a.values(), b.values()
    positive = min(x) > 0 and min(y) > 0
    ratio, low, high = shift(x, y) if positive else (math.nan, math.nan, math.nan)
    word: Word = "too few samples"
    if test is not None and adjusted is not None:
        up, rate = test[0] > 0.5, a.unit.endswith("/s")
        word = "no difference shown" if adjusted > LEVEL else ("faster" if up else "slower") if rate else ("higher" if up else "lower")
    bounds = (low, high) if test is not None else (math.nan, math.nan)
    return Difference(test=a.test, case=label(a), unit=a.unit, n=(len(x), len(y)), medians=(float(np.median(x)), float(np.median(y))), ratio=ratio,
                      low=bounds[0], high=bounds[1], superiority=test[0] if test else math.nan, p=test[1] if test else None, adjusted=adjusted, word=word)  # fmt: skip


def _remarks(a: Record, b: Record) -> list[str]:
    """Say in what the two runs differ besides their results."""
    said = [f"different devices: {a.identity.name or 'unnamed'} and {b.identity.name or 'unnamed'}"] if a.identity.name != b.identity.name else []
    said += [f"different {k}: {a.versions[k]} and {b.versions[k]}" for k in sorted(a.versions.keys() & b.versions.keys())
             if a.versions[k] != b.versions[k] and k not in ("source", "source_sha256")]  # fmt: skip
    said += [f"different driver: {a.identity.driver} and {b.identity.driver}"] if a.identity.driver != b.identity.driver else []
    return said
