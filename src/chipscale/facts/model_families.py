"""Models by dimensions: a decoder family, and the rules that tell a gated MLP or a tied head from a stated count."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from chipscale.evidence import EvidenceError
from chipscale.facts.config_fields import MOST_LAYERS
from chipscale.facts.model import MLP, Attention, Block, Experts, Feed, LatentAttention, Mixer, Model, merged
from chipscale.facts.parameters import parameters

#: how far a stated count may be off at least before it contradicts the dimensions (relative)
SLACK = 0.03
#: a count rounded more coarsely than this (relative) names a class of size
COARSE = 0.1
#: a count must be at least this sharp (relative) to say that an MLP of an unusual width has no gate
SHARP = 0.035


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimensions:
    """The dimensions of a decoder of equal layers; 0 where there is none."""

    layers: int
    d_model: int
    heads: int
    kv_heads: int
    head_dim: int
    d_ff: int
    vocab: int
    gated: bool
    experts: int = 0
    top_k: int = 0
    shared: int = 0
    expert_d_ff: int = 0
    dense_layers: int = 0
    latent: LatentAttention | None = None
    window: int | None = None
    tied: bool = False
    positions: int = 0


def by_dimensions(id: str, n: Dimensions) -> Model:
    """Build a decoder from its dimensions; where half of the layers are dense they alternate, else they come first."""
    if min(n.layers, n.d_model, n.heads, n.kv_heads, n.head_dim, n.vocab) < 1 or n.layers > MOST_LAYERS:
        raise EvidenceError(f"{id}: layers (at most {MOST_LAYERS:,}), widths, heads and vocabulary must be positive; correct them")
    if (n.experts and n.expert_d_ff < 1) or (not n.experts and n.d_ff < 1):
        raise EvidenceError(f"{id}: the feed-forward width must be positive; correct d_ff or moe_d_ff")
    if not 0 <= n.dense_layers <= n.layers:
        raise EvidenceError(f"{id}: {n.dense_layers} dense layers of {n.layers}; correct n_dense_layers")
    mixer: Mixer = n.latent or Attention(heads=n.heads, kv_heads=n.kv_heads, head_dim=n.head_dim, v_head_dim=n.head_dim, reach=n.window)
    dense: Feed = MLP(d_ff=n.d_ff, gated=n.gated)
    feed = dense
    if n.experts:
        feed = Experts(count=n.experts, top_k=n.top_k, d_ff=n.expert_d_ff, shared_d_ff=n.shared * n.expert_d_ff, gated=n.gated)
    one, other = Block(mixer=mixer, feed=dense, repeat=1), Block(mixer=mixer, feed=feed, repeat=1)
    routed = n.layers - n.dense_layers
    layers = [one, other] * routed if n.experts and n.dense_layers == routed else [one] * n.dense_layers + [other] * routed
    return Model(id=id, name=id, d_model=n.d_model, vocab=n.vocab, blocks=merged(layers), tied=n.tied, learned_positions=n.positions)


def gated_width(d_model: int) -> int:
    """Return the width at which a gated MLP has the parameters of an ungated one of 4 d.

    256 ceil(8 d / (3 x 256))

    Holds when the width follows the first Llama.
    Source: glu-2020, section 3 (2/3 of 4 d).

    >>> gated_width(4096)
    11008
    """
    return -(-8 * d_model // (3 * 256)) * 256


def gpt(
    layers: int, d_model: int, heads: int, vocab: int, *, kv_heads: int | None = None, d_ff: int | None = None, gated: bool = False,
    experts: int = 0, top_k: int = 0, moe_d_ff: int = 0, shared: int = 0, dense_layers: int = 0, mla: LatentAttention | None = None,
    head_dim: int | None = None, window: int | None = None, tied: bool = False, positions: int = 0,
) -> Model:  # fmt: skip
    """Build a decoder of the GPT family; full heads and an MLP of 4 d (8/3 d where gated) unless stated.

    >>> round(parameters(gpt(96, 12288, 96, 51200, tied=True)).total / 1e9)
    175
    """
    if min(d_model, heads) < 1:
        raise EvidenceError("gpt: d_model and heads must be positive; correct them")
    if head_dim is None and d_model % heads:
        raise EvidenceError(f"gpt: d_model {d_model} does not divide over {heads} heads; give head_dim")
    dims = Dimensions(
        layers=layers, d_model=d_model, heads=heads, kv_heads=heads if kv_heads is None else kv_heads, head_dim=head_dim or d_model // heads,
        d_ff=d_ff or (gated_width(d_model) if gated else 4 * d_model), vocab=vocab, gated=gated, experts=experts, top_k=top_k, shared=shared,
        expert_d_ff=moe_d_ff, dense_layers=dense_layers, latent=mla, window=window, tied=tied, positions=positions,
    )  # fmt: skip
    return by_dimensions(f"gpt-{layers}x{d_model}", dims)


def rounding(stated: float) -> float:
    """Return half a unit in the last digit of a count in billions, relative to it.

    >>> rounding(8)
    0.0625
    """
    digits = f"{stated:.6g}"
    decimals = len(digits.partition(".")[2]) if "e" not in digits else 0
    return 0.5 / (stated * 10.0**decimals)


def miss(n: Dimensions, stated_params: float) -> float:
    """Return how far a count is off a stated one, as the absolute logarithm of their ratio."""
    return abs(math.log(parameters(by_dimensions("a model", n)).total / stated_params))


def loose_miss(n: Dimensions, stated_params: float) -> float:
    """Return the smaller miss of a tied and an untied head."""
    return min(miss(replace(n, tied=tied), stated_params) for tied in (False, True))


def gated_by_width(n: Dimensions) -> bool:
    """Guess from dimensions alone: ungated MLPs are 4 d wide and go with full heads, experts are gated."""
    return bool(n.experts) or n.d_ff != 4 * n.d_model or n.kv_heads < n.heads


def infer_gated(n: Dimensions, stated_params: float) -> bool | None:
    """Tell whether the MLP is gated from a stated count; None where the count does not tell.

    A count rounded coarsely is a name; at a width other than 4 d, where gates are the rule, only a sharp one denies them.

    >>> dims = Dimensions(layers=32, d_model=6144, heads=48, kv_heads=8, head_dim=128, d_ff=24576, vocab=256000, gated=True)
    >>> infer_gated(dims, 15.6e9)
    False
    """
    sharp = rounding(stated_params / 1e9)
    if sharp > COARSE:
        return None
    off = {gated: loose_miss(replace(n, gated=gated), stated_params) for gated in (False, True)}
    fits = [gated for gated in off if off[gated] <= max(sharp, SLACK)]
    if n.d_ff != 4 * n.d_model and sharp > SHARP:
        fits = [gated for gated in fits if gated]
    if not fits or (len(fits) == 2 and abs(off[True] - off[False]) < 0.01):
        return None
    return min(fits, key=lambda gated: off[gated])


def settled_ends(n: Dimensions, stated_params: float | None, length: int) -> Dimensions:
    """Choose tied or untied head, and learned positions, by the stated count.

    The usual (tied where ungated, no learned positions) stands unless it is off by twice the rounding or 15 %; then the nearest does.
    """
    usual = replace(n, tied=not n.gated)
    if stated_params is None or miss(usual, stated_params) <= min(max(2 * rounding(stated_params / 1e9), 0.002), 0.15):
        return usual
    options = [usual, replace(n, tied=n.gated)]
    options += [] if n.gated else [replace(n, tied=True, positions=length)]
    return min(options, key=lambda option: miss(option, stated_params))
