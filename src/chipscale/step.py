"""Step: what one training step costs, and where the time goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from chipscale.cost.constants import Constants
from chipscale.cost.hardware import Hardware
from chipscale.facts.model import Experts, LatentAttention, Model
from chipscale.facts.parameters import parameters
from chipscale.graph import Graph, head_widths
from chipscale.ops.work import Num
from chipscale.plan import Degrees

#: causes of a step's time, in the order in which they are shown
CAUSES = ("gemm", "experts", "attention", "elementwise", "head", "recompute", "host", "tp", "ep", "cp", "pp", "bubble", "imbalance",
          "fsdp", "dp", "optimizer", "offload", "fixed")  # fmt: skip
#: the order in which causes are summed: what reads few axes of a space first, so that large arrays come last
SUMMED = tuple(CAUSES.index(name) for name in ("fixed", "offload", "gemm", "experts", "attention", "elementwise", "head", "dp", "host", "recompute", "tp", "ep",
                                               "cp", "imbalance", "pp", "bubble", "optimizer", "fsdp"))  # fmt: skip
#: causes during which a chip computes or moves its own memory; it waits during the others
COMPUTING = ("gemm", "experts", "attention", "elementwise", "head", "recompute", "optimizer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The sizes of a model that traffic and memory need: parameters by where they live, layers, widths.

    `kv_width` are key and value elements a token, summed over layers, as a cache holds them; `head_kv` the same by heads, `q_width` and `o_width`
    those of queries and of outputs, `kv_heads` the fewest heads of keys and values. `routed` counts expert layers,
    `streams` the residual vectors of width d_model that a stage passes on for each token; `up_share` and
    `mlp_share` are the shares of latent up-projections and of dense MLPs in the weights outside experts and ends.
    """

    dense: Num
    experts: Num
    ends: Num
    layers: Num
    d_model: Num
    routed: Num
    top_k: Num
    expert_count: Num
    shared: Num
    kv_width: Num
    tokens: Num
    batch: Num
    streams: Num = 1.0
    fp8_state: Num = 0.0
    exchange_width: Num = 2.0
    q_width: Num = 0.0
    o_width: Num = 0.0
    head_kv: Num = 0.0
    kv_heads: Num = 1.0
    up_share: Num = 0.0
    mlp_share: Num = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds of one micro-batch through the whole model on one rank, by cause.

    `forward` and `core` are what recompute repeats; `weights` are the weight gradients of the layers, `head_forward` and `head_weights`
    those parts of the head.
    """

    gemm: Num
    experts: Num
    attention: Num
    elementwise: Num
    head: Num
    forward: Num
    core: Num
    weights: Num
    head_forward: Num
    head_weights: Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """Bytes that a plan moves to the host and back: activations of one micro-batch in all layers of one rank of each stage, optimizer states of a step."""

    activations: Num = 0.0
    optimizer: Num = 0.0


#: nothing leaves the chip
STAYS = Moved()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Seconds of a step by cause; `parts` are in the order of `CAUSES` and sum to `seconds`."""

    parts: tuple[Num, ...]

    @property
    def seconds(self) -> Num:
        total: Num = 0.0
        for i in SUMMED:
            total = total + self.parts[i]
        return total


class Simulator(Protocol):
    """Anything that turns the times of a micro-batch and a plan into a step."""

    def __call__(self, times: Times, sizes: Sizes, plan: Degrees, hardware: Hardware, constants: Constants, moved: Moved = STAYS) -> Step: ...


def sizes(model: Model, graph: Graph, *, length: float, batch: float) -> Sizes:
    """Collect a model's sizes for one job of `batch` sequences of `length` tokens."""
    count = parameters(model)
    experts = [b.feed for b in model.blocks if isinstance(b.feed, Experts)]
    ends = count.embedding + count.head
    dense = float(count.total - count.experts_routed - ends)
    up = sum(b.repeat * (m.q_rank * m.heads * (m.nope_dim + m.rope_dim) + m.kv_rank * m.heads * (m.nope_dim + m.v_head_dim))
             for b in model.blocks if isinstance(m := b.mixer, LatentAttention))  # fmt: skip
    widths = [(b.repeat, head_widths(b.mixer)) for b in model.kinds]
    return Sizes(
        q_width=sum(n * w.query for n, w in widths),
        o_width=sum(n * w.output for n, w in widths),
        head_kv=sum(n * w.kv for n, w in widths),
        kv_heads=min(w.kv_heads for _, w in widths),
        up_share=up / dense,
        mlp_share=count.dense_mlp / dense,
        dense=dense,
        experts=float(count.experts_routed),
        ends=float(ends),
        layers=graph.layers,
        d_model=graph.d_model,
        routed=graph.routed,
        top_k=graph.top_k,
        expert_count=float(max((e.count for e in experts), default=0)),
        shared=float(any(e.shared_d_ff for e in experts)),
        kv_width=graph.kv_width,
        streams=float(model.streams),
        tokens=length,
        batch=batch,
    )
