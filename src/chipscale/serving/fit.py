"""Fit: constants of serving as weighted sums of coefficients in logs, least squares over points."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from chipscale.serving.constants import Constants
from chipscale.serving.deployment import Deployment
from chipscale.serving.predict import Stack, predicted
from chipscale.serving.rows import Point

NAMES = tuple(f.name for f in fields(Constants))
#: relative step of finite differences, in logs
SLIP = 0.03
#: errors beyond this many times the noise count linearly
ROBUST = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A kind of group whose members deviate from what all share in some constants, by `spread` in logs."""

    name: str
    constants: tuple[str, ...]
    spread: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """Centre and spread of each constant in logs, the levels of deviations, noise of both quantities, and how much rows of a cell repeat each other."""

    centre: Mapping[str, float]
    spread: Mapping[str, float]
    levels: tuple[Level, ...]
    noise_ttft: float
    noise_tpot: float
    within_cell: float


def read_prior(text: str) -> Prior:
    """Read data/calibration/serving.prior.toml."""
    t = tomllib.loads(text)
    return Prior(
        centre={n: float(np.log(t["constant"][n]["centre"])) for n in NAMES},
        spread={n: float(t["constant"][n]["spread"]) for n in NAMES},
        levels=tuple(Level(name=e["name"], constants=tuple(e["constants"]), spread=float(e["spread"])) for e in t["level"]),
        noise_ttft=float(t["noise_ttft"]),
        noise_tpot=float(t["noise_tpot"]),
        within_cell=float(t["within_cell"]),
    )


def members(engine: str, version: str, model: str, on: Deployment, harness: str) -> Mapping[str, str]:
    """Return whom a service belongs to on each level."""
    return {
        "engine": engine,
        "version": f"{engine} {version}",
        "model": model,
        "format": f"{engine} {on.dense.id} {on.experts.id}",
        "harness": f"{engine} {harness}",
    }


def members_of(point: Point) -> Mapping[str, str]:
    """Return whom a point belongs to on each level."""
    harness = point.protocol.id if point.protocol else ""
    return members(point.engine.id, point.version, point.model.id, point.on, harness)


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """Coefficients by name ("step", "step.engine.vllm"), the constant that each belongs to, and which rows it counts in, shape (rows, coefficients)."""

    names: tuple[str, ...]
    constant: np.ndarray
    counts: np.ndarray
    centre: np.ndarray
    spread: np.ndarray

    def constants(self, theta: np.ndarray) -> Constants:
        """Return the constants of all rows.

        k = exp(sum of its coefficients that count).

        Holds when deviations multiply.
        Source: gelman-2013, section 15.1 (hierarchical linear models).
        """
        return Constants(**{n: np.exp(self.counts[:, self.constant == i] @ theta[self.constant == i]) for i, n in enumerate(NAMES)})


def design(groups: Sequence[Mapping[str, str]], prior: Prior, known: Mapping[str, float] | None = None) -> Design:
    """Lay out coefficients for rows of these members; with `known` only coefficients of that name, so that strangers do not deviate."""
    names, constant, columns, centre, spread = [], [], [], [], []

    def add(name: str, of: str, column: np.ndarray, middle: float, width: float) -> None:
        if known is None or name in known:
            names.append(name)
            constant.append(NAMES.index(of))
            columns.append(column)
            centre.append(middle)
            spread.append(width)

    for n in NAMES:
        add(n, n, np.ones(len(groups)), prior.centre[n], prior.spread[n])
    for level in prior.levels:
        mine = np.array([g[level.name] for g in groups])
        for member in sorted(set(mine.tolist())):
            for n in level.constants:
                add(f"{n}.{level.name}.{member}", n, (mine == member).astype(float), 0.0, level.spread)
    return Design(names=tuple(names), constant=np.array(constant), counts=np.stack(columns, axis=1), centre=np.array(centre), spread=np.array(spread))


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Points of one pool as a least-squares problem: logs of measured seconds (NaN where not stated), `weight` of each row."""

    stacks: tuple[Stack, ...]
    design: Design
    ttft: np.ndarray
    tpot: np.ndarray
    weight: np.ndarray
    prior: Prior

    def misses(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return log(predicted / measured) of both quantities, 0 where not measured."""
        ttft, tpot = predicted(self.stacks, self.design.constants(theta), len(self.ttft))
        return np.nan_to_num(np.log(ttft) - self.ttft), np.nan_to_num(np.log(tpot) - self.tpot)

    def loss(self, theta: np.ndarray) -> float:
        """Return twice the negative log posterior, up to a constant: soft-L1 in misses over noise, squares in coefficients over spread."""
        total = 0.0
        for miss, noise in zip(self.misses(theta), (self.prior.noise_ttft, self.prior.noise_tpot), strict=True):
            total += float(np.sum(self.weight * 2.0 * ROBUST**2 * (np.sqrt(1.0 + (miss / noise / ROBUST) ** 2) - 1.0)))
        return total + float(np.sum(((theta - self.design.centre) / self.design.spread) ** 2))

    def slopes(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return how both logs change with each constant, shape (rows, constants)."""
        base, slopes = self.design.constants(theta), []
        start = predicted(self.stacks, base, len(self.ttft))
        for i in range(len(NAMES)):
            moved = Constants(**{n: getattr(base, n) * (np.exp(SLIP) if i == j else 1.0) for j, n in enumerate(NAMES)})
            slopes.append([np.nan_to_num(np.log(a / b) / SLIP) for a, b in zip(predicted(self.stacks, moved, len(self.ttft)), start, strict=True)])
        both = np.array(slopes)
        return both[:, 0].T, both[:, 1].T

    def step(self, theta: np.ndarray, misses: tuple[np.ndarray, np.ndarray], slopes: tuple[np.ndarray, np.ndarray], weight: np.ndarray) -> np.ndarray:
        """Return the Gauss-Newton step at `theta` with rows weighed anew.

        (J' W J + S^-2) step = J' W misses + S^-2 (theta - centre);  J by the chain rule from each constant to its coefficients.

        Holds when misses are nearly linear in logs of the constants.
        Source: gelman-2013, section 13.3 (posterior mode by Newton's method).
        """
        d = self.design
        left, right = np.diag(d.spread**-2.0), (theta - d.centre) / d.spread**2
        for miss, slope, noise in zip(misses, slopes, (self.prior.noise_ttft, self.prior.noise_tpot), strict=True):
            jacobian = d.counts * slope[:, d.constant]
            counted = weight / np.sqrt(1.0 + (miss / noise / ROBUST) ** 2) / noise**2
            left = left + jacobian.T @ (jacobian * counted[:, None])
            right = right + jacobian.T @ (counted * miss)
        return np.linalg.solve(left, right)


def problem(points: Sequence[Point], stacks: Sequence[Stack], prior: Prior) -> Problem:
    """Set up the fit of points; rows of a cell share out their weight."""
    cells = [p.labels["cell"] for p in points]
    count = np.array([cells.count(c) for c in cells], dtype=float)
    return Problem(
        stacks=tuple(stacks),
        design=design([members_of(p) for p in points], prior),
        ttft=np.log([p.ttft for p in points]),
        tpot=np.log([p.tpot for p in points]),
        weight=1.0 / (1.0 + prior.within_cell * (count - 1.0)),
        prior=prior,
    )


def fit(p: Problem, start: np.ndarray | None = None, rounds: int = 10) -> np.ndarray:
    """Return the coefficients of least loss: Gauss-Newton, steps halved until they help."""
    theta = p.design.centre.copy() if start is None else start
    best = p.loss(theta)
    for _ in range(rounds):
        step, share = p.step(theta, p.misses(theta), p.slopes(theta), p.weight), 1.0
        while share > 0.05 and (found := p.loss(theta - share * step)) >= best:
            share /= 2.0
        if share <= 0.05:
            break
        theta, gain, best = theta - share * step, best - found, found
        if gain < 1e-3 * best:
            break
    return theta


def without(p: Problem, theta: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Return the coefficients as fitted to the rows outside `out` alone: two steps from the fit of all."""
    weight = np.where(out, 0.0, p.weight)
    for _ in range(2):
        theta = theta - p.step(theta, p.misses(theta), p.slopes(theta), weight)
    return theta
