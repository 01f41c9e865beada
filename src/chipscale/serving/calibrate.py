"""Redo the calibration of serving: fit the shipped points, measure the errors on what is left out, write data/calibration/serving.toml."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from chipscale.catalog import Catalog
from chipscale.serving import requests
from chipscale.serving.calibration import PRIOR, Calibration
from chipscale.serving.fit import fit as settle
from chipscale.serving.fit import problem, read_prior
from chipscale.serving.predict import Costs, stack
from chipscale.serving.rows import Point, load
from chipscale.serving.timed import SHIPPED as RECORDED
from chipscale.serving.timed import misses, shared_constants
from chipscale.serving.validate import QUANTITIES, SHIPPED, believed, cell, shipped, spread_of, strangers

#: cases of the intervals: whether the cell was fitted, what was left out, and whether the load protocol is hidden
CASES = ("known", "cell", "stranger", "split")


def calibrate(catalog: Catalog, date: str) -> dict[str, str]:
    """Fit and return the file's text by name."""
    prior, costs, points = read_prior(catalog.text(PRIOR)), Costs(catalog), shipped(catalog)
    found = problem(points, stack(points, [p.protocol for p in points if p.protocol], costs), prior)
    theta = settle(found)
    cells = frozenset(cell(p) for p in points)
    known = Calibration(coefficients=dict(zip(found.design.names, theta.tolist(), strict=True)), quantiles={}, cells=cells, prior=prior,
                        models=frozenset(p.model.id for p in points), chips=frozenset(p.chip.id for p in points), own={})  # fmt: skip
    where = next(f / SHIPPED for f in reversed(catalog.folders) if (f / SHIPPED).is_file())
    split = [p for p in load(where, catalog) if isinstance(p, Point) and p.clean and p.prefill is not None]
    quantiles: dict[str, tuple[float, float]] = {}
    medians: dict[str, float] = {}
    for hide in (False, True):
        for case in CASES:
            rows = split if case == "split" else points
            if case in ("known", "split"):
                logs = believed(rows, known, catalog, costs, hide=hide)
            else:
                logs = strangers(rows, "cell" if case == "cell" else "model-and-chip", known, catalog, costs, hide=hide)
            for q, quantity in enumerate(QUANTITIES):
                misses = np.log([getattr(p, quantity) for p in rows]) - logs[q]
                name = f"{'hidden-' if hide else ''}{case}.{quantity}"
                _spreads(quantiles, name, rows, misses, wider=case != "known")
                medians[name] = float(np.nanmedian(np.abs(np.expm1(-misses))))
    own = _recorded(catalog, known, quantiles, medians)
    return {"serving.toml": _toml(replace(known, own=own), quantiles, medians, len(points), date)}


def _recorded(
    catalog: Catalog, known: Calibration, quantiles: dict[str, tuple[float, float]], medians: dict[str, float]
) -> dict[str, dict[str, float]]:
    """Fit the deviations of each recorded service; its misses with them tell how far requests scatter, those without how far a stranger's do."""
    own: dict[str, dict[str, float]] = {}
    found = {"own": [], "request": []}  # type: dict[str, list[tuple[np.ndarray, np.ndarray]]]
    for recorded in requests.load(next(f / RECORDED for f in reversed(catalog.folders) if (f / RECORDED).is_file()), catalog):
        shared = shared_constants(recorded, known)
        mine = own[recorded.labels["cell"]] = requests.own_deviations(recorded, shared, catalog)
        found["own"].append(misses(recorded, requests.moved(shared, mine), catalog))
        found["request"].append(misses(recorded, shared, catalog))
    for case, both in found.items():
        for q, quantity in enumerate(QUANTITIES):
            all_of = np.concatenate([m[q] for m in both])
            quantiles[f"{case}.{quantity}."] = spread_of(all_of, np.repeat(np.arange(len(both)), [len(m[q]) for m in both]).astype(str).tolist(), wider=False)
            medians[f"{case}.{quantity}"] = float(np.median(np.abs(np.expm1(-all_of))))
    return own


def _spreads(into: dict[str, tuple[float, float]], name: str, rows: list[Point], misses: np.ndarray, *, wider: bool) -> None:
    """Write the quantiles of all engines, and of each that has 30 rows."""
    fine = [i for i in range(len(rows)) if math.isfinite(misses[i])]
    for engine in ("", *sorted({p.engine.id for p in rows})):
        mine = [i for i in fine if engine in ("", rows[i].engine.id)]
        if not engine or len(mine) >= 30:
            into[f"{name}.{engine}"] = spread_of(misses[mine], [cell(rows[i]) for i in mine], wider=wider)


def _toml(c: Calibration, quantiles: dict[str, tuple[float, float]], medians: dict[str, float], rows: int, date: str) -> str:
    lines = ["# Written by `chipscale calibrate serving`; coefficients are logarithms, quantiles those of log(measured / predicted).", f'date = "{date}"', f"rows = {rows}",
             "cells = [", *(f'  "{n}",' for n in sorted(c.cells)), "]", "", "[quantiles]"]  # fmt: skip
    lines += [f'"{n}" = [{low:.4f}, {high:.4f}]' for n, (low, high) in quantiles.items()]
    lines += ["", "# medians of |predicted / measured - 1|", "[scores]", *(f'"{n}" = {v:.4f}' for n, v in medians.items())]
    for name, mine in sorted(c.own.items()):
        lines += ["", f'[own."{name}"]', *(f"{n} = {v:.5f}" for n, v in mine.items())]
    lines += ["", "[coefficients]", *(f'"{n}" = {v:.5f}' for n, v in c.coefficients.items())]
    return "\n".join(lines) + "\n"
