"""Work x Hardware -> seconds: the physical forms."""

from __future__ import annotations

import numpy as np

from chipscale.cost.constants import Constants
from chipscale.cost.hardware import Hardware
from chipscale.ops.work import Num, Work

#: the constants that `seconds` reads
READ = ("gemm", "narrow_gemm", "gemm_size", "grouped", "grouped_size", "attention", "attention_backward", "attention_start", "memory",
        "elementwise", "permute")  # fmt: skip


def joined(compute: Num, memory: Num, overlap_loss: float = 0.2) -> Num:
    """Join compute and memory time of one kernel that overlaps both imperfectly.

    t = max(a, b) + 0.2 min(a, b).

    Holds when tiles are double buffered.
    Source: a prototype on GEMM measurements of several chips; not yet measured again here.

    >>> float(joined(3.0, 1.0))
    3.2
    """
    return np.maximum(compute, memory) + overlap_loss * np.minimum(compute, memory)


def edge_loss(rows: Num, columns: Num, depth: Num, size: Num) -> Num:
    """Multiply a product's time for partly filled tiles and pipelines at its edges.

    1 + g (1/m + 1/n + 1/k).

    Holds when m, n and k are at least a tile.
    Source: nvidia-matmul-guide, "Tile quantization"; g fitted.

    >>> float(edge_loss(1000.0, 1000.0, 1000.0, 100.0))
    1.3
    """
    return 1.0 + size * (1.0 / np.maximum(rows, 1.0) + 1.0 / np.maximum(columns, 1.0) + 1.0 / np.maximum(depth, 1.0))


def seconds(work: Work, hardware: Hardware, constants: Constants) -> Num:
    """Cost one operator of one micro-batch on one rank, all its calls.

    gemm: joined(F / (f P) edge, B / (r b)); grouped: f times a further fraction; attention: joined(F (1 + s_0 / s) / (f_a P16),
    B / (r b)), backward slower by a factor; memory: e B / (r b).

    Holds when kernels are long against their launch (the host's time is kept apart, per layer).
    Source: roofline-2009, equation 1, with fitted fractions of each ceiling.
    """
    moving = work.bytes / (constants.memory * hardware.memory_bandwidth)
    if work.form == "memory":
        return work.calls * moving * (constants.permute if work.cause == "experts" else constants.elementwise)
    if work.form == "attention":
        slower = constants.attention_backward if work.backward else 1.0
        start = 1.0 + constants.attention_start / np.maximum(work.rows, 1.0)
        return work.calls * joined(slower * work.flop * start / (constants.attention * hardware.peak16), moving)
    rate = constants.narrow_gemm * hardware.peak if work.narrow else constants.gemm * hardware.peak16
    size = constants.gemm_size
    if work.form == "grouped":
        rate, size = rate * constants.grouped, size + constants.grouped_size
    edge = edge_loss(work.rows, work.columns, work.depth, size)
    return work.calls * joined(work.flop * edge / rate, moving)
