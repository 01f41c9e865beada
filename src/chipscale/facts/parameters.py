"""How many parameters a model has, and where."""

from __future__ import annotations

from dataclasses import dataclass

from chipscale.facts.model import MLP, Attention, CompressedAttention, Feed, LatentAttention, LinearAttention, Mixer, Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Parameter counts by place; `total` is the text model, MTP heads and vision tower apart.

    `active` is what one token meets: the chosen routed experts and everything else, embedding and head included.
    """

    total: int
    active: int
    embedding: int
    head: int
    attention: int
    dense_mlp: int
    experts_routed: int
    experts_shared: int
    router: int
    norms: int
    connections: int
    mtp: int
    vision: int

    @property
    def active_without_embedding(self) -> int:
        """What one token multiplies: `active` without the input embedding, a look-up, unless the head is tied to it."""
        return self.active - (self.embedding if self.head else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedParameters:
    """The parameters of one feed-forward layer by place; `visited` are the routed ones that one token meets."""

    dense: int = 0
    routed: int = 0
    visited: int = 0
    shared: int = 0
    router: int = 0

    @property
    def total(self) -> int:
        return self.dense + self.routed + self.shared + self.router

    @property
    def active(self) -> int:
        return self.dense + self.visited + self.shared + self.router


def attention_parameters(m: Attention, d_model: int) -> int:
    """Count the parameters of grouped attention.

    d h d_qk (twice if gated) + d h_kv (d_qk + d_v) + h d_v d, and biases, norms of query and key, and one sink per head where present.

    Holds when the projections are dense matrices.
    Source: transformers, models/qwen3/modeling_qwen3.py (norms) and models/gpt_oss/modeling_gpt_oss.py (sinks, biases).

    >>> attention_parameters(Attention(heads=32, kv_heads=8, head_dim=128, v_head_dim=128), 4096)
    41943040
    """
    query = m.heads * m.head_dim * (2 if m.gated else 1)
    pair = m.kv_heads * (m.head_dim + m.v_head_dim)
    matrices = d_model * (query + pair) + m.heads * m.v_head_dim * d_model
    biases = (query + pair) * m.qkv_bias + d_model * m.out_bias
    narrow = 2 * m.head_dim * (m.qk_norm and not m.wide_norm)
    wide = (m.heads + m.kv_heads) * m.head_dim * (m.qk_norm and m.wide_norm)
    return matrices + biases + narrow + wide + m.heads * m.sinks


def latent_parameters(m: LatentAttention, d_model: int) -> int:
    """Count the parameters of multi-head latent attention, and of its indexer where it has one.

    d r_q + r_q + r_q h (d_n + d_r) + d (r_kv + d_r) + r_kv + r_kv h (d_n + d_v) + h d_v d;
    the indexer adds r_q h_i d_i + d d_i + 2 d_i + d h_i.

    Holds when query and key-value latents have a norm each; without query compression (r_q = 0) the query is d h (d_n + d_r).
    Source: deepseek-v2, section 2.1; deepseek-v3.2, inference/model.py, class Indexer.

    >>> v3 = LatentAttention(heads=128, q_rank=1536, kv_rank=512, nope_dim=128, rope_dim=64, v_head_dim=128)
    >>> round(latent_parameters(v3, 7168) / 1e6, 1)
    187.1
    """
    qk = m.nope_dim + m.rope_dim
    query = d_model * m.q_rank + m.q_rank + m.q_rank * m.heads * qk if m.q_rank else d_model * m.heads * qk
    pair = d_model * (m.kv_rank + m.rope_dim) + m.kv_rank + m.kv_rank * m.heads * (m.nope_dim + m.v_head_dim)
    index = 0
    if m.indexer:
        i = m.indexer
        index = (m.q_rank or d_model) * i.heads * i.head_dim + d_model * i.head_dim + 2 * i.head_dim + d_model * i.heads
    return query + pair + m.heads * m.v_head_dim * d_model + index


def compressed_parameters(m: CompressedAttention, d_model: int) -> int:
    """Count the parameters of compressed attention with its compressor and indexer.

    d r_q + r_q + r_q h d_h + d d_h + d_h + h d_h r_o + g r_o d + h; a compressor of width c = o d_h, o windows an entry, adds
    2 d c + r c + d_h; an indexer adds a compressor of width 2 d_i and r_q h_i d_i + d h_i.

    Holds when key and value are one vector, sinks are one a head, and the query's second norm has no weights.
    Source: transformers, models/deepseek_v4/modeling_deepseek_v4.py, DeepseekV4Attention, DeepseekV4CSACompressor, DeepseekV4Indexer.

    >>> compressed_parameters(CompressedAttention(heads=64, head_dim=512, rope_dim=64, q_rank=1024, window=128, out_groups=8, out_rank=1024), 4096)
    106956352
    """
    query = d_model * m.q_rank + m.q_rank + m.q_rank * m.heads * m.head_dim
    pair = d_model * m.head_dim + m.head_dim
    out = m.heads * m.head_dim * m.out_rank + m.out_groups * m.out_rank * d_model
    total = query + pair + out + m.heads
    if m.ratio:
        total += _compressor(m.overlap * m.head_dim, m.head_dim, m.ratio, d_model)
    if m.indexer:
        i = m.indexer
        total += _compressor(m.overlap * i.head_dim, i.head_dim, m.ratio, d_model) + m.q_rank * i.heads * i.head_dim + d_model * i.heads
    return total


def _compressor(width: int, entry: int, ratio: int, d_model: int) -> int:
    return 2 * d_model * width + ratio * width + entry


def connection_parameters(streams: int, d_model: int) -> int:
    """Count the parameters of one hyper-connection.

    (n^2 + 2 n) (n d + 1) + 3: a product that mixes n streams of width d, its biases and three scales.

    Holds when n > 1; the norm before the product has no weights.
    Source: transformers, models/deepseek_v4/modeling_deepseek_v4.py, DeepseekV4HyperConnection.

    >>> connection_parameters(4, 4096)
    393243
    """
    return (streams**2 + 2 * streams) * (streams * d_model + 1) + 3 if streams > 1 else 0


def collapse_parameters(streams: int, d_model: int) -> int:
    """Count the parameters that turn n streams into one before the head.

    n (n d + 1) + 1.

    Holds when n > 1.
    Source: transformers, models/deepseek_v4/modeling_deepseek_v4.py, DeepseekV4HyperHead.

    >>> collapse_parameters(4, 4096)
    65541
    """
    return streams * (streams * d_model + 1) + 1 if streams > 1 else 0


def linear_parameters(m: LinearAttention, d_model: int) -> int:
    """Count the parameters of a gated delta-rule layer.

    d (2 k + 2 v + 2 h_v) + (2 k + v) c + 2 h_v + d_v + v d, with k = h_k d_k and v = h_v d_v.

    Holds when query, key and value pass one depthwise convolution of width c, and output gate, decay and step each have a projection.
    Source: transformers, models/qwen3_next/modeling_qwen3_next.py, Qwen3NextGatedDeltaNet.

    >>> linear_parameters(LinearAttention(key_heads=16, value_heads=32, key_dim=128, value_dim=128, conv_kernel=4), 2048)
    33718464
    """
    keys, values = m.key_heads * m.key_dim, m.value_heads * m.value_dim
    projections = d_model * (2 * keys + 2 * values + 2 * m.value_heads) + values * d_model
    return projections + (2 * keys + values) * m.conv_kernel + 2 * m.value_heads + m.value_dim


def mixer_parameters(mixer: Mixer, d_model: int) -> int:
    """Count a token mixer's parameters, whichever kind it is."""
    if isinstance(mixer, LatentAttention):
        return latent_parameters(mixer, d_model)
    if isinstance(mixer, CompressedAttention):
        return compressed_parameters(mixer, d_model)
    if isinstance(mixer, LinearAttention):
        return linear_parameters(mixer, d_model)
    return attention_parameters(mixer, d_model)


def mlp_parameters(feed: MLP, d_model: int) -> int:
    """Count the parameters of a feed-forward.

    3 d f where gated, 2 d f where not, and a bias behind each matrix where present.

    Holds when the matrices are dense.
    Source: attention-2017, section 3.3; glu-2020, equation 6.

    >>> mlp_parameters(MLP(d_ff=14336), 4096)
    176160768
    """
    up = 2 if feed.gated else 1
    return (up + 1) * d_model * feed.d_ff + (up * feed.d_ff + d_model) * feed.bias


def feed_by_place(feed: Feed, d_model: int) -> FeedParameters:
    """Count one feed-forward layer by place.

    routed = E n(f), visited = k n(f), shared = n(f_s), router = E d + E (bias) + d (gate of the shared expert), n as in `mlp_parameters`.

    Holds when all routed experts are equal and shared experts have no biases.
    Source: mixtral-2024, section 2; deepseek-v3, section 2.1.2.

    >>> from chipscale.facts.model import Experts
    >>> feed_by_place(Experts(count=8, top_k=2, d_ff=14336), 4096).routed * 32
    45097156608
    """
    if isinstance(feed, MLP):
        return FeedParameters(dense=mlp_parameters(feed, d_model))
    one = mlp_parameters(MLP(d_ff=feed.d_ff, gated=feed.gated, bias=feed.bias), d_model)
    shared = mlp_parameters(MLP(d_ff=feed.shared_d_ff, gated=feed.gated), d_model) if feed.shared_d_ff else 0
    router = feed.count * d_model + feed.count * feed.router_bias + d_model * feed.shared_gate
    return FeedParameters(routed=feed.count * one, visited=feed.top_k * one, shared=shared, router=router)


def feed_parameters(feed: Feed, d_model: int) -> tuple[int, int]:
    """Return one feed-forward layer's parameters: all, and those that one token meets."""
    found = feed_by_place(feed, d_model)
    return found.total, found.active


def mtp_parameters(model: Model) -> int:
    """Count the multi-token-prediction layers of a model.

    n (block + 2 d d + 3 d + collapse), the block being `mtp_block`, the 2 d d its join, the 3 d its further norms.

    Holds when embedding and head are shared with the model.
    Source: deepseek-v3, README_WEIGHTS.md, section 2 ("11.5B unique parameters").
    """
    if not model.mtp_layers:
        return 0
    block, d = model.mtp_block, model.d_model
    layer = mixer_parameters(block.mixer, d) + feed_by_place(block.feed, d).total + block.norms * d + 2 * connection_parameters(block.streams, d)
    return model.mtp_layers * (layer + 2 * d * d + 3 * d + collapse_parameters(block.streams, d))


def vision_parameters(*, layers: int, width: int, d_ff: int, patch: int, positions: int) -> int:
    """Count a vision transformer without its merger.

    patch w + w + positions w + L (4 w w + 4 w + 2 w f + f + w + 4 w) + 2 w (last norm).

    Holds when attention and the ungated MLP have biases and norms are layer norms; `patch` counts the inputs of one patch.
    Source: moonvit-card, huggingface.co/moonshotai/MoonViT-SO-400M ("417M params").

    >>> round(vision_parameters(layers=27, width=1152, d_ff=4304, patch=3 * 14 * 14, positions=64 * 64) / 1e6)
    417
    """
    block = 4 * width * width + 4 * width + 2 * width * d_ff + d_ff + width + 4 * width
    return patch * width + width + positions * width + layers * block + 2 * width


def merger_parameters(*, width: int, merge: int, d_model: int) -> int:
    """Count the merger between a vision tower and the text model.

    2 w + m m + m + m d + d, with m = w merge.

    Holds when `merge` neighbouring patches become one token through a normed MLP of two matrices with biases.
    Source: transformers, models/qwen3_vl/modeling_qwen3_vl.py, Qwen3VLVisionPatchMerger.
    """
    m = width * merge
    return 2 * width + m * m + m + m * d_model + d_model


def parameters(model: Model) -> Parameters:
    """Count a model's parameters by place.

    total = embedding + head + mixers + dense MLPs + routed and shared experts + routers + norms + hyper-connections; active has top-k of the
    routed experts.

    Holds when the blocks describe the architecture in full; a tied head counts once, as embedding.
    Source: deepseek-v3, README_WEIGHTS.md, section 1 (671 B; 36.6 B active with the head, without the embedding);
    llama-3, table 3 (405 B).

    >>> from chipscale.facts.model import Block
    >>> block = Block(mixer=Attention(heads=128, kv_heads=8, head_dim=128, v_head_dim=128), feed=MLP(d_ff=53248), repeat=126)
    >>> parameters(Model(id="", name="", d_model=16384, vocab=128256, blocks=(block,))).total
    405853388800
    """
    d = model.d_model
    norm = 2 * d if model.norm == "layer" else d
    feeds = [(b.repeat, feed_by_place(b.feed, d)) for b in model.blocks]
    embedding, head = (model.vocab + model.learned_positions) * d, 0 if model.tied else model.vocab * d
    attention = sum(b.repeat * mixer_parameters(b.mixer, d) for b in model.blocks)
    norms = norm * (1 + sum(b.repeat * b.norms for b in model.blocks))
    connections = sum(2 * b.repeat * connection_parameters(b.streams, d) for b in model.blocks) + collapse_parameters(model.streams, d)
    rest = embedding + head + attention + norms + connections
    return Parameters(
        total=rest + sum(n * f.total for n, f in feeds),
        active=rest + sum(n * f.active for n, f in feeds),
        embedding=embedding,
        head=head,
        attention=attention,
        dense_mlp=sum(n * f.dense for n, f in feeds),
        experts_routed=sum(n * f.routed for n, f in feeds),
        experts_shared=sum(n * f.shared for n, f in feeds),
        router=sum(n * f.router for n, f in feeds),
        norms=norms,
        connections=connections,
        mtp=model.mtp_parameters or mtp_parameters(model),
        vision=model.vision_parameters,
    )
