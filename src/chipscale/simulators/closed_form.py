"""The closed form: one plan or ten million, on arrays."""

from __future__ import annotations

import numpy as np

from chipscale.cost.constants import Constants
from chipscale.cost.hardware import Hardware
from chipscale.cost.links import exchange_seconds, gather_seconds, pass_seconds
from chipscale.cost.roofline import seconds
from chipscale.graph import Graph
from chipscale.ops.collective import spread
from chipscale.ops.optimizer import adam_bytes
from chipscale.ops.work import Num
from chipscale.plan import Degrees
from chipscale.step import Sizes, Step, Times


def times(graph: Graph, hardware: Hardware, constants: Constants) -> Times:
    """Cost a graph's work, summed by cause."""
    cause: dict[str, Num] = dict.fromkeys(("gemm", "experts", "attention", "elementwise", "head"), 0.0)
    forward: Num = 0.0
    core: Num = 0.0
    for work in graph.works:
        cost = seconds(work, hardware, constants)
        cause[work.cause] = cause[work.cause] + cost
        if not work.backward and work.cause != "head":
            forward = forward + cost
            core = core + cost * float(work.core)
    return Times(forward=forward, core=core, **cause)


def recompute_seconds(t: Times, plan: Degrees) -> Num:
    """Cost the second forward pass: none, the attention core (selective), or all layers (full).

    Holds when the backward pass waits for it.
    Source: korthikanti-2022, section 5.
    """
    return np.where(plan.recompute == 2.0, t.forward, np.where(plan.recompute == 1.0, t.core, 0.0))


def tensor_seconds(size: Sizes, plan: Degrees, tokens: Num, passes: Num, hardware: Hardware, constants: Constants) -> Num:
    """Cost the tensor-parallel gathers and scatters of one micro-batch, all layers.

    (2 L + 2 (L - L_moe) + 2 L_shared) n gathers of 2 T d bytes; n = 1 forward, 1.5 more backward, 1 more under full recompute.

    Holds when sequence parallelism goes with tensor parallelism; routed experts are reached by the dispatch instead.
    Source: korthikanti-2022, section 4.2.2.
    """
    count = 4.0 * size.layers - 2.0 * size.routed * (1.0 - size.shared)
    group = spread(plan.tp, 1.0, hardware.inner_size)
    return (plan.tp > 1.0) * count * passes * gather_seconds(2.0 * tokens * size.d_model, group, hardware, constants)


def expert_seconds(size: Sizes, plan: Degrees, tokens: Num, passes: Num, hardware: Hardware, constants: Constants) -> Num:
    """Cost dispatch and combine of one micro-batch, all expert layers.

    2 n L_moe exchanges of w T / t k d bytes; each rank holds T / t tokens and sends k copies; n = 1 forward, 1 backward, 1 recomputed.

    Holds when routing is balanced and no copy is saved by going to the same node.
    Source: deepseek-v3, section 3.2.2; deepep, README.
    """
    volume = size.exchange_width * tokens / plan.tp * size.top_k * size.d_model * plan.etp
    group = spread(plan.ep, plan.etp, hardware.inner_size)
    return (plan.ep > 1.0) * size.routed * 2.0 * passes * exchange_seconds(volume, group, hardware, constants)


def context_seconds(size: Sizes, plan: Degrees, tokens: Num, hardware: Hardware, constants: Constants) -> Num:
    """Cost passing keys and values round the context-parallel ring, forward and twice backward.

    3 gathers of 2 T c w_kv / t bytes.

    Holds when keys and values travel (ring or all-gather), not queries.
    Source: llama-3, section 3.3.2 (context parallelism).
    """
    group = spread(plan.cp, plan.tp, hardware.inner_size)
    volume = 2.0 * tokens * plan.cp * size.kv_width / plan.tp
    return (plan.cp > 1.0) * 3.0 * gather_seconds(volume, group, hardware, constants)


def shard_parameters(size: Sizes, plan: Degrees) -> tuple[Num, Num]:
    """Return the dense and the expert parameters that the fullest rank holds before ZeRO sharding.

    dense / (t p) + ends / (t min(p, 2));  experts / (e e_t p).

    Holds when embedding and head stand on different stages as soon as there are two.
    Source: megatron-2021, section 2.
    """
    return size.dense / (plan.tp * plan.pp) + size.ends / (plan.tp * np.minimum(plan.pp, 2.0)), size.experts / (plan.ep * plan.etp * plan.pp)


def data_seconds(size: Sizes, plan: Degrees, hardware: Hardware, constants: Constants, *, gather: float, scatter: float) -> Num:
    """Cost gathering weights (`gather` bytes a parameter) and reducing gradients (`scatter`) over data parallelism.

    Dense parameters over c d ranks at stride t; experts over t c d / (e e_t) at stride e e_t.

    Holds when ranks are laid out tp, cp, dp, pp from the inside.
    Source: zero-2020, section 7.
    """
    dense, experts = shard_parameters(size, plan)
    wide = spread(plan.cp * plan.dp, plan.tp, hardware.inner_size)
    narrow = spread(np.maximum(plan.tp * plan.cp * plan.dp / (plan.ep * plan.etp), 1.0), plan.ep * plan.etp, hardware.inner_size)
    moved = gather + scatter
    return gather_seconds(moved * dense, wide, hardware, constants) + gather_seconds(moved * experts, narrow, hardware, constants)


def optimizer_seconds(size: Sizes, plan: Degrees, hardware: Hardware, constants: Constants) -> Num:
    """Cost the optimizer step on the states that a rank holds.

    Holds when the step is bound by memory.
    Source: zero-2020, section 3.1.
    """
    dense, experts = shard_parameters(size, plan)
    held = np.where(plan.sharding >= 1.0, dense / (plan.cp * plan.dp) + experts * plan.ep * plan.etp / (plan.tp * plan.cp * plan.dp), dense + experts)
    return adam_bytes(held) / (constants.memory * hardware.memory_bandwidth)


def pipeline(body: Num, head: Num, layers: Num, plan: Degrees, batches: Num) -> tuple[Num, Num, Num]:
    """Return the seconds of work, of bubble and of imbalance of `batches` micro-batches through a pipeline.

    work = m (body + head) / p;  bubble = (p - 1) / v of one stage's mean;  imbalance = m (slowest - mean stage).

    Holds when the schedule is 1F1B, interleaved for v > 1. The fullest stage holds ceil(L / p) layers; where L
    divides evenly the head comes on top of the last stage, else the ends take fewer layers.
    Source: megatron-2021, section 2.2 (bubble (p - 1) / (v m)).
    """
    mean = (body + head) / plan.pp
    stage = np.ceil(layers / plan.pp)
    fullest = body * stage / layers
    slowest = np.where(stage * plan.pp == layers, fullest + head, np.maximum(fullest, mean))
    return batches * mean, (plan.pp - 1.0) / plan.vpp * mean, batches * np.maximum(slowest - mean, 0.0)


def simulate(t: Times, size: Sizes, plan: Degrees, hardware: Hardware, constants: Constants) -> Step:
    """Assemble a training step from the times of a micro-batch: traffic, pipeline, sharding, optimizer.

    Holds when every stage runs the same micro-batches (no zero-bubble schedule).
    Source: megatron-2021, section 3; exposures fitted, data/calibration/training.toml.
    """
    k = constants
    tokens = plan.micro_batch * size.tokens / plan.cp
    batches = size.batch / (plan.dp * plan.micro_batch)
    again = recompute_seconds(t, plan)
    local = np.where(size.expert_count > 0, size.expert_count / plan.ep, 0.0)
    host = k.host * size.layers * (1.0 + (plan.recompute == 2.0) / 3.0) + k.host_expert * size.routed * local
    full = 1.0 * (plan.recompute == 2.0)
    tp = k.tp * tensor_seconds(size, plan, tokens, 2.5 + full, hardware, k)
    ep = k.ep * expert_seconds(size, plan, tokens, 2.0 + full, hardware, k)
    cp = k.cp * context_seconds(size, plan, tokens, hardware, k)
    hop = pass_seconds(2.0 * tokens * size.d_model * size.streams / plan.tp, plan.tp * plan.cp * plan.dp, hardware, k)
    layered = t.gemm + t.experts + t.attention + t.elementwise + again + host + tp + ep + cp
    work, bubble, imbalance = pipeline(layered, t.head, size.layers, plan, batches)
    pp = (plan.pp > 1.0) * (k.tp * 2.0 * plan.vpp * batches + 2.0 * (plan.pp - 1.0)) * hop

    stage = (work + imbalance) / batches
    sharded = plan.sharding == 3.0
    traffic = sharded * data_seconds(size, plan, hardware, k, gather=4.0, scatter=2.0)
    fsdp = sharded * batches * (np.maximum(traffic - stage, 0.0) + k.fsdp * np.minimum(traffic, stage))
    dp = (1.0 - sharded) * k.dp * data_seconds(size, plan, hardware, k, gather=2.0, scatter=4.0)
    optimizer = optimizer_seconds(size, plan, hardware, k)
    share = k.scale * batches / plan.pp
    head = t.head * share
    parts = (t.gemm * share, t.experts * share, t.attention * share, t.elementwise * share, head, again * share, host * share, tp * share,
             ep * share, cp * share, k.scale * pp, k.scale * bubble, k.scale * imbalance, k.scale * fsdp, k.scale * dp,
             k.scale * optimizer, k.scale * k.fixed + 0.0 * work)  # fmt: skip
    return Step(parts=parts)
