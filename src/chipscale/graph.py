"""Model x Job -> Graph of Work: the operators of one micro-batch on one rank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chipscale.facts.model import MLP, Block, CompressedAttention, Experts, Indexer, LatentAttention, LinearAttention, Mixer, Model
from chipscale.ops.attention import STREAMED, compress_core, delta_core, index_core, mean_entries, mean_span, softmax_core, unfused_core
from chipscale.ops.dense import linear
from chipscale.ops.elementwise import passes
from chipscale.ops.residual import collapse, hyper_connection
from chipscale.ops.work import Num, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """What one rank of a plan sees: degrees as floats or arrays, `tokens` a micro-batch and context rank.

    `span` replaces the mean number of tokens seen (decoding: the context); `width` is bytes a matrix operand element;
    `fused` says that attention is one kernel.
    """

    length: Num
    tokens: Num
    tp: Num = 1.0
    sp: Num = 1.0
    ep: Num = 1.0
    etp: Num = 1.0
    width: Num = 2.0
    fused: bool = True
    train: bool = True
    decode: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """The work of a whole model for one micro-batch on one tensor-parallel rank, and the sizes that traffic needs.

    `routed` counts expert layers, `expert_width` is d_model where they dispatch; `kv_width` are key and value elements a token,
    summed over layers, that context parallelism passes on.
    """

    works: tuple[Work, ...]
    layers: float
    d_model: float
    routed: float
    top_k: float
    kv_width: Num


def mixer_works(mixer: Mixer, d: float, s: Shard, calls: float) -> list[Work]:
    """List the token mixer's work."""
    if isinstance(mixer, LinearAttention):
        return _linear_mixer(mixer, d, s, calls)
    if isinstance(mixer, LatentAttention):
        return _latent_mixer(mixer, d, s, calls)
    if isinstance(mixer, CompressedAttention):
        return _compressed_mixer(mixer, d, s, calls)
    heads, kv = mixer.heads / s.tp, np.maximum(mixer.kv_heads / s.tp, 1.0)
    query = heads * mixer.head_dim * (2.0 if mixer.gated else 1.0)
    span: Num = _span(s, mixer.reach, mixer.chunked)
    return [
        *linear("qkv", s.tokens, query + kv * (mixer.head_dim + mixer.v_head_dim), d, calls=calls, train=s.train, width=s.width),
        *passes("rotary", s.tokens * (heads + kv) * mixer.head_dim, 4.0, 4.0, calls=calls, train=s.train),
        *_core(s, span, heads, kv, mixer.head_dim, mixer.v_head_dim, calls),
        *linear("output", s.tokens, d, heads * mixer.v_head_dim, calls=calls, train=s.train, width=s.width),
    ]


def _span(s: Shard, reach: int | None, chunked: bool) -> Num:
    if s.decode:
        return s.length if reach is None else np.minimum(s.length, float(reach))
    return mean_span(s.length, reach, chunked)


def _core(s: Shard, span: Num, heads: Num, kv: Num, qk: float, v: float, calls: float) -> list[Work]:
    if not s.decode and not s.fused:
        return unfused_core("attention", s.tokens, span, heads, qk, v, calls=calls, train=s.train)
    if not s.decode:
        return softmax_core("attention", s.tokens, span, heads, kv, qk, v, calls=calls, train=s.train)
    read = 2.0 * s.tokens * span * kv * (qk + v)
    return [Work(name="attention", form="attention", cause="attention", flop=2.0 * s.tokens * span * heads * (qk + v), bytes=read,
                 rows=STREAMED, calls=calls)]  # fmt: skip


def _latent_mixer(m: LatentAttention, d: float, s: Shard, calls: float) -> list[Work]:
    heads, qk = m.heads / s.tp, m.nope_dim + m.rope_dim
    works: list[Work] = []
    if m.q_rank:
        works += linear("q down", s.tokens, m.q_rank, d, calls=calls, train=s.train, width=s.width)
    works += linear("q up", s.tokens, heads * qk, m.q_rank or d, calls=calls, train=s.train, width=s.width)
    works += linear("kv down", s.tokens, m.kv_rank + m.rope_dim, d, calls=calls, train=s.train, width=s.width)
    span = _span(s, None, False)
    if m.indexer:
        works += _indexer(m.indexer, m.q_rank or d, d, s, span, calls)
        span = np.minimum(span, float(m.indexer.top_k))
    works += passes("rotary and norms", s.tokens * (m.q_rank + m.kv_rank + heads * (qk + qk + m.v_head_dim)), 4.0, 6.0, calls=calls, train=s.train)
    if s.decode:
        absorbed = 2.0 * s.tokens * heads * m.kv_rank * (m.nope_dim + m.v_head_dim)
        works.append(Work(name="absorbed up", form="gemm", cause="gemm", flop=absorbed, rows=s.tokens, columns=m.kv_rank, depth=m.nope_dim,
                          bytes=2.0 * heads * m.kv_rank * (m.nope_dim + m.v_head_dim), calls=calls))  # fmt: skip
        flop = 2.0 * s.tokens * span * heads * (2.0 * m.kv_rank + m.rope_dim)
        works.append(Work(name="attention", form="attention", cause="attention", flop=flop, bytes=2.0 * s.tokens * span * (m.kv_rank + m.rope_dim),
                          rows=STREAMED, calls=calls))  # fmt: skip
    else:
        works += linear("kv up", s.tokens, heads * (m.nope_dim + m.v_head_dim), m.kv_rank, calls=calls, train=s.train, width=s.width)
        works += _core(s, span, heads, heads, qk, m.v_head_dim, calls)
    return works + linear("output", s.tokens, d, heads * m.v_head_dim, calls=calls, train=s.train, width=s.width)


def _indexer(index: Indexer, q_width: float, d: float, s: Shard, span: Num, calls: float, *, key: float = 0.0) -> list[Work]:
    """List the indexer's work; `key` is the width of a token's key projection where it is not a head."""
    return [
        *linear("index projections", s.tokens, index.heads * index.head_dim, q_width, calls=calls, train=s.train, width=s.width),
        *linear("index key", s.tokens, (key or index.head_dim) + index.heads, d, calls=calls, train=s.train, width=s.width),
        *index_core(s.tokens, span, index.heads, index.head_dim, calls=calls, train=s.train, keys=span if s.decode else 0.0),
    ]


def _compressed_mixer(m: CompressedAttention, d: float, s: Shard, calls: float) -> list[Work]:
    """List compressed attention's work; key, value, entries and indexer are whole on each tensor-parallel rank, heads and their groups split."""
    heads, groups = m.heads / s.tp, np.maximum(m.out_groups / s.tp, 1.0)
    works = [
        *linear("q down", s.tokens, m.q_rank, d, calls=calls, train=s.train, width=s.width),
        *linear("q up", s.tokens, heads * m.head_dim, m.q_rank, calls=calls, train=s.train, width=s.width),
        *linear("kv", s.tokens, m.head_dim, d, calls=calls, train=s.train, width=s.width),
        *passes("rotary and norms", s.tokens * (m.q_rank + m.head_dim + 2.0 * heads * m.head_dim), 4.0, 6.0, calls=calls, train=s.train),
    ]
    entries: Num = 0.0
    if m.ratio:
        width, entries = float(m.overlap * m.head_dim), _entries(m, s)
        works += linear("compressor", s.tokens, 2.0 * width, d, calls=calls, train=s.train, width=s.width)
        works += compress_core("compress", s.tokens, width, float(m.head_dim), float(m.ratio), calls=calls, train=s.train)
    if m.indexer:
        wide = float(m.overlap * m.indexer.head_dim)
        works += _indexer(m.indexer, m.q_rank, d, s, entries, calls, key=2.0 * wide)
        works += compress_core("index compress", s.tokens, wide, float(m.indexer.head_dim), float(m.ratio), calls=calls, train=s.train)
        entries = _entries(m, s, float(m.indexer.top_k))
    return [*works, *_shared_core(m, s, _span(s, m.window, False) + entries, heads, calls),
            *linear("output down", s.tokens, m.out_rank, heads * m.head_dim / groups, groups=groups, calls=calls, train=s.train, width=s.width),
            *linear("output up", s.tokens, d, m.out_groups * m.out_rank / s.tp, calls=calls, train=s.train, width=s.width)]  # fmt: skip


def _entries(m: CompressedAttention, s: Shard, most: float = np.inf) -> Num:
    return np.minimum(np.floor(s.length / m.ratio), most) if s.decode else mean_entries(s.length, float(m.ratio), most)


def _shared_core(m: CompressedAttention, s: Shard, span: Num, heads: Num, calls: float) -> list[Work]:
    """List the core over window and entries in one kernel; decoding streams what each token sees once, as key and value."""
    if not s.decode:
        held = 0.5 * (1.0 + (1.0 / m.ratio if m.ratio else 0.0))
        return softmax_core("attention", s.tokens, span, heads, held, m.head_dim, m.head_dim, calls=calls, train=s.train)
    return [Work(name="attention", form="attention", cause="attention", flop=4.0 * s.tokens * span * heads * m.head_dim,
                 bytes=2.0 * s.tokens * span * m.head_dim, rows=STREAMED, calls=calls)]  # fmt: skip


def _linear_mixer(m: LinearAttention, d: float, s: Shard, calls: float) -> list[Work]:
    keys, values = m.key_heads * m.key_dim / s.tp, m.value_heads * m.value_dim / s.tp
    return [
        *linear("qkvz", s.tokens, 2.0 * keys + 2.0 * values + 2.0 * m.value_heads / s.tp, d, calls=calls, train=s.train, width=s.width),
        *passes("convolution", s.tokens * (2.0 * keys + values), 4.0, 8.0, calls=calls, train=s.train),
        *delta_core(s.tokens, m.value_heads / s.tp, m.key_dim, m.value_dim, calls=calls, train=s.train),
        *passes("gated norm", s.tokens * values, 6.0, 10.0, calls=calls, train=s.train),
        *linear("output", s.tokens, d, values, calls=calls, train=s.train, width=s.width),
    ]


def feed_works(feed: MLP | Experts, d: float, s: Shard, calls: float) -> list[Work]:
    """List the feed-forward's work; experts see the balanced share of the tokens that their group routes."""
    if isinstance(feed, MLP):
        return _mlp(s.tokens, feed.d_ff / s.tp, d, feed.gated, s, calls)
    pairs = s.tokens / s.tp * feed.top_k * s.etp
    local = feed.count / s.ep
    active = np.minimum(local, np.maximum(pairs, 1.0))
    each = pairs / active
    up = (2.0 if feed.gated else 1.0) * feed.d_ff / s.etp
    works = [
        *linear("router", s.tokens / s.sp, feed.count, d, calls=calls, train=s.train, width=2.0, narrow=False),
        *passes("permute", pairs * d, 12.0, 12.0, calls=calls, train=s.train, cause="experts"),
        *linear("expert up", each, up, d, groups=active, form="grouped", cause="experts", calls=calls, train=s.train, width=s.width),
        *passes("expert activation", pairs * feed.d_ff / s.etp, 6.0 if feed.gated else 4.0, 10.0, calls=calls, train=s.train, cause="experts"),
        *linear("expert down", each, d, feed.d_ff / s.etp, groups=active, form="grouped", cause="experts", calls=calls, train=s.train,
                width=s.width),
    ]  # fmt: skip
    if feed.shared_d_ff:
        works += _mlp(s.tokens, feed.shared_d_ff / s.tp, d, feed.gated, s, calls)
    return works


def _mlp(tokens: Num, width: Num, d: float, gated: bool, s: Shard, calls: float) -> list[Work]:
    return [
        *linear("up", tokens, width * (2.0 if gated else 1.0), d, calls=calls, train=s.train, width=s.width),
        *passes("activation", tokens * width, 6.0 if gated else 4.0, 10.0 if gated else 6.0, calls=calls, train=s.train),
        *linear("down", tokens, d, width, calls=calls, train=s.train, width=s.width),
    ]


def block_works(block: Block, d: float, s: Shard) -> list[Work]:
    """List one block's work: mixer, feed-forward, norms and residual sums, and the quantise pass below 16 bit."""
    calls = float(block.repeat)
    works = mixer_works(block.mixer, d, s, calls) + feed_works(block.feed, d, s, calls)
    sums = 8.0 if block.streams == 1 else 0.0  # hyper-connections take the place of the residual sums
    works += passes("norms and residuals", s.tokens * d / s.sp, 6.0 * block.norms + sums, 10.0 * block.norms + sums, calls=calls, train=s.train)
    if block.streams > 1:
        works += hyper_connection("hyper-connection", s.tokens / s.sp, d, float(block.streams), calls=2.0 * calls, train=s.train)
    return works


def quantise_works(works: list[Work], s: Shard) -> list[Work]:
    """List the passes that turn 16-bit activations into narrow ones, one per forward product."""
    narrow = np.where(np.asarray(s.width) < 2.0, 1.0, 0.0)
    elements = sum(
        (w.flop / (2.0 * w.columns) * w.calls for w in works if w.form == "gemm" and w.narrow and not w.backward), 0.0 * np.asarray(s.tokens)
    )
    return passes("quantise", elements * narrow, 3.0, 6.0, calls=1.0, train=s.train)


def head_works(model: Model, s: Shard) -> list[Work]:
    """List the logits, their loss and the embedding, which stand on the ends of a pipeline."""
    vocab = model.vocab / s.tp
    works = linear("logits", s.tokens, vocab, model.d_model, calls=1.0, train=s.train, cause="head", narrow=False)
    works += passes("cross-entropy", s.tokens * vocab, 8.0, 8.0, calls=1.0, train=s.train, cause="head")
    if model.streams > 1:
        works += collapse("collapse", s.tokens / s.sp, model.d_model, float(model.streams), train=s.train)
    return works + passes("embedding", s.tokens * model.d_model / s.sp, 4.0, 8.0, calls=1.0, train=s.train, cause="head")


def build(model: Model, s: Shard) -> Graph:
    """Build the graph of a model; MTP layers add their block and one more head each when training."""
    d = float(model.d_model)
    works: list[Work] = []
    for block in model.kinds:
        works += block_works(block, d, s)
    heads = head_works(model, s)
    extra = model.mtp_layers if s.train else 0
    if extra:
        works += block_works(model.mtp_block, d, s)
        heads = heads * (1 + extra)
    works += quantise_works(works, s)
    routed = [b for b in model.blocks if isinstance(b.feed, Experts)]
    experts = [b.feed for b in routed if isinstance(b.feed, Experts)]
    return Graph(
        works=tuple(works + heads),
        layers=float(model.layers + extra),
        d_model=d,
        routed=float(sum(b.repeat for b in routed)) + (extra if experts and isinstance(model.blocks[-1].feed, Experts) else 0),
        top_k=float(max((e.top_k for e in experts), default=0)),
        kv_width=sum((b.repeat * cache_width(b.mixer, s.length) for b in model.kinds), 0.0),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadWidths:
    """Elements a token of a layer's queries, outputs, and keys with values, all heads, and the heads of keys and values."""

    query: float
    output: float
    kv: float
    kv_heads: float


def head_widths(mixer: Mixer) -> HeadWidths:
    """Count what attention reads and writes by heads, after any up-projection: what is exchanged where heads are dealt to ranks.

    h d_qk; h d_v; h_kv (d_qk + d_v); latent: h_kv = h; compressed: one head of d_h that is key and value; linear: its key and value heads.

    Holds when latent keys and values are expanded before they are exchanged.
    Source: deepspeed-ulysses-2023, section 3.
    """
    if isinstance(mixer, LinearAttention):
        keys, values = float(mixer.key_heads * mixer.key_dim), float(mixer.value_heads * mixer.value_dim)
        return HeadWidths(query=keys, output=values, kv=keys + values, kv_heads=float(mixer.key_heads))
    if isinstance(mixer, CompressedAttention):
        each = float(mixer.heads * mixer.head_dim)
        return HeadWidths(query=each, output=each, kv=float(mixer.head_dim), kv_heads=1.0)
    h = float(mixer.heads)
    if isinstance(mixer, LatentAttention):
        qk = mixer.nope_dim + mixer.rope_dim
        return HeadWidths(query=h * qk, output=h * mixer.v_head_dim, kv=h * (qk + mixer.v_head_dim), kv_heads=h)
    kv = float(mixer.kv_heads * (mixer.head_dim + mixer.v_head_dim))
    return HeadWidths(query=h * mixer.head_dim, output=h * mixer.v_head_dim, kv=kv, kv_heads=float(mixer.kv_heads))


def cache_width(mixer: Mixer, length: Num) -> Num:
    """Count the elements a token that a layer's cache holds, on average over a sequence.

    grouped: h_kv (d_qk + d_v);  latent: r_kv + d_r;  compressed: d_h min(w, s) / s + (d_h + d_i) / r;  linear: 0 (a state replaces it).

    Holds when a full cache is kept: sliding windows of grouped attention are not cut, those of compressed attention are.
    Source: deepseek-v3, section 2.1.1; transformers, models/deepseek_v4/modeling_deepseek_v4.py, DeepseekV4CSACache.

    >>> heavy = CompressedAttention(heads=128, head_dim=512, rope_dim=64, q_rank=1536, window=128, out_groups=16, out_rank=1024, ratio=128)
    >>> float(cache_width(heavy, 2.0**20))  # 4 elements of entries, the window's share beside them
    4.0625
    """
    if isinstance(mixer, LinearAttention):
        return 0.0
    if isinstance(mixer, CompressedAttention):
        entry = mixer.head_dim + (mixer.indexer.head_dim if mixer.indexer else 0)
        return mixer.head_dim * np.minimum(float(mixer.window), length) / length + (entry / mixer.ratio if mixer.ratio else 0.0)
    if isinstance(mixer, LatentAttention):
        return float(mixer.kv_rank + mixer.rope_dim)
    return float(mixer.kv_heads * (mixer.head_dim + mixer.v_head_dim))
