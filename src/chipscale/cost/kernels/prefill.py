"""Attention over a prompt: many new tokens, each looking back."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from chipscale.cost.kernels.form import Axis, Form, Silicon
from chipscale.ops.work import Num

#: queries that one core takes at a time
TILE = 128.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefill:
    """`batch` sequences of `new` tokens after `past` ones; `q` and `kv` are bytes an element of the queries and of the cache.

    `heads` query heads share `kv_heads` heads of keys and values, all `head_dim` wide. `fused` is 1 where rotary embedding and the
    cache's write are part of the call. A query sees at most `window` tokens, itself included: sliding attention; infinite where there is no window.
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
    window: Num = math.inf


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


def growing(new: Num, past: Num, window: Num) -> Num:
    """Count the queries that see every token before them, the first of the new ones.

    u = min(n, max(0, w - p)).

    Holds when a query sees at most w tokens, itself included.
    Source: mistral-7b, section 2 (sliding window attention).

    >>> float(growing(100.0, 20.0, 64.0))
    44.0
    """
    return np.minimum(np.maximum(window - past, 0.0), new)


def causal_pairs(new: Num, past: Num, window: Num = math.inf) -> Num:
    """Count the pairs of a query and a key under the causal mask of one head, with a sliding window or without.

    u p + u (u + 1) / 2 + (n - u) min(w, p + n), with u queries that see all before them.

    Holds when the new tokens follow the past ones.
    Source: flash-attention-2, section 3.1 (causal masking); mistral-7b, section 2 (sliding window attention).

    >>> float(causal_pairs(4.0, 0.0))
    10.0
    >>> float(causal_pairs(4.0, 10.0, window=3.0))
    12.0
    """
    u = growing(new, past, window)
    return u * past + u * (u + 1.0) / 2.0 + (new - u) * np.minimum(window, past + new)


def tiled_pairs(new: Num, past: Num, window: Num, edge: Num) -> Num:
    """Count the pairs that tiles of queries and keys compute, masked ones among them.

    u p + u^2 / 2 + (n' - u) min(w', p + n');  n' = n + edge, w' = w + 2 edge, u queries of n' that see all before them within w'.

    Holds when a tile at the mask's diagonal computes `edge` keys a query too many, and one at the window's far end as many again.
    Source: flash-attention-2, section 3.1 (tiles that the mask cuts); mistral-7b, section 2.

    >>> float(tiled_pairs(1024.0, 0.0, math.inf, 0.0))
    524288.0
    """
    rows, reach = new + edge, window + 2.0 * edge
    u = growing(rows, past, reach)
    return u * past + u * u / 2.0 + (rows - u) * np.minimum(reach, past + rows)


def keys_seen(queries: Num, past: Num, new: Num, window: Num) -> Num:
    """Count the keys that a run of the last `queries` tokens sees between them.

    min(p + n, q + w - 1).

    Holds when q is at most n.
    Source: mistral-7b, section 2 (sliding window attention; rolling buffer cache).

    >>> float(keys_seen(8.0, 1000.0, 8.0, 128.0))
    135.0
    """
    return np.minimum(past + new, queries + window - 1.0)


def narrowed(q: Num, kv: Num) -> Num:
    """Say how far a cache is narrower than its queries: 1 for 8 bits under 16, 0 for equal widths.

    max(0, (q - v) / v).

    Holds when both are widths in bytes.
    Source: attention-2017, section 3.2 (queries against keys).

    >>> float(narrowed(2.0, 1.0))
    1.0
    """
    return np.minimum(1.0, np.maximum(0.0, (q - kv) / kv))


def longest_walk(c: Prefill) -> Num:
    """Count the keys that the last tile of queries walks.

    min(p + n, q + w - 1), q = min(n, 128).

    Holds when one core takes a tile of 128 queries.
    Source: flash-attention-2, section 3.1; mistral-7b, section 2.
    """
    return keys_seen(np.minimum(c.new, TILE), c.past, c.new, c.window)


def prefill_seconds(c: Prefill, s: Silicon, k: PrefillConstants) -> Num:
    """Cost causal attention of a batch of prompts.

    t = launch + passes + max(a, b) + 0.2 min(a, b);  a = N h pairs (4 d / (f P) + 1 / (e E)) + step keys d / 128^2 + block N h (n/128 + 1/2) / cores;
    b = bytes / (r B);  pairs as tiles compute them, keys as 128 queries see them.

    Holds when one core takes a tile of queries of one head and walks its keys in steps.
    Source: flash-attention-2, section 3.1; graham-1969, theorem 1 (the longest job after a full schedule).
    """
    narrow = narrowed(c.q, c.kv)
    a_pair = 4.0 * c.head_dim / (k.fraction * s.peak * (1.0 + narrow * k.gain)) + 1.0 / (k.exponential * s.exponentials)
    whole = c.batch * c.heads * tiled_pairs(c.new, c.past, c.window, k.edge) * a_pair
    begun = k.block / s.pace * c.batch * c.heads * (c.new / TILE + 0.5) / s.cores
    compute = whole + begun + k.step / s.pace * longest_walk(c) / TILE * c.head_dim / 128.0
    new_bytes = c.batch * c.new * c.head_dim * (2.0 * c.heads + (2.0 + c.kv) * c.kv_heads)
    moving = prefill_bytes(c) / (k.memory * s.memory_bandwidth)
    passes = c.fused * k.passes * new_bytes / s.memory_bandwidth
    return (k.launch + c.fused * k.prologue + narrow * k.cast) / s.pace + passes + np.maximum(compute, moving) + 0.2 * np.minimum(compute, moving)


def prefill_bytes(c: Prefill) -> Num:
    """Count queries in, outputs out, and the keys and values that any query sees in, once each.

    N d (n h (q + 2) + 2 min(n + p, n + w - 1) g v).

    Holds when each operand crosses memory once.
    Source: flash-attention-2, section 2.3; mistral-7b, section 2.
    """
    keys = keys_seen(c.new, c.past, c.new, c.window)
    return c.batch * c.head_dim * (c.new * c.heads * (c.q + 2.0) + keys * 2.0 * c.kv_heads * c.kv)


def prefill_floor(c: Prefill, s: Silicon) -> Num:
    """Bound attention by matrix peak and by the bytes that no cache can hold.

    max(4 d pairs / P, (bytes - cache) / B).

    Holds always.
    Source: roofline-2009, equation 1.
    """
    flop = 4.0 * c.batch * c.heads * c.head_dim * causal_pairs(c.new, c.past, c.window)
    return np.maximum(flop / s.peak, np.maximum(prefill_bytes(c) - s.cache_bytes, 0.0) / s.memory_bandwidth)


def prefill_coordinates(c: Prefill, _s: Silicon) -> tuple[Num, ...]:
    """Place a call by head width, tokens that a tile of queries sees, and blocks a core."""
    return np.log2(c.head_dim), np.log2(longest_walk(c)), np.log2(c.batch * c.heads)


def whole_prompt(c: Prefill) -> Prefill:
    """Return the call without its window."""
    return replace(c, window=math.inf)


PREFILL = Form(id="prefill", call=Prefill, constants=PrefillConstants, seconds=prefill_seconds, floor=prefill_floor,
               axes=(Axis(name="head_dim", knots=(6, 7, 7.585, 8, 9)), Axis(name="tokens", knots=(3, 7, 9, 11, 13, 15)), Axis(name="heads", knots=(0, 4, 7, 10, 13))),
               coordinates=prefill_coordinates, longer=whole_prompt)  # fmt: skip
