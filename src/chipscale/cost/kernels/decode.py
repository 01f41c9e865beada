"""Attention of one new token a sequence over its cache."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from chipscale.cost.kernels.form import Axis, Form, Silicon
from chipscale.ops.work import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Decode:
    """`batch` sequences with `past` tokens in the cache; `q` and `kv` are bytes an element of the queries and of the cache.

    `heads` query heads share `kv_heads` heads of keys and values, all `head_dim` wide. The new token sees at most `window` tokens of the
    cache, its own included; infinite where there is no window.
    """

    batch: Num
    past: Num
    heads: Num
    kv_heads: Num
    head_dim: Num
    q: Num
    kv: Num
    window: Num = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeConstants:
    """launch (s); fraction of the matrix peak; memory: fraction of bandwidth; convert: share of the bytes that a narrow cache saves and widening costs.

    pad: query rows of a tile that hold nothing; step (s): 128 tokens of one head (width 128, 2 bytes) on one core;
    split: how well idle cores share one sequence (0 not, 1 evenly);
    block (s): what a core spends to begin and end one sequence and head.
    """

    launch: Num
    fraction: Num
    memory: Num
    convert: Num
    pad: Num
    step: Num
    split: Num
    block: Num


def longest_share(blocks: Num, cores: Num, split: Num) -> Num:
    """Return the part of one sequence that its slowest core walks.

    1 / (1 + split (max(1, cores / blocks) - 1)).

    Holds when idle cores take parts of a sequence (flash decoding).
    Source: flash-decoding, "A faster attention for decoding: Flash-Decoding".

    >>> float(longest_share(33.0, 132.0, 1.0))
    0.25
    """
    share: Num = 1.0 / (1.0 + split * (np.maximum(1.0, cores / blocks) - 1.0))
    return share


def tokens_seen(past: Num, window: Num) -> Num:
    """Count the tokens of the cache that a new token reads.

    s = min(w, p).

    Holds when what lies outside the window is skipped or no longer kept.
    Source: mistral-7b, section 2 (rolling buffer cache).

    >>> float(tokens_seen(32768.0, 4096.0))
    4096.0
    """
    return np.minimum(past, window)


def decode_bytes(c: Decode) -> Num:
    """Count keys and values in, queries in and outputs out.

    2 N s g d v + N h d (q + 2), with s tokens seen.

    Holds when query heads of a group share one reading of the cache.
    Source: gqa-2023, section 2.

    >>> float(decode_bytes(Decode(batch=1.0, past=1.0, heads=1.0, kv_heads=1.0, head_dim=128.0, q=2.0, kv=2.0)))
    1024.0
    """
    seen = tokens_seen(c.past, c.window)
    return c.batch * c.head_dim * (2.0 * seen * c.kv_heads * c.kv + c.heads * (c.q + 2.0))


def decode_seconds(c: Decode, s: Silicon, k: DecodeConstants) -> Num:
    """Cost attention of one token a sequence.

    t = launch + longest + block N g / cores + max(a, b) + 0.2 min(a, b);  a = 4 N s d g (h/g + pad) / (f P);  b = bytes / (r B), a narrow cache's bytes plus convert of its saving;
    longest = step x s/128 x d v / 256 x share.

    Holds when one core takes one sequence and head of the cache, or a part of it.
    Source: gqa-2023, section 2; flash-decoding, "A faster attention for decoding: Flash-Decoding".
    """
    seen = tokens_seen(c.past, c.window)
    width = c.kv + k.convert * np.maximum(0.0, 2.0 - c.kv)
    compute = 4.0 * c.batch * seen * c.head_dim * (c.heads + k.pad * c.kv_heads) / (k.fraction * s.peak)
    moving = c.batch * c.head_dim * (2.0 * seen * c.kv_heads * width + c.heads * (c.q + 2.0)) / (k.memory * s.memory_bandwidth)
    longest = k.step / s.pace * seen / 128.0 * c.head_dim * width / 256.0 * longest_share(c.batch * c.kv_heads, s.cores, k.split)
    begun = k.block / s.pace * c.batch * c.kv_heads / s.cores
    return k.launch / s.pace + longest + begun + np.maximum(compute, moving) + 0.2 * np.minimum(compute, moving)


def decode_floor(c: Decode, s: Silicon) -> Num:
    """Bound attention by matrix peak and by the bytes that no cache can hold.

    max(4 N s h d / P, (bytes - cache) / B).

    Holds always.
    Source: roofline-2009, equation 1.
    """
    flop = 4.0 * c.batch * tokens_seen(c.past, c.window) * c.heads * c.head_dim
    return np.maximum(flop / s.peak, np.maximum(decode_bytes(c) - s.cache_bytes, 0.0) / s.memory_bandwidth)


def decode_coordinates(c: Decode, _s: Silicon) -> tuple[Num, ...]:
    """Place a call by head width, tokens seen of the cache, sequences times heads of the cache, and queries that share one."""
    return np.log2(c.head_dim), np.log2(tokens_seen(c.past, c.window)), np.log2(c.batch * c.kv_heads), np.log2(c.heads / c.kv_heads)


def whole_cache(c: Decode) -> Decode:
    """Return the call without its window."""
    return replace(c, window=math.inf)


DECODE = Form(id="decode", call=Decode, constants=DecodeConstants, seconds=decode_seconds, floor=decode_floor,
              axes=(Axis(name="head_dim", knots=(6, 7, 7.585, 8, 9)), Axis(name="past", knots=(1, 5, 8, 11, 14, 17)), Axis(name="sequences", knots=(0, 4, 7, 10, 13)), Axis(name="group", knots=(0, 3, 5, 6))),
              coordinates=decode_coordinates, longer=whole_cache)  # fmt: skip
