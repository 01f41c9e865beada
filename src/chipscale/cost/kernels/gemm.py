"""One dense matrix product."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chipscale.cost.kernels.form import Axis, Form, Silicon
from chipscale.ops.work import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemm:
    """(m x k) by (k x n): bytes an element of the activations (`a`), the weights (`b`, scales included) and the output.

    `quantised` is 1 where 16-bit activations are turned narrow inside the call.
    """

    m: Num
    n: Num
    k: Num
    a: Num
    b: Num
    out: Num
    quantised: Num


def plain(m: Num, n: Num, k: Num, width: Num) -> Gemm:
    """Return the product of operands that are `width` bytes an element in memory, with a 16-bit result.

    a = b = w, w_out = 2.

    Holds when nothing is made narrow inside the call: 16-bit products, and 8-bit ones (W8A8) whose activations come narrow.
    Source: smoothquant-2022, section 2 (W8A8).

    >>> plain(16.0, 4096.0, 4096.0, 1.0).b
    1.0
    """
    return Gemm(m=m, n=n, k=k, a=width, b=width, out=2.0, quantised=0.0)


def weight_only(m: Num, n: Num, k: Num, bits: Num, group: Num = np.inf) -> Gemm:
    """Return the product of 16-bit activations with weights of 8 or 4 bits, each `group` of which brings a 16-bit scale and zero point.

    a = 2, b = bits / 8 + 4 / group.

    Holds when weights are widened on the core, so that the product runs at the 16-bit peak and only narrow weights cross memory.
    Source: marlin-2024, section 2; gptq-2022, section 4 (groups).

    >>> weight_only(16.0, 4096.0, 4096.0, 4.0, 128.0).b
    0.53125
    """
    return Gemm(m=m, n=n, k=k, a=2.0, b=bits / 8.0 + 4.0 / group, out=2.0, quantised=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmConstants:
    """launch (s); fraction of the matrix peak; memory: fraction of bandwidth; quantise: multiplier on the quantise pass's bytes."""

    launch: Num
    fraction: Num
    memory: Num
    quantise: Num
    edge: Num


def gemm_seconds(c: Gemm, s: Silicon, k: GemmConstants) -> Num:
    """Cost one product.

    t = launch + quantise + max(a, b) + 0.2 min(a, b);  a = 2 m n k / (f P) (1 + g (1/m + 1/n + 1/k));  b = bytes / (r B).

    Holds when operands come from memory.
    Source: roofline-2009, equation 1; nvidia-matmul-guide, "Tile quantization".
    """
    rows = np.maximum(c.m, 16.0)
    edges = 1.0 + k.edge * (1.0 / rows + 1.0 / c.n + 1.0 / c.k)
    compute = 2.0 * rows * c.n * c.k / (k.fraction * s.peak) * edges
    moving = (c.a * c.m * c.k + c.b * c.n * c.k + c.out * c.m * c.n) / (k.memory * s.memory_bandwidth)
    passes = c.quantised * k.quantise * c.m * c.k * 3.0 / s.memory_bandwidth
    return k.launch + passes + np.maximum(compute, moving) + 0.2 * np.minimum(compute, moving)


def gemm_floor(c: Gemm, s: Silicon) -> Num:
    """Bound a product by matrix peak and by the bytes that no cache can hold.

    max(2 m n k / P, (bytes - cache) / B).

    Holds always.
    Source: roofline-2009, equation 1.
    """
    moved = c.a * c.m * c.k + c.b * c.n * c.k + c.out * c.m * c.n
    return np.maximum(2.0 * c.m * c.n * c.k / s.peak, np.maximum(moved - s.cache_bytes, 0.0) / s.memory_bandwidth)


def gemm_coordinates(c: Gemm, _: Silicon) -> tuple[Num, ...]:
    """Place a product on the surface's axes."""
    return np.log2(c.m), np.log2(c.n), np.log2(c.k)


GEMM = Form(id="gemm", call=Gemm, constants=GemmConstants, seconds=gemm_seconds, floor=gemm_floor,
            axes=(Axis(name="m", knots=(0, 3, 5, 7, 9, 11, 13, 15)), Axis(name="n", knots=(5, 8, 10, 12, 14, 16)),
                  Axis(name="k", knots=(5, 8, 10, 12, 14, 16))),
            coordinates=gemm_coordinates)  # fmt: skip
