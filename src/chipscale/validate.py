"""Predicted against measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How wrong the predictions of some rows are, as fractions (NaN where no row was answered).

    `bias` is the median signed error, `coverage80` the share of measurements inside the 80 % interval.
    """

    n: int
    answered: int
    mape: float
    mdape: float
    bias: float
    coverage80: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRow:
    """One measured row against its prediction: `error` = predicted / measured - 1.

    `assumed` lists what a blank column made us marginalise; `reason` says why a row has no answer.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Scores over all rows, over the clean ones, and by column and value."""

    title: str
    overall: Score
    clean: Score
    groups: Mapping[str, Mapping[str, Score]]
    rows: tuple[ScoredRow, ...]
    notes: tuple[str, ...] = ()
