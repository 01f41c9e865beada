"""How many parameters a model has, and where."""

from __future__ import annotations

from dataclasses import dataclass

from chipscale.facts.model import MLP, Attention, Block, Experts, LatentAttention, LinearAttention, Mixer, Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Parameter counts by place; `total` is the text model, MTP heads and vision tower apart.

    `active` counts the routed experts that one token visits, and the embedding once where it is a look-up.
    """

    total: int
    active: int
    embedding: int
    head: int
    mixers: int
    dense: int
    experts_routed: int
    experts_shared: int
    routers: int
    norms: int
    mtp: int
    vision: int


def mixer_parameters(mixer: Mixer, d: int) -> int:
    """Count a token mixer's parameters.

    attention: d h d_qk (twice if gated) + d h_kv (d_qk + d_v) + h d_v d, with biases, norms and sinks where present.

    Holds when projections are dense.
    Source: attention-2017, section 3.2.2; deepseek-v2, section 2.1 (latent); gated-delta-net, section 3 (linear).

    >>> mixer_parameters(Attention(heads=32, kv_heads=8, head_dim=128, v_head_dim=128), 4096)
    41943040
    """
    if isinstance(mixer, LatentAttention):
        return _latent(mixer, d)
    if isinstance(mixer, LinearAttention):
        return _linear(mixer, d)
    query = mixer.heads * mixer.head_dim * (2 if mixer.gated else 1)
    pair = mixer.kv_heads * (mixer.head_dim + mixer.v_head_dim)
    count = d * (query + pair) + mixer.heads * mixer.v_head_dim * d
    count += (query + pair) * mixer.qkv_bias + d * mixer.out_bias
    return count + 2 * mixer.head_dim * mixer.qk_norm + mixer.heads * mixer.sinks


def _latent(m: LatentAttention, d: int) -> int:
    qk = m.nope_dim + m.rope_dim
    query = d * m.q_rank + m.q_rank + m.q_rank * m.heads * qk if m.q_rank else d * m.heads * qk
    pair = d * (m.kv_rank + m.rope_dim) + m.kv_rank + m.kv_rank * m.heads * (m.nope_dim + m.v_head_dim)
    index = 0
    if m.indexer:
        i = m.indexer
        index = (m.q_rank or d) * i.heads * i.head_dim + d * i.head_dim + 2 * i.head_dim + d * i.heads
    return query + pair + m.heads * m.v_head_dim * d + index


def _linear(m: LinearAttention, d: int) -> int:
    keys, values = m.key_heads * m.key_dim, m.value_heads * m.value_dim
    return d * (2 * keys + 2 * values + 2 * m.value_heads) + (2 * keys + values) * m.conv_kernel + 2 * m.value_heads + m.value_dim + values * d


def mlp_parameters(d: int, width: int, gated: bool, bias: bool) -> int:
    """Count a feed-forward's parameters: 3 d f gated, 2 d f not, and biases.

    Holds when both matrices are dense.
    Source: attention-2017, section 3.3; glu-2020, equation 6.

    >>> mlp_parameters(4096, 14336, True, False)
    176160768
    """
    return (3 if gated else 2) * d * width + ((2 if gated else 1) * width + d) * bias


def _feed(block: Block, d: int) -> tuple[int, int, int, int, int]:
    """Return dense, routed, routed and active, shared and router parameters of one layer."""
    feed = block.feed
    if isinstance(feed, MLP):
        return mlp_parameters(d, feed.d_ff, feed.gated, feed.bias), 0, 0, 0, 0
    one = mlp_parameters(d, feed.d_ff, feed.gated, feed.bias)
    shared = mlp_parameters(d, feed.shared_d_ff, feed.gated, False) if feed.shared_d_ff else 0
    router = feed.count * d + feed.count * feed.router_bias + d * feed.shared_gate
    return 0, feed.count * one, feed.top_k * one, shared, router


def parameters(model: Model) -> Parameters:
    """Count a model's parameters.

    Holds when the architecture is fully described by its blocks.
    Source: the architectures' own definitions, see the sources of the model files.
    """
    d = model.d_model
    scale = 2 if model.norm == "layer" else 1
    sums = [0, 0, 0, 0, 0]
    mixers = norms = 0
    for block in model.blocks:
        for i, n in enumerate(_feed(block, d)):
            sums[i] += block.repeat * n
        mixers += block.repeat * mixer_parameters(block.mixer, d)
        norms += block.repeat * block.norms * d * scale
    norms += d * scale
    dense, routed, visited, shared, routers = sums
    embedding = model.vocab * d + model.learned_positions * d
    head = 0 if model.tied else model.vocab * d
    rest = embedding + head + mixers + dense + shared + routers + norms
    return Parameters(
        total=rest + routed, active=rest + visited, embedding=embedding, head=head, mixers=mixers, dense=dense, experts_routed=routed,
        experts_shared=shared, routers=routers, norms=norms, mtp=_mtp(model), vision=model.vision_parameters,
    )  # fmt: skip


def _mtp(model: Model) -> int:
    """Count the multi-token-prediction layers: a last block, a 2 d x d join and three norms each; embedding and head are shared."""
    if not model.mtp_layers:
        return 0
    block, d = model.blocks[-1], model.d_model
    dense, routed, _, shared, router = _feed(block, d)
    return model.mtp_layers * (mixer_parameters(block.mixer, d) + dense + routed + shared + router + (block.norms + 3) * d + 2 * d * d)
