"""Fit: robust least squares in log time, with priors on every coefficient."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from chipscale.cost.calibration import NAMES, Prior
from chipscale.cost.constants import Constants
from chipscale.cost.roofline import READ
from chipscale.rows import Measured
from chipscale.simulators.closed_form import simulate
from chipscale.stack import KAPPA, Stack, stack

#: prefix of the coefficient that one source has for itself
SOURCE = "scale.source."


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Coefficients, in the logarithm unless the prior says linear, with their covariance."""

    names: tuple[str, ...]
    theta: np.ndarray
    covariance: np.ndarray

    @property
    def sources(self) -> frozenset[str]:
        """The sources that entered."""
        return frozenset(n.removeprefix(SOURCE) for n in self.names if n.startswith(SOURCE))

    def without(self, prefix: str) -> Mapping[str, float]:
        """Return the coefficients by name, those that start with `prefix` left out."""
        return {n: float(t) for n, t in zip(self.names, self.theta, strict=True) if not n.startswith(prefix)}


def row_noise(rows: Sequence[Measured], prior: Prior) -> np.ndarray:
    """Return the log-scale noise of each row."""
    return np.array([prior.noise_of(r.labels.get("architecture", ""), r.contexts[0].vendor) for r in rows])


def gradient(problem: Stack, theta: np.ndarray) -> np.ndarray:
    """Return d log seconds / d theta by row: finite differences over the constants, exact from there on."""
    k = problem.design.constants(theta)
    still = problem.times(k)
    base = np.log(simulate(still, problem.sizes, problem.degrees, problem.hardware, k).seconds)
    total = np.zeros((len(problem.row), len(theta)))
    step = 1e-4
    for name in NAMES:
        matrix = problem.design.matrices[name]
        if not matrix.any():
            continue
        moved: Constants = replace(k, **{name: getattr(k, name) * math.exp(step)})
        t = problem.times(moved) if name in READ else still
        slope = (np.log(simulate(t, problem.sizes, problem.degrees, problem.hardware, moved).seconds) - base) / step
        total += slope[:, None] * matrix
    likely = problem.likely(base)
    mean = np.bincount(problem.row, weights=likely * base, minlength=len(problem.log_measured))
    weight = likely * (1.0 - KAPPA * (base - mean[problem.row]))
    out = np.zeros((len(problem.log_measured), len(theta)))
    np.add.at(out, problem.row, weight[:, None] * total)
    return out


def fit(rows: Sequence[Measured], prior: Prior, start: Mapping[str, float] | None = None) -> Fit:
    """Fit all coefficients to `rows` by soft-L1 least squares in log time."""
    from scipy.optimize import least_squares

    problem = stack(rows)
    names = problem.design.coefficients
    centre, spread = prior.columns(names)
    noise = 1.2 * row_noise(rows, prior)

    def residuals(theta: np.ndarray) -> np.ndarray:
        misses = (problem.log_seconds(theta) - problem.log_measured) / noise
        robust = np.sign(misses) * np.sqrt(2.0 * (np.sqrt(1.0 + misses**2) - 1.0))
        return np.concatenate([robust, (theta - centre) / spread])

    def jacobian(theta: np.ndarray) -> np.ndarray:
        misses = (problem.log_seconds(theta) - problem.log_measured) / noise
        root = np.sqrt(1.0 + misses**2)
        slope = np.where(np.abs(misses) < 1e-6, 1.0, np.abs(misses) / root / np.sqrt(np.maximum(2.0 * (root - 1.0), 1e-30)))
        return np.concatenate([gradient(problem, theta) / noise[:, None] * slope[:, None], np.diag(1.0 / spread)])

    first = centre if start is None else np.array([start.get(n, c) for n, c in zip(names, centre, strict=True)])
    found = least_squares(residuals, first, jac=jacobian, method="trf", max_nfev=60, ftol=1e-6, xtol=1e-6)
    weight = jacobian(found.x)
    return Fit(names=names, theta=found.x, covariance=np.linalg.inv(weight.T @ weight))


def predict(problem: Stack, theta: np.ndarray) -> np.ndarray:
    """Return log seconds of every guess."""
    return np.log(problem.step(theta).seconds)
