"""Predicted against measured, operator by operator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from chipscale.catalog import Catalog
from chipscale.cost.kernels.costing import size_class
from chipscale.cost.kernels.form import Form
from chipscale.operators.calibration import Calibration, Quantiles, after_points, read, sane, spread_of, usable
from chipscale.operators.corpus import Sample, files_of, load, shipped, tables
from chipscale.operators.fit import Table, fit, predict
from chipscale.operators.measured import corrected
from chipscale.operators.reading import read_prior
from chipscale.operators.tables import Tables, near
from chipscale.scores import ScoredRow, Validation, assembled, score

GROUPS = ("operator", "chip", "precision", "engine", "file", "cell")
#: fewest groups, and rows, whose misses tell how far the misses of another group scatter; else those of the shipped rows do
FEW_GROUPS = 3
FEW_ROWS = 300
Scored = tuple[np.ndarray, np.ndarray, np.ndarray]


def bounds(seconds: np.ndarray, quantiles: Quantiles) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of 80 % intervals from the quantiles of each size class."""
    q = np.array(quantiles)[size_class(seconds)]
    return seconds * np.exp(q[:, 0]), seconds * np.exp(q[:, 1])


def with_others_misses(table: Table, seconds: np.ndarray, groups: Sequence[str], judged: np.ndarray, fallback: Quantiles, wider: bool) -> Scored:
    """Put intervals round predictions, each group's from the misses of the other groups alone."""
    names = np.asarray(groups)
    low, high = np.full(len(seconds), np.nan), np.full(len(seconds), np.nan)
    misses = np.log(table.seconds) - np.log(seconds)
    for name in np.unique(names):
        here, others = names == name, (names != name) & judged & np.isfinite(misses)
        enough = len(np.unique(names[others])) + 1 >= FEW_GROUPS and others.sum() >= FEW_ROWS
        quantiles = spread_of(misses[others], seconds[others], names[others].tolist(), wider) if enough else fallback
        low[here], high[here] = bounds(seconds[here], quantiles)
    return seconds, low, high


def left_out(form: Form, table: Table, corpus: Table, label: str, judged: np.ndarray, known: Calibration, catalog: Catalog) -> Scored:
    """Predict each chip or engine from a fit to the shipped rows of the others."""
    prior = read_prior(catalog, form.id)
    groups = [getattr(t, label) for t in table.tags]
    names, entered = np.asarray(groups), np.array([getattr(t, label) for t in corpus.tags])
    seconds = np.full(len(table), np.nan)
    for name in np.unique(names):
        here, rest = np.where(names == name)[0], np.where(entered != name)[0]
        if len(rest) == len(corpus):
            found = known.found
        elif len(rest):
            found = fit(form, corpus.take(rest), prior)
        else:
            continue
        seconds[here] = predict(form, table.take(here), found)
    return with_others_misses(table, seconds, groups, judged, known.quantiles[label], wider=True)


def at_tier(form: Form, table: Table, corpus: Table, tier: str, known: Calibration) -> Scored:
    """Predict with the shipped calibration: as a chip that nobody measured (prior), as it is, or bent to the nearest measured calls."""
    if tier == "prior":
        strangers = replace(table, tags=[replace(t, chip="") for t in table.tags])
        seconds = predict(form, strangers, known.found)
        return seconds, *bounds(seconds, known.quantiles["chip"])
    seconds = predict(form, table, known.found)
    cases = np.array([known.case(t) for t in table.tags])
    if tier == "measured":
        seconds = corrected(form, table, seconds, corpus, predict(form, corpus, known.found))
    low, high = np.empty(len(seconds)), np.empty(len(seconds))
    for case in np.unique(cases):
        here = cases == case
        low[here], high[here] = bounds(seconds[here], known.interval(case))
    return seconds, low, high


def pointed(form: Form, table: Table, corpus: Table, points: int, judged: np.ndarray, known: Calibration, catalog: Catalog, seed: int) -> Scored:
    """Show a few rows of each cell to a fit of the shipped rows of other chips, score the rest; NaN where a row was shown."""
    chips = {t.chip for t in table.tags}
    strangers = np.array([i for i, t in enumerate(corpus.tags) if t.chip not in chips], dtype=np.int64)
    seconds, _ = after_points(form, table, read_prior(catalog, form.id), points, seed, corpus.take(strangers) if len(strangers) else None, judged)
    return with_others_misses(table, seconds, [t.chip for t in table.tags], judged, known.quantiles["points"], wider=False)


def replaced(form: Form, rows: Table, closer: Table) -> Table:
    """Put closer rows in the place of those of their chip and engine."""
    having = {(t.chip, t.engine) for t in closer.tags}
    others = [i for i, t in enumerate(rows.tags) if (t.chip, t.engine) not in having]
    return closer.take(np.where(sane(form, closer))[0]).joined(rows.take(np.array(others, dtype=np.int64)))


NO_TABLES = "nearest measured calls: shipped rows alone; with the extra chipscale[tables] installed, those of the tables of the same chip and engine"
NOTES = (
    "rows with a reason in `apart`, and rows faster than the roofline of their chip allows, are answered and reported apart",
    "measured rows: Apache-2.0, MIT and BSD repositories named row by row in the column source",
)


def operators(path: Path | None, *, tier: str, leave_out: str | None, calibrate_points: int, catalog: Catalog, seed: int = 0,
              measured: Tables | None = None) -> Validation:  # fmt: skip
    """Compare predicted with measured seconds of single operators; at the measured tier `measured` tables replace shipped rows of their chip and engine.

    Errors: a file whose name says no operator, a missing column, a number that is none, an unknown chip or kernel format, a doubled row.
    """
    samples = load(files_of(path) if path else shipped(catalog), catalog)
    corpus = tables(usable(load(shipped(catalog), catalog), catalog), catalog)
    bent = tier == "measured" and not leave_out and not calibrate_points
    more, notes = near(measured, samples, catalog) if measured and bent else ([], [NO_TABLES] if bent else [])
    closer = tables(usable(more, catalog), catalog)
    scored: dict[int, ScoredRow] = {}
    shown: set[int] = set()
    for form, where, table in tables(samples, catalog).values():
        known, fine = read(catalog, form.id), sane(form, table)
        apart = [samples[i].apart or ("" if ok else "faster than the roofline") for i, ok in zip(where, fine, strict=True)]
        judged = np.array([not a for a in apart])
        rows = corpus[form.id][2]
        rows = rows.take(np.where(sane(form, rows))[0])
        if calibrate_points:
            result = pointed(form, table, rows, calibrate_points, judged, known, catalog, seed)
            shown |= {i for i, value in zip(where, result[0], strict=True) if not math.isfinite(value)}
        elif leave_out:
            result = left_out(form, table, rows, leave_out, judged, known, catalog)
        else:
            result = at_tier(form, table, replaced(form, rows, closer[form.id][2]) if form.id in closer else rows, tier, known)
        for i, reason, seconds, low, high in zip(where, apart, *result, strict=True):
            scored[i] = _row(samples[i], reason, float(seconds), float(low), float(high))
    rows_out = [scored.get(i) or _row(s, s.apart, math.nan, math.nan, math.nan) for i, s in enumerate(samples) if i not in shown]
    how = f"{calibrate_points} rows of each cell shown first" if calibrate_points else f"each {leave_out} left out" if leave_out else f"{tier} tier"
    found = assembled(f"operators, {how}", rows_out, GROUPS, (*NOTES, *notes))
    reasons = sorted({r.labels["apart"] for r in rows_out} - {""})
    return replace(
        found, groups={**found.groups, "apart": {reason: score([r for r in rows_out if r.labels["apart"] == reason]) for reason in reasons}}
    )


def _row(s: Sample, apart: str, seconds: float, low: float, high: float) -> ScoredRow:
    return ScoredRow(row=s.key, measured_s=s.seconds, predicted_s=seconds, low_s=low, high_s=high, error=seconds / s.seconds - 1.0, labels={**s.labels, "apart": apart},
                     reason=s.reason, clean=not apart and not s.reason)  # fmt: skip
