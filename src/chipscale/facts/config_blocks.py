"""Blocks of a config.json: what the readers of all families share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from chipscale.evidence import EvidenceError
from chipscale.facts.config_fields import Config
from chipscale.facts.model import Attention, Block, Feed, Mixer, Model, merged


def attention(c: Config, *, head_dim: int | None = None, kv_heads: int | None = None) -> Attention:
    """Take heads and their width; the defaults stand where an architecture defines them."""
    heads = c.count("num_attention_heads")
    dim = c.count("head_dim", head_dim)
    return Attention(heads=heads, kv_heads=c.count("num_key_value_heads", kv_heads), head_dim=dim, v_head_dim=dim)


def model_of(c: Config, blocks: list[Block], mtp_layers: int = 0) -> Model:
    """Join layers, equal neighbours merged, with widths and lengths that every config states."""
    longest = c.count("max_position_embeddings", 0, least=0)
    return Model(
        id="", name="", d_model=c.count("hidden_size"), vocab=c.count("vocab_size"), blocks=merged(blocks),
        tied=c.flag("tie_word_embeddings"), max_length=longest, mtp_layers=mtp_layers,
    )  # fmt: skip


def stack(c: Config, kinds: Mapping[str, Mixer], usual: Callable[[int], str], feed: Callable[[int], Feed]) -> list[Block]:
    """List the layers: `layer_types` says which mixer each has, the architecture's `usual` rule where it is missing."""
    layers = c.layers()
    types = c.words("layer_types") or [usual(i) for i in range(layers)]
    if len(types) != layers:
        raise EvidenceError(f"{c.where}: field layer_types lists {len(types)} layers, num_hidden_layers says {layers}; make them equal")
    unknown = sorted(set(types) - set(kinds))
    if unknown:
        raise EvidenceError(f"{c.where}: field layer_types holds {', '.join(unknown)}, not understood; understood: {', '.join(kinds)}")
    return [Block(mixer=kinds[t], feed=feed(i), repeat=1) for i, t in enumerate(types)]


def windowed(c: Config, full: Attention, feed: Callable[[int], Feed], *, usual: bool) -> list[Block]:
    """List layers of full and sliding attention; `usual` says whether a stated window is in use unless a flag says otherwise."""
    kinds: dict[str, Mixer] = {"full_attention": full}
    if c.has("sliding_window"):
        kinds["sliding_attention"] = replace(full, reach=c.count("sliding_window"))
    used = c.flag("use_sliding_window", usual) and "sliding_attention" in kinds
    first = c.count("max_window_layers", 0, least=0)
    return stack(c, kinds, lambda i: "sliding_attention" if used and i >= first else "full_attention", feed)
