"""What each chip must hold: weights, gradients, optimizer, activations by stage, buffers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from chipscale.activations import layer_saves
from chipscale.facts.framework import Keeping
from chipscale.facts.model import MLP, Block, Experts, Model
from chipscale.facts.parameters import feed_by_place, mixer_parameters, mlp_parameters, parameters
from chipscale.graph import cache_width, head_widths
from chipscale.ops.work import Num
from chipscale.plan import CP_KINDS, MODULES, Degrees, fully
from chipscale.schedules.forms import copies, in_flight

#: share of a chip's memory that a plan cannot fill: what the allocator reserves beyond what is allocated (3 to 7 %, median 4 %, of
#: 19 plans of simumax-b200), contexts of the runtime and of collectives (assumed 2 %)
RESERVED = 0.06

#: tokens of a sequence beside which the window of compressed attention is short
LONG = 1e9

_, GATHER, EXCHANGE = (float(i) for i in range(len(CP_KINDS)))

SETTINGS = np.arange(1 << len(MODULES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Bytes by kind on the fullest chip, floats or arrays.

    `buffers` live for one operator or one layer: logits and their gradient, a layer at work, gathered weights; `lost` is the allocator's.
    """

    weights: Num
    gradients: Num
    optimizer: Num
    activations: Num
    buffers: Num
    lost: Num

    @property
    def total(self) -> Num:
        return self.weights + self.gradients + self.optimizer + self.activations + self.buffers + self.lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of layer: its parameters, and bytes a token by place for every recompute setting (arrays that a setting indexes).

    `scratch` are the parameters of its distinct matrices, `widest` bytes a token of the gradients alive in its widest operator; `shared` are bytes a token of
    the keys and values that context-parallel ranks share, `heads` those of all heads of queries, keys, values and outputs.
    """

    dense: float
    experts: float
    scratch: float
    widest: float
    shared: float
    heads: float
    split: np.ndarray
    whole: np.ndarray
    copies: np.ndarray

    def kept(self, setting: np.ndarray, plan: Degrees, sp: Num) -> Num:
        """Return bytes a token that one layer keeps under a setting."""
        kept: Num = (self.split[setting] + self.copies[setting] * plan.etp) / plan.tp + self.whole[setting] / sp
        return kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Holds:
    """A model as memory sees it: the dense layers in front (`lead`), the mean of the others (`body`), and the ends of the pipeline.

    `carried` are the values a token that one layer hands to the next: d_model, or that of all streams of hyper-connections.
    """

    lead: Kind
    body: Kind
    leads: float
    bodies: float
    d_model: float
    carried: float
    vocab: float
    embedding: float
    head: float
    tied: bool
    extra: float


def _kind(block: Block, d: float, operand: float, scores: float) -> Kind:
    saves = layer_saves(block, d, operand=operand, scores=scores)
    feed, mixer = feed_by_place(block.feed, int(d)), mixer_parameters(block.mixer, int(d))
    wide = head_widths(block.mixer)

    def by_setting(place: str) -> np.ndarray:
        return sum((s.bytes * ((SETTINGS & s.drop) == 0) for s in saves if s.place == place), np.zeros(len(SETTINGS)))

    f = block.feed
    one = f.top_k * (d + 2.0 * f.d_ff) if isinstance(f, Experts) else 2.0 * f.d_ff
    expert = mlp_parameters(MLP(d_ff=f.d_ff, gated=f.gated), int(d)) if isinstance(f, Experts) else 0
    dense = mixer + feed.total - feed.routed + block.norms * d
    return Kind(dense=dense, experts=float(feed.routed), scratch=dense + expert, widest=2.0 * one, shared=2.0 * float(cache_width(block.mixer, LONG)),
                heads=2.0 * (wide.query + wide.output + wide.kv), split=by_setting("split"), whole=by_setting("whole"), copies=by_setting("copies"))  # fmt: skip


def _mean(kinds: list[tuple[int, Kind]]) -> Kind:
    """Return the mean layer of some; an empty list holds nothing."""
    total = max(sum(n for n, _ in kinds), 1)

    def mean(name: str) -> np.ndarray:
        return sum((n * np.asarray(getattr(k, name)) for n, k in kinds), np.zeros(len(SETTINGS))) / total

    single = {name: float(mean(name)[0]) for name in ("dense", "experts")}
    largest = {name: max((getattr(k, name) for _, k in kinds), default=0.0) for name in ("scratch", "widest", "shared", "heads")}
    return Kind(**single, **largest, split=mean("split"), whole=mean("whole"), copies=mean("copies"))


@cache
def holds(model: Model, *, operand: float = 2.0, scores: float = 0.0) -> Holds:
    """Count what a model's layers hold; the dense layers in front of the first expert layer stand apart, since they sit on the first stage."""
    d = float(model.d_model)
    kinds = {b: _kind(b, d, operand, scores) for b in {replace(b, repeat=1) for b in model.blocks}}
    layers = [(b.repeat, kinds[replace(b, repeat=1)]) for b in model.blocks]
    first = next((i for i, b in enumerate(model.blocks) if isinstance(b.feed, Experts)), 0)
    count = parameters(model)
    return Holds(lead=_mean(layers[:first]), body=_mean(layers[first:]), leads=float(sum(n for n, _ in layers[:first])),
                 bodies=float(sum(n for n, _ in layers[first:])), d_model=d, carried=d * model.streams, vocab=float(model.vocab), embedding=float(count.embedding),
                 head=float(count.head), tied=model.tied, extra=float(model.mtp_layers))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """What part of its dense parameters (`dense`) and of its experts (`experts`) a rank keeps of a state that is spread."""

    dense: Num
    experts: Num


def shares(stage: float, plan: Degrees) -> Shares:
    """Return the part of a state of this ZeRO stage (1 optimizer, 2 gradients, 3 weights) that one rank keeps.

    1 / g and (e e_t) / (t g) from that stage on, 1 before; g = c d / r ranks share it where r groups hold replicas.

    Holds when every rank holds an equal part.
    Source: pytorch-fsdp-2023, section 3.2.2 (hybrid sharding); zero-2020, figure 1 (7.5 B parameters, 64 ranks, 2 + 2 + 12 bytes: 120, 31.4, 16.6 and 1.9 GB).

    >>> from chipscale.plan import Plan, degrees
    >>> [round(7.5 * sum(w * float(shares(z, degrees(Plan(dp=64, sharding=s))).dense) for z, w in ((3, 2), (2, 2), (1, 12))), 1) for s in range(4)]
    [120.0, 31.4, 16.6, 1.9]
    """
    spread = plan.sharding >= stage
    group = plan.group
    return Shares(dense=np.where(spread, 1.0 / group, 1.0), experts=np.where(spread, np.minimum(plan.ep * plan.etp / (plan.tp * group), 1.0), 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of a pipeline: layers of either kind, parameters of the ends, micro-batches kept, and whether the loss stands here."""

    lead: Num
    body: Num
    ends: Num
    flight: Num
    loss: Num


def stages(h: Holds, plan: Degrees, batches: Num) -> tuple[Stage, Stage, Stage]:
    """Return the stages that may be the fullest: the first, the second and the last.

    n = ceil(L / p) layers; where L does not divide by p the first and the last stage hold one less.

    Holds when dense layers in front fill the first stage; further prediction layers stand on the last.
    Source: megatron-2021, section 2; deepseek-v3, section 3.2.1.
    """
    layers = h.leads + h.bodies
    n = np.ceil(layers / plan.pp)
    short = n * plan.pp - layers
    one, inner = np.where(plan.pp == 1.0, 1.0, 0.0), np.where(plan.pp > 2.0, 1.0, 0.0)
    first, last = n - (short >= 2.0), n - (short >= 1.0)
    front = np.minimum(first, h.leads)
    back = np.minimum(last, h.bodies)
    middle = np.minimum(np.maximum(h.leads - first, 0.0), n)
    embedding, head = h.embedding, h.head or h.embedding * h.tied
    whole = one * (h.head if not h.tied else 0.0)
    return (
        Stage(lead=front, body=first - front + one * h.extra, ends=embedding + whole, flight=in_flight(plan, batches), loss=one),
        Stage(lead=inner * middle, body=inner * (n - middle), ends=0.0, flight=in_flight(plan, batches, np.minimum(1.0, plan.pp - 1.0)), loss=0.0),
        Stage(lead=last - back, body=back + h.extra, ends=np.where(one > 0.0, embedding + whole, head),
              flight=in_flight(plan, batches, plan.pp - 1.0), loss=1.0),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """What all stages of a plan have in common: shares of states by ZeRO stage, bytes a token that a layer of either kind keeps, buffers.

    `entry` is the input of a layer, `gathered` bytes for each gathered parameter, `work` the buffers of a layer at work, `loss` those of the loss.
    """

    weights: Shares
    gradients: Shares
    optimizer: Shares
    gathered: Num
    lead: Num
    body: Num
    entry: Num
    work: Num
    loss: Num


def shared_bytes(h: Holds, plan: Degrees) -> Num:
    """Return the bytes for each token of a context rank that sharing keys and values needs in the layer at work.

    ring: V and its gradient once more, V / t bytes a token; gathered: those of c - 1 other ranks; heads for tokens: all that is exchanged once more.

    Holds when one block is under way while attention reads another.
    Source: ring-attention-2023, section 3; deepspeed-ulysses-2023, section 3.
    """
    own, heads = (max(getattr(h.lead, name), getattr(h.body, name)) for name in ("shared", "heads"))
    blocks = np.where(plan.cp_kind == GATHER, plan.cp - 1.0, 1.0)
    more: Num = (plan.cp > 1.0) * np.where(plan.cp_kind == EXCHANGE, heads, 2.0 * blocks * own) / plan.tp
    return more


def common(h: Holds, plan: Degrees, tokens: Num, sp: Num, k: Keeping) -> Common:
    """Work out what does not differ between stages.

    work = T (a whole layer - what it keeps + widest gradients / t + shared + 4 d) + s P_layer / t;
    loss = T (l V (1 + extra) / t + 4 d) + s (V d + P_layer) / t, with l bytes a logit and s of scratch.

    Holds when a layer at work is the larger of both kinds; both gather their input and its gradient over the sequence (4 d).
    Source: korthikanti-2022, section 4.2; megatron-core, core/tensor_parallel/layers.py.
    """
    setting = np.asarray(plan.recompute, dtype=np.int64)
    lead, body, entry = h.lead.kept(setting, plan, sp), h.body.kept(setting, plan, sp), 2.0 * h.carried / sp
    whole = np.maximum(h.lead.kept(0 * setting, plan, sp), h.body.kept(0 * setting, plan, sp))
    again = whole - np.where(fully(plan, 1.0) > 0.0, entry, np.maximum(lead, body))
    ends = 4.0 * h.d_model * tokens + k.scratch * max(h.lead.scratch, h.body.scratch) / plan.tp
    spread, through = shares(2.0, plan), plan.pp > 1.0
    return Common(
        weights=shares(3.0, plan),
        gradients=Shares(dense=np.where(through, 1.0, spread.dense), experts=np.where(through, 1.0, spread.experts)),
        optimizer=shares(1.0, plan),
        gathered=2.0 * (plan.sharding >= 3.0) * (1.0 - 1.0 / plan.group),
        lead=lead,
        body=body,
        entry=entry,
        work=tokens * (again + (max(h.lead.widest, h.body.widest) / plan.tp + shared_bytes(h, plan))) + ends,
        loss=(tokens * k.logit * (1.0 + h.extra) + k.scratch * h.d_model) * h.vocab / plan.tp + ends,
    )


def staged(h: Holds, s: Stage, c: Common, plan: Degrees, tokens: Num, k: Keeping) -> Need:
    """Count the bytes on one stage.

    states (w + g + o) P by ZeRO stage; activations T i (sum of what its layers keep), i micro-batches in flight; buffers the larger of the loss
    and a layer at work, and gathered weights under ZeRO-3. Of what is moved to the host, two layers of one micro-batch stay.

    Holds when gradients accumulate unsharded through a pipeline, weights are gathered two layers at a time without one and all with one.
    Source: zero-2020, section 5; korthikanti-2022, section 4; pytorch-fsdp-2023, section 3.
    """
    ends, n = s.ends / plan.tp, np.maximum(s.lead + s.body, 1.0)
    both = copies(plan.schedule)
    dense = both * ((s.lead * h.lead.dense + s.body * h.body.dense) / plan.tp + ends)
    experts = both * (s.lead * h.lead.experts + s.body * h.body.experts) / (plan.ep * plan.etp)
    once = np.where(plan.sharding >= 1.0, both, 1.0)
    held = dense + experts
    gathered = np.where(plan.pp > 1.0, held, np.minimum(ends + 2.0 / n * (held - ends), held))
    full = fully(plan, n)
    kept = (1.0 - full) * (s.lead * c.lead + s.body * c.body) + full * n * c.entry
    states, some = (plan.offload == 1.0) | (plan.offload == 3.0), np.minimum(2.0 / n, 1.0)
    flight = np.where(plan.offload >= 2.0, np.minimum(some, s.flight), s.flight)
    return Need(
        weights=k.weight * (dense * c.weights.dense + experts * c.weights.experts),
        gradients=k.gradient * (dense * c.gradients.dense + experts * c.gradients.experts),
        optimizer=k.optimizer
        * (1.0 - k.offload_optimizer)
        * np.where(states, some, 1.0)
        * (dense * c.optimizer.dense + experts * c.optimizer.experts)
        / once,
        activations=(1.0 - k.offload_activations) * tokens * flight * kept,
        buffers=c.gathered * gathered + np.maximum(s.loss * c.loss, c.work),
        lost=0.0,
    )


def kept_bytes(h: Holds, plan: Degrees, tokens: Num, k: Keeping) -> Num:
    """Count the bytes that all layers keep of one micro-batch.

    T ((1 - r) (sum of what layers keep) + r L x), r the share recomputed whole and x the input of a layer.

    Holds when a stage's layers are recomputed alike.
    Source: korthikanti-2022, section 4.
    """
    c = common(h, plan, tokens, plan.sp, k)
    layers = h.leads + h.bodies + h.extra
    full = fully(plan, np.maximum(layers / plan.pp, 1.0))
    total: Num = tokens * ((1.0 - full) * (h.leads * c.lead + (h.bodies + h.extra) * c.body) + full * layers * c.entry)
    return total


def by_stage(h: Holds, plan: Degrees, tokens: Num, batches: Num, keeping: Keeping, sp: Num | None = None) -> tuple[Need, ...]:
    """Return what the first, the second and the last stage hold; `tokens` are those of a micro-batch on a context rank, `batches` those of a step."""
    c = common(h, plan, tokens, plan.sp if sp is None else sp, keeping)
    return tuple(staged(h, s, c, plan, tokens, keeping) for s in stages(h, plan, batches))


def peak(found: tuple[Need, ...], keeping: Keeping) -> Num:
    """Return the bytes of the fullest stage."""
    first, second, last = (f.total for f in found)
    total: Num = (1.0 + keeping.reserved) * np.maximum(np.maximum(first, second), last)
    return total


def need(found: tuple[Need, ...], keeping: Keeping) -> Need:
    """Return by kind what the fullest stage holds, and the share that the allocator reserves beyond it.

    Holds when every rank of a stage holds the same.
    Source: korthikanti-2022, section 4; zero-2020, section 5.
    """
    totals = [f.total for f in found]
    second, last = totals[1] > totals[0], totals[2] > np.maximum(totals[0], totals[1])

    def fullest(name: str) -> Num:
        a, b, c = (getattr(f, name) for f in found)
        largest: Num = np.where(last, c, np.where(second, b, a))
        return largest

    lost: Num = keeping.reserved * np.maximum(np.maximum(totals[0], totals[1]), totals[2])
    return Need(weights=fullest("weights"), gradients=fullest("gradients"), optimizer=fullest("optimizer"), activations=fullest("activations"),
                buffers=fullest("buffers"), lost=lost)  # fmt: skip
