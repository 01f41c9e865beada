"""Room: what of a chip's memory the weights of a deployment take, and how many tokens of cache the rest holds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from chipscale.evidence import EvidenceError
from chipscale.facts.chip import Chip
from chipscale.facts.model import Attention, CompressedAttention, Experts, LatentAttention, Mixer, Model
from chipscale.facts.parameters import parameters
from chipscale.graph import cache_width
from chipscale.serving.deployment import Deployment

#: share of memory that engines give to weights and cache by default (vLLM gpu_memory_utilization 0.9, TensorRT-LLM free_gpu_memory_fraction 0.9)
GIVEN = 0.9
#: bytes of a value of a recurrent state
STATE = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Bytes on one chip: `weights`, `memory` that the engine may use, and `token` a cached token; `tokens` that the caches of a replica hold in all."""

    weights: float
    memory: float
    token: float
    tokens: float


def weight_bytes(model: Model, on: Deployment) -> float:
    """Count the bytes of weights on a chip.

    w_d N_dense / tp + w_e N_experts / (moe_tp moe_ep) + 2 N_ends / tp, over pp stages.

    Holds when attention groups hold copies of all but the experts, and embedding and head stay at 16 bit.
    Source: megatron-2021, section 3; deepseek-v3, section 3.4.
    """
    count = parameters(model)
    ends = float(count.embedding + count.head)
    dense = float(count.total - count.experts_routed) - ends
    spread = float(on.moe_tp * on.moe_ep)
    return (on.dense.weight * dense / on.tp + on.experts.weight * float(count.experts_routed) / spread + 2.0 * ends / on.tp) / on.pp


def token_bytes(model: Model, on: Deployment, seen: float) -> float:
    """Count the bytes that a cached token takes on a chip, where a sequence holds `seen` tokens on average.

    sum over layers of v width min(1, w / s) / split, a state's bytes spread over the tokens seen; latent and compressed caches are whole on each rank, others split by heads.

    Holds when layers with a window keep no more than it.
    Source: deepseek-v3, section 2.1.1; mistral-7b, section 2 (rolling buffer cache).
    """
    return sum(block.repeat * _layer(block.mixer, on, seen) for block in model.kinds) / on.pp


def _layer(mixer: Mixer, on: Deployment, seen: float) -> float:
    if isinstance(mixer, LatentAttention | CompressedAttention):
        return on.kv * float(cache_width(mixer, seen))
    if isinstance(mixer, Attention):
        kept = min(1.0, mixer.reach / seen) if mixer.reach else 1.0
        heads = max(mixer.kv_heads / on.tp, 1.0)
        return on.kv * heads * (mixer.head_dim + mixer.v_head_dim) * kept
    return STATE * mixer.value_heads / on.tp * mixer.key_dim * mixer.value_dim / seen


def room(model: Model, on: Deployment, chip: Chip, *, seen: float, given: float = GIVEN) -> Room:
    """Return what a chip holds and how many tokens the caches of the replica do.

    Errors: weights that do not fit, with how much is missing and how many chips would do.
    """
    weights, memory = weight_bytes(model, on), given * chip.value("memory_bytes")
    if weights >= memory:
        need = 2 ** math.ceil(math.log2(weights * on.chips / memory))
        raise EvidenceError(
            f"{model.name} does not fit on {on.chips} x {chip.id}: {weights / 1e9:.0f} GB of weights a chip, {memory / 1e9:.0f} GB to use; "
            f"{(weights - memory) / 1e9:.0f} GB are missing; about {need} chips would hold it"
        )
    token = token_bytes(model, on, seen)
    return Room(weights=weights, memory=memory, token=token, tokens=on.dp * (memory - weights) / token)


def routed(model: Model) -> bool:
    """Whether a model has layers of experts."""
    return any(isinstance(b.feed, Experts) for b in model.blocks)
