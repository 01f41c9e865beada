"""Fit a form: robust least squares in log time over coefficients by level, each with a prior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from chipscale.cost.kernels.costing import LEVELS, Coefficients, Tags, base_of, corners, costing, names_of
from chipscale.cost.kernels.form import Form, Silicon, hats

#: a row misses by m noises: its weight falls as (1 + m^2)^(2 TAIL), as with Cauchy errors
TAIL = -0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Calls of one form with their chips' numbers, tags and measured seconds; arrays are over rows."""

    call: Any
    silicon: Silicon
    tags: Sequence[Tags]
    seconds: np.ndarray

    def __len__(self) -> int:
        return len(self.seconds)

    def take(self, rows: np.ndarray) -> Table:
        """Return the table of these rows."""
        return Table(call=_taken(self.call, rows), silicon=_taken(self.silicon, rows), tags=[self.tags[i] for i in rows], seconds=self.seconds[rows])

    def joined(self, other: Table) -> Table:
        """Return both tables as one."""
        return Table(call=_stacked(self.call, other.call), silicon=_stacked(self.silicon, other.silicon), tags=[*self.tags, *other.tags],
                     seconds=np.concatenate([self.seconds, other.seconds]))  # fmt: skip


def _taken(noun: Any, rows: np.ndarray) -> Any:
    return replace(noun, **{f.name: np.asarray(getattr(noun, f.name))[rows] for f in fields(noun)})


def _stacked(a: Any, b: Any) -> Any:
    return replace(a, **{f.name: np.concatenate([getattr(a, f.name), getattr(b, f.name)]) for f in fields(a)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """Centre (log) and spread of each constant, spread of deviations by level and of surface knots by level.

    `own`: centre and spread of constants that a kernel family does not share with the others, by "CONSTANT.own.FAMILY".
    """

    centre: Mapping[str, float]
    spread: Mapping[str, float]
    levels: Mapping[str, float]
    surface: Mapping[str, float]
    noise: float
    own: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def deviation(self, constant: str, level: str) -> float:
        return self.levels.get(f"{constant}.{level}", self.levels.get(level, 0.0))


def surface_basis(form: Form, table: Table) -> tuple[np.ndarray, np.ndarray]:
    """Return for each row the indices and weights of the 2 knots around it on each axis alone, then of the 2^d knots around it on all axes.

    What an axis does alone is learnt from few rows; the corners carry what is left.
    """
    coordinates = form.coordinates(table.call, table.silicon)
    index = np.zeros((len(table), 1), dtype=np.int64)
    weight = np.ones((len(table), 1))
    alone: list[tuple[np.ndarray, np.ndarray]] = []
    start = corners(form)
    for value, axis in zip(coordinates, form.axes, strict=True):
        left, right = hats(np.broadcast_to(np.asarray(value, dtype=float), (len(table),)), axis)
        index = np.concatenate([index * len(axis.knots) + left[:, None], index * len(axis.knots) + left[:, None] + 1], axis=1)
        weight = np.concatenate([weight * (1 - right)[:, None], weight * right[:, None]], axis=1)
        alone.append((np.stack([start + left, start + left + 1], axis=1), np.stack([1 - right, right], axis=1)))
        start += len(axis.knots)
    return np.concatenate([i for i, _ in alone] + [index], axis=1), np.concatenate([w for _, w in alone] + [weight], axis=1)


def _members(table: Table, level: str) -> list[str]:
    return [t.member(level) for t in table.tags]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """Coefficients that enter log time together: names, prior centres and spreads."""

    names: tuple[str, ...]
    centre: np.ndarray
    spread: np.ndarray


def fit(form: Form, table: Table, prior: Prior, rounds: int = 3) -> Coefficients:
    """Fit a form to a table by soft-L1 least squares in log time, constants and surface in turn."""
    block, chosen = _constants_block(form, table, prior)
    surface_block, basis = _surface_block(form, table, prior)
    theta, knots = block.centre.copy(), surface_block.centre.copy()
    goal = np.log(table.seconds)
    for _ in range(rounds if len(knots) else 1):
        theta = _fit_constants(form, table, prior, block, chosen, theta, goal - basis @ knots)
        if len(knots):
            knots = _fit_surface(surface_block, basis, goal - _log_form(form, table, chosen, theta), knots, prior.noise)
    values = dict(zip(block.names, theta.tolist(), strict=True)) | dict(zip(surface_block.names, knots.tolist(), strict=True))
    return Coefficients(form=form.id, values=values)


def _constants_block(form: Form, table: Table, prior: Prior) -> tuple[_Block, dict[str, list[np.ndarray]]]:
    """List the coefficients of all constants, and for each constant the columns that each row reads."""
    index: dict[str, int] = {}
    centre: list[float] = []
    spread: list[float] = []

    def column(name: str, at: float, width: float) -> int:
        if name not in index:
            index[name] = len(index)
            centre.append(at)
            spread.append(width)
        return index[name]

    chosen: dict[str, list[np.ndarray]] = {}
    for constant in names_of(form):
        column(constant, prior.centre[constant], prior.spread[constant])
        for name, (at, width) in prior.own.items():
            if name.startswith(f"{constant}.own."):
                column(name, at, width)
        chosen[constant] = [np.array([index[base_of(constant, t, prior.own)] for t in table.tags])]
        for level in LEVELS:
            width = prior.deviation(constant, level)
            if width > 0:
                chosen[constant].append(np.array([column(f"{constant}.{level}.{m}", 0.0, width) for m in _members(table, level)]))
    return _Block(names=tuple(index), centre=np.array(centre), spread=np.array(spread)), chosen


def _surface_block(form: Form, table: Table, prior: Prior) -> tuple[_Block, Any]:
    """List the knots of all surfaces, and the sparse matrix that takes them to rows."""
    from scipy.sparse import csr_matrix

    index, weight = surface_basis(form, table)
    names: dict[str, int] = {}
    spread: list[float] = []
    at: list[int] = []
    for level, width in prior.surface.items():
        members = [""] * len(table) if level == "all" else _members(table, level)
        for member, places in zip(members, index, strict=True):
            for place in places:
                name = f"surface.{level}.{member}.{place}"
                if name not in names:
                    names[name] = len(names)
                    spread.append(width)
                at.append(names[name])
    shape = (len(table), len(names))
    rows = np.tile(np.repeat(np.arange(len(table)), index.shape[1]), len(prior.surface))
    basis = csr_matrix((np.tile(weight.ravel(), len(prior.surface)), (rows, np.array(at, dtype=np.int64))), shape=shape)
    return _Block(names=tuple(names), centre=np.zeros(len(names)), spread=np.array(spread)), basis


def _log_form(form: Form, table: Table, chosen: Mapping[str, list[np.ndarray]], theta: np.ndarray) -> np.ndarray:
    k = form.constants(**{c: np.exp(sum(theta[s] for s in columns)) for c, columns in chosen.items()})
    logs: np.ndarray = np.log(form.seconds(table.call, table.silicon, k))
    return logs


def _fit_constants(form: Form, table: Table, prior: Prior, block: _Block, chosen: Mapping[str, list[np.ndarray]], theta: np.ndarray,
                   goal: np.ndarray) -> np.ndarray:  # fmt: skip
    """Descend by reweighted Gauss-Newton steps on the sparse normal equations, each halved until it helps."""
    from scipy.sparse import csr_matrix, diags
    from scipy.sparse.linalg import spsolve

    rows = np.arange(len(table))

    def cost(theta: np.ndarray) -> tuple[float, np.ndarray]:
        misses = (_log_form(form, table, chosen, theta) - goal) / prior.noise
        loss = np.sum(2.0 * (np.sqrt(1.0 + misses**2) - 1.0)) + np.sum(((theta - block.centre) / block.spread) ** 2)
        return float(loss), misses

    now, misses = cost(theta)
    for _ in range(25):
        base = misses * prior.noise + goal
        k = form.constants(**{c: np.exp(sum(theta[s] for s in columns)) for c, columns in chosen.items()})
        entries = []
        for constant, columns in chosen.items():
            moved = replace(k, **{constant: getattr(k, constant) * np.exp(1e-4)})
            slope = (np.log(form.seconds(table.call, table.silicon, moved)) - base) / 1e-4 / prior.noise
            entries += [(slope, s) for s in columns]
        jacobian = csr_matrix((np.concatenate([v for v, _ in entries]), (np.tile(rows, len(entries)), np.concatenate([s for _, s in entries]))),
                              shape=(len(table), len(theta)))  # fmt: skip
        weight = 1.0 / np.sqrt(1.0 + misses**2)
        normal = jacobian.T @ diags(weight) @ jacobian + diags(block.spread**-2.0)
        right = jacobian.T @ (weight * misses) + (theta - block.centre) / block.spread**2
        step = -spsolve(normal.tocsc(), right)
        for _ in range(8):
            trial, trial_misses = cost(theta + step)
            if trial < now:
                break
            step = step / 2.0
        else:
            return theta
        theta, gain, now, misses = theta + step, now - trial, trial, trial_misses
        if gain < 1e-4 * now:
            return theta
    return theta


def _fit_surface(block: _Block, basis: Any, left: np.ndarray, knots: np.ndarray, noise: float) -> np.ndarray:
    """Solve the ridge of the knots on what the form leaves, reweighted twice so that wild rows count less."""
    from scipy.sparse import diags
    from scipy.sparse.linalg import lsmr

    for _ in range(2):
        misses = (left - basis @ knots) / noise
        weight = (1.0 + misses**2) ** TAIL
        scaled = diags(weight / noise) @ basis @ diags(block.spread)
        knots = block.spread * lsmr(scaled, weight * left / noise, damp=1.0, maxiter=200, atol=1e-5, btol=1e-5)[0]
    return knots


def predict(form: Form, table: Table, found: Coefficients) -> np.ndarray:
    """Return seconds of every row, never below the roofline."""
    seconds = np.empty(len(table))
    where: dict[Tags, list[int]] = {}
    for i, t in enumerate(table.tags):
        where.setdefault(t, []).append(i)
    for tags, places in where.items():
        rows = np.array(places)
        part = table.take(rows)
        seconds[rows] = costing(form, found, tags).seconds(part.call, part.silicon)
    return seconds
