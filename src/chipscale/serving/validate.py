"""Predicted against measured, serving point by serving point."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from chipscale.border import inside
from chipscale.catalog import Catalog
from chipscale.evidence import EvidenceError
from chipscale.facts.protocol import Protocol
from chipscale.scores import ScoredRow, Validation, assembled
from chipscale.serving.calibration import Calibration, cell_of, one, read
from chipscale.serving.fit import Problem, fit, members, problem, without
from chipscale.serving.predict import Costs, predicted, predicted_apart, stack
from chipscale.serving.rows import Point, Unread, load

SHIPPED = "measurements/serving/points.csv"
GROUPS = ("engine", "mode", "chip", "family", "harness", "cell")
QUANTITIES = ("ttft", "tpot")
#: what may be left out: the fitted points that a point's coefficients must not have seen
LEFT: Mapping[str, Callable[[Point, Point], bool]] = {
    "cell": lambda a, b: cell(a) == cell(b),
    "engine": lambda a, b: a.engine.id == b.engine.id,
    "chip": lambda a, b: a.chip.id == b.chip.id,
    "model-and-chip": lambda a, b: a.model.id == b.model.id or a.chip.id == b.chip.id,
}
NOTES = (
    "rows with a stated doubt are answered and reported apart; TTFT is the mean over requests, the opening burst and the stream interval included",
    "points: aiconfigurator-core 0.12.0 (Apache-2.0), from InferenceX and a sweep of NVIDIA's",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A comparison of serving points: one validation of the time to the first token, one of the time between tokens, over the same rows."""

    title: str
    ttft: Validation
    tpot: Validation


def cell(p: Point) -> str:
    """Name the cell of a point: model, chip and engine."""
    return cell_of(p.model.id, p.chip.id, p.engine.id)


def shipped(catalog: Catalog) -> list[Point]:
    """Return the shipped points that are fitted: one pool, both quantities, no doubt."""
    where = next(f / SHIPPED for f in reversed(catalog.folders) if (f / SHIPPED).is_file())
    found = [p for p in load(where, catalog) if isinstance(p, Point)]
    return [p for p in found if p.clean and p.prefill is None and p.protocol and math.isfinite(p.ttft + p.tpot)]


def fitted(points: Sequence[Point], calibration: Calibration, costs: Costs) -> tuple[Problem, np.ndarray]:
    """Set up the fit of points and settle it, from the shipped coefficients on."""
    protocols = [p.protocol for p in points if p.protocol]
    found = problem(points, stack(points, protocols, costs), calibration.prior)
    start = np.array(
        [calibration.coefficients.get(n, 0.0 if "." in n else middle) for n, middle in zip(found.design.names, found.design.centre, strict=True)]
    )
    return found, fit(found, start)


def logs(points: Sequence[Point], coefficients: Calibration, protocols: Sequence[Protocol], costs: Costs) -> np.ndarray:
    """Return the logs of predicted TTFT and TPOT under these protocols, shape (2, points)."""
    k = coefficients.constants([members(p.engine.id, p.version, p.model.id, p.on, q.id) for p, q in zip(points, protocols, strict=True)])
    found: np.ndarray = np.log(np.array(predicted(stack(points, protocols, costs), k, len(points))))
    for i, (p, q) in enumerate(zip(points, protocols, strict=True)):
        if p.prefill is not None:
            mine = one(coefficients.constants([members(p.engine.id, p.version, p.model.id, p.on, q.id)]))
            found[:, i] = np.log(predicted_apart(p, q, mine, costs))
    return found


def believed(points: Sequence[Point], coefficients: Calibration, catalog: Catalog, costs: Costs, *, hide: bool) -> np.ndarray:
    """Return the logs of predicted TTFT and TPOT, shape (2, points): under each point's protocol, or the mean over those it may have followed, by weight."""
    known = [catalog.protocol(n) for n in catalog.protocols()]
    total = sum(p.weight for p in known)
    found = np.zeros((2, len(points)))
    for protocol in known:
        use = [i for i, p in enumerate(points) if hide or p.protocol is None or p.protocol == protocol]
        if use:
            each = logs([points[i] for i in use], coefficients, [protocol] * len(use), costs)
            share = np.array([protocol.weight / total if hide or points[i].protocol is None else 1.0 for i in use])
            found[:, use] += share * each
    return found


def with_coefficients(calibration: Calibration, names: Sequence[str], theta: np.ndarray) -> Calibration:
    """Return a calibration with other coefficients."""
    return replace(calibration, coefficients=dict(zip(names, theta.tolist(), strict=True)))


def strangers(points: Sequence[Point], left: str, calibration: Calibration, catalog: Catalog, costs: Costs, *, hide: bool) -> np.ndarray:
    """Predict each point from a fit of the shipped points that have nothing of it: `left` says what."""
    known = shipped(catalog)
    found, theta = fitted(known, calibration, costs)
    out = np.full((2, len(points)), np.nan)
    same = LEFT[left]
    done: dict[tuple[bool, ...], np.ndarray] = {}
    for name in sorted({cell(p) for p in points}):
        here = [i for i, p in enumerate(points) if cell(p) == name]
        mask = np.array([same(points[here[0]], k) for k in known])
        key = tuple(mask.tolist())
        if key not in done:
            done[key] = without(found, theta, mask) if mask.any() else theta
        mine = with_coefficients(calibration, found.design.names, done[key])
        out[:, here] = believed([points[i] for i in here], mine, catalog, costs, hide=hide)
    return out


def serving(path: Path | None, *, leave_out: str | None, hide_protocol: bool, calibrate_points: int, catalog: Catalog, seed: int = 0) -> Served:
    """Compare predicted with measured serving points: fitted, with cells, engines, chips or all alike left out, or after a few points of each cell.

    Errors: a file that cannot be read, a missing column, a number that is none, a row that stands twice, an unknown kind of leaving out.
    """
    where = path or next(f / SHIPPED for f in reversed(catalog.folders) if (f / SHIPPED).is_file())
    with inside(where):
        rows = load(where, catalog)
    if leave_out and leave_out not in LEFT:
        raise EvidenceError(f"--leave-out {leave_out}: for serving it is one of {', '.join(LEFT)}")
    calibration, costs = read(catalog), Costs(catalog)
    points = [r for r in rows if isinstance(r, Point)]
    shown: set[str] = set()
    if leave_out:
        found, title = strangers(points, leave_out, calibration, catalog, costs, hide=hide_protocol), f"serving, each {leave_out} left out"
    elif calibrate_points:
        calibration, shown = after_points(points, calibrate_points, calibration, costs, seed)
        rows, points = [r for r in rows if r.key not in shown], [p for p in points if p.key not in shown]
        found, title = (
            believed(points, calibration, catalog, costs, hide=hide_protocol),
            f"serving, {calibrate_points} points of each cell shown first",
        )
    else:
        found, title = believed(points, calibration, catalog, costs, hide=hide_protocol), "serving, fitted"
    where_is = {p.key: i for i, p in enumerate(points)}
    bounds = ends(points, found, calibration, leave_out, hide_protocol)
    title += ", load protocol hidden" if hide_protocol else ""
    both = []
    for q, quantity in enumerate(QUANTITIES):
        scored = [
            _row(r, quantity, *(found[q, where_is[r.key]], *bounds[q, :, where_is[r.key]]) if r.key in where_is else (math.nan,) * 3) for r in rows
        ]
        both.append(assembled(f"{title}: {quantity.upper()}", [s for s in scored if math.isfinite(s.measured_s)], GROUPS, NOTES))
    return Served(title=title, ttft=both[0], tpot=both[1])


def after_points(points: Sequence[Point], count: int, calibration: Calibration, costs: Costs, seed: int) -> tuple[Calibration, set[str]]:
    """Show some random points of each cell to a fit that starts from the prior alone; return it and the keys shown."""
    rng = np.random.default_rng(seed)
    usable = [p for p in points if p.clean and p.prefill is None and p.protocol and math.isfinite(p.ttft + p.tpot)]
    shown: set[str] = set()
    for name in sorted({cell(p) for p in usable}):
        shown |= set(rng.permutation([p.key for p in usable if cell(p) == name])[:count].tolist())
    found, theta = fitted([p for p in usable if p.key in shown], calibration, costs)
    return with_coefficients(calibration, found.design.names, theta), shown


def ends(points: Sequence[Point], found: np.ndarray, calibration: Calibration, leave_out: str | None, hide: bool) -> np.ndarray:
    """Return the logs of the ends of 80 % intervals, shape (2 quantities, 2 ends, points).

    Where something is left out the misses of the other cells tell how wide; else those of the calibration for a service as well known.
    """
    out = np.zeros((2, 2, len(points)))
    cases = [calibration.case(p.model.id, p.chip.id, p.engine.id, split=p.prefill is not None) for p in points]
    for q, quantity in enumerate(QUANTITIES):
        misses = np.log([getattr(p, quantity) for p in points]) - found[q]
        for i, p in enumerate(points):
            case = cases[i] if not leave_out or cases[i] == "split" else "stranger" if leave_out == "model-and-chip" else "cell"
            low, high = calibration.quantile(("hidden-" if hide else "") + case, quantity, p.engine.id)
            if leave_out:
                peers = [
                    j
                    for j, o in enumerate(points)
                    if o.clean and cell(o) != cell(p) and o.engine.id == p.engine.id and (o.prefill is None) == (p.prefill is None)
                ]
                peers = [j for j in peers if math.isfinite(misses[j])]
                if len({cell(points[j]) for j in peers}) >= 3 and len(peers) >= 30:
                    low, high = spread_of(misses[peers], [cell(points[j]) for j in peers], wider=True)
            out[q, :, i] = found[q, i] + low, found[q, i] + high
    return out


def spread_of(misses: np.ndarray, cells: Sequence[str], *, wider: bool) -> tuple[float, float]:
    """Return the 10 % and 90 % quantiles of misses; a cell of n rows weighs as sqrt(n), since another cell is one more draw of a group.

    wider: ends move from the median by t_0.9(cells - 1) / z_0.9, since few cells tell little of how far the next one lies.

    Holds when cells err independently.
    Source: gelman-2013, section 5.4 (prediction for one more of a group).
    """
    from scipy.stats import norm, t

    _, member, count = np.unique(np.asarray(cells), return_inverse=True, return_counts=True)
    low, middle, high = np.quantile(misses, [0.1, 0.5, 0.9], weights=count[member] ** -0.5, method="inverted_cdf")
    factor = float(t.ppf(0.9, max(len(count) - 1, 1)) / norm.ppf(0.9)) if wider else 1.0
    low, high = middle + factor * (low - middle), middle + factor * (high - middle)
    return float(min(low, -0.02)), float(max(high, 0.02))


def _row(r: Point | Unread, quantity: str, log: float, low: float, high: float) -> ScoredRow:
    measured, seconds = getattr(r, quantity), math.exp(log)
    return ScoredRow(row=r.key, measured_s=measured, predicted_s=seconds, low_s=math.exp(low), high_s=math.exp(high), error=seconds / measured - 1.0, labels=r.labels,
                     reason=r.reason if isinstance(r, Unread) else "", clean=r.clean)  # fmt: skip
