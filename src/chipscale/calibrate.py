"""Redo the calibration: fit the shipped rows, measure the errors on what is left out, write data/calibration/."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from chipscale.catalog import Catalog
from chipscale.choice import likeliest_kappa
from chipscale.cost.calibration import read_prior
from chipscale.fit import SOURCE, Fit, fit
from chipscale.scores import ScoredRow, score
from chipscale.validate import left_out, load_rows, quantiles, spreads

#: chips whose training rows are a test and never enter a fit: no row of theirs is shipped
TEST_NOTE = "rows of B300, GB300, H200, MI355X, TPU v6e and Ascend 910C are tests and are not among the fitted"


def calibrate(catalog: Catalog, date: str) -> dict[str, str]:
    """Fit and return the two files' text by name."""
    prior = read_prior(catalog.text("calibration/prior.toml"))
    rows = [r for r in load_rows(None, catalog) if r.clean and not r.reason]
    model = fit(rows, prior)
    known = model.sources
    s = spreads(rows, model, prior, known)
    inside = (np.array([math.log(r.seconds) for r in rows]) - s.log_seconds) / s.sigma
    table: dict[str, tuple[float, float]] = {}
    scores: dict[str, float] = {}
    for arch in ("dense", "moe"):
        chosen = np.array([r.labels["architecture"] == arch for r in rows])
        table[f"known.{arch}"] = quantiles(inside[chosen])
    start = dict(model.without(SOURCE))
    scores["kappa"] = likeliest_kappa(rows, start)
    for label in ("source_group", "chip"):
        out = left_out(rows, label, prior, start)
        scores[f"left_out_{label}"] = score(out).mape
        for arch in ("dense", "moe"):
            part = [r for r in out if r.labels["architecture"] == arch]
            scores[f"left_out_{label}_{arch}"] = score(part).mape
            kind = "new" if label == "source_group" else "chip"
            table[f"{kind}.{arch}"] = quantiles(np.array([_in_sigma(r) for r in part]), [r.labels[label] for r in part])
        ascend = [r for r in out if r.labels["chip"].startswith("huawei")]
        scores[f"left_out_{label}_ascend"] = score(ascend).mape
    return {
        "training.toml": _toml(model, table, scores, sorted(known), sorted({r.labels["chip"] for r in rows}), len(rows), date),
        "training_covariance.csv": _covariance(model),
    }


def _in_sigma(row: ScoredRow) -> float:
    return math.log(row.measured_s / row.predicted_s) / row.sigma


def _toml(
    model: Fit, table: dict[str, tuple[float, float]], scores: dict[str, float], sources: Sequence[str], chips: Sequence[str], rows: int, date: str
) -> str:
    lines = ["# Written by `chipscale calibrate`; coefficients are logarithms unless the prior says linear.", f"# {TEST_NOTE}.",
             f'date = "{date}"', f"rows = {rows}", f"chips = {list(chips)!r}".replace("'", '"'), f"sources = {list(sources)!r}".replace("'", '"'), "", "[quantiles]"]  # fmt: skip
    lines += [f'"{k}" = [{low:.3f}, {high:.3f}]' for k, (low, high) in table.items()]
    lines += ["", "[scores]", *(f'"{k}" = {v:.4f}' for k, v in scores.items()), "", "[coefficients]"]
    lines += [f'"{n}" = {t:.5f}' for n, t in zip(model.names, model.theta, strict=True)]
    return "\n".join(lines) + "\n"


def _covariance(model: Fit) -> str:
    return "\n".join(",".join(f"{x:.3e}" for x in model.covariance[i, : i + 1]) for i in range(len(model.names))) + "\n"


def write(files: dict[str, str], folder: Path) -> None:
    """Write the files, each whole or not at all."""
    for name, text in files.items():
        beside = folder / (name + ".part")
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, folder / name)
