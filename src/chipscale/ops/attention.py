"""Attention cores: everything between the projections."""

from __future__ import annotations

import numpy as np

from chipscale.ops.dense import gemm
from chipscale.ops.elementwise import passes
from chipscale.ops.work import Num, Work

#: FLOP of the backward pass over those of the forward: five products instead of two (flash-attention-2, section 3.1)
BACKWARD_PRODUCTS = 2.5
#: context that a kernel streams without starting anew for each tile of queries
STREAMED = 1e12


def mean_span(length: Num, reach: float | None, chunked: bool) -> Num:
    """Average how many tokens a token of a causal sequence sees.

    s: (s + 1) / 2;  window w: w - w (w - 1) / (2 s);  chunks of c: (c + 1) / 2, c no longer than s.

    Holds when attention is causal and the sequence is one document.
    Source: mistral-7b, section 2 (sliding window); llama-4 model definition (chunks).

    >>> mean_span(4096.0, None, False)
    2048.5
    """
    if reach is None:
        return (length + 1.0) / 2.0
    window = np.minimum(reach, length)
    if chunked:
        return (window + 1.0) / 2.0
    return window - window * (window - 1.0) / (2.0 * length)


def mean_entries(length: Num, ratio: float, most: float = np.inf) -> Num:
    """Average how many compressed entries a token of a causal sequence sees, at most `most`.

    (r m (m - 1) / 2 + m (s - m r + 1)) / s with m = min(floor(s / r), most): token p of s sees the floor(p / r) entries that are complete.

    Holds when the sequence is one document and tokens at its end that fill no window make no entry.
    Source: transformers, models/deepseek_v4/modeling_deepseek_v4.py, DeepseekV4HCACompressor (causal_threshold).

    >>> float(mean_entries(8.0, 4.0))  # 0 0 0 1 1 1 1 2
    0.75
    """
    entries = np.minimum(np.floor(length / ratio), most)
    return (ratio * entries * (entries - 1.0) / 2.0 + entries * (length - entries * ratio + 1.0)) / length


def compress_core(name: str, tokens: Num, width: Num, entry: Num, ratio: float, *, calls: float, train: bool) -> list[Work]:
    """Describe pooling of `ratio` tokens each into one entry: a softmax over gates weighs their values.

    bytes = 2 T (2 c + d_h / r); backward 2 T (4 c + d_h / r): values and gates of width c read, their gradients written.

    Holds when softmax, sum and norm are one kernel.
    Source: transformers, models/deepseek_v4/modeling_deepseek_v4.py, DeepseekV4CSACompressor.

    >>> compress_core("x", 4.0, 1024.0, 512.0, 4.0, calls=1.0, train=False)[0].bytes
    17408.0
    """
    made = entry / ratio
    works = [Work(name=name, form="memory", cause="elementwise", flop=0.0, bytes=2.0 * tokens * (2.0 * width + made), calls=calls)]
    if train:
        works.append(Work(name=name + " backward", form="memory", cause="elementwise", flop=0.0, bytes=2.0 * tokens * (4.0 * width + made), calls=calls,
                          backward=True))  # fmt: skip
    return works


def softmax_core(name: str, tokens: Num, span: Num, heads: Num, kv_heads: Num, qk_dim: float, v_dim: float, *,
                 calls: float, train: bool) -> list[Work]:  # fmt: skip
    """Describe scores, softmax and the weighted sum of one rank in one fused kernel.

    FLOP = 2 T n h (d_qk + d_v) with T tokens that see n others on average; backward 2.5 times that.
    bytes = 2 T (h (d_qk + d_v) + h_kv (d_qk + d_v)); a head whose key is its value counts half in h_kv.

    Holds when masked tiles are skipped.
    Source: flash-attention-2, section 3.1.

    >>> softmax_core("a", 4096.0, 2048.5, 32.0, 8.0, 128.0, 128.0, calls=1.0, train=False)[0].flop
    137472507904.0
    """
    moved = 2.0 * tokens * (heads + kv_heads) * (qk_dim + v_dim)
    flop = 2.0 * tokens * span * heads * (qk_dim + v_dim)
    works = [Work(name=name, form="attention", cause="attention", flop=flop, bytes=moved, rows=2.0 * span, calls=calls, core=True)]
    if train:
        works.append(Work(name=name + " backward", form="attention", cause="attention", flop=BACKWARD_PRODUCTS * flop,
                          bytes=2.0 * moved, rows=2.0 * span, calls=calls, backward=True))  # fmt: skip
    return works


def unfused_core(name: str, tokens: Num, span: Num, heads: Num, qk_dim: float, v_dim: float, *, calls: float, train: bool) -> list[Work]:
    """Describe attention as frameworks ran it before fused kernels: batched products over the full square, softmax and dropout apart.

    Scores and weighted sum are g = T h / s products of (s x d) by (d x s), s = 2 n; each backward is two more. Softmax and dropout pass
    9 bytes a score element forward (4 + 5) and 11 backward (6 + 5).

    Holds when scores are 16 bit, dropout keeps a one-byte mask, and masked scores are computed too.
    Source: korthikanti-2022, section 4.1.

    >>> sum(w.flop for w in unfused_core("a", 4096.0, 2048.0, 32.0, 128.0, 128.0, calls=1.0, train=False))
    274877906944.0
    """
    length = 2.0 * span
    groups = tokens * heads / length

    def product(suffix: str, m: Num, n: Num, k: Num, backward: bool) -> Work:
        return gemm(name + suffix, m, n, k, calls=calls, cause="attention", groups=groups, narrow=False, backward=backward, core=not backward)

    works = [product(" scores", length, length, qk_dim, False), product(" sum", length, v_dim, length, False)]
    if train:
        works += [product(" scores dq", length, qk_dim, length, True), product(" scores dk", length, qk_dim, length, True),
                  product(" sum dp", length, length, v_dim, True), product(" sum dv", length, v_dim, length, True)]  # fmt: skip
    return works + passes(name + " softmax", groups * length * length, 9.0, 11.0, calls=calls, train=train, cause="attention", core=True)


def index_core(tokens: Num, span: Num, heads: Num, dim: float, *, calls: float, train: bool, keys: Num = 0.0) -> list[Work]:
    """Describe the scoring of all earlier tokens by the lightning indexer.

    FLOP = 2 T n h_i d_i, bytes = 2 T (h_i + n_k) d_i with n_k `keys` that each token reads for itself (decoding); backward twice that.

    Holds when scores are summed over index heads after a ReLU, in fp8 or 16 bit.
    Source: deepseek-v3.2, equation 1.

    >>> index_core(1.0, 1000.0, 64.0, 128.0, calls=1.0, train=False)[0].flop
    16384000.0
    """
    flop = 2.0 * tokens * span * heads * dim
    works = [
        Work(name="index", form="attention", cause="attention", flop=flop, bytes=2.0 * tokens * (heads + keys) * dim, rows=2.0 * span, calls=calls)
    ]
    if train:
        works.append(Work(name="index backward", form="attention", cause="attention", flop=2.0 * flop, bytes=4.0 * tokens * heads * dim,
                          rows=2.0 * span, calls=calls, backward=True))  # fmt: skip
    return works


def delta_core(tokens: Num, heads: Num, key_dim: float, value_dim: float, *, calls: float, train: bool, chunk: float = 64.0) -> list[Work]:
    """Describe the chunked gated delta rule, a linear attention.

    FLOP = 2 T h (3 d_k d_v + c (2 d_k + 2 d_v) / 2) for chunks of c; backward twice that.

    Holds when the chunked form is used (training, prefill); a state of d_k x d_v per head replaces the cache.
    Source: gated-delta-net, section 3.3.

    >>> delta_core(1.0, 1.0, 128.0, 128.0, calls=1.0, train=False)[0].flop
    131072.0
    """
    flop = 2.0 * tokens * heads * (3.0 * key_dim * value_dim + chunk * (key_dim + value_dim))
    moved = 2.0 * tokens * heads * (2.0 * key_dim + 2.0 * value_dim)
    works = [Work(name="delta rule", form="attention", cause="attention", flop=flop, bytes=moved, rows=STREAMED, calls=calls, core=True)]
    if train:
        works.append(Work(name="delta rule backward", form="attention", cause="attention", flop=2.0 * flop, bytes=2.0 * moved,
                          rows=STREAMED, calls=calls, backward=True))  # fmt: skip
    return works
