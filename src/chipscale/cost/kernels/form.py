"""Form: how one kind of kernel turns a call and a chip's numbers into seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from chipscale.ops.work import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Silicon:
    """What kernel forms read of a chip, each a float or an array over calls.

    `peak` is the dense matrix peak (FLOP/s) at the call's precision, `peak16` at 16 bit; bandwidths are B/s (links: a chip
    and direction); `cache_bytes` is the last cache; `cores` counts SMs or cube cores; `exponentials` is the rate (1/s) of the
    special function units, infinite where nobody states it; `pace` is the core clock over 2 GHz, 1 where nobody states it;
    `link_size` chips share the inner fabric, which is a full mesh of links where `mesh` is 1; `outer_bandwidth` is what a chip sends past it.
    """

    peak: Num
    peak16: Num
    memory_bandwidth: Num
    cache_bytes: Num
    cores: Num
    exponentials: Num
    pace: Num
    link_bandwidth: Num
    link_size: Num
    node: Num
    mesh: Num = 0.0
    outer_bandwidth: Num = 25e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One coordinate of a shape surface, in log2, with hat functions at `knots` (ascending); outside it stays flat."""

    name: str
    knots: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A kernel's form.

    `call` and `constants` are the dataclasses of numbers that `seconds(call, silicon, constants)` reads; `floor(call, silicon)` is
    the roofline that no prediction may undercut; `longer(call)` is a call that never takes less, the same without its window; `matrix` says whether
    the precision of matrix products tells its kernels apart; `axes` and `coordinates(call, silicon)` span the surface that carries what the form leaves by shape.
    """

    id: str
    call: type[Any]
    constants: type[Any]
    seconds: Callable[[Any, Silicon, Any], Num]
    floor: Callable[[Any, Silicon], Num]
    axes: tuple[Axis, ...]
    coordinates: Callable[[Any, Silicon], tuple[Num, ...]]
    longer: Callable[[Any], Any] | None = None
    matrix: bool = True


def hats(value: np.ndarray, axis: Axis) -> tuple[np.ndarray, np.ndarray]:
    """Return the left knot of each value and the weight of the right one.

    Holds when knots ascend; values outside take the outermost knot whole.
    Source: de-boor-2001, chapter 1 (linear B-splines).
    """
    knots = np.asarray(axis.knots)
    inside = np.clip(value, knots[0], knots[-1])
    left = np.clip(np.searchsorted(knots, inside, side="right") - 1, 0, len(knots) - 2)
    return left, (inside - knots[left]) / (knots[left + 1] - knots[left])
