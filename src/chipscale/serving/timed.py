"""Predicted against measured, request by request of recorded loads."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from chipscale.border import inside
from chipscale.catalog import Catalog
from chipscale.scores import ScoredRow, assembled
from chipscale.serving.calibration import Calibration, one, read
from chipscale.serving.constants import Constants
from chipscale.serving.fit import members
from chipscale.serving.requests import Recorded, Replay, load, moved
from chipscale.serving.validate import GROUPS, QUANTITIES, Served

SHIPPED = "measurements/serving/requests_vllm.csv"
NOTES = ("each request is played again on a simulated server under the recorded arrivals; waiting amplifies what a step is wrong by",
         "request timings: LLMServingSim (casys-kaist), named row by row in the column source")  # fmt: skip


def shared_constants(recorded: Recorded, calibration: Calibration) -> Constants:
    """Return the constants of a recorded service without deviations of its own."""
    return one(calibration.constants([members(recorded.engine.id, recorded.version, recorded.model.id, recorded.on, "")]))


def timed(path: Path, *, leave_out: bool, catalog: Catalog) -> Served:
    """Compare predicted with measured times of single requests: with the deviations of each service, or without where it is left out.

    Errors: a file that cannot be read, a missing column, a number that is none, a row that stands twice, an unknown chip, model or engine.
    """
    with inside(path):
        found = load(path, catalog)
    calibration = read(catalog)
    rows: dict[str, list[ScoredRow]] = {q: [] for q in QUANTITIES}
    for recorded in found:
        own = {} if leave_out else calibration.own.get(recorded.labels["cell"], {})
        both = Replay(recorded, catalog).times(moved(shared_constants(recorded, calibration), own))
        for quantity, predicted in zip(QUANTITIES, both, strict=True):
            low, high = calibration.quantile("own" if own else "request", quantity, recorded.engine.id)
            rows[quantity] += [
                _row(recorded, i, float(getattr(recorded, quantity)[i]), float(predicted[i]), low, high) for i in range(len(predicted))
            ]
    title = "serving, single requests" + (", each service left out" if leave_out else ", fitted")
    notes = (*NOTES, *(n for r in found for n in r.notes))
    ttft, tpot = (assembled(f"{title}: {q.upper()}", rows[q], GROUPS, notes) for q in QUANTITIES)
    return Served(title=title, ttft=ttft, tpot=tpot)


def misses(recorded: Recorded, k: Constants, catalog: Catalog) -> tuple[np.ndarray, np.ndarray]:
    """Return log(measured / predicted) of both quantities, request by request."""
    ttft, tpot = Replay(recorded, catalog).times(k)
    return np.log(recorded.ttft / ttft), np.log(recorded.tpot / tpot)


def _row(recorded: Recorded, i: int, measured: float, predicted: float, low: float, high: float) -> ScoredRow:
    return ScoredRow(row=recorded.keys[i], measured_s=measured, predicted_s=predicted, low_s=predicted * math.exp(low), high_s=predicted * math.exp(high),
                     error=predicted / measured - 1.0, labels=recorded.labels)  # fmt: skip
