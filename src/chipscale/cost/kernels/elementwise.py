"""One element-wise, normalising, copying or gathering kernel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chipscale.cost.kernels.form import Axis, Form, Silicon
from chipscale.ops.work import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Elementwise:
    """Bytes read and written by one kernel; `rows` that it works on one by one (norms, quantisation, gathers), 0 where it needs no rows."""

    read: Num
    written: Num
    rows: Num


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementwiseConstants:
    """launch (s); memory: fraction of bandwidth that one pass over the bytes reaches; cached: how many times faster bytes move that
    the last cache holds; row: s of one row on one core, rows in turn.
    """

    launch: Num
    memory: Num
    cached: Num
    row: Num


def elementwise_seconds(c: Elementwise, s: Silicon, k: ElementwiseConstants) -> Num:
    """Cost one kernel that reads, computes little and writes.

    t = launch + row rows / cores + V / (r B) (x + (1 - x) / h),  x = V / (V + cache),  V = bytes read and written.

    Holds when bytes bind; passes that a kernel makes more than once show in r.
    Source: roofline-2009, equation 1.
    """
    moved = c.read + c.written
    out = moved / (moved + s.cache_bytes)
    held = (1.0 - out) / np.maximum(k.cached, 1.0)
    return k.launch + k.row * c.rows / s.cores + moved / (np.minimum(k.memory, 1.0) * s.memory_bandwidth) * (out + held)


def elementwise_floor(c: Elementwise, s: Silicon) -> Num:
    """Bound a kernel by the bytes that no cache can hold.

    max(V - cache, 0) / B.

    Holds always.
    Source: roofline-2009, equation 1.
    """
    return np.maximum(c.read + c.written - s.cache_bytes, 0.0) / s.memory_bandwidth


def elementwise_coordinates(c: Elementwise, _: Silicon) -> tuple[Num, ...]:
    """Return log2 of the bytes moved, on which the surface stands.

    Holds always.
    Source: roofline-2009, section 2.
    """
    return (np.log2(c.read + c.written),)


ELEMENTWISE = Form(id="elementwise", call=Elementwise, constants=ElementwiseConstants, seconds=elementwise_seconds, floor=elementwise_floor,
                   axes=(Axis(name="bytes", knots=(13, 16, 18, 20, 22, 24, 26, 28, 30)),), coordinates=elementwise_coordinates, matrix=False)  # fmt: skip
