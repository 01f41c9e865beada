"""Costing: a form with the coefficients of one kernel on one chip, ready to turn calls into seconds."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Container, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from chipscale.cost.kernels.form import Form, Silicon
from chipscale.ops.work import Num

#: what a call is known by, general to particular; a deviation of a member that was never fitted is 0
LEVELS = ("precision", "technique", "family", "kernel", "arch", "chip", "cell")
#: where seconds come from: a table of the same chip, coefficients that saw it, or coefficients of its like
Tier = Literal["measured", "calibrated", "prior"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """What selects coefficients: precision, kernel family, kernel of one engine, chip architecture, chip, engine with version.

    A technique is a family at any precision.
    """

    precision: str
    family: str
    kernel: str
    arch: str
    chip: str
    engine: str

    def member(self, level: str) -> str:
        """Return whom this call belongs to on a level."""
        if level == "technique":
            return self.family.rpartition(":")[0]
        return f"{self.chip}|{self.kernel}" if level == "cell" else str(getattr(self, level))


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficients:
    """Fitted coefficients by name: "launch", "launch.chip.nvidia-b200", "surface.family.fa3.7" ..."""

    form: str
    values: Mapping[str, float]

    def log_constant(self, name: str, tags: Tags) -> float:
        """Return the logarithm of one constant: its base and all deviations that apply."""
        return sum((self.values.get(f"{name}.{level}.{tags.member(level)}", 0.0) for level in LEVELS), self.values[base_of(name, tags, self.values)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Seconds of a call with the 80 % interval, and the tier that they come from; floats or arrays."""

    seconds: Num
    low: Num
    high: Num
    tier: Tier


def base_of(constant: str, tags: Tags, known: Container[str]) -> str:
    """Return the coefficient that a call's deviations start from: its family's own, with the precision or without, or the shared one."""
    for family in (tags.family, tags.family.split(":")[0]):
        if f"{constant}.own.{family}" in known:
            return f"{constant}.own.{family}"
    return constant


def names_of(form: Form) -> tuple[str, ...]:
    """Return the names of a form's constants."""
    return tuple(f.name for f in fields(form.constants))


def corners(form: Form) -> int:
    """Count the knots of a form's surface where all axes meet."""
    return math.prod(len(axis.knots) for axis in form.axes)


@lru_cache
def _steps(form: Form) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]:
    """Return each axis's knots, left knots and inverse spacings as arrays."""
    out = []
    for axis in form.axes:
        knots = np.asarray(axis.knots, dtype=np.float64)
        out.append((knots, knots[:-1], 1.0 / np.diff(knots)))
    return tuple(out)


def _offsets(form: Form) -> tuple[int, ...]:
    """Return how far from the lowest of the 2^d knots round a place each of them lies, the last axis changing first."""
    strides = [math.prod(len(a.knots) for a in form.axes[i + 1 :]) for i in range(len(form.axes))]
    return tuple(sum(s for i, s in enumerate(strides) if c >> (len(strides) - 1 - i) & 1) for c in range(2 ** len(strides)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Costing:
    """A form's constants and surface for one kernel on one chip.

    `knots` holds the log correction at every corner of the axes, `offsets` how far the 2^d round a place lie from the lowest; `quantiles` maps a size class to the logs of measured over predicted
    below which 10 % and 90 % of left-out measurements lie.
    """

    form: Form
    constants: Any
    knots: np.ndarray
    offsets: tuple[int, ...]
    tier: Tier
    quantiles: tuple[tuple[float, float], ...]

    def seconds(self, call: Any, silicon: Silicon) -> Num:
        """Cost calls on a chip, never below the roofline and never above the same call without its window.

        t = max(floor, form exp(surface)), the surface multilinear between its knots.

        Holds for numbers and for arrays that broadcast.
        Source: the form's own; de-boor-2001, chapter 1 (the surface).
        """
        bent = self._bent(call, silicon)
        return bent if self.form.longer is None else np.minimum(bent, self._bent(self.form.longer(call), silicon))

    def _bent(self, call: Any, silicon: Silicon) -> Num:
        """Cost calls by form, surface and roofline."""
        places = self.form.coordinates(call, silicon)
        alone = all(isinstance(p, float) for p in places)
        bend = math.exp(self._at(places)) if alone else np.exp(self._over(places))
        bent: Num = np.maximum(self.form.seconds(call, silicon, self.constants) * bend, self.form.floor(call, silicon))
        return bent

    def _over(self, places: tuple[Num, ...]) -> Any:
        """Interpolate the surface at arrays of places."""
        index: Any = 0
        weights = []
        for value, (knots, lefts, inverse) in zip(places, _steps(self.form), strict=True):
            left = np.minimum(np.maximum(np.searchsorted(knots, value, side="right") - 1, 0), len(knots) - 2)
            weights.append(np.minimum(np.maximum((value - lefts[left]) * inverse[left], 0.0), 1.0))
            index = index * len(knots) + left
        values = [self.knots[index + offset] for offset in self.offsets]
        for w in reversed(weights):
            values = [a + w * (b - a) for a, b in zip(values[::2], values[1::2], strict=True)]
        return values[0]

    def _at(self, places: tuple[Num, ...]) -> float:
        """Interpolate the surface at one place, as `_over` does, without arrays."""
        index = 0
        weights = []
        for place, axis in zip(places, self.form.axes, strict=True):
            knots, value = axis.knots, float(place)
            left = min(max(bisect_right(knots, value) - 1, 0), len(knots) - 2)
            weights.append(min(max((value - knots[left]) / (knots[left + 1] - knots[left]), 0.0), 1.0))
            index = index * len(knots) + left
        values = [float(self.knots[index + offset]) for offset in self.offsets]
        for w in reversed(weights):
            values = [a + w * (b - a) for a, b in zip(values[::2], values[1::2], strict=True)]
        return values[0]

    def estimate(self, call: Any, silicon: Silicon) -> Estimate:
        """Cost calls with their 80 % interval."""
        seconds = self.seconds(call, silicon)
        low, high = (np.asarray(q)[size_class(seconds)] for q in zip(*self.quantiles, strict=True))
        return Estimate(seconds=seconds, low=seconds * np.exp(low), high=seconds * np.exp(high), tier=self.tier)


#: seconds that part the size classes of error: below, launches decide; above, ceilings
SIZES = (20e-6, 200e-6)


def size_class(seconds: Num) -> Any:
    """Return 0, 1 or 2: a kernel below 20 us, below 200 us, or longer."""
    return np.searchsorted(SIZES, seconds)


def costing(
    form: Form, found: Coefficients, tags: Tags, tier: Tier = "prior", quantiles: tuple[tuple[float, float], ...] = ((-0.5, 0.5),) * 3
) -> Costing:
    """Gather the coefficients that apply to one kernel on one chip."""
    sizes = [len(axis.knots) for axis in form.axes]
    whole = corners(form)
    flat = np.zeros(whole + sum(sizes))
    for level in ("all", *LEVELS):
        prefix = f"surface.{level}.{'' if level == 'all' else tags.member(level)}."
        flat += _surface(found, prefix, len(flat))
    grid = flat[:whole].reshape(sizes)
    start = whole
    for i, size in enumerate(sizes):
        grid = grid + flat[start : start + size].reshape([-1 if j == i else 1 for j in range(len(sizes))])
        start += size
    constants = form.constants(**{c: math.exp(found.log_constant(c, tags)) for c in names_of(form)})
    return Costing(form=form, constants=constants, knots=np.ascontiguousarray(grid).ravel(), offsets=_offsets(form), tier=tier, quantiles=quantiles)


def _surface(found: Coefficients, prefix: str, size: int) -> np.ndarray:
    values = np.zeros(size)
    get = found.values.get
    if prefix + "0" in found.values or any(prefix + str(i) in found.values for i in range(size)):
        for i in range(size):
            values[i] = get(prefix + str(i), 0.0)
    return values
