"""Attention over a prompt: many new tokens, each looking back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chipscale.cost.kernels.form import Axis, Form, Silicon
from chipscale.ops.work import Num

#: queries that one core takes at a time
TILE = 128.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefill:
    """`batch` sequences of `new` tokens after `past` ones; `q` and `kv` are bytes an element of the queries and of the cache.

    `heads` query heads share `kv_heads` heads of keys and values, all `head_dim` wide. `fused` is 1 where rotary embedding and the
    cache's write are part of the call.
    """

    batch: Num
    new: Num
    past: Num
    heads: Num
    kv_heads: Num
    head_dim: Num
    q: Num
    kv: Num
    fused: Num


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillConstants:
    """launch (s), prologue (s) of what is fused, cast (s) where a 16-bit call has a narrow cache, all at 2 GHz; fraction of the matrix peak; exponential: share of the exponentials' rate; memory: fraction of bandwidth.

    gain: by how much a narrow cache speeds the matrix products of a 16-bit call; passes: how often the new tokens' queries, keys and values cross memory in what is fused; edge: tokens of a tile that the mask wastes;
    step (s): one tile of 128 keys of width 128 in the longest block, which no other block hides;
    block (s): what a core spends to begin and end one tile of queries of one head.
    """

    launch: Num
    prologue: Num
    cast: Num
    fraction: Num
    gain: Num
    exponential: Num
    memory: Num
    passes: Num
    edge: Num
    step: Num
    block: Num


def causal_pairs(new: Num, past: Num) -> Num:
    """Count the pairs of a query and a key under the causal mask of one head.

    n p + n (n + 1) / 2.

    Holds when every new token sees the whole past.
    Source: flash-attention-2, section 3.1 (causal masking).

    >>> causal_pairs(4.0, 0.0)
    10.0
    """
    return new * past + new * (new + 1.0) / 2.0


def narrowed(q: Num, kv: Num) -> Num:
    """Say how far a cache is narrower than its queries: 1 for 8 bits under 16, 0 for equal widths.

    max(0, (q - v) / v).

    Holds when both are widths in bytes.
    Source: attention-2017, section 3.2 (queries against keys).

    >>> float(narrowed(2.0, 1.0))
    1.0
    """
    return np.minimum(1.0, np.maximum(0.0, (q - kv) / kv))


def prefill_seconds(c: Prefill, s: Silicon, k: PrefillConstants) -> Num:
    """Cost causal attention of a batch of prompts.

    t = launch + passes + max(a, b) + 0.2 min(a, b);  a = N h (n' p + n'^2 / 2) (4 d / (f P) + 1 / (e E)) + step (n + p) d / 128^2 + block N h (n/128 + 1/2) / cores;
    b = bytes / (r B);  n' = n + edge.

    Holds when one core takes a tile of queries of one head and walks its keys in steps.
    Source: flash-attention-2, section 3.1; graham-1969, theorem 1 (the longest job after a full schedule).
    """
    rows = c.new + k.edge
    narrow = narrowed(c.q, c.kv)
    a_pair = 4.0 * c.head_dim / (k.fraction * s.peak * (1.0 + narrow * k.gain)) + 1.0 / (k.exponential * s.exponentials)
    whole = c.batch * c.heads * (rows * c.past + rows * rows / 2.0) * a_pair
    begun = k.block / s.pace * c.batch * c.heads * (c.new / TILE + 0.5) / s.cores
    compute = whole + begun + k.step / s.pace * (c.past + c.new) / TILE * c.head_dim / 128.0
    new_bytes = c.batch * c.new * c.head_dim * (2.0 * c.heads + (2.0 + c.kv) * c.kv_heads)
    moving = prefill_bytes(c) / (k.memory * s.memory_bandwidth)
    passes = c.fused * k.passes * new_bytes / s.memory_bandwidth
    return (k.launch + c.fused * k.prologue + narrow * k.cast) / s.pace + passes + np.maximum(compute, moving) + 0.2 * np.minimum(compute, moving)


def prefill_bytes(c: Prefill) -> Num:
    """Count queries in, outputs out, and keys and values in, once each.

    N d (n h (q + 2) + 2 (n + p) g v).

    Holds when each operand crosses memory once.
    Source: flash-attention-2, section 2.3.
    """
    return c.batch * c.head_dim * (c.new * c.heads * (c.q + 2.0) + (c.past + c.new) * 2.0 * c.kv_heads * c.kv)


def prefill_floor(c: Prefill, s: Silicon) -> Num:
    """Bound attention by matrix peak and by the bytes that no cache can hold.

    max(4 d pairs / P, (bytes - cache) / B).

    Holds always.
    Source: roofline-2009, equation 1.
    """
    flop = 4.0 * c.batch * c.heads * c.head_dim * causal_pairs(c.new, c.past)
    return np.maximum(flop / s.peak, np.maximum(prefill_bytes(c) - s.cache_bytes, 0.0) / s.memory_bandwidth)


def prefill_coordinates(c: Prefill, _s: Silicon) -> tuple[Num, ...]:
    """Place a call by head width, tokens and blocks a core."""
    return np.log2(c.head_dim), np.log2(c.past + c.new), np.log2(c.batch * c.heads)


PREFILL = Form(id="prefill", call=Prefill, constants=PrefillConstants, seconds=prefill_seconds, floor=prefill_floor,
               axes=(Axis(name="head_dim", knots=(6, 7, 7.585, 8, 9)), Axis(name="tokens", knots=(3, 7, 9, 11, 13, 15)), Axis(name="heads", knots=(0, 4, 7, 10, 13))),
               coordinates=prefill_coordinates)  # fmt: skip
