"""Calls of the element-wise form by name: what each kernel reads and writes, counted once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from chipscale.cost.kernels.elementwise import Elementwise
from chipscale.evidence import EvidenceError
from chipscale.ops.optimizer import adam_traffic
from chipscale.ops.work import Num

#: bytes of a token's number in a list of 64-bit integers, of a place in a list of 32-bit ones, and of a 32-bit float
LONG, INDEX, FLOAT = 8.0, 4.0, 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrow:
    """A narrow number format: bytes an element, elements that share a scale (a whole row where infinite), bytes of a scale (0 where it is known before)."""

    bytes: float
    block: float
    scale: float


#: deepseek-v3, section 3.3.2 (fp8 in tiles of 1 x 128, 32-bit scales); ocp-mx-2023, table 1 (blocks of 32, 8-bit scales); nvidia-nvfp4 (blocks of 16);
#: smoothquant-2022, section 2 (int8 a token, or static)
NARROW = {
    "fp8": Narrow(bytes=1.0, block=math.inf, scale=FLOAT),
    "fp8_static": Narrow(bytes=1.0, block=math.inf, scale=0.0),
    "fp8_block": Narrow(bytes=1.0, block=128.0, scale=FLOAT),
    "int8": Narrow(bytes=1.0, block=math.inf, scale=FLOAT),
    "int8_static": Narrow(bytes=1.0, block=math.inf, scale=0.0),
    "mxfp8": Narrow(bytes=1.0, block=32.0, scale=1.0),
    "mxfp4": Narrow(bytes=0.5, block=32.0, scale=1.0),
    "nvfp4": Narrow(bytes=0.5, block=16.0, scale=1.0),
}


def residual_add(elements: Num, width: Num) -> Elementwise:
    """Return the call that adds a residual.

    read 2 n w, written n w.

    Holds when both operands have the same shape, `width` bytes an element.
    Source: korthikanti-2022, section 4.1.

    >>> residual_add(1000.0, 2.0).read
    4000.0
    """
    return Elementwise(read=2.0 * elements * width, written=elements * width, rows=0.0)


def norm(rows: Num, columns: Num, width: Num, *, residuals: Num = 0.0, out: Num | None = None) -> Elementwise:
    """Return the call of a layer norm or RMS norm; one that adds a residual first reads it and writes the sum too (`residuals` 1).

    read n d w (1 + r), written n d (w_out + r w).

    Holds when a row stays on its core between mean and scaling, and its d weights in cache; `out` (bytes an element) is below `width` where the
    result is made narrow.
    Source: rmsnorm-2019, equation 4; korthikanti-2022, section 4.1.

    >>> norm(16.0, 5120.0, 2.0, residuals=1.0).written
    327680.0
    """
    narrow = width if out is None else out
    return Elementwise(read=rows * columns * width * (1.0 + residuals), written=rows * columns * (narrow + residuals * width), rows=rows)


def gated_activation(rows: Num, inner: Num, width: Num, *, out: Num | None = None) -> Elementwise:
    """Return the call of a gated activation (SwiGLU, GeGLU): the activated half times the other.

    read 2 n i w, written n i w_out.

    Holds when both halves come from one product.
    Source: glu-2020, equation 5.

    >>> gated_activation(2048.0, 2304.0, 2.0).read
    18874368.0
    """
    return Elementwise(read=2.0 * rows * inner * width, written=rows * inner * (width if out is None else out), rows=0.0)


def rope(tokens: Num, heads: Num, head_dim: Num, width: Num, *, angles: Num = 0.0, out: Num | None = None) -> Elementwise:
    """Return the call that rotates queries and keys: `heads` of both, `angles` elements of sine and cosine read a token.

    read n (h d + a) w, written n h d w_out.

    Holds when all of a head is rotated; angles are 0 where the table of them stays in cache, 2 d where each token brings its own.
    Source: roformer-2021, equation 34.

    >>> rope(2048.0, 16.0, 64.0, 2.0, angles=128.0).read
    4718592.0
    """
    return Elementwise(
        read=tokens * (heads * head_dim + angles) * width, written=tokens * heads * head_dim * (width if out is None else out), rows=tokens
    )


def softmax(rows: Num, columns: Num, width: Num, *, out: Num | None = None) -> Elementwise:
    """Return the call of a softmax by rows.

    read n d w, written n d w_out.

    Holds when a row stays on its core between the sum and the division.
    Source: online-softmax-2018, section 2.

    >>> softmax(16.0, 151936.0, 4.0).read
    9723904.0
    """
    return Elementwise(read=rows * columns * width, written=rows * columns * (width if out is None else out), rows=rows)


def embedding(tokens: Num, columns: Num, width: Num) -> Elementwise:
    """Return the call that looks up a row of a table for each token.

    read n (d w + 8), written n d w.

    Holds when tokens are 64-bit integers and repeated ones are read again.
    Source: attention-2017, section 3.4.

    >>> embedding(1.0, 4096.0, 2.0).read
    8200.0
    """
    return Elementwise(read=tokens * (columns * width + LONG), written=tokens * columns * width, rows=tokens)


def cross_entropy(tokens: Num, vocabulary: Num, width: Num) -> Elementwise:
    """Return the call of the forward cross-entropy: one pass over the logits, a 32-bit loss a token.

    read n (v w + 8), written 4 n.

    Holds when maximum and sum are taken in one pass.
    Source: online-softmax-2018, section 3; liger-2024, "CrossEntropy".

    >>> cross_entropy(1.0, 128256.0, 2.0).read
    256520.0
    """
    return Elementwise(read=tokens * (vocabulary * width + LONG), written=tokens * FLOAT, rows=tokens)


def cross_entropy_with_gradient(tokens: Num, vocabulary: Num, width: Num) -> Elementwise:
    """Return the call of a fused forward and backward cross-entropy, which writes the gradient over the logits.

    read n (2 v w + 8), written n (v w + 4).

    Holds when a row of logits is longer than what a core keeps, so that the second pass reads it again.
    Source: liger-2024, "CrossEntropy".

    >>> cross_entropy_with_gradient(1.0, 128256.0, 2.0).written
    256516.0
    """
    return Elementwise(read=tokens * (2.0 * vocabulary * width + LONG), written=tokens * (vocabulary * width + FLOAT), rows=tokens)


def adam_step(parameters: Num, *, gradient: Num = 4.0, master: Num = 4.0, momentum: Num = 4.0, variance: Num = 4.0, weight: Num = 2.0) -> Elementwise:
    """Return the call of a fused Adam or AdamW step, by bytes a parameter of each state; `weight` is the narrow copy, 0 where the master is the weight.

    read (g + s + m + v) P, written (s + m + v + w) P.

    Holds when one kernel updates all states; decay of weights moves nothing more.
    Source: zero-2020, section 3.1 (16 bytes of state a parameter); adam-2014, algorithm 1.

    >>> call = adam_step(1e9)
    >>> call.read + call.written
    30000000000.0
    """
    read, written = adam_traffic(gradient=gradient, master=master, momentum=momentum, variance=variance, weight=weight)
    return Elementwise(read=read * parameters, written=written * parameters, rows=0.0)


def quantise(format: str, rows: Num, columns: Num, width: Num) -> Elementwise:
    """Return the call that makes rows narrow, scales included.

    read n d w, written n (d b + s max(1, ceil(d / k))), with b bytes an element and s a scale of k elements.

    Holds when a row stays on its core between its largest value and the division; a scale known before needs no rows. Errors: a format that is not in NARROW.
    Source: deepseek-v3, section 3.3.2; ocp-mx-2023, table 1; smoothquant-2022, section 2.

    >>> float(quantise("fp8_block", 1.0, 7168.0, 2.0).written)
    7392.0
    >>> float(quantise("nvfp4", 1.0, 7168.0, 2.0).written)
    4032.0
    """
    if format not in NARROW:
        raise EvidenceError(f"{format!r} is no narrow number format; use one of {', '.join(NARROW)}")
    f = NARROW[format]
    scales = f.scale * np.maximum(1.0, np.ceil(columns / f.block))
    return Elementwise(read=rows * columns * width, written=rows * (columns * f.bytes + scales), rows=rows * float(f.scale > 0.0))


def permute(tokens: Num, top_k: Num, columns: Num, width: Num) -> Elementwise:
    """Return the call that copies each token to the places of its experts.

    read n (d w + 4 k), written n k d w.

    Holds when a token is read once and copied k times.
    Source: megablocks-2022, section 2.2 (permutation).

    >>> permute(1.0, 8.0, 7168.0, 2.0).written
    114688.0
    """
    return Elementwise(read=tokens * (columns * width + INDEX * top_k), written=tokens * top_k * columns * width, rows=tokens * top_k)


def unpermute(tokens: Num, top_k: Num, columns: Num, width: Num) -> Elementwise:
    """Return the call that gathers each token's rows from its experts and sums them by weight.

    read n k (d w + 8), written n d w: a place and a 32-bit weight for each row.

    Holds when the sum is kept on the core.
    Source: megablocks-2022, section 2.4 (un-permutation).

    >>> unpermute(1.0, 8.0, 7168.0, 2.0).read
    114752.0
    """
    return Elementwise(read=tokens * top_k * (columns * width + INDEX + FLOAT), written=tokens * columns * width, rows=tokens * top_k)


def gather(rows: Num, columns: Num, width: Num) -> Elementwise:
    """Return the call that copies rows from places given by 32-bit numbers.

    read n (d w + 4), written n d w.

    Holds when a row that is asked for twice is read twice.
    Source: megablocks-2022, section 2.2.

    >>> gather(1.0, 7168.0, 2.0).read
    14340.0
    """
    return Elementwise(read=rows * (columns * width + INDEX), written=rows * columns * width, rows=rows)
