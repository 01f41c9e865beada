"""The event simulator: one plan replayed rank by rank, on the same costs and constants as the closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from chipscale.cost.constants import Constants
from chipscale.cost.hardware import Hardware
from chipscale.evidence import EvidenceError
from chipscale.ops.work import Num
from chipscale.plan import SCHEDULES, Degrees, Plan, degrees, fully
from chipscale.schedules.forms import Passes, refuse
from chipscale.schedules.orders import Order, order
from chipscale.simulators.closed_form import (
    Micro,
    body_passes,
    data_seconds,
    head_passes,
    micro,
    offloaded,
    optimizer_seconds,
    sharded_seconds,
    slowest_rank,
)
from chipscale.simulators.context_parallel import wire_seconds
from chipscale.simulators.offload import copy_seconds
from chipscale.simulators.timeline import Load, Timeline, replay
from chipscale.step import STAYS, Moved, Sizes, Times


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A step as the event simulator sees it: `seconds` with what every step pays once, the timeline, its load and the layers of each stage."""

    seconds: float
    timeline: Timeline
    load: Load
    layers: tuple[int, ...]


def dealt(layers: int, head: float, n: int) -> tuple[int, ...]:
    """Deal layers to n places, the last of which has the head, worth `head` layers: evenly where n divides them, else so that the fullest has least.

    min over the last place's layers l of max(ceil((L - l) / (n - 1)), l + head); the first places take fewer.

    Holds when all layers cost the same.
    Source: llama-3, section 3.3.2 (fewer layers on the ends).

    >>> dealt(61, 0.5, 16)
    (3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 3)
    """
    if layers % n == 0:
        return (layers // n,) * n
    last = -min((max(-(-(layers - k) // (n - 1)), k + head), -k) for k in range(-(-layers // n) + 1))[1]
    least, more = divmod(layers - last, n - 1)
    return (*(least + (i >= n - 1 - more) for i in range(n - 1)), last)


def stage_layers(layers: int, head: float, plan: Plan, o: Order) -> tuple[int, ...]:
    """Return the layers of each stage; ranks that hold a stage on the way down and one on the way up have embedding and head together."""
    turns = len(o.flows) > 1 or o.flows[0][-1] == 0 < plan.pp - 1
    n = (o.stages + 1) // 2 if turns else plan.pp
    dealing = dealt(layers, head, n)[:: -1 if turns else 1]
    place = [min(g, o.stages - 1 - g) if turns else g % n for g in range(o.stages)]
    each = [place.count(i) for i in range(n)]
    turn = [place[:g].count(place[g]) for g in range(o.stages)]
    return tuple(dealing[i] // each[i] + (k < dealing[i] % each[i]) for i, k in zip(place, turn, strict=True))


def _stated(layers: Sequence[int], size: Sizes, o: Order) -> tuple[int, ...]:
    """Check the layers that a user deals to stages."""
    total = int(size.layers)
    if len(layers) != o.stages:
        raise EvidenceError(f"--stage-layers: {len(layers)} numbers for {o.stages} stages (pp x chunks); give one for each stage")
    if min(layers) < 0 or sum(layers) != total:
        raise EvidenceError(
            f"--stage-layers: {','.join(map(str, layers))} sum to {sum(layers)}, the model has {total} (MTP layers included); correct them"
        )
    return tuple(layers)


def _rows(passes: Passes) -> np.ndarray:
    """Return forward, input and weight seconds as a column."""
    return np.array([[float(passes.forward)], [float(passes.inputs)], [float(passes.weights)]])


def _ways(seconds: Num, forward: Num, layers: np.ndarray) -> np.ndarray:
    """Spread traffic over stages; `forward` of it is in the forward pass, none with the weight gradients."""
    there: np.ndarray = np.array([[float(seconds * forward)], [float(seconds * (1.0 - forward))], [0.0]]) * layers
    return there


def load_of(t: Times, one: Micro, size: Sizes, plan: Degrees, hardware: Hardware, constants: Constants, layers: Sequence[int],
            moved: Moved = STAYS) -> Load:  # fmt: skip
    """Cost each stage: its share of the layers, the head on the last, traffic by stream, what follows the last micro-batch.

    Holds when all layers of a stage cost the same, the mean of the model's.
    Source: the closed form, whose parts and fitted shares these are.
    """
    k, scale = constants, float(constants.scale)
    body, head = body_passes(t, one, size, plan), head_passes(t)
    share = np.asarray(layers, dtype=float) / float(size.layers)
    compute = _rows(body) * share
    compute[:, -1:] += _rows(head)
    full = fully(plan, np.maximum(size.layers / plan.pp, 1.0))
    wire = wire_seconds(t, size, plan, plan.micro_batch * size.tokens / plan.cp, hardware, k)
    there, back = wire.forward, wire.backward + full * wire.forward
    wires = (
        ("tp", one.tp / k.tp, 1.0 / (2.5 + full)),
        ("ep", one.ep / k.ep, 1.0 / (2.0 + full)),
        ("cp", there + back, there / np.maximum(there + back, 1e-30)),
    )
    traffic = tuple((name, scale * _ways(whole, way, share)) for name, whole, way in wires if whole > 0.0)
    sharded = float(plan.sharding == 3.0)
    slowest, _ = slowest_rank(body.total, head.total, size.layers, plan)
    data = data_seconds(size, plan, hardware, k)
    gathered, reduce = sharded * data, (1.0 - sharded) * data
    update = optimizer_seconds(size, plan, hardware, k)
    between = float(plan.pp > 1.0) * scale * float(one.hop)
    return Load(
        compute=scale * compute,
        traffic=traffic,
        hop=between,
        shown=float(k.tp) * between,
        ahead=float(sharded_seconds(gathered, body.forward / plan.pp, slowest, k) / slowest),
        reduce=scale * float(reduce),
        late=scale * float(k.dp * reduce),
        optimizer=scale * float(update),
        copy=scale * float(copy_seconds(moved.activations, hardware)) * share,
        stream=scale * float(copy_seconds(moved.optimizer, hardware)),
    )


def replayed(t: Times, size: Sizes, plan: Plan, hardware: Hardware, constants: Constants, *, layers: Sequence[int] | None = None,
             moved: Moved = STAYS, stragglers: Mapping[int, float] | None = None, jitter: float = 0.0, rng: np.random.Generator | None = None) -> Replay:  # fmt: skip
    """Replay one step of a plan; `layers` deals them to the stages otherwise than evenly, `stragglers` slow ranks by a factor.

    Errors: a schedule that cannot hold the micro-batches, layers that do not sum to the model's, a micro-batch count that is not whole.
    """
    d = degrees(plan)
    one = offloaded(t, micro(t, size, d, hardware, constants), size, d, moved, hardware)
    batches = float(one.batches)
    if batches != int(batches):
        raise EvidenceError(f"--plan: dp x micro-batch = {plan.dp * plan.micro_batch} does not divide a batch of {float(size.batch):g} sequences")
    refuse(SCHEDULES[plan.schedule], plan.pp, plan.vpp, int(batches), float(size.layers))
    o = order(SCHEDULES[plan.schedule], plan.pp, plan.vpp, int(batches))
    worth = float(t.head / body_passes(t, one, size, d).total * size.layers)
    stages = stage_layers(int(size.layers), worth, plan, o) if layers is None else _stated(layers, size, o)
    load = load_of(t, one, size, d, hardware, constants, stages, moved)
    pace = [(stragglers or {}).get(rank, 1.0) for rank in range(plan.pp)]
    line = replay(o, load, pace=pace, jitter=jitter, rng=rng)
    return Replay(seconds=line.seconds + float(constants.scale * constants.fixed), timeline=line, load=load, layers=stages)
