"""Predicted against measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from chipscale.border import inside
from chipscale.catalog import Catalog
from chipscale.cost.calibration import Calibration, Prior, read_calibration, read_prior
from chipscale.evidence import EvidenceError
from chipscale.fit import SOURCE, Fit, fit, gradient, row_noise
from chipscale.peak import peak_memory
from chipscale.rows import Measured, read, understand
from chipscale.scores import ScoredRow, Validation, assembled
from chipscale.stack import stack

GROUPS = ("chip", "source_group", "architecture", "size", "precision")
SHIPPED = "measurements/training.csv"
ANCHORS = "measurements/training_anchors.csv"
PEAKS = "measurements/memory.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spreads:
    """Log predictions of rows with their standard deviation."""

    log_seconds: np.ndarray
    sigma: np.ndarray


def spreads(rows: Sequence[Measured], found: Fit, prior: Prior, known: frozenset[str]) -> Spreads:
    """Predict rows with the standard deviation that coefficients, unknown settings and a new source leave.

    sigma^2 = J S J' + variance over settings + noise^2;  coefficients never fitted keep their prior spread.

    Holds when log errors are roughly normal; the interval's quantiles come from left-out rows.
    Source: gelman-2013, section 14.2 (posterior predictive variance).
    """
    problem = stack(rows)
    names = problem.design.coefficients
    column = {n: i for i, n in enumerate(found.names)}
    centre, spread = prior.columns(names)
    theta, covariance = centre.copy(), np.diag(spread**2)
    kept = [(i, column[n]) for i, n in enumerate(names) if n in column and (not n.startswith(SOURCE) or n.removeprefix(SOURCE) in known)]
    ours, theirs = [i for i, _ in kept], [j for _, j in kept]
    theta[ours] = found.theta[theirs]
    covariance[np.ix_(ours, ours)] = found.covariance[np.ix_(theirs, theirs)]
    logs = problem.log_seconds(theta)
    each = np.log(problem.step(theta).seconds)
    within = np.bincount(problem.row, weights=problem.likely(each) * (each - logs[problem.row]) ** 2, minlength=len(rows))
    slope = gradient(problem, theta)
    variance = np.einsum("ij,jk,ik->i", slope, covariance, slope)
    return Spreads(log_seconds=logs, sigma=np.sqrt(variance + within + row_noise(rows, prior) ** 2))


def quantiles(misses: np.ndarray, groups: Sequence[str] = ()) -> tuple[float, float]:
    """Return the 10 % and 90 % quantiles of log(measured / predicted) / sigma; a group of n rows weighs as sqrt(n).

    Rows of one chip or source are alike but not equal, and a new one is one more draw of a group, not one more row of the largest.
    """
    if len(misses) < 10:
        return -1.4, 1.4
    names = np.asarray(groups if len(groups) else [""] * len(misses))
    _, member, count = np.unique(names, return_inverse=True, return_counts=True)
    low, high = np.quantile(misses, [0.1, 0.9], weights=count[member] ** -0.5, method="inverted_cdf")
    return float(min(low, -0.3)), float(max(high, 0.3))


def scored(row: Measured, log_seconds: float, sigma: float, z: tuple[float, float]) -> ScoredRow:
    """Put a prediction and its interval beside the measurement."""
    predicted = math.exp(log_seconds)
    return ScoredRow(
        row=row.key,
        measured_s=row.seconds,
        predicted_s=predicted,
        low_s=predicted * math.exp(z[0] * sigma),
        high_s=predicted * math.exp(z[1] * sigma),
        error=predicted / row.seconds - 1.0,
        labels=row.labels,
        assumed=row.assumed,
        clean=row.clean,
        sigma=sigma,
        measured_memory_b=row.peak_bytes,
        predicted_memory_b=peak_memory(row),
    )


def unanswered(row: Measured) -> ScoredRow:
    """Keep a row that cannot be predicted, with its reason."""
    nan = math.nan
    return ScoredRow(row=row.key, measured_s=row.seconds, predicted_s=nan, low_s=nan, high_s=nan, error=nan, labels=row.labels,
                     clean=row.clean, reason=row.reason)  # fmt: skip


def load_rows(path: Path | None, catalog: Catalog) -> list[Measured]:
    """Read and understand a file of rows, the shipped ones without a path; doubled keys are an error."""
    where = path or next(f / SHIPPED for f in reversed(catalog.folders) if (f / SHIPPED).is_file())
    with inside(where):
        rows = [understand(r, catalog) for r in read(where)]
    keys: set[str] = set()
    for r in rows:
        if r.key in keys:
            raise EvidenceError(f"{where}: row {r.key} stands twice; give each row its own key")
        keys.add(r.key)
    return rows


def with_fit(rows: Sequence[Measured], calibration: Calibration, prior: Prior) -> list[ScoredRow]:
    """Predict with a calibration: narrow where the row's source was fitted, wide where it or the chip is new."""
    found = Fit(names=calibration.names, theta=calibration.theta, covariance=calibration.covariance)
    ready = [r for r in rows if not r.reason]
    by_key = {}
    if ready:
        s = spreads(ready, found, prior, calibration.sources)
        for i, r in enumerate(ready):
            known_source = r.clean and r.labels.get("source_group") in calibration.sources
            known_chip = {g.chip.id for g in r.guesses} <= calibration.chips
            kinds = ["known" if known_source else "new"] + ([] if known_chip else ["chip"])
            bounds = [calibration.quantile(kind, r.labels.get("architecture", "")) for kind in kinds]
            z = (min(low for low, _ in bounds), max(high for _, high in bounds))
            by_key[r.key] = scored(r, float(s.log_seconds[i]), float(s.sigma[i]), z)
    return [by_key[r.key] if r.key in by_key else unanswered(r) for r in rows]


def left_out(rows: Sequence[Measured], label: str, prior: Prior, start: Mapping[str, float]) -> list[ScoredRow]:
    """Refit without each value of `label` in turn and predict it; its interval's shape comes from the other values' misses."""
    ready = [r for r in rows if not r.reason]
    found: dict[str, tuple[float, float, float]] = {}
    for value in sorted({r.labels.get(label, "") for r in ready}):
        test = [r for r in ready if r.labels.get(label, "") == value]
        model = fit([r for r in ready if r.clean and r.labels.get(label, "") != value], prior, start)
        s = spreads(test, model, prior, model.sources)
        for i, r in enumerate(test):
            log_seconds, sigma = float(s.log_seconds[i]), float(s.sigma[i])
            found[r.key] = (log_seconds, sigma, (math.log(r.seconds) - log_seconds) / sigma)
    out = []
    for r in rows:
        if r.key not in found:
            out.append(unanswered(r))
            continue
        peers = [o for o in ready if o.clean and o.labels.get(label) != r.labels.get(label)]
        alike = [o for o in peers if o.labels.get("architecture") == r.labels.get("architecture")]
        bounds = quantiles(np.array([found[o.key][2] for o in alike]), [o.labels.get(label, "") for o in alike])
        out.append(scored(r, *found[r.key][:2], bounds))
    return out


def calibrated_with(rows: Sequence[Measured], points: int, prior: Prior, calibration: Calibration, seed: int) -> list[ScoredRow]:
    """Show `points` random clean rows of each chip and source to the fit first, score the others."""
    rng = np.random.default_rng(seed)
    clean = [r for r in rows if r.clean and not r.reason]
    shown: set[str] = set()
    for cell in sorted({(r.labels["chip"], r.labels["source_group"]) for r in clean}):
        keys = [r.key for r in clean if (r.labels["chip"], r.labels["source_group"]) == cell]
        shown |= set(rng.permutation(keys)[:points].tolist())
    model = fit([r for r in rows if r.key in shown], prior)
    trial = replace(calibration, names=model.names, theta=model.theta, covariance=model.covariance, sources=model.sources,
                    chips=frozenset(r.labels["chip"] for r in clean))  # fmt: skip
    return with_fit([r for r in rows if r.key not in shown], trial, prior)


NOTES = (
    "rows of MLPerf are derived from logs and are not verified by MLCommons",
    "clean rows: complete, without a stated doubt, without token dropping; the others are answered and reported apart",
)


def training(path: Path | None, *, leave_out: str | None, calibrate_points: int, catalog: Catalog, seed: int = 0) -> Validation:
    """Compare predicted with measured training steps: fitted, with whole sources or chips left out, or after a few points of each cell.

    Errors: a file that cannot be read, a missing column, a number that is none, an unknown chip, a row that stands twice.
    """
    prior, calibration = read_prior(catalog.text("calibration/prior.toml")), read_calibration(catalog)
    rows = load_rows(path, catalog)
    if calibrate_points:
        shown = calibrated_with(rows, calibrate_points, prior, calibration, seed)
        return assembled(f"training, {calibrate_points} rows of each chip and source shown first", shown, GROUPS, NOTES)
    if leave_out is None:
        return assembled("training, fitted", with_fit(rows, calibration, prior), GROUPS, NOTES)
    label = {"source": "source_group", "chip": "chip"}.get(leave_out)
    if label is None:
        raise EvidenceError(f"--leave-out {leave_out}: for training it is source or chip")
    return assembled(f"training, each {leave_out} left out", left_out(rows, label, prior, calibration.coefficients()), GROUPS, NOTES)


def peaks(catalog: Catalog) -> list[tuple[str, ScoredRow]]:
    """Compare every shipped measured peak of memory with ours: those of the training rows and those that were measured apart, with their file."""
    found = []
    for name in (SHIPPED, PEAKS):
        where = next(f / name for f in reversed(catalog.folders) if (f / name).is_file())
        rows = [r for r in load_rows(where, catalog) if not r.reason and math.isfinite(r.peak_bytes)]
        found += [(name, scored(r, math.log(r.seconds), 0.0, (0.0, 0.0))) for r in rows]
    return found


def everything(catalog: Catalog) -> list[Validation]:
    """Validate the shipped rows with whole sources and chips left out, and the anchors that are never fitted, source by source."""
    found = [training(None, leave_out=label, calibrate_points=0, catalog=catalog) for label in ("source", "chip")]
    where = next(f / ANCHORS for f in catalog.folders if (f / ANCHORS).is_file())
    anchors = training(where, leave_out=None, calibrate_points=0, catalog=catalog)
    rows = [replace(r, labels={**r.labels, "source_group": r.labels["source"]}) for r in anchors.rows]
    seen = "no coefficient is fitted on these rows, but they were in view when forms and the guessing policy were chosen (docs/decisions/0002-guessing-policy.md)"
    return [*found, assembled("training, anchors that are never fitted", rows, GROUPS, (*anchors.notes, seen))]
