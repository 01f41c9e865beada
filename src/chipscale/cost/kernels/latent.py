"""Attention over a compressed cache (MLA): a prompt with keys and values made wide, one token on the compressed cache itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chipscale.cost.kernels.decode import longest_share
from chipscale.cost.kernels.form import Axis, Form, Silicon
from chipscale.cost.kernels.prefill import TILE, causal_pairs, narrowed
from chipscale.ops.work import Num

#: widths of one token in the cache (512 + 64 rotary) and of its part that is summed
CACHED, SUMMED = 576.0, 512.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentPrefill:
    """`batch` prompts of `new` tokens, `heads` on this chip; `q` and `kv` are bytes an element of the queries and of the cache.

    `key` and `value` are the widths of a head: 192 and 128 where keys and values are made wide, 576 and 512 on the compressed cache itself.
    """

    batch: Num
    new: Num
    heads: Num
    key: Num
    value: Num
    q: Num
    kv: Num


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentPrefillConstants:
    """launch (s), cast (s) where the cache is narrow, at 2 GHz; fraction of the matrix peak; exponential: share of the exponentials' rate.

    memory: fraction of bandwidth; gain: by how much a narrow cache speeds the matrix products; passes: how often the new tokens' queries, keys
    and values cross memory to be made narrow; edge: tokens of a tile that the mask wastes;
    step (s): one tile of 128 keys in the longest block, which no other block hides.
    """

    launch: Num
    cast: Num
    fraction: Num
    gain: Num
    exponential: Num
    memory: Num
    passes: Num
    edge: Num
    step: Num


def latent_prefill_bytes(c: LatentPrefill) -> Num:
    """Count queries, keys and values in and outputs out, wide by head or once compressed.

    N n h (d_k q + 2 d_v) + N n q (h (d_k + d_v) if wide, else 576).

    Holds when each operand crosses memory once.
    Source: deepseek-v2, section 2.1.2.
    """
    keys = np.where(c.key < CACHED, c.heads * (c.key + c.value), CACHED)
    return c.batch * c.new * (c.heads * (c.key * c.q + c.value * 2.0) + keys * c.q)


def latent_prefill_seconds(c: LatentPrefill, s: Silicon, k: LatentPrefillConstants) -> Num:
    """Cost causal attention of prompts.

    t = launch + passes + max(a, b) + 0.2 min(a, b);  a = N h n'^2 / 2 (2 (d_k + d_v) / (f P) + 1 / (e E)) + step n / 128;  b = bytes / (r B);  n' = n + edge.

    Holds when one core takes a tile of queries of one head and walks its keys in steps.
    Source: deepseek-v2, section 2.1.2; graham-1969, theorem 1 (the longest job after a full schedule).
    """
    rows, narrow = c.new + k.edge, narrowed(c.q, c.kv)
    a_pair = 2.0 * (c.key + c.value) / (k.fraction * s.peak * (1.0 + narrow * k.gain)) + 1.0 / (k.exponential * s.exponentials)
    compute = c.batch * c.heads * rows * rows / 2.0 * a_pair + k.step / s.pace * c.new / TILE
    moving = latent_prefill_bytes(c) / (k.memory * s.memory_bandwidth)
    passes = narrow * k.passes * c.batch * c.new * c.heads * (2.0 * c.key + c.value) * c.q / s.memory_bandwidth
    return (k.launch + narrow * k.cast) / s.pace + passes + np.maximum(compute, moving) + 0.2 * np.minimum(compute, moving)


def latent_prefill_floor(c: LatentPrefill, s: Silicon) -> Num:
    """Bound attention by matrix peak and by the bytes that no cache can hold.

    max(2 (d_k + d_v) pairs / P, (bytes - cache) / B).

    Holds always.
    Source: roofline-2009, equation 1.
    """
    flop = 2.0 * (c.key + c.value) * c.batch * c.heads * causal_pairs(c.new, 0.0)
    return np.maximum(flop / s.peak, np.maximum(latent_prefill_bytes(c) - s.cache_bytes, 0.0) / s.memory_bandwidth)


def latent_prefill_coordinates(c: LatentPrefill, _s: Silicon) -> tuple[Num, ...]:
    """Place a call by tokens and by sequences times heads."""
    return np.log2(c.new), np.log2(c.batch * c.heads)


LATENT_PREFILL = Form(id="latent_prefill", call=LatentPrefill, constants=LatentPrefillConstants, seconds=latent_prefill_seconds,
                      floor=latent_prefill_floor, coordinates=latent_prefill_coordinates,
                      axes=(Axis(name="tokens", knots=(0, 4, 7, 9, 11, 13, 15)), Axis(name="heads", knots=(0, 3, 6, 9, 12, 15))))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentDecode:
    """`batch` sequences with `past` tokens of 576 values in the cache, `heads` on this chip; `q` and `kv` are bytes an element."""

    batch: Num
    past: Num
    heads: Num
    q: Num
    kv: Num


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentDecodeConstants:
    """launch (s); fraction of the matrix peak; gain: by how much a narrow cache speeds the products; memory: fraction of bandwidth; convert: share of the bytes that a narrow cache saves and widening costs.

    pad: query rows of a tile that hold nothing; step (s): 128 tokens on one core; split: how well idle cores share one sequence (0 not, 1 evenly);
    block (s): what a core spends to begin and end one sequence and 16 heads.
    """

    launch: Num
    fraction: Num
    gain: Num
    memory: Num
    convert: Num
    pad: Num
    step: Num
    split: Num
    block: Num


def latent_decode_bytes(c: LatentDecode) -> Num:
    """Count the cache in, queries in and outputs out.

    N (576 s v + h (576 q + 512 x 2)).

    Holds when all heads share one reading of the cache.
    Source: deepseek-v2, section 2.1.2.

    >>> latent_decode_bytes(LatentDecode(batch=1.0, past=1.0, heads=0.0, q=2.0, kv=2.0))
    1152.0
    """
    return c.batch * (CACHED * c.past * c.kv + c.heads * (CACHED * c.q + SUMMED * 2.0))


def latent_decode_seconds(c: LatentDecode, s: Silicon, k: LatentDecodeConstants) -> Num:
    """Cost attention of one token a sequence over the compressed cache.

    t = launch + longest + block N (1 + h/16) / cores + max(a, b) + 0.2 min(a, b);  a = 2 (576 + 512) N s (h + pad) / (f P);  b = bytes / (r B), a narrow cache's bytes plus convert of its saving;
    longest = step x s/128 x v/2 x share.

    Holds when one core takes one sequence, or a part of it, for all heads.
    Source: deepseek-v2, section 2.1.2; flash-decoding, "A faster attention for decoding: Flash-Decoding".
    """
    width = c.kv + k.convert * np.maximum(0.0, 2.0 - c.kv)
    compute = 2.0 * (CACHED + SUMMED) * c.batch * c.past * (c.heads + k.pad) / (k.fraction * s.peak * (1.0 + narrowed(c.q, c.kv) * k.gain))
    moving = c.batch * (CACHED * c.past * width + c.heads * (CACHED * c.q + SUMMED * 2.0)) / (k.memory * s.memory_bandwidth)
    longest = k.step / s.pace * c.past / 128.0 * width / 2.0 * longest_share(c.batch, s.cores, k.split)
    begun = k.block / s.pace * c.batch * (1.0 + c.heads / 16.0) / s.cores
    return k.launch / s.pace + longest + begun + np.maximum(compute, moving) + 0.2 * np.minimum(compute, moving)


def latent_decode_floor(c: LatentDecode, s: Silicon) -> Num:
    """Bound attention by matrix peak and by the bytes that no cache can hold.

    max(2 (576 + 512) N s h / P, (bytes - cache) / B).

    Holds always.
    Source: roofline-2009, equation 1.
    """
    flop = 2.0 * (CACHED + SUMMED) * c.batch * c.past * c.heads
    return np.maximum(flop / s.peak, np.maximum(latent_decode_bytes(c) - s.cache_bytes, 0.0) / s.memory_bandwidth)


def latent_decode_coordinates(c: LatentDecode, _s: Silicon) -> tuple[Num, ...]:
    """Place a call by tokens in the cache, sequences and heads."""
    return np.log2(c.past), np.log2(c.batch), np.log2(c.heads)


LATENT_DECODE = Form(id="latent_decode", call=LatentDecode, constants=LatentDecodeConstants, seconds=latent_decode_seconds,
                     floor=latent_decode_floor, coordinates=latent_decode_coordinates,
                     axes=(Axis(name="past", knots=(1, 6, 9, 12, 14, 17)), Axis(name="batch", knots=(0, 3, 6, 8, 10)), Axis(name="heads", knots=(0, 4, 5, 6, 7))))  # fmt: skip
