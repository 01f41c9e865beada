"""What a layer keeps for its backward pass, tensor by tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from chipscale.facts.model import MLP, Attention, Block, CompressedAttention, Experts, LatentAttention, LinearAttention
from chipscale.plan import MODULES

#: bits of recompute settings
CORE, FULL, UP, NORM, MLP_, ACT, MOE, SHARED, OP = (1 << i for i in range(len(MODULES)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """One tensor that a layer keeps for its backward pass: bytes a token, the ranks that divide it, and the settings that drop it.

    `split` is divided by tensor parallelism, `whole` by sequence parallelism, `copies` are tokens sent to experts. `drop` has bits of `plan.MODULES`.
    """

    name: str
    bytes: float
    place: Literal["split", "whole", "copies"]
    drop: int = 0


def norm_saves(block: Block, d: float, operand: float, dropout: bool) -> list[Saved]:
    """List what norms, residual sums and hidden dropout keep: each norm its input and its output, which is the next product's operand.

    >>> sum(s.bytes for s in norm_saves(Block(mixer=Attention(heads=1, kv_heads=1, head_dim=1, v_head_dim=1), feed=MLP(d_ff=1), repeat=1), 1.0, 2.0, True))
    10.0
    """
    masks = [Saved(name="dropout masks", bytes=2.0 * d, place="whole")] if dropout else []
    return [
        Saved(name="layer input", bytes=2.0 * d, place="whole"),
        Saved(name="middle", bytes=2.0 * d, place="whole", drop=OP),
        Saved(name="normed", bytes=2.0 * operand * d, place="whole", drop=NORM | OP),
        Saved(name="streams", bytes=(2.0 * (block.streams + 1.0) * 2.0 * d if block.streams > 1 else 0.0), place="whole"),
        Saved(name="further norms", bytes=2.0 * d * max(block.norms - 2, 0), place="whole", drop=NORM | OP),
        *masks,
    ]


def attention_saves(m: Attention, operand: float, scores: float) -> list[Saved]:
    """List what grouped attention keeps: query, key, value, output, and a row statistic (fused) or the scores (5 bytes each).

    Holds when a fused kernel keeps one 32-bit number a token and head; unfused, softmax and dropout keep 2 + 2 bytes and a mask a score.
    Source: korthikanti-2022, section 4.1; flash-attention-2, section 3.1.
    """
    query, key, value, out = m.heads * m.head_dim, m.kv_heads * m.head_dim, m.kv_heads * m.v_head_dim, m.heads * m.v_head_dim
    return [
        Saved(name="query", bytes=2.0 * query * (2 if m.gated else 1), place="split"),
        Saved(name="key", bytes=2.0 * key, place="split", drop=OP),
        Saved(name="value", bytes=2.0 * value, place="split"),
        Saved(name="before norm", bytes=2.0 * (query + key) * m.qk_norm, place="split", drop=NORM | OP),
        Saved(name="scores", bytes=m.heads * (5.0 * scores or 4.0), place="split", drop=CORE),
        Saved(name="output", bytes=2.0 * out, place="split"),
        Saved(name="output operand", bytes=operand * out * (m.gated or operand < 2), place="split", drop=OP),
    ]


def latent_saves(m: LatentAttention, operand: float, scores: float) -> list[Saved]:
    """List what multi-head latent attention keeps: latents before and after their norms, full query, key and value, and the output.

    Holds when up-projections are not absorbed; recomputing them (`mla_up_proj`) drops query, key and value.
    Source: deepseek-v3, section 3.2.3; megatron-core, transformer/multi_latent_attention.py.
    """
    qk = m.heads * (m.nope_dim + m.rope_dim)
    out = m.heads * m.v_head_dim
    return [
        Saved(name="latents", bytes=2.0 * (m.q_rank + m.kv_rank + m.rope_dim), place="whole"),
        Saved(name="normed latents", bytes=operand * (m.q_rank + m.kv_rank), place="whole", drop=UP | NORM | OP),
        Saved(name="query, key and value", bytes=2.0 * (2 * qk + out), place="split", drop=UP | OP),
        Saved(name="scores", bytes=m.heads * (5.0 * scores or 4.0), place="split", drop=CORE),
        Saved(name="output", bytes=2.0 * out, place="split"),
        Saved(name="output operand", bytes=operand * out * (operand < 2), place="split", drop=OP),
    ]


def compressed_saves(m: CompressedAttention, operand: float) -> list[Saved]:
    """List what compressed attention keeps: the query's latent, query and output of all heads, the shared vector, entries and their index, the grouped output.

    Holds when scores are never kept: the kernel keeps one 32-bit number a token and head.
    Source: transformers, models/deepseek_v4/modeling_deepseek_v4.py; flash-attention-2, section 3.1.
    """
    made = m.overlap * 2.0 + 1.0 / m.ratio if m.ratio else 0.0
    index = (made + m.indexer.heads) * m.indexer.head_dim if m.indexer else 0.0
    return [
        Saved(name="latent", bytes=2.0 * m.q_rank, place="whole"),
        Saved(name="normed latent", bytes=operand * m.q_rank, place="whole", drop=UP | NORM | OP),
        Saved(name="query", bytes=2.0 * m.heads * m.head_dim, place="split", drop=UP | OP),
        Saved(name="shared vector and entries", bytes=2.0 * (1.0 + made) * m.head_dim, place="whole"),
        Saved(name="index", bytes=2.0 * index, place="whole", drop=OP),
        Saved(name="scores", bytes=4.0 * m.heads, place="split", drop=CORE),
        Saved(name="output", bytes=2.0 * m.heads * m.head_dim, place="split"),
        Saved(name="grouped output", bytes=operand * m.out_groups * m.out_rank, place="whole", drop=OP),
    ]


def linear_saves(m: LinearAttention) -> list[Saved]:
    """List what a gated delta-rule layer keeps: the projections, the convolved query, key and value, and the gated output.

    Holds when states between chunks are computed again.
    Source: gated-delta-net, section 3.3.
    """
    keys, values = 2.0 * m.key_heads * m.key_dim, 1.0 * m.value_heads * m.value_dim
    return [
        Saved(name="projections", bytes=2.0 * (keys + 2 * values), place="split"),
        Saved(name="convolved", bytes=2.0 * (keys + values), place="split", drop=CORE | OP),
        Saved(name="output", bytes=2.0 * values, place="split"),
        Saved(name="gated output", bytes=2.0 * values, place="split", drop=NORM | OP),
    ]


def mlp_saves(d_ff: float, gated: bool, operand: float, drop: int) -> list[Saved]:
    """List what a feed-forward keeps behind its input: the up-projection, in both halves where gated, and the activation's output."""
    return [
        Saved(name="up", bytes=2.0 * d_ff, place="split", drop=drop),
        Saved(name="gate", bytes=2.0 * d_ff * gated, place="split", drop=drop | OP),
        Saved(name="activation", bytes=operand * d_ff, place="split", drop=drop | ACT | OP),
    ]


def feed_saves(feed: MLP | Experts, d: float, operand: float) -> list[Saved]:
    """List what a feed-forward layer keeps; experts keep one copy of a token for each expert it is sent to, and the router's scores in 32 bit.

    Holds when routing is balanced, nothing is dropped, and the router's weight is applied inside the expert.
    Source: megatron-core, transformer/moe/README.md; deepseek-v3, section 3.2.3.
    """
    if isinstance(feed, MLP):
        return mlp_saves(feed.d_ff, feed.gated, operand, MLP_)
    return [
        Saved(name="router", bytes=8.0 * feed.count, place="whole", drop=MOE),
        Saved(name="copies", bytes=operand * feed.top_k * d, place="copies", drop=MOE),
        *mlp_saves(feed.top_k * feed.d_ff, feed.gated, operand, MOE),
        *mlp_saves(feed.shared_d_ff, feed.gated, operand, MOE | SHARED),
    ]


def layer_saves(block: Block, d: float, *, operand: float = 2.0, scores: float = 0.0) -> list[Saved]:
    """List every tensor that one layer keeps for the backward pass; `scores` is the sequence length where attention is not fused, else 0.

    s b h (34 + 5 a s / h) bytes without a fused kernel.

    Holds when dropout belongs to unfused attention; 16-bit activations, `operand` bytes where the operand of a product is kept narrower.
    Source: korthikanti-2022, equation 1 (5 a s / h = 80 for GPT-3 175B: recomputing the core saves 70 %).

    >>> gpt3 = Block(mixer=Attention(heads=96, kv_heads=96, head_dim=128, v_head_dim=128), feed=MLP(d_ff=4 * 12288, gated=False), repeat=96)
    >>> sum(s.bytes for s in layer_saves(gpt3, 12288.0, scores=2048.0)) / 12288
    114.0
    """
    m = block.mixer
    if isinstance(m, Attention):
        mixed = attention_saves(m, operand, scores)
    elif isinstance(m, LatentAttention):
        mixed = latent_saves(m, operand, scores)
    elif isinstance(m, CompressedAttention):
        mixed = compressed_saves(m, operand)
    else:
        mixed = linear_saves(m)
    return norm_saves(block, d, operand, scores > 0) + mixed + feed_saves(block.feed, d, operand)
