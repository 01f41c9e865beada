"""Models by dimensions: one row of measured results, blanks filled by stated rules."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from chipscale.evidence import EvidenceError
from chipscale.facts.model import MLP, Attention, Block, Experts, Feed, LatentAttention, Mixer, Model, merged
from chipscale.facts.parameters import parameters

#: vocabulary where a row leaves it blank (assumed: the median of the rows that state one)
USUAL_VOCAB = 51200


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimensions:
    """The dimensions of a decoder of equal layers; 0 where there is none."""

    layers: int
    d_model: int
    heads: int
    kv_heads: int
    head_dim: int
    d_ff: int
    vocab: int
    gated: bool
    experts: int = 0
    top_k: int = 0
    shared: int = 0
    expert_d_ff: int = 0
    dense_layers: int = 0
    latent: LatentAttention | None = None
    window: int | None = None
    tied: bool = False


def by_dimensions(id: str, n: Dimensions) -> Model:
    """Build a decoder of the GPT family from its dimensions."""
    mixer: Mixer = n.latent or Attention(heads=n.heads, kv_heads=n.kv_heads, head_dim=n.head_dim, v_head_dim=n.head_dim, reach=n.window)
    dense: Feed = MLP(d_ff=n.d_ff, gated=n.gated)
    feed = dense
    if n.experts:
        feed = Experts(count=n.experts, top_k=n.top_k, d_ff=n.expert_d_ff, shared_d_ff=n.shared * n.expert_d_ff)
    routed = n.layers - n.dense_layers
    if routed < 0:
        raise EvidenceError(f"{id}: {n.dense_layers} dense layers of {n.layers}; n_dense_layers is too large")
    interleaved = n.experts and n.dense_layers * 2 == n.layers
    if interleaved:
        layers = [Block(mixer=mixer, feed=dense, repeat=1), Block(mixer=mixer, feed=feed, repeat=1)] * routed
    else:
        layers = [Block(mixer=mixer, feed=dense, repeat=1)] * n.dense_layers + [Block(mixer=mixer, feed=feed, repeat=1)] * routed
    return Model(id=id, name=id, d_model=n.d_model, vocab=n.vocab, blocks=merged(layers), tied=n.tied)


def gpt(layers: int, d_model: int, heads: int, vocab: int) -> Model:
    """Build a plain GPT: full heads, ungated MLP of 4 d.

    >>> round(parameters(gpt(96, 12288, 96, 51200)).total / 1e9)
    175
    """
    dims = Dimensions(layers=layers, d_model=d_model, heads=heads, kv_heads=heads, head_dim=d_model // heads, d_ff=4 * d_model, vocab=vocab, gated=False, tied=True)
    return by_dimensions(f"gpt-{layers}x{d_model}", dims)


class _Row:
    """A row's numbers by column, with the assumptions made on the way."""

    def __init__(self, row: Mapping[str, str]) -> None:
        self.row, self.key, self.assumed = row, row.get("row") or row.get("_line", "?"), list[str]()

    def number(self, column: str) -> float | None:
        text = self.row.get(column, "").strip()
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value < 1e9:
            raise EvidenceError(f"row {self.key}, column {column}: {text!r} is not a number from 0 to 1e9; correct or blank it")
        return value

    def whole(self, column: str) -> int | None:
        value = self.number(column)
        if value is not None and value != int(value):
            raise EvidenceError(f"row {self.key}, column {column}: {value:g} is not a whole number")
        return None if value is None else int(value)

    def needed(self, column: str) -> int:
        value = self.whole(column)
        if not value:
            raise EvidenceError(f"row {self.key}: column {column} is blank; a model needs it")
        return value

    def assume(self, column: str, value: int, why: str) -> int:
        self.assumed.append(f"{column} {value} ({why})")
        return value


def latent_of(text: str, heads: int) -> LatentAttention | None:
    """Read "q_lora=1536;kv_lora=512;qk_nope=128;qk_rope=64;v_head=128" or the same with blanks."""
    found = {name: int(value) for name, value in re.findall(r"(q_lora|kv_lora|nope|rope|v)(?:_head)?[ =]+(\d+)", text)}
    if "kv_lora" not in found:
        return None
    return LatentAttention(heads=heads, q_rank=found.get("q_lora", 0), kv_rank=found["kv_lora"], nope_dim=found.get("nope", 128),
                           rope_dim=found.get("rope", 64), v_head_dim=found.get("v", 128))  # fmt: skip


def _width(r: _Row, d: int, experts: int, expert_d_ff: int, top_k: int) -> int:
    d_ff = r.whole("d_ff")
    if d_ff:
        return d_ff
    if experts:
        return r.assume("d_ff", max(expert_d_ff * top_k, 1), "as wide as the active experts")
    stated, layers = r.number("n_params_b"), r.needed("n_layers")
    if stated:
        heads, kv = r.needed("n_heads"), r.whole("n_kv_heads") or r.needed("n_heads")
        attention = d * d * (2 + 2 * kv / heads)
        vocab = (r.whole("vocab") or USUAL_VOCAB) * d * 2
        width = ((stated * 1e9 - vocab) / layers - attention) / (3 * d)
        if 1.5 * d < width < 6 * d:
            return r.assume("d_ff", int(round(width / 128) * 128), "what the stated parameters leave for a gated MLP")
    return r.assume("d_ff", 4 * d, "4 d_model")


def _gated(r: _Row, n: Dimensions) -> bool:
    """Decide whether the MLP is gated: by the stated parameter count where it tells, else by its width."""
    stated = r.number("n_params_b")
    if n.experts or n.d_ff != 4 * n.d_model or not stated:
        return bool(n.experts) or n.d_ff != 4 * n.d_model
    off = {g: min(_miss(n, g, tied, stated) for tied in (False, True)) for g in (False, True)}
    return off[True] < off[False]


def _miss(n: Dimensions, gated: bool, tied: bool, billions: float) -> float:
    return abs(math.log(parameters(by_dimensions("x", replace(n, gated=gated, tied=tied))).total / (billions * 1e9)))


def from_row(row: Mapping[str, str]) -> tuple[Model, tuple[str, ...]]:
    """Build the model of a measured row; returns it with the assumptions made for blanks."""
    r = _Row(row)
    layers, d, heads = r.needed("n_layers"), r.needed("d_model"), r.needed("n_heads")
    experts, top_k = r.whole("n_experts") or 0, r.whole("n_experts_active") or 1
    shared = r.whole("n_shared_experts") or 0
    expert_d_ff = r.whole("moe_d_ff") or 0
    if experts and not expert_d_ff:
        wide = r.needed("d_ff")
        fine = experts >= 32 and wide > d
        expert_d_ff = r.assume("moe_d_ff", wide // (top_k + 2), "fine-grained experts as wide together as the dense MLP") if fine else r.assume("moe_d_ff", wide, "d_ff")
        shared = shared or (2 if fine else 0)
    head_dim = r.whole("d_head") or d // heads
    n = Dimensions(
        layers=layers, d_model=d, heads=heads, kv_heads=r.whole("n_kv_heads") or r.assume("n_kv_heads", heads, "all heads"),
        head_dim=max(head_dim, 1), d_ff=_width(r, d, experts, expert_d_ff, top_k), gated=True,
        vocab=r.whole("vocab") or r.assume("vocab", USUAL_VOCAB, "usual"), experts=experts, top_k=min(top_k, experts) if experts else 0,
        shared=shared, expert_d_ff=expert_d_ff, dense_layers=r.whole("n_dense_layers") or 0 if experts else 0,
        latent=latent_of(row.get("mla", ""), heads), window=4096 if "window 4096" in row.get("notes", "").lower() else None,
    )  # fmt: skip
    return by_dimensions(row.get("model", "") or r.key, replace(n, gated=_gated(r, n))), tuple(r.assumed)
