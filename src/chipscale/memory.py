"""What each chip must hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chipscale.facts.model import MLP, Attention, Block, CompressedAttention, LatentAttention, Mixer, Model
from chipscale.ops.work import Num
from chipscale.plan import Degrees

#: share of a chip's memory that allocators lose and libraries hold (assumed; contexts, communication buffers, fragmentation)
RESERVED = 0.06


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Bytes by kind on the fullest chip, floats or arrays."""

    weights: Num
    gradients: Num
    optimizer: Num
    activations: Num
    ends: Num

    @property
    def total(self) -> Num:
        return self.weights + self.gradients + self.optimizer + self.activations + self.ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Holds:
    """Elements a token that the layers of a model keep for the backward pass: split by tp, by sequence, and routed (per expert copy).

    `carried` are those that one layer hands to the next, `head` is the vocabulary.
    """

    split: Num
    whole: Num
    routed: Num
    carried: Num
    layers: Num
    head: Num


def holds(model: Model) -> Holds:
    """Count what all layers keep: inputs of products, attention's operands and output, activations, streams before and outputs in hyper-connections.

    Holds when attention is fused (no score tensor is kept) and norms keep their input.
    Source: korthikanti-2022, section 4.1, without the score tensor.
    """
    d = float(model.d_model)
    split = whole = routed = 0.0
    for block in model.blocks:
        kept, copies = _block(block, d)
        split, routed = split + block.repeat * kept, routed + block.repeat * copies
        whole += block.repeat * (4.0 * d + (2.0 * (block.streams + 1.0) * d if block.streams > 1 else 0.0))
    return Holds(split=split, whole=whole, routed=routed, carried=d * model.streams, layers=float(model.layers), head=float(model.vocab))


def _block(block: Block, d: float) -> tuple[float, float]:
    mixed, f = _mixer(block.mixer), block.feed
    if isinstance(f, MLP):
        return mixed + f.d_ff * (3.0 if f.gated else 2.0), 0.0
    return mixed + f.shared_d_ff * 3.0, f.top_k * (2.0 * d + f.d_ff * (3.0 if f.gated else 2.0))


def _mixer(m: Mixer) -> float:
    if isinstance(m, Attention):
        return 2.0 * m.heads * m.head_dim + 2.0 * m.kv_heads * m.head_dim
    if isinstance(m, LatentAttention):
        return m.heads * (2.0 * (m.nope_dim + m.rope_dim) + 3.0 * m.v_head_dim) + m.q_rank + m.kv_rank
    if isinstance(m, CompressedAttention):
        made = m.overlap * 2.0 + 1.0 / m.ratio if m.ratio else 0.0
        index = (made + m.indexer.heads) * m.indexer.head_dim if m.indexer else 0.0
        return 2.0 * m.heads * m.head_dim + m.q_rank + (1.0 + made) * m.head_dim + index + m.out_groups * m.out_rank
    return 2.0 * m.key_heads * m.key_dim + 4.0 * m.value_heads * m.value_dim


def need(h: Holds, dense: Num, experts: Num, plan: Degrees, tokens: Num, *, master: float = 12.0) -> Need:
    """Count the bytes on the fullest chip of a training plan.

    weights 2 P, gradients 4 P, optimizer 12 P, each over the ranks that its ZeRO stage shards; activations 2 bytes an element
    of every micro-batch in flight: p of them on the first stage under 1F1B, (1 + (p - 1) / (p v)) p when interleaved;
    full recompute keeps one input a layer.  `dense` and `experts` are parameters on the rank.

    Holds when gradients accumulate in 32 bit and the loss is computed on one micro-batch at a time.
    Source: zero-2020, section 3; korthikanti-2022, section 4; megatron-2021, section 2.2.
    """
    wide = plan.cp * plan.dp
    narrow = np.maximum(plan.tp * plan.cp * plan.dp / (plan.ep * plan.etp), 1.0)

    def shared(stage: float) -> Num:
        return np.where(plan.sharding >= stage, dense / wide + experts / narrow, dense + experts)

    layer = (h.split + h.whole + h.routed) / plan.tp / h.layers
    kept = np.where(plan.recompute == 2.0, h.carried / plan.tp, layer)
    flight = np.where(plan.vpp > 1.0, 1.0 + (plan.pp - 1.0) / (plan.pp * plan.vpp), 1.0) * h.layers
    live = np.where(plan.recompute == 2.0, layer, 0.0)
    return Need(
        weights=2.0 * shared(3.0) + 4.0 * np.where(plan.sharding == 3.0, (dense + experts) * plan.pp / h.layers, 0.0),
        gradients=4.0 * shared(2.0),
        optimizer=master * shared(1.0),
        activations=2.0 * tokens * (kept * flight + live),
        ends=6.0 * tokens * h.head / plan.tp * np.where(plan.pp > 1.0, 0.0, 1.0),
    )
