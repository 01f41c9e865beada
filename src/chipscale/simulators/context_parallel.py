"""Context parallelism: what sharing keys and values over ranks costs, by how they are shared."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from chipscale.cost.constants import Constants
from chipscale.cost.hardware import Hardware
from chipscale.cost.links import exchange_seconds, gather_seconds, pass_seconds
from chipscale.ops.collective import spread
from chipscale.ops.work import Num
from chipscale.plan import CP_KINDS, Degrees
from chipscale.step import Sizes, Times

RING, GATHER, EXCHANGE = (float(i) for i in range(len(CP_KINDS)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Exposed seconds of one micro-batch, all layers, by direction."""

    forward: Num
    backward: Num


def ring_volume(size: Sizes, plan: Degrees, tokens: Num) -> Num:
    """Count the bytes that a rank passes on in one step of the ring, all layers.

    2 T w_kv / t;  c - 1 steps forward, as many of twice that backward.

    Holds when keys and values are 16 bit, and their gradients travel with them.
    Source: ring-attention-2023, section 3 (blocks of keys and values round the ring).
    """
    return 2.0 * tokens * size.kv_width / plan.tp


def exchange_volumes(size: Sizes, plan: Degrees, tokens: Num) -> tuple[Num, Num]:
    """Count the bytes that a rank sends before attention (queries, keys, values) and after it (outputs), its own part included, all layers.

    2 T (w_q + w_h max(1, c t / h_kv)) / t and 2 T w_o / t: 8 s h / c bytes a layer where all heads are whole, s tokens and width h.

    Holds when cp divides the heads of a rank; where there are fewer heads of keys and values they are repeated.
    Source: deepspeed-ulysses-2023, section 3.2 (4 N h / P elements a layer).
    """
    repeats = np.maximum(1.0, plan.cp * plan.tp / size.kv_heads)
    return 2.0 * tokens * (size.q_width + size.head_kv * repeats) / plan.tp, 2.0 * tokens * size.o_width / plan.tp


def ring_exposed(step: Num, block: Num, share: Num) -> Num:
    """Return what one step of the ring adds to attention over one block: max(x - a, 0) + f min(x, a).

    Holds when the next block travels while attention over the present one runs.
    Source: ring-attention-2023, section 3 (overlap of communication and blockwise attention); f fitted, data/calibration/training.toml.

    >>> float(ring_exposed(3.0, 2.0, 0.1)), float(ring_exposed(1.0, 2.0, 0.0))
    (1.2, 0.0)
    """
    return np.maximum(step - block, 0.0) + share * np.minimum(step, block)


def shared_seconds(t: Times, size: Sizes, plan: Degrees, tokens: Num, hardware: Hardware, constants: Constants) -> Shared:
    """Cost context parallelism of one micro-batch, all layers.

    ring: L (c - 1) steps of V = 2 T w_kv / (L t), 2 V backward, each beside 1 / c of a layer's attention; gathered: L gathers of c V forward, two backward;
    heads for tokens: L exchanges around attention, the same backward. The last two are exposed: attention needs all that they bring.

    Holds when a causal sequence is dealt so that every block takes as long as any other; a ring is as fast as its slowest link.
    Source: ring-attention-2023, section 3; llama-3, section 3.3.2 (all-gather); deepspeed-ulysses-2023, section 3.
    """
    layers = size.layers
    volume, several = ring_volume(size, plan, tokens) / layers, (plan.cp > 1.0) * layers
    steps, block = several * (plan.cp - 1.0), plan.cp * layers
    there, back = (pass_seconds(n * volume, plan.tp * plan.cp - 1.0, hardware, constants) for n in (1.0, 2.0))
    group = spread(plan.cp, plan.tp, hardware.inner_size)
    gathered = several * gather_seconds(plan.cp * volume, group, hardware, constants)
    before, after = exchange_volumes(size, plan, tokens)
    exchanged = several * exchange_seconds((before + after) / layers, group, hardware, constants)
    ring, gather = plan.cp_kind == RING, plan.cp_kind == GATHER
    forward = steps * ring_exposed(there, t.core / block, constants.cp)
    backward = steps * ring_exposed(back, (t.attention - t.core) / block, constants.cp)
    return Shared(
        forward=np.where(ring, forward, np.where(gather, gathered, exchanged)),
        backward=np.where(ring, backward, np.where(gather, 2.0 * gathered, exchanged)),
    )


def wire_seconds(t: Times, size: Sizes, plan: Degrees, tokens: Num, hardware: Hardware, constants: Constants) -> Shared:
    """Return what context parallelism takes on the wire: all of it where attention takes no time."""
    return shared_seconds(replace(t, attention=0.0, core=0.0), size, plan, tokens, hardware, constants)
