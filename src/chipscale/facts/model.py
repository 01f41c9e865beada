"""Model: blocks as data, repeated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from chipscale.evidence import EvidenceError


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexer:
    """The index of sparse attention: it scores all earlier tokens and keeps `top_k` of them."""

    heads: int
    head_dim: int
    top_k: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Softmax attention, multi-head, grouped or multi-query.

    `reach` is how many earlier tokens a token sees at most: None all, else a sliding window or,
    with `chunked`, the chunk that holds the token. `gated` doubles the query projection (output gate).
    `qk_norm` norms each head of query and key with one shared weight; `wide_norm` norms all heads together.
    """

    heads: int
    kv_heads: int
    head_dim: int
    v_head_dim: int
    reach: int | None = None
    chunked: bool = False
    gated: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: bool = False
    wide_norm: bool = False
    sinks: bool = False

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise EvidenceError(f"{self.heads} query heads do not divide over {self.kv_heads} key-value heads")


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttention:
    """Multi-head latent attention (MLA); with `indexer` sparse (DeepSeek sparse attention). `q_rank` 0: no query compression."""

    heads: int
    q_rank: int
    kv_rank: int
    nope_dim: int
    rope_dim: int
    v_head_dim: int
    indexer: Indexer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressedAttention:
    """Multi-query attention of DeepSeek-V4: one shared vector a token is both key and value, seen in a sliding `window`, beyond it compressed.

    Each `ratio` tokens become one entry (0: none, the window alone). With `indexer` entries overlap by one window and a query keeps the
    best `indexer.top_k` of them (compressed sparse attention); without it a query sees all (heavily compressed attention).
    Heads are projected out in `out_groups` groups of rank `out_rank`.
    """

    heads: int
    head_dim: int
    rope_dim: int
    q_rank: int
    window: int
    out_groups: int
    out_rank: int
    ratio: int = 0
    indexer: Indexer | None = None

    def __post_init__(self) -> None:
        if self.heads % self.out_groups:
            raise EvidenceError(f"{self.heads} heads do not divide over {self.out_groups} output groups")
        if self.indexer and not self.ratio:
            raise EvidenceError("an indexer needs compressed entries to choose from")

    @property
    def overlap(self) -> int:
        """How many windows an entry is made of."""
        return 2 if self.indexer else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearAttention:
    """Gated delta-rule linear attention: a state of key_dim x value_dim per value head instead of a cache."""

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    conv_kernel: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MLP:
    """A dense feed-forward layer; `gated` has three matrices, else two."""

    d_ff: int
    gated: bool = True
    bias: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """A mixture of experts: `top_k` of `count` routed experts of width `d_ff`, and shared ones of `shared_d_ff` in total."""

    count: int
    top_k: int
    d_ff: int
    shared_d_ff: int = 0
    shared_gate: bool = False
    gated: bool = True
    bias: bool = False
    router_bias: bool = False
    groups: int = 1
    top_groups: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= self.count:
            raise EvidenceError(f"top-k {self.top_k} of {self.count} experts: needs 1 <= top_k <= experts")


Mixer = Attention | LatentAttention | CompressedAttention | LinearAttention
Feed = MLP | Experts


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """`repeat` equal layers: a mixer, a feed-forward and `norms` norms of width d_model.

    Where `streams` is above 1 the residual is that many vectors a token, mixed by hyper-connections around mixer and feed-forward.
    """

    mixer: Mixer
    feed: Feed
    repeat: int
    norms: int = 2
    streams: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A decoder as blocks. `blocks` are in depth order (equal neighbours merged, interleaved patterns listed run by run).

    `mtp_layers`, `mtp_parameters` and `vision_parameters` stand apart from the text model's count; `mtp_mixer` is the mixer of
    multi-token-prediction layers where it is not the last layer's. `stored` is the number format of the published checkpoint's weights below
    16 bit ("fp8", "fp8_block", "mxfp4", ...), "" where it has none; `wide_mixers` says that its attention stays at 16 bit.
    """

    id: str
    name: str
    d_model: int
    vocab: int
    blocks: tuple[Block, ...]
    tied: bool = False
    norm: Literal["rms", "layer"] = "rms"
    learned_positions: int = 0
    mtp_layers: int = 0
    mtp_mixer: Mixer | None = None
    mtp_parameters: int = 0
    vision_parameters: int = 0
    max_length: int = 0
    source: str = ""
    licence: str = ""
    notes: tuple[str, ...] = ()
    stored: str = ""
    wide_mixers: bool = False

    @property
    def layers(self) -> int:
        return sum(b.repeat for b in self.blocks)

    @property
    def streams(self) -> int:
        """The residual vectors of a token."""
        return max(b.streams for b in self.blocks)

    @property
    def mtp_block(self) -> Block:
        """All multi-token-prediction layers as one block: the last layer, with its own mixer where one is stated."""
        last = self.blocks[-1]
        return replace(last, mixer=self.mtp_mixer or last.mixer, repeat=self.mtp_layers)

    @property
    def kinds(self) -> tuple[Block, ...]:
        """The blocks merged by kind, order lost: what sums over layers need."""
        count: dict[Block, int] = {}
        for b in self.blocks:
            key = replace(b, repeat=1)
            count[key] = count.get(key, 0) + b.repeat
        return tuple(replace(b, repeat=n) for b, n in count.items())


def merged(layers: Iterable[Block]) -> tuple[Block, ...]:
    """Merge equal neighbours of a depth-ordered list of blocks."""
    blocks: list[Block] = []
    for layer in layers:
        if blocks and replace(blocks[-1], repeat=1) == replace(layer, repeat=1):
            blocks[-1] = replace(layer, repeat=blocks[-1].repeat + layer.repeat)
        else:
            blocks.append(layer)
    return tuple(blocks)
