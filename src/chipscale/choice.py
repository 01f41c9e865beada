"""Choice: how strongly people choose the faster setting, from the rows that state theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from chipscale.rows import Measured
from chipscale.stack import stack

#: chunks a stage that the alternatives of a stated interleave are taken from
CHUNKS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24)
KAPPAS = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 20.0, 24.0, 32.0)


def alternatives(row: Measured) -> Measured:
    """Return the row with a guess for every interleave that its pipeline allows."""
    plan = row.guesses[0].plan
    assert row.model is not None
    stage = -(-row.model.layers // plan.pp)
    chunks = sorted({v for v in CHUNKS if v <= stage} | {plan.vpp})
    guesses = [replace(row.guesses[0], plan=replace(plan, vpp=v)) for v in chunks]
    return replace(row, guesses=tuple(guesses), hardware=row.hardware[:1] * len(chunks), contexts=row.contexts[:1] * len(chunks))


def gains(rows: Sequence[Measured], coefficients: Mapping[str, float]) -> dict[float, float]:
    """Return for each kappa how much likelier the stated interleaves are than by chance: mean log ratio, each source weighing the same.

    A setting of t seconds is chosen with probability t^-kappa / sum t^-kappa.

    Holds when the rows state the interleave of a pipeline.
    Source: mcfadden-1974, section II (multinomial logit).
    """
    stated = [r for r in rows if r.clean and not r.reason and r.guesses[0].plan.pp > 1 and not any("nterleave" in a for a in r.assumed)]
    problem = stack([alternatives(r) for r in stated])
    logs = np.log(problem.step(np.array([coefficients.get(n, 0.0) for n in problem.design.coefficients])).seconds)
    chosen = np.array([r.guesses[0].plan.vpp for r in stated])[problem.row] == problem.degrees.vpp
    sources = np.array([r.labels["source_group"] for r in stated])
    found = {}
    for kappa in KAPPAS:
        weight = np.exp(-kappa * (logs - logs.min()))
        total, count = np.bincount(problem.row, weights=weight), np.bincount(problem.row)
        gain = np.log(np.bincount(problem.row, weights=weight * chosen) / total * count)
        found[kappa] = float(np.mean([gain[sources == s].mean() for s in np.unique(sources)]))
    return found


def likeliest_kappa(rows: Sequence[Measured], coefficients: Mapping[str, float]) -> float:
    """Return the kappa under which the stated interleaves are likeliest."""
    found = gains(rows, coefficients)
    return max(found, key=lambda kappa: found[kappa])
