"""Parts: what the operators of one serving step cost on a deployment, by cause, as their kernels take alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from chipscale.catalog import Catalog
from chipscale.cost.hardware import base_precision
from chipscale.cost.kernels.allreduce import ALLREDUCE, AllReduce
from chipscale.cost.kernels.collective import COLLECTIVE, collective_of
from chipscale.cost.kernels.costing import Costing
from chipscale.cost.kernels.decode import DECODE, Decode
from chipscale.cost.kernels.elementwise import ELEMENTWISE, Elementwise
from chipscale.cost.kernels.exchange import EXCHANGE, Exchange
from chipscale.cost.kernels.experts import EXPERTS
from chipscale.cost.kernels.experts import Experts as ExpertCall
from chipscale.cost.kernels.form import Form, Silicon
from chipscale.cost.kernels.gemm import GEMM
from chipscale.cost.kernels.latent import LATENT_DECODE, LATENT_PREFILL, LatentDecode, LatentPrefill
from chipscale.cost.kernels.prefill import PREFILL, Prefill
from chipscale.cost.silicon import silicon
from chipscale.facts.chip import Chip
from chipscale.facts.engine import Engine
from chipscale.facts.model import Attention, Block, CompressedAttention, Experts, LatentAttention, LinearAttention, Mixer, Model
from chipscale.graph import Shard, block_works, head_works
from chipscale.operators.estimate import costing_of
from chipscale.ops.work import Num, Work
from chipscale.serving.deployment import FORMATS, Deployment, Deployments, Format, runnable

#: tokens of a step, and sequences in it, at which parts are costed
TOKENS = np.array(
    [1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 32768], dtype=float
)
RUNNING = np.array([1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096], dtype=float)
#: the popularity of experts in served text, as an exponent
SKEW = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Seconds by cause, and kernels by cause: at TOKENS tokens of a step `products`, `experts`, `vector` (element-wise) and `links` (collectives); at RUNNING sequences the `head`.

    `settle` and `reach` are token attention at RUNNING sequences: seconds, and seconds a cached token; `pair` and `chunk` prompt attention: seconds a
    pair of a prompt token and a token that it sees, and seconds a step. `layers` counts layers, `routed` those with experts; `product_calls`, `vector_calls`
    and `link_calls` the kernels of a step. Of many deployments the arrays have rows ahead of their knots, and what is a number has a value a row.
    """

    products: np.ndarray
    experts: np.ndarray
    vector: np.ndarray
    links: np.ndarray
    head: np.ndarray
    settle: np.ndarray
    reach: np.ndarray
    pair: Num
    chunk: Num
    layers: float
    routed: float
    product_calls: float
    vector_calls: float
    link_calls: Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where kernels are costed: a chip, and the engine that runs them. `changed` multiplies numbers of the chip (fields of `Silicon`) for what-ifs."""

    catalog: Catalog
    chip: Chip
    engine: Engine | None = None
    changed: Mapping[str, float] = field(default_factory=dict)
    known: dict[tuple[str, str], tuple[Costing, str]] = field(default_factory=dict, compare=False, repr=False)
    numbers: dict[str, Silicon] = field(default_factory=dict, compare=False, repr=False)

    def seconds(self, form: Form, call: Any, precision: str, kind: str) -> Num:
        """Cost calls of one form at a precision, each as its kernel takes alone; `kind` names the number formats as measured rows do."""
        if (form.id, kind) not in self.known:
            wanted = precision or base_precision(self.chip)
            name = self.engine.kernel(form.id, self.chip.family, kind) if self.engine else ""
            brand = self.engine.id if self.engine else ""
            costing = costing_of(self.catalog, form, self.chip, wanted, brand, f"{name}:{kind}" if name else "")
            self.known[form.id, kind] = costing, wanted
        costing, wanted = self.known[form.id, kind]
        return costing.seconds(call, self.silicon(wanted))

    def silicon(self, precision: str) -> Silicon:
        """Return the numbers of the chip that kernels read at a precision, at 16 bit where it is blank."""
        if precision not in self.numbers:
            numbers = silicon(self.chip, self.catalog, precision or base_precision(self.chip))
            self.numbers[precision] = replace(numbers, **{name: getattr(numbers, name) * factor for name, factor in self.changed.items()})
        return self.numbers[precision]

    def with_numbers(self, changed: Mapping[str, float]) -> Bench:
        """Return a bench of the same kernels on a chip some of whose numbers are multiplied."""
        return replace(self, changed=changed, numbers={})


def parts(bench: Bench, model: Model, on: Deployment | Deployments, length: float, seen: float) -> Parts:
    """Cost the operators of a model's step on a deployment, or on many: prompts of `length` tokens, sequences that hold `seen` tokens on average.

    Holds when requests spread evenly over the attention groups.
    Source: vllm-2023, section 4.3.
    """
    group = np.ceil(TOKENS / on.dp)
    shard = Shard(length=seen, tokens=group, tp=1.0 * on.tp, sp=1.0, ep=1.0 * on.moe_ep, etp=1.0 * on.moe_tp, width=on.dense.activation, train=False,
                  decode=True)  # fmt: skip
    products, experts, vector, links = (np.zeros_like(group) for _ in range(4))
    calls: dict[str, Any] = {"gemm": 0.0, "memory": 0.0, "links": 0.0}
    spoken = np.where((on.tp > 1) | (np.asarray(on.dp) > 1), 2.0, 0.0)
    for block in model.kinds:
        for work in block_works(block, float(model.d_model), shard):
            if work.cause in ("experts", "attention"):
                continue
            if work.form in calls:
                calls[work.form] += work.calls
            if work.form == "gemm":
                products = products + work.calls * _product(bench, work, on.dense)
            elif work.form == "memory":
                vector = vector + work.calls * _moved(bench, work)
        links = links + _links(bench, block, float(model.d_model), group, on)
        calls["links"] = calls["links"] + block.repeat * _flat(spoken)
        if isinstance(block.feed, Experts):
            experts = experts + block.repeat * _experts(bench, block.feed, float(model.d_model), on)
    ends = Shard(length=seen, tokens=np.ceil(RUNNING / on.dp), tp=1.0 * on.tp, train=False, decode=True)
    head = np.zeros_like(RUNNING / on.dp)
    for work in head_works(model, ends):
        head = head + (work.calls * _product(bench, work, on.dense) if work.form == "gemm" else 0.0)
    settle, reach = _token_attention(bench, model, on, seen)
    pair, chunk = _prompt_attention(bench, model, on, length)
    return Parts(products=products, experts=experts, vector=vector, links=links, head=np.asarray(head), settle=settle, reach=reach, pair=pair, chunk=chunk,
                 layers=float(model.layers), routed=float(sum(b.repeat for b in model.blocks if isinstance(b.feed, Experts))),
                 product_calls=calls["gemm"] + 1.0, vector_calls=calls["memory"], link_calls=calls["links"])  # fmt: skip


def _product(bench: Bench, work: Work, format: Format) -> Num:
    """Cost a product, one of several groups as a wider one."""
    groups = work.flop / (2.0 * work.rows * work.columns * work.depth)
    wide = format if work.narrow else _wide(bench)
    return bench.seconds(GEMM, wide.product(work.rows, work.columns * groups, work.depth), wide.precision, wide.id)


def _flat(values: Num) -> Num:
    """Take away the axis of knots from what has one value a deployment."""
    return np.asarray(values)[..., 0] if np.ndim(values) else values


def _wide(bench: Bench) -> Format:
    return runnable(FORMATS["bf16"], bench.chip)


def _widths(precision: str, kv: float) -> str:
    """Name the number formats of attention as measured rows do."""
    return f"{precision}:kv-{'fp8' if kv < 2.0 else precision}"


def _moved(bench: Bench, work: Work) -> Num:
    half = np.asarray(work.bytes) / 2.0
    return bench.seconds(ELEMENTWISE, Elementwise(read=half, written=half, rows=0.0), "", "")


def _experts(bench: Bench, feed: Experts, d: float, on: Deployment | Deployments) -> Num:
    call = ExpertCall(tokens=TOKENS, hidden=d, inter=float(feed.d_ff), top_k=float(feed.top_k), experts=float(feed.count), moe_tp=1.0 * on.moe_tp,
                      moe_ep=1.0 * on.moe_ep, matrices=3.0 if feed.gated else 2.0, w=on.experts.weight, a=on.experts.activation, skew=SKEW)  # fmt: skip
    return bench.seconds(EXPERTS, call, on.experts.precision, on.experts.id)


def _links(bench: Bench, block: Block, d: float, group: np.ndarray, on: Deployment | Deployments) -> Num:
    """Cost a layer's collectives: sums over tensor-parallel ranks behind mixer and feed-forward; with several attention groups, tokens gathered for the experts and results scattered.

    Rows go to the ranks of their experts and back instead, where that is faster.
    """
    routed = isinstance(block.feed, Experts)
    tp, dp = 1.0 * np.asarray(on.tp), 1.0 * np.asarray(on.dp)
    several = np.where(dp > 1.0, 1.0, 0.0) if routed else 0.0
    added = bench.seconds(ALLREDUCE, AllReduce(ranks=np.maximum(tp, 2.0), bytes=group * d * 2.0), "", "bf16")
    seconds = np.where(tp > 1.0, (2.0 - several) * added, 0.0)
    if isinstance(block.feed, Experts) and np.any(dp > 1.0):
        ranks = np.maximum(tp * dp, 2.0)
        inside = np.minimum(ranks, bench.silicon("").link_size)
        spread = sum(
            bench.seconds(COLLECTIVE, collective_of(kind, ranks, inside, TOKENS * d * 2.0), "", f"{kind}:float")
            for kind in ("all_gather", "reduce_scatter")
        )
        seconds = seconds + several * np.minimum(spread, _exchanged(bench, block.feed, d, ranks, inside, on))
    return block.repeat * seconds


def _exchanged(bench: Bench, feed: Experts, d: float, ranks: Num, inside: Num, on: Deployment | Deployments) -> Num:
    """Cost sending the rows of TOKENS tokens to the ranks of their experts, in the experts' format, and the results back at 16 bit."""
    sent = {"tokens": TOKENS / ranks, "hidden": d, "top_k": float(feed.top_k), "experts": float(feed.count), "ranks": ranks, "once": 1.0,
            "nodes": np.maximum(ranks / inside, 1.0)}  # fmt: skip
    there, back = (bench.seconds(EXCHANGE, Exchange(**sent, width=width), "", "") for width in (max(on.experts.activation, 1.0), 2.0))
    return there + back


def _mixers(model: Model) -> Iterator[tuple[Mixer, float]]:
    for block in model.kinds:
        yield block.mixer, float(block.repeat)


def _token_attention(bench: Bench, model: Model, on: Deployment | Deployments, seen: float) -> tuple[np.ndarray, np.ndarray]:
    """Fit a line in the cached tokens through two costs of token attention, at half and at all of `seen` tokens beyond the prompt."""
    batch = np.ceil(RUNNING / on.dp)
    short, long = max(0.6 * seen, 1.0), max(1.3 * seen, 2.0)
    settle, reach = np.zeros_like(batch), np.zeros_like(batch)
    for mixer, repeat in _mixers(model):
        near, far = (repeat * token_seconds(bench, mixer, batch, past, on) for past in (short, long))
        slope = np.maximum(far - near, 0.0) / ((long - short) * RUNNING)
        reach = reach + slope
        settle = settle + np.maximum(near - slope * RUNNING * short, 0.0)
    return settle, reach


def token_seconds(bench: Bench, mixer: Mixer, batch: Num, past: float, on: Deployment | Deployments) -> Num:
    """Cost one layer's attention of `batch` new tokens, each with `past` tokens in its cache."""
    wide = _wide(bench).precision
    if isinstance(mixer, Attention):
        window = float(mixer.reach) if mixer.reach else np.inf
        call = Decode(batch=batch, past=past, heads=mixer.heads / on.tp, kv_heads=np.maximum(mixer.kv_heads / on.tp, 1.0), head_dim=float(mixer.head_dim),
                      q=2.0, kv=on.kv, window=window)  # fmt: skip
        return bench.seconds(DECODE, call, wide, _widths(wide, on.kv))
    if isinstance(mixer, LatentAttention):
        if mixer.indexer:
            past = min(past, float(mixer.indexer.top_k))
        return bench.seconds(
            LATENT_DECODE, LatentDecode(batch=batch, past=past, heads=mixer.heads / on.tp, q=2.0, kv=on.kv), wide, _widths(wide, on.kv)
        )
    if isinstance(mixer, CompressedAttention):
        entries = min(past, float(mixer.window)) + (past / mixer.ratio if mixer.ratio else 0.0)
        return bench.seconds(DECODE, Decode(batch=batch, past=entries, heads=mixer.heads / on.tp, kv_heads=1.0, head_dim=float(mixer.head_dim), q=2.0,
                                            kv=on.kv / 2.0), wide, _widths(wide, on.kv))  # fmt: skip
    state = mixer.value_heads / on.tp * mixer.key_dim * mixer.value_dim * 4.0
    return bench.seconds(ELEMENTWISE, Elementwise(read=batch * state, written=batch * state, rows=0.0), "", "")


def _prompt_attention(bench: Bench, model: Model, on: Deployment | Deployments, length: float) -> tuple[Num, Num]:
    """Return the seconds of a pair and of a step's prompts, from one prompt of `length` tokens and one of an eighth."""
    whole, part = length, max(length / 8.0, 1.0)
    long, short = (_flat(sum((repeat * prompt_seconds(bench, mixer, new, on) for mixer, repeat in _mixers(model)), 0.0)) for new in (whole, part))
    pairs = (whole * (whole + 1.0) - part * (part + 1.0)) / 2.0
    pair = np.maximum(long - short, 0.0) / max(pairs, 1.0)
    return pair, np.maximum(long - pair * whole * (whole + 1.0) / 2.0, 0.0)


def prompt_seconds(bench: Bench, mixer: Mixer, new: float, on: Deployment | Deployments) -> Num:
    """Cost one layer's attention of a prompt of `new` tokens."""
    wide = _wide(bench).precision
    if isinstance(mixer, Attention):
        window = float(mixer.reach) if mixer.reach else np.inf
        call = Prefill(batch=1.0, new=new, past=0.0, heads=mixer.heads / on.tp, kv_heads=np.maximum(mixer.kv_heads / on.tp, 1.0), head_dim=float(mixer.head_dim),
                       q=2.0, kv=on.kv, fused=0.0, window=window)  # fmt: skip
        return bench.seconds(PREFILL, call, wide, _widths(wide, on.kv))
    if isinstance(mixer, LatentAttention):
        key, value = float(mixer.nope_dim + mixer.rope_dim), float(mixer.v_head_dim)
        return bench.seconds(
            LATENT_PREFILL,
            LatentPrefill(batch=1.0, new=new, heads=mixer.heads / on.tp, key=key, value=value, q=2.0, kv=2.0),
            wide,
            _widths(wide, 2.0),
        )
    if isinstance(mixer, CompressedAttention):
        window = float(mixer.window)
        return bench.seconds(PREFILL, Prefill(batch=1.0, new=new, past=0.0, heads=mixer.heads / on.tp, kv_heads=1.0, head_dim=float(mixer.head_dim), q=2.0,
                                              kv=on.kv, fused=0.0, window=window), wide, _widths(wide, on.kv))  # fmt: skip
    assert isinstance(mixer, LinearAttention)
    work = new * (2.0 * mixer.key_heads * mixer.key_dim + 2.0 * mixer.value_heads * mixer.value_dim) / on.tp * 2.0 * 4.0
    return bench.seconds(ELEMENTWISE, Elementwise(read=work, written=work, rows=0.0), "", "")
