"""Calibration of the forms: fit the shipped rows, learn how wrong that is on what was left out, write and read data/calibration/operators."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from chipscale.catalog import Catalog
from chipscale.cost.kernels.costing import SIZES, Coefficients, Tags, size_class
from chipscale.cost.kernels.form import Form
from chipscale.operators.context import pairs_of, written
from chipscale.operators.corpus import Sample, held_out, load, shipped, tables
from chipscale.operators.fit import Prior, Table, fit, predict
from chipscale.operators.reading import read_prior

#: what is unknown of a call, from nothing to a chip that nobody measured; each has its own errors
CASES = ("known", "points", "engine", "chip")
#: random rows in five parts: how wrong a known cell is between its measured points
PARTS = 5
POINTS = 12
#: coefficients closer to 0 than this are not written: 0.05 % of a time
SMALL = 5e-4
Quantiles = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A form's coefficients, the chips and cells that entered, and quantiles of left-out log misses by case and size class."""

    form: str
    found: Coefficients
    chips: frozenset[str]
    cells: frozenset[str]
    quantiles: Mapping[str, Quantiles]
    scores: Mapping[str, float]
    rows: int
    date: str

    def case(self, tags: Tags) -> str:
        """Return which errors a call of these tags deserves; "precision" is one that was not measured on a chip that was."""
        if tags.chip not in self.chips:
            return "chip"
        if (tags.chip, tags.precision) not in _measured(self.cells):
            return "precision"
        return "known" if tags.member("cell") in self.cells else "engine"

    def interval(self, case: str) -> Quantiles:
        """Return the quantiles of a case; nobody left out a precision, so that it takes the wider ends of an unseen engine and an unseen chip."""
        if case != "precision":
            return self.quantiles[case]
        pairs = zip(self.quantiles["engine"], self.quantiles["chip"], strict=True)
        return tuple((min(a[0], b[0]), max(a[1], b[1])) for a, b in pairs)


@lru_cache
def _measured(cells: frozenset[str]) -> frozenset[tuple[str, str]]:
    """Return chip and precision of every cell."""
    return frozenset((c.partition("|")[0], c.rpartition(":")[2]) for c in cells)


def usable(samples: Sequence[Sample], catalog: Catalog) -> list[Sample]:
    """Return the samples that a fit may see: understood, with no reason to stand apart, and of no chip that is held out for tests."""
    held, ids = held_out(catalog, "operators"), catalog.aliases()
    return [s for s in samples if s.reading and not s.apart and ids.get(s.row["chip"].lower()) not in held]


def sane(form: Form, table: Table) -> np.ndarray:
    """Say which rows are not faster than the roofline allows, 3 % of slack for clocks above the datasheet's."""
    floor = np.broadcast_to(form.floor(table.call, table.silicon), (len(table),))
    return np.asarray(table.seconds >= 0.97 * floor)


def few_groups(groups: int) -> float:
    """Return by how much an interval learnt from few groups is too narrow for one more.

    sqrt((1 + k^2) / 2), k = (t_0.9 of G - 1 degrees / z_0.9) sqrt(1 + 1 / G): Student's factor on the half of the variance between groups.

    Holds when about half of the variance of log errors lies between groups (chips, engines).
    Source: gelman-2013, section 5.4 (prediction for a new group).
    """
    from scipy.stats import norm, t

    k = float(t.ppf(0.9, max(groups - 1, 1)) / norm.ppf(0.9)) * math.sqrt(1.0 + 1.0 / groups)
    return math.sqrt((1.0 + k * k) / 2.0)


def spread_of(misses: np.ndarray, seconds: np.ndarray, groups: Sequence[str], wider: bool = False) -> Quantiles:
    """Return the 10 % and 90 % quantiles of log(measured / predicted) by size class; a group of n rows weighs as sqrt(n).

    A class with under 30 rows takes those of all. `wider` is for a group that is not among these.
    """
    _, member, count = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    weight = count[member] ** -0.5
    factor = few_groups(len(count)) if wider else 1.0
    classes = size_class(seconds)
    out = []
    for c in range(len(SIZES) + 1):
        chosen = classes == c
        if chosen.sum() < 30:
            chosen = np.ones(len(misses), dtype=bool)
        low, middle, high = (
            np.quantile(misses[chosen], [0.1, 0.5, 0.9], weights=weight[chosen], method="inverted_cdf") if len(misses) else (-0.5, 0.0, 0.5)
        )
        low, high = middle + factor * (low - middle), middle + factor * (high - middle)
        out.append((float(min(low, -0.01)), float(max(high, 0.01))))
    return tuple(out)


def without(form: Form, table: Table, prior: Prior, part: Sequence[str]) -> np.ndarray:
    """Predict every row by a fit that saw no row of its part."""
    parts = np.asarray(part)
    seconds = np.full(len(table), np.nan)
    for value in np.unique(parts):
        inside, outside = np.where(parts == value)[0], np.where(parts != value)[0]
        if len(outside):
            seconds[inside] = predict(form, table.take(inside), fit(form, table.take(outside), prior))
    return seconds


def after_points(
    form: Form, table: Table, prior: Prior, points: int, seed: int, more: Table | None = None, judged: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Show `points` random rows of each cell (with those of `more`), predict the others; NaN where a row was shown.

    At most half of a cell is shown, and of rows that `judged` does not name none.
    """
    rng = np.random.default_rng(seed)
    cells = np.array([f"{t.chip}|{t.kernel}|{t.engine}" for t in table.tags])
    open_ones = np.ones(len(table), dtype=bool) if judged is None else judged
    shown = np.zeros(len(table), dtype=bool)
    for cell in np.unique(cells):
        where = np.where((cells == cell) & open_ones)[0]
        shown[rng.permutation(where)[: min(points, len(where) // 2)]] = True
    seconds = np.full(len(table), np.nan)
    hidden, known = np.where(~shown)[0], table.take(np.where(shown)[0])
    if more is not None:
        known = known.joined(more)
    if len(known) and len(hidden):
        seconds[hidden] = predict(form, table.take(hidden), fit(form, known, prior))
    return seconds, shown


def parts_of(table: Table, seed: int = 0) -> list[str]:
    """Deal rows into random parts."""
    return [str(i) for i in np.random.default_rng(seed).integers(0, PARTS, len(table))]


def calibrated(form: Form, table: Table, prior: Prior, date: str) -> Calibration:
    """Fit a form and measure its errors by case."""
    log = np.log(table.seconds)
    chips, engines = [t.chip for t in table.tags], [t.engine for t in table.tags]
    left = {
        "known": (without(form, table, prior, parts_of(table)), [t.member("cell") for t in table.tags]),
        "points": (after_points(form, table, prior, POINTS, 0)[0], [t.member("cell") for t in table.tags]),
        "engine": (without(form, table, prior, engines), engines),
        "chip": (without(form, table, prior, chips), chips),
    }
    quantiles: dict[str, Quantiles] = {}
    scores: dict[str, float] = {}
    for case, (seconds, groups) in left.items():
        ok = np.isfinite(seconds)
        if not ok.any():
            quantiles[case] = quantiles["points"]
            continue
        quantiles[case] = spread_of((log - np.log(seconds))[ok], seconds[ok], [g for g, use in zip(groups, ok, strict=True) if use],
                                    wider=case in ("engine", "chip"))  # fmt: skip
        scores[case] = float(np.median(np.abs(seconds[ok] / table.seconds[ok] - 1.0)))
    return Calibration(form=form.id, found=fit(form, table, prior), chips=frozenset(chips), cells=frozenset(t.member("cell") for t in table.tags), quantiles=quantiles,
                       scores=scores, rows=len(table), date=date)  # fmt: skip


def calibrate(catalog: Catalog, date: str) -> dict[str, str]:
    """Fit all forms to the shipped rows; return the files' text by name."""
    samples = usable(load(shipped(catalog), catalog), catalog)
    files = {"context.toml": written(pairs_of(samples, catalog))}
    for form, _, table in tables(samples, catalog).values():
        kept = table.take(np.where(sane(form, table))[0])
        files |= _texts(calibrated(form, kept, read_prior(catalog, form.id), date))
    return files


def _texts(c: Calibration) -> dict[str, str]:
    def listed(values: frozenset[str]) -> str:
        return "[\n" + "".join(f'  "{v}",\n' for v in sorted(values)) + "]"

    head = [f"# Written by `chipscale calibrate operators` from the {c.rows} rows of data/measurements/operators that nothing sets apart.", f'date = "{c.date}"',
            f"rows = {c.rows}", f"chips = {listed(c.chips)}", f"cells = {listed(c.cells)}", "", "[scores]",
            *(f"{k} = {v:.4f}" for k, v in c.scores.items()), "", "[quantiles]"]  # fmt: skip
    head += [f"{case} = [{', '.join(f'[{low:.3f}, {high:.3f}]' for low, high in q)}]" for case, q in c.quantiles.items()]
    rows = [f"{name},{value:.4f}" for name, value in c.found.values.items() if abs(value) >= SMALL or "." not in name or ".own." in name]
    return {f"{c.form}.toml": "\n".join(head) + "\n", f"{c.form}.coefficients.csv": "\n".join(rows) + "\n"}


def read(catalog: Catalog, form: str) -> Calibration:
    """Return a form's calibration, read once for each catalogue."""
    if ("operators", form) not in catalog.memo:
        catalog.memo["operators", form] = _read(catalog, form)
    found: Calibration = catalog.memo["operators", form]
    return found


def _read(catalog: Catalog, form: str) -> Calibration:
    t = tomllib.loads(catalog.text(f"calibration/operators/{form}.toml"))
    pairs = (line.rpartition(",") for line in catalog.text(f"calibration/operators/{form}.coefficients.csv").splitlines())
    return Calibration(
        form=form,
        found=Coefficients(form=form, values={name: float(value) for name, _, value in pairs}),
        chips=frozenset(t["chips"]),
        cells=frozenset(t["cells"]),
        quantiles={case: tuple((float(a), float(b)) for a, b in q) for case, q in t["quantiles"].items()},
        scores={k: float(v) for k, v in t["scores"].items()},
        rows=int(t["rows"]),
        date=str(t["date"]),
    )
