"""The closed form: one plan or ten million, on arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from chipscale.cost.constants import Constants
from chipscale.cost.hardware import Hardware
from chipscale.cost.links import exchange_seconds, gather_seconds, pass_seconds
from chipscale.cost.roofline import seconds
from chipscale.graph import Graph
from chipscale.ops.collective import spread
from chipscale.ops.optimizer import adam_bytes
from chipscale.ops.work import Num
from chipscale.plan import MODULES, Degrees, fully
from chipscale.schedules.forms import Passes, bubble, chunks, copies, fill, folded
from chipscale.simulators.context_parallel import Shared, shared_seconds
from chipscale.simulators.offload import beside, copy_seconds
from chipscale.step import STAYS, Moved, Sizes, Step, Times


def _shares() -> np.ndarray:
    """Tell for each recompute setting what of forward work runs again: core, up-projections, dense MLPs, all products, experts, elementwise.

    Of the seven products of a Llama layer `op` runs key, output and gate again, 37 % of their FLOP in Llama 3 8B.
    """
    each = {"core_attn": (1.0, 0.0, 0.0, 0.0, 0.0, 0.0), "mla_up_proj": (0.0, 1.0, 0.0, 0.0, 0.0, 0.0), "layernorm": (0.0, 0.0, 0.0, 0.0, 0.0, 0.25),
            "mlp": (0.0, 0.0, 1.0, 0.0, 0.0, 0.0), "moe_act": (0.0, 0.0, 0.0, 0.0, 0.0, 0.25), "moe": (0.0, 0.0, 0.0, 0.0, 1.0, 0.0),
            "op": (0.0, 0.0, 0.0, 0.37, 0.37, 1.0)}  # fmt: skip
    none = (0.0,) * 6
    settings = range(1 << len(MODULES))
    return np.array([np.minimum(sum((np.array(each.get(m, none)) for i, m in enumerate(MODULES) if s >> i & 1), np.zeros(6)), 1.0) for s in settings])


SHARES = np.ascontiguousarray(_shares().T)


def times(graph: Graph, hardware: Hardware, constants: Constants) -> Times:
    """Cost a graph's work, summed by cause."""
    cause: dict[str, Num] = dict.fromkeys(("gemm", "experts", "attention", "elementwise", "head"), 0.0)
    forward: Num = 0.0
    core: Num = 0.0
    weights: Num = 0.0
    head_forward: Num = 0.0
    head_weights: Num = 0.0
    for work in graph.works:
        cost = seconds(work, hardware, constants)
        cause[work.cause] = cause[work.cause] + cost
        if not work.backward and work.cause != "head":
            forward = forward + cost
            core = core + cost * float(work.core)
        head = work.cause == "head"
        weights = weights + cost * (work.weights and not head)
        head_weights = head_weights + cost * (work.weights and head)
        head_forward = head_forward + cost * (head and not work.backward)
    return Times(forward=forward, core=core, weights=weights, head_forward=head_forward, head_weights=head_weights, **cause)


def recompute_seconds(t: Times, size: Sizes, plan: Degrees) -> Num:
    """Cost the second forward pass: nothing, the attention core (selective), modules, or layers (full).

    r forward + (1 - r) sum of modules: the core as costed; up-projections, dense MLPs and every second product as their share of the
    layers' weights of forward products; experts whole; norms and activations a quarter of forward elementwise work.

    Holds when the backward pass waits for it, a backward product costs twice its forward one, and backward elementwise work 1.6 times.
    Source: korthikanti-2022, section 5.
    """
    full = fully(plan, np.maximum(size.layers / plan.pp, 1.0))
    setting = np.asarray(plan.recompute, dtype=np.int64)
    core, up, mlp, products, routed, passes = (share[setting] for share in SHARES)
    gemm, experts, elementwise = t.gemm / 3.0, t.experts / 3.0, t.elementwise / 2.6
    modules = core * t.core + (up * size.up_share + mlp * size.mlp_share + products) * gemm + routed * experts + passes * elementwise
    again: Num = full * t.forward + (1.0 - full) * np.minimum(modules, t.forward)
    return again


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


def shard_parameters(size: Sizes, plan: Degrees) -> tuple[Num, Num]:
    """Return the dense and the expert parameters that the fullest rank holds before ZeRO sharding.

    n (dense / (t p) + ends / (t min(p, 2)));  n experts / (e e_t p), n = 2 copies in a bidirectional pipeline, else 1.

    Holds when embedding and head stand on different ranks as soon as there are two, but on one in a folded pipeline.
    Source: megatron-2021, section 2; dualpipe, README (parameter 2x).
    """
    twice = copies(plan.schedule)
    apart = np.where(folded(plan.schedule) > 0.0, 1.0, np.minimum(plan.pp, 2.0))
    dense = size.dense / (plan.tp * plan.pp) + size.ends / (plan.tp * apart)
    return twice * dense, twice * size.experts / (plan.ep * plan.etp * plan.pp)


def data_seconds(size: Sizes, plan: Degrees, hardware: Hardware, constants: Constants) -> Num:
    """Cost gathering weights and scattering gradients, 6 bytes a parameter in all, among the ranks that share them, and adding gradients up over replicas.

    ZeRO-3 gathers 2 bytes twice and scatters 2, else 2 are gathered and w = 4 scattered. Dense parameters P over g = c d / r ranks at stride t, experts
    over t g / (e e_t) at stride e e_t; then an all-reduce of w P / g and its like over r replicas at stride t g.

    Holds when ranks are laid out tp, cp, dp, pp from the inside, and gradients are added up over replicas whenever they are scattered.
    Source: zero-2020, section 7; pytorch-fsdp-2023, section 3.2.2 (hybrid sharding).
    """
    dense, experts = shard_parameters(size, plan)
    group, own = plan.group, plan.ep * plan.etp
    few = np.maximum(plan.tp * group / own, 1.0)
    tier = hardware.inner_size
    inside = gather_seconds(6.0 * dense, spread(group, plan.tp, tier), hardware, constants) + gather_seconds(
        6.0 * experts, spread(few, own, tier), hardware, constants
    )
    width = np.where(plan.sharding >= 3.0, 2.0, 4.0)
    between = gather_seconds(2.0 * width * (dense / group + experts / few), spread(plan.dp_replicate, plan.tp * group, tier), hardware, constants)
    return inside + between


def held_states(size: Sizes, plan: Degrees) -> Num:
    """Count the parameters whose optimizer states a rank holds.

    n P / (n g) from ZeRO-1 on, P before, with n copies of each parameter and g ranks that share.

    Holds when every rank holds an equal part.
    Source: zero-2020, section 5.1.
    """
    dense, experts = shard_parameters(size, plan)
    once = dense / plan.group + experts * plan.ep * plan.etp / (plan.tp * plan.group)
    return np.where(plan.sharding >= 1.0, once / copies(plan.schedule), dense + experts)


def optimizer_seconds(size: Sizes, plan: Degrees, hardware: Hardware, constants: Constants) -> Num:
    """Cost the optimizer step on the states that a rank holds.

    Holds when the step is bound by memory.
    Source: zero-2020, section 3.1.
    """
    return adam_bytes(held_states(size, plan)) / (constants.memory * hardware.memory_bandwidth)


def pipeline(body: Passes, head: Passes, layers: Num, plan: Degrees, batches: Num, hop: Num) -> tuple[Num, Num, Num, Num]:
    """Return the seconds of work, of bubble, of imbalance and of messages while the pipeline fills, for `batches` micro-batches.

    work = m (body + head) / p;  imbalance = m (slowest - mean rank);  bubble as the schedule has it, of the mean of the other ranks;
    what the slowest has more counts as its head.

    Holds when layers divide evenly over stages, and for 1F1B and GPipe else too; for what else does not divide see docs/training.md.
    Source: megatron-2021, section 2.2; schedules/forms.py.
    """
    mean = (body.total + head.total) / plan.pp
    slowest, even = slowest_rank(body.total, head.total, layers, plan)
    twice = copies(plan.schedule)
    others = (mean * plan.pp - twice * slowest) / np.maximum(plan.pp - twice, 1.0)
    more = (1.0 - even) * twice * (slowest - others)
    top = Passes(
        total=even * head.total + more,
        forward=even * head.forward + more * body.forward / body.total,
        weights=even * head.weights + more * body.weights / body.total,
    )
    rank = _share(body, others / body.total)
    idle = bubble(plan, batches, rank, top) - (1.0 - even) * lighter_end(body, head, layers, slowest, plan, batches)
    return batches * mean, idle, batches * np.maximum(slowest - mean, 0.0), fill(plan, batches, rank, top, hop)


def lighter_end(body: Passes, head: Passes, layers: Num, slowest: Num, plan: Degrees, batches: Num) -> Num:
    """Return what 1F1B saves where the last rank, of x seconds, is lighter than the slowest before it, of s seconds, f s of them forward.

    x - max(0, x - f s) - max(0, x - (1 - f) s), with x = l min(floor((s - head) / l), ceil(L / p)) + head and l = body / L: the slowest
    works on its next micro-batch while it waits for the last rank's first, and on its last but one while it waits for the last.

    Holds when uneven layers are dealt as `simulators.event.dealt` does, and v = 1.
    Source: megatron-2021, section 2.2 (1F1B); derived.
    """
    layer, way = body.total / layers, body.forward / body.total
    last = layer * np.minimum(np.floor((slowest - head.total) / layer + 1e-9), np.ceil(layers / plan.pp)) + head.total
    saved = last - np.maximum(last - way * slowest, 0.0) - np.maximum(last - (1.0 - way) * slowest, 0.0)
    return saved * ((plan.schedule == 0.0) & (plan.vpp == 1.0) & (plan.pp > 1.0) & (batches > 1.0) & (last < slowest))


def _share(s: Passes, part: Num) -> Passes:
    return Passes(total=part * s.total, forward=part * s.forward, weights=part * s.weights)


def slowest_rank(body: Num, head: Num, layers: Num, plan: Degrees) -> tuple[Num, Num]:
    """Return the seconds of a micro-batch on the slowest rank, and 1 where the layers divide evenly.

    even: body / p + head;  else, with l = body / L and n = ceil((L + head / l) / p) or ceil(L / p) if more: the least of max(n l, head), where
    the last rank takes what n layers on all others leave, and (L - (p - 1) (n - 1)) l + head, where they take one less; halves where two
    ranks share their stages.

    Holds when the ends take fewer layers where there is a remainder.
    Source: megatron-2021, section 2.2.
    """
    twice = copies(plan.schedule)
    places = plan.pp / twice
    layer = body / layers
    even = 1.0 * (np.ceil(layers / places) * places == layers)
    stage = np.ceil((layers + (1.0 - even) * head / layer) / places)
    fewer = (layers - (places - 1.0) * (stage - 1.0)) * layer + head
    uneven = np.minimum(np.maximum(stage * layer, head), fewer)
    return np.where(even > 0.0, stage * layer + head, uneven) / twice, even


@dataclass(frozen=True, slots=True, kw_only=True)
class Micro:
    """What a plan adds to one micro-batch through all layers: recompute, the host, exposed traffic; `hop` is one pipeline message.

    `stored` and `fetched` are what copies of activations to the host and back add to the forward and the backward pass.
    `shared` is context parallelism by direction, without the forward pass that full recompute repeats. `batches` are the micro-batches of a step; all else in seconds.
    """

    batches: Num
    again: Num
    host: Num
    tp: Num
    ep: Num
    cp: Num
    shared: Shared
    hop: Num
    stored: Num = 0.0
    fetched: Num = 0.0


def micro(t: Times, size: Sizes, plan: Degrees, hardware: Hardware, constants: Constants) -> Micro:
    """Cost recompute, the host and the traffic of one micro-batch.

    Holds when every rank runs the same micro-batches.
    Source: megatron-2021, section 3; exposures fitted, data/calibration/training.toml.
    """
    k = constants
    tokens = plan.micro_batch * size.tokens / plan.cp
    local = np.where(size.expert_count > 0, size.expert_count / plan.ep, 0.0)
    full = fully(plan, np.maximum(size.layers / plan.pp, 1.0))
    shared = shared_seconds(t, size, plan, tokens, hardware, k)
    return Micro(
        batches=size.batch / (plan.dp * plan.micro_batch),
        again=recompute_seconds(t, size, plan),
        host=k.host * size.layers * (1.0 + full / 3.0) + k.host_expert * size.routed * local,
        tp=k.tp * tensor_seconds(size, plan, tokens, 2.5 + full, hardware, k),
        ep=k.ep * expert_seconds(size, plan, tokens, 2.0 + full, hardware, k),
        cp=shared.forward * (1.0 + full) + shared.backward,
        shared=shared,
        hop=pass_seconds(2.0 * tokens * size.d_model * size.streams / plan.tp, plan.tp * plan.cp * plan.dp, hardware, k),
    )


def body_passes(t: Times, one: Micro, size: Sizes, plan: Degrees) -> Passes:
    """Split the seconds of all layers by direction.

    The forward pass has 1 / n of the tensor and expert traffic, n passes in all, and a third of the host's time, as the weight gradients have;
    recompute belongs to the backward pass.

    Holds when weight gradients need no traffic of their own.
    Source: zero-bubble-2023, section 2 (F, B and W).
    """
    full = fully(plan, np.maximum(size.layers / plan.pp, 1.0))
    launch = one.host / (3.0 + full)
    forward = t.forward + one.shared.forward + one.stored + (launch + one.tp / (2.5 + full) + one.ep / (2.0 + full))
    return Passes(
        total=t.gemm + t.experts + t.attention + t.elementwise + (one.stored + one.fetched) + one.again + one.host + one.tp + one.ep + one.cp,
        forward=forward,
        weights=t.weights + launch,
    )


def offloaded(t: Times, one: Micro, size: Sizes, plan: Degrees, moved: Moved, hardware: Hardware) -> Micro:
    """Add what copies of activations do not hide behind: out beside the forward pass, back beside the backward pass, one layer ahead.

    max(0, x - F) and max(0, x - B - W), x = A / r_h;  B alone where weight gradients are apart.

    Holds when all layers keep as much; the head hides nothing.
    Source: zero-offload-2021, section 4.1; korthikanti-2022, section 4 (A).
    """
    passes, copy = body_passes(t, one, size, plan), copy_seconds(moved.activations, hardware)
    behind = passes.inputs + (plan.schedule < 2.0) * passes.weights
    return replace(one, stored=beside(copy, passes.forward), fetched=beside(copy, behind))


def head_passes(t: Times) -> Passes:
    """Split the seconds of embedding, logits and loss by direction."""
    return Passes(total=t.head, forward=t.head_forward, weights=t.head_weights)


def sharded_seconds(traffic: Num, forward: Num, stage: Num, constants: Constants) -> Num:
    """Return what gathering and scattering sharded parameters adds to `stage` seconds of compute, `forward` of them the forward pass.

    max(x / 3 - s_F, 0) + max(2 x / 3 - s_B, 0) + f of what is hidden: a third of the bytes is gathered for the forward pass, a third again for the
    backward pass, in which the gradients are scattered.

    Holds when gathers run ahead of the layers that need them, within one pass.
    Source: pytorch-fsdp-2023, section 3.3 (prefetch); zero-2020, section 7; f fitted, data/calibration/training.toml.
    """
    there, back = traffic / 3.0, traffic / 1.5
    hidden = np.minimum(there, forward) + np.minimum(back, stage - forward)
    return traffic - (1.0 - constants.fsdp) * hidden


def simulate(t: Times, size: Sizes, plan: Degrees, hardware: Hardware, constants: Constants, moved: Moved = STAYS) -> Step:
    """Assemble a training step from the times of a micro-batch: traffic, pipeline, sharding, optimizer, and copies of what is `moved` to the host.

    Holds when every stage runs the same micro-batches.
    Source: megatron-2021, section 3; exposures fitted, data/calibration/training.toml.
    """
    k = constants
    one = micro(t, size, plan, hardware, k)
    streamed: Num = 0.0
    if moved is not STAYS:
        one = offloaded(t, one, size, plan, moved, hardware)
        streamed = beside(copy_seconds(moved.optimizer, hardware), optimizer_seconds(size, plan, hardware, k))
    batches, body = one.batches, body_passes(t, one, size, plan)
    work, idle, imbalance, filling = pipeline(body, head_passes(t), size.layers, plan, batches, one.hop)
    pp = (plan.pp > 1.0) * (k.tp * 2.0 * chunks(plan) * batches * one.hop + filling)

    stage = (work + imbalance) / batches
    sharded = plan.sharding == 3.0
    traffic = data_seconds(size, plan, hardware, k)
    fsdp = sharded * batches * sharded_seconds(traffic, body.forward / plan.pp, stage, k)
    dp = (1.0 - sharded) * k.dp * traffic
    optimizer = optimizer_seconds(size, plan, hardware, k)
    share = k.scale * batches / plan.pp
    head = t.head * share
    parts = (t.gemm * share, t.experts * share, t.attention * share, t.elementwise * share, head, one.again * share, one.host * share,
             one.tp * share, one.ep * share, one.cp * share, k.scale * pp, k.scale * idle, k.scale * imbalance, k.scale * fsdp, k.scale * dp,
             k.scale * optimizer, share * (one.stored + one.fetched) + k.scale * streamed, k.scale * k.fixed + 0.0 * batches)  # fmt: skip
    return Step(parts=parts)
