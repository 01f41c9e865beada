"""What each chip must hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chipscale.facts.model import MLP, Attention, Block, LatentAttention, Model
from chipscale.ops.work import Num
from chipscale.plan import Degrees
from chipscale.schedules.forms import copies, in_flight

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

    `head` is the vocabulary.
    """

    split: Num
    whole: Num
    routed: Num
    d_model: Num
    layers: Num
    head: Num


def holds(model: Model) -> Holds:
    """Count what all layers keep: inputs of products, attention's operands and output, activations.

    Holds when attention is fused (no score tensor is kept) and norms keep their input.
    Source: korthikanti-2022, section 4.1, without the score tensor.
    """
    d = float(model.d_model)
    split = whole = routed = 0.0
    for block in model.blocks:
        kept, copies = _block(block, d)
        split, routed = split + block.repeat * kept, routed + block.repeat * copies
        whole += block.repeat * 4.0 * d
    return Holds(split=split, whole=whole, routed=routed, d_model=d, layers=float(model.layers), head=float(model.vocab))


def _block(block: Block, d: float) -> tuple[float, float]:
    m, f = block.mixer, block.feed
    if isinstance(m, Attention):
        mixed = 2.0 * m.heads * m.head_dim + 2.0 * m.kv_heads * m.head_dim
    elif isinstance(m, LatentAttention):
        mixed = m.heads * (2.0 * (m.nope_dim + m.rope_dim) + 3.0 * m.v_head_dim) + m.q_rank + m.kv_rank
    else:
        mixed = 2.0 * m.key_heads * m.key_dim + 4.0 * m.value_heads * m.value_dim
    if isinstance(f, MLP):
        return mixed + f.d_ff * (3.0 if f.gated else 2.0), 0.0
    return mixed + f.shared_d_ff * 3.0, f.top_k * (2.0 * d + f.d_ff * (3.0 if f.gated else 2.0))


def need(h: Holds, dense: Num, experts: Num, plan: Degrees, tokens: Num, batches: Num, *, master: float = 12.0) -> Need:
    """Count the bytes on the fullest chip of a training plan.

    weights 2 P, gradients 4 P, optimizer 12 P, each over the ranks that its ZeRO stage shards; activations 2 bytes an element
    of every micro-batch in flight (`schedules.forms.in_flight`, `batches` a step);
    full recompute keeps one input a layer.  `dense` and `experts` are parameters on the rank, all copies of a bidirectional pipeline.

    Holds when gradients accumulate in 32 bit and the loss is computed on one micro-batch at a time.
    Source: zero-2020, section 3; korthikanti-2022, section 4; megatron-2021, section 2.2.
    """
    wide = plan.cp * plan.dp
    narrow = np.maximum(plan.tp * plan.cp * plan.dp / (plan.ep * plan.etp), 1.0)

    def shared(stage: float) -> Num:
        return np.where(plan.sharding >= stage, dense / wide + experts / narrow, dense + experts)

    layer = (h.split + h.whole + h.routed) / plan.tp / h.layers
    kept = np.where(plan.recompute == 2.0, h.d_model / plan.tp, layer)
    flight = in_flight(plan, batches) * h.layers
    once = np.where(plan.sharding >= 1.0, copies(plan.schedule), 1.0)
    live = np.where(plan.recompute == 2.0, layer, 0.0)
    return Need(
        weights=2.0 * shared(3.0) + 4.0 * np.where(plan.sharding == 3.0, (dense + experts) * plan.pp / h.layers, 0.0),
        gradients=4.0 * shared(2.0),
        optimizer=master * shared(1.0) / once,
        activations=2.0 * tokens * (kept * flight + live),
        ends=6.0 * tokens * h.head / plan.tp * np.where(plan.pp > 1.0, 0.0, 1.0),
    )
