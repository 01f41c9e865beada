"""The measured tier: bend a prediction to what the nearest calls of the same kernel on the same chip measured."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from chipscale.cost.kernels.form import Form
from chipscale.operators.fit import Table
from chipscale.operators.reading import MOST

#: nearest measured calls that count, and the distance (in doublings of shape) beyond which they say nothing
NEIGHBOURS = 4
REACH = 2.0
#: what a doubling of a number of the call counts that the form's coordinates leave out: enough to tell two calls of one place apart
SLIGHT = 0.05


def corrected(form: Form, table: Table, seconds: np.ndarray, corpus: Table, predicted: np.ndarray) -> np.ndarray:
    """Multiply predictions by the misses of the nearest measured calls of the same cell, weighed by distance; a call never meets itself.

    t = t_form exp(sum w_i ln(measured_i / form_i) / sum w_i), w_i = 1 / (0.1 + distance) within reach.

    Holds when neighbours in shape run the same kernel.
    Source: shepard-1968, section 3 (inverse distance weights).
    """
    from scipy.spatial import cKDTree

    ours, theirs = _places(form, table), _places(form, corpus)
    miss = np.log(corpus.seconds) - np.log(predicted)
    out = seconds.copy()
    cells: dict[str, list[int]] = {}
    for i, t in enumerate(corpus.tags):
        cells.setdefault(t.member("cell") + t.engine, []).append(i)
    asked: dict[str, list[int]] = {}
    for i, t in enumerate(table.tags):
        asked.setdefault(t.member("cell") + t.engine, []).append(i)
    for cell, rows in asked.items():
        known = np.array(cells.get(cell, ()), dtype=np.int64)
        if not len(known):
            continue
        here = np.array(rows)
        distance, place = cKDTree(theirs[known]).query(ours[here], k=NEIGHBOURS + 1, distance_upper_bound=REACH)
        usable = np.isfinite(distance) & (distance > 1e-9)
        weight = np.where(usable, 1.0 / (0.1 + np.where(usable, distance, 1.0)), 0.0)
        values = np.where(usable, miss[known[np.minimum(place, len(known) - 1)]], 0.0)
        out[here] = seconds[here] * np.exp((weight * values).sum(axis=1) / np.maximum(weight.sum(axis=1), 1e-9))
    return np.asarray(np.maximum(out, form.floor(table.call, table.silicon)))


def _places(form: Form, table: Table) -> np.ndarray:
    numbers = [SLIGHT * np.log2(1.0 + np.minimum(getattr(table.call, f.name), MOST)) for f in fields(table.call)]
    places = [*form.coordinates(table.call, table.silicon), *numbers]
    return np.stack([np.broadcast_to(np.asarray(c, dtype=float), (len(table),)) for c in places], axis=1)
