"""One fused mixture-of-experts layer: dispatch inside the chip, two grouped products, weighted sum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chipscale.cost.kernels.form import Axis, Form, Silicon
from chipscale.ops.work import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """The layer on its most loaded rank: `tokens` over all ranks, each to `top_k` of `experts`.

    `experts` are spread over `moe_ep` ranks, `inter` over `moe_tp`; `matrices` an expert (3 gated, 2 not); bytes an element of weights
    `w` (scales included) and of the products' operands `a`; `skew` is the exponent of the experts' popularity, 0 where it is even.
    """

    tokens: Num
    hidden: Num
    inter: Num
    top_k: Num
    experts: Num
    moe_tp: Num
    moe_ep: Num
    matrices: Num
    w: Num
    a: Num
    skew: Num


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertsConstants:
    """launch (s); chain (s an element of the sums' length); fraction of the matrix peak; memory: fraction of bandwidth; passes over activations.

    spill: share of the passes over assignments of other ranks; tile (rows); core: 16-bit FLOP/s that one core's instructions ask for;
    held: share of the last cache that weights keep; reach: cache B/s a core.
    """

    launch: Num
    chain: Num
    fraction: Num
    memory: Num
    passes: Num
    spill: Num
    tile: Num
    core: Num
    held: Num
    reach: Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What the most loaded rank works on: assignments of a token to an expert, and its experts that have any."""

    assigned: Num
    active: Num


def _integral(log_ratio: Num, power: Num) -> Num:
    """Integrate x^(power - 1) from 1 to e^log_ratio: (e^(power log_ratio) - 1) / power."""
    safe = np.where(np.abs(power) < 1e-9, 1e-9, power)
    return np.expm1(safe * log_ratio) / safe


def highest_of(count: Num) -> Num:
    """Return the expected highest of `count` standard normal draws.

    z = Q((n - 3/8) / (n + 1/4)),  Q(p) = 4.91 (p^0.14 - (1 - p)^0.14).

    Holds within 3 % up to some thousand draws.
    Source: royston-1982, section on the approximation of Blom; joiner-rosenblatt-1971, section 2.

    >>> round(float(highest_of(8.0)), 2)
    1.43
    """
    p = (count - 0.375) / (count + 0.25)
    return 4.91 * (p**0.14 - (1.0 - p) ** 0.14)


def load(c: Experts) -> Load:
    """Return the expected load of the rank with the most assignments.

    Popularity x of an expert has density ~ x^-skew on [1, b], b = max(0.8 tokens, 40). With mean mu, squared coefficient of variation v
    (at least 1/p - 1, p = tokens top_k / experts, as tokens are whole) and skewness g of x, n = experts / R, R = moe_ep, z the highest of R draws:
    assigned = tokens top_k / R (1 + sqrt(v / n) (z + (z^2 - 1) g / (6 sqrt n))), the bracket at least 1, at most b / mu and R;
    active = n max(P(y >= 1/2), min(p, p at which the highest y is 1/2)), y = p x / mu, at most one an assignment: shares are rounded, and
    while all round to none each assignment finds an expert of its own.

    Holds when experts draw their popularity independently, and the worst rank decides.
    Source: cornish-fisher-1938, equation for the 3rd cumulant.

    >>> shape = {"hidden": 7168.0, "inter": 2048.0, "top_k": 8.0, "experts": 256.0, "matrices": 3.0, "w": 1.0, "a": 1.0}
    >>> even = Experts(tokens=64.0, moe_tp=1.0, moe_ep=8.0, skew=0.0, **shape)
    >>> float(load(even).assigned), float(load(even).active)
    (64.0, 32.0)
    """
    here = c.experts / c.moe_ep
    mean = c.tokens * c.top_k / c.moe_ep
    length = np.log(np.maximum(0.8 * c.tokens, 40.0))
    every = _integral(length, 1.0 - c.skew)
    m1, m2, m3 = (_integral(length, 1.0 + i - c.skew) / every for i in (1.0, 2.0, 3.0))
    spread = m2 / m1**2 - 1.0
    leaning = (m3 / m1**3 - 3.0 * m2 / m1**2 + 2.0) / spread**1.5
    whole = np.maximum(c.experts / (c.tokens * c.top_k), 1.0) - 1.0
    z = highest_of(c.moe_ep)
    peak = 1.0 + np.sqrt(np.maximum(spread, whole) / here) * (z + np.maximum(z**2 - 1.0, 0.0) * leaning / np.sqrt(here) / 6.0)
    peak = np.clip(np.minimum(peak, np.exp(length) / m1), 1.0, c.moe_ep)
    each = c.tokens * c.top_k / c.experts
    least = np.clip(0.5 * m1 / each, 1.0, np.exp(length))
    served = 1.0 - _integral(np.log(least), 1.0 - c.skew) / every
    share = np.maximum(served, np.minimum(each, 0.5 * m1 / np.exp(length)))
    skewed = c.skew > 0.0
    assigned = np.maximum(np.where(skewed, mean * peak, mean), 1.0)
    share = np.where(skewed, share, 1.0)
    active = np.maximum(np.minimum(np.minimum(assigned, here), here * share), 1.0)
    return Load(assigned=assigned, active=active)


def padded_rows(on: Load, tile: Num) -> Num:
    """Return the rows that tiles compute: the tile grows with the tokens of an expert, between 16 and `tile` rows.

    max(active m, assigned + active m / 2),  m = clip(assigned / active, 16, tile).

    Holds when a kernel picks its tile by the mean tokens of an expert.
    Source: nvidia-matmul-guide, "Tile quantization".
    """
    m = np.clip(on.assigned / on.active, 16.0, np.maximum(tile, 16.0))
    return np.maximum(on.active * m, on.assigned + on.active * m / 2.0)


def experts_seconds(c: Experts, s: Silicon, k: ExpertsConstants) -> Num:
    """Cost one layer on its most loaded rank.

    t = launch + chain (hidden + inter) + passes x / B + max(a, b) + 0.2 min(a, b);
    a = 2 rows W / f sqrt(1 / P^2 + 1 / Q^2), W = matrices hidden inter, Q = core cores P / P16: what one core's instructions can ask for;
    b = w active W / r ((1 - e) / B + e / max(B, reach cores)), e = 1 / (1 + (w active W / (held cache))^2): what calls in a row find in the cache;
    x = 16-bit activations that enter, are gathered, gated and summed, `spill` of them for assignments of other ranks.

    Holds when the layer is called over and over with the same weights.
    Source: roofline-2009, equation 1; megablocks-2022, section 4.
    """
    inter = c.inter / c.moe_tp
    on = load(c)
    weights = c.matrices * c.hidden * inter
    issued = k.core * s.cores * s.peak / s.peak16
    compute = 2.0 * padded_rows(on, k.tile) * weights / k.fraction * np.sqrt(1.0 / s.peak**2 + 1.0 / issued**2)
    size = c.w * on.active * weights
    hit = 1.0 / (1.0 + (size / (k.held * s.cache_bytes)) ** 2)
    moving = size / k.memory * ((1.0 - hit) / s.memory_bandwidth + hit / np.maximum(s.memory_bandwidth, k.reach * s.cores))
    row = 2.0 * (2.0 * c.hidden + c.matrices * inter)
    touched = 4.0 * c.tokens * c.hidden + row * (on.assigned + k.spill * np.maximum(c.tokens * c.top_k - on.assigned, 0.0))
    passes = k.passes * touched / s.memory_bandwidth
    return k.launch + k.chain * (c.hidden + inter) + passes + np.maximum(compute, moving) + 0.2 * np.minimum(compute, moving)


def experts_floor(c: Experts, s: Silicon) -> Num:
    """Bound a layer by matrix peak and by the weights that no cache can hold.

    max(2 assigned matrices hidden inter / P, (w active matrices hidden inter - cache) / B) on a rank with an even load.

    Holds always: the most loaded rank has no less than the mean.
    Source: roofline-2009, equation 1.
    """
    weights = c.matrices * c.hidden * c.inter / c.moe_tp
    on = load(c)
    mean = c.tokens * c.top_k / c.moe_ep
    return np.maximum(2.0 * mean * weights / s.peak, np.maximum(c.w * on.active * weights - s.cache_bytes, 0.0) / s.memory_bandwidth)


def experts_coordinates(c: Experts, s: Silicon) -> tuple[Num, ...]:  # noqa: ARG001  (every form takes both)
    """Place a layer on the surface's axes.

    log2 of (tokens an active expert, values of a matrix over the active experts, columns of a rank's slice of an expert).

    Holds always.
    Source: de-boor-2001, chapter 1.
    """
    on = load(c)
    inter = c.inter / c.moe_tp
    return np.log2(on.assigned / on.active), np.log2(on.active * c.hidden * inter), np.log2(inter)


EXPERTS = Form(
    id="experts",
    call=Experts,
    constants=ExpertsConstants,
    seconds=experts_seconds,
    floor=experts_floor,
    axes=(
        Axis(name="tokens", knots=(0, 3, 5, 7, 9, 12)),
        Axis(name="weights", knots=(18, 22, 25, 28, 31, 34)),
        Axis(name="inter", knots=(6, 9, 11, 13)),
    ),
    coordinates=experts_coordinates,
)
