"""Scores: how wrong predictions are, row by row and by group."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How wrong: fractions over the rows answered (NaN where there are none); `bias` is the mean signed error."""

    n: int
    answered: int
    mape: float
    mdape: float
    bias: float
    coverage80: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryScore:
    """How wrong peak memory is: fractions over the rows that state it; `bias` is the mean signed error."""

    n: int
    mape: float
    mdape: float
    bias: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRow:
    """One row: seconds measured and predicted with the 80 % interval; error = predicted / measured - 1.

    `sigma` is the log-scale standard deviation behind the interval, `assumed` what a blank column made us guess,
    `reason` why there is no answer; `clean` rows are those that are judged. Memory is the peak of the fullest chip (B), NaN where not stated.
    """

    row: str
    measured_s: float
    predicted_s: float
    low_s: float
    high_s: float
    error: float
    labels: Mapping[str, str]
    assumed: tuple[str, ...] = ()
    reason: str = ""
    clean: bool = True
    sigma: float = math.nan
    measured_memory_b: float = math.nan
    predicted_memory_b: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """A whole comparison: all rows, the clean ones, and groups of the clean ones; `memory` scores peaks over all rows that state one, and by source."""

    title: str
    overall: Score
    clean: Score
    groups: Mapping[str, Mapping[str, Score]]
    rows: tuple[ScoredRow, ...]
    notes: tuple[str, ...] = ()
    memory: Mapping[str, MemoryScore] = field(default_factory=dict)


def memory_scores(rows: Sequence[ScoredRow]) -> Mapping[str, MemoryScore]:
    """Score peak memory over all rows that state it ("all"), and by source; empty where none does."""
    both = [r for r in rows if math.isfinite(r.measured_memory_b) and math.isfinite(r.predicted_memory_b)]
    sources = sorted({r.labels.get("source_group", "") for r in both})
    groups = {"all": both, **{s: [r for r in both if r.labels.get("source_group", "") == s] for s in sources}} if both else {}
    found = {}
    for name, group in groups.items():
        error = np.array([r.predicted_memory_b / r.measured_memory_b - 1.0 for r in group])
        found[name] = MemoryScore(n=len(group), mape=float(np.mean(np.abs(error))), mdape=float(np.median(np.abs(error))), bias=float(np.mean(error)))
    return found


def score(rows: Sequence[ScoredRow]) -> Score:
    """Score rows; those without an answer count in n alone."""
    answered = [r for r in rows if math.isfinite(r.predicted_s)]
    if not answered:
        return Score(n=len(rows), answered=0, mape=math.nan, mdape=math.nan, bias=math.nan, coverage80=math.nan)
    error = np.array([r.error for r in answered])
    inside = np.array([r.low_s <= r.measured_s <= r.high_s for r in answered])
    return Score(
        n=len(rows),
        answered=len(answered),
        mape=float(np.mean(np.abs(error))),
        mdape=float(np.median(np.abs(error))),
        bias=float(np.mean(error)),
        coverage80=float(np.mean(inside)),
    )


def assembled(title: str, rows: Sequence[ScoredRow], labels: Sequence[str], notes: Sequence[str]) -> Validation:
    """Score rows as a whole and by group."""
    clean = [r for r in rows if r.clean]
    groups: dict[str, dict[str, Score]] = {}
    for label in labels:
        values = sorted({r.labels.get(label, "") for r in clean} - {""})
        groups[label] = {v: score([r for r in clean if r.labels.get(label) == v]) for v in values}
    return Validation(title=title, overall=score(rows), clean=score(clean), groups=groups, rows=tuple(rows), notes=tuple(notes),
                      memory=memory_scores(rows))  # fmt: skip
