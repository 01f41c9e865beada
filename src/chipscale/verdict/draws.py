"""Draws: one Sobol column for each thing that is not certain, the same column wherever that thing is met."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from chipscale.cost.calibration import Calibration, Context, Prior, design
from chipscale.cost.constants import Constants
from chipscale.cost.hardware import Hardware
from chipscale.evidence import Fact
from chipscale.facts.chip import Chip
from chipscale.facts.cluster import Cluster
from chipscale.ops.work import Num

#: standard normal at 90 %: facts state 80 % ranges
Z90 = 1.2815515655446004


@dataclass(frozen=True, slots=True)
class Draws:
    """Columns of a scrambled Sobol sequence by name, uniform on (0, 1).

    Columns are dealt in the order of their sorted names, so that swapping two chips changes no draw.
    """

    columns: dict[str, np.ndarray]

    def normal(self, name: str) -> np.ndarray:
        """Return a column as standard normal values."""
        from scipy.special import ndtri

        return np.asarray(ndtri(self.columns[name]))

    def between(self, name: str, value: float, low: float, high: float) -> np.ndarray:
        """Draw a positive quantity: log-normal, split at the value, with the range as 80 % interval, cut at two standard deviations."""
        z = np.clip(self.normal(name), -2.0, 2.0) / Z90
        up, down = math.log(high / value), math.log(value / max(low, value * 1e-3))
        drawn: np.ndarray = value * np.exp(np.where(z > 0, z * up, z * down))
        return drawn

    def of(self, fact: Fact, name: str) -> np.ndarray:
        """Draw a fact's value in its stated range."""
        return self.between(name, fact.value, fact.low, fact.high)


def deal(names: Iterable[str], count: int, seed: int) -> Draws:
    """Deal `count` Sobol draws over these names."""
    from scipy.stats import qmc

    ordered = sorted(set(names))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        points = qmc.Sobol(d=len(ordered), scramble=True, rng=np.random.default_rng(seed)).random(count)
    points = np.clip(points, 1e-6, 1.0 - 1e-6)
    return Draws({name: points[:, i] for i, name in enumerate(ordered)})


QUANTITIES = ("peak", "memory_bandwidth", "memory_bytes", "power", "inner", "outer")


def hardware_draws(base: Hardware, chip: Chip, cluster: Cluster, key: str, draws: Draws) -> Hardware:
    """Return hardware whose uncertain numbers are arrays over the draws; all peaks of a chip move together."""
    from dataclasses import replace

    def factor(quantity: str, fact: Fact) -> np.ndarray:
        return draws.of(fact, f"{key}:{quantity}") / fact.value

    peak = next(p for p in ("peak_bf16", "peak_fp16") if chip.has(p))
    compute = factor("peak", chip.fact(peak))
    changed: dict[str, Num] = {
        "peak": base.peak * compute, "peak16": base.peak16 * compute,
        "memory_bandwidth": base.memory_bandwidth * factor("memory_bandwidth", chip.fact("memory_bandwidth")),
        "memory_bytes": base.memory_bytes * factor("memory_bytes", chip.fact("memory_bytes")),
        "inner_bandwidth": base.inner_bandwidth * factor("inner", cluster.tiers[0].bandwidth),
        "outer_bandwidth": base.outer_bandwidth * factor("outer", cluster.tiers[-1].bandwidth),
    }  # fmt: skip
    if chip.has("power"):
        changed["power"] = base.power * factor("power", chip.fact("power"))
    return replace(base, **changed)


@dataclass(frozen=True, slots=True)
class Theta:
    """Coefficients as drawn from what the fit left open: one row a draw."""

    names: tuple[str, ...]
    centre: np.ndarray
    rows: np.ndarray

    def constants(self, context: Context, nominal: bool) -> Constants:
        """Return a context's constants, floats at the centre or arrays over the draws."""
        d = design([context], self.names)
        values: dict[str, Num] = {}
        for name, matrix in d.matrices.items():
            values[name] = float(np.exp(matrix[0] @ self.centre)) if nominal else np.exp(self.rows @ matrix[0])
        return Constants(**values)


def theta_names(contexts: Iterable[Context]) -> tuple[str, ...]:
    """List the coefficients that these contexts read."""
    return tuple(n for n in design(list(contexts)).coefficients if not n.startswith("scale.source."))


def theta_draws(names: tuple[str, ...], calibration: Calibration, prior: Prior, draws: Draws) -> Theta:
    """Draw coefficients: fitted ones jointly from their covariance, others from their prior."""
    centre, spread = prior.columns(names)
    column = {n: i for i, n in enumerate(calibration.names)}
    kept = [(i, column[n]) for i, n in enumerate(names) if n in column]
    ours, theirs = [i for i, _ in kept], [j for _, j in kept]
    centre, covariance = centre.copy(), np.diag(spread**2)
    centre[ours] = calibration.theta[theirs]
    covariance[np.ix_(ours, ours)] = calibration.covariance[np.ix_(theirs, theirs)]
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    normals = np.stack([draws.normal(f"theta:{n}") for n in names], axis=1)
    return Theta(names=names, centre=centre, rows=centre + normals @ root.T)
