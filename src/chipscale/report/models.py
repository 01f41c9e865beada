"""Tables of models."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from chipscale.evidence import Belief
from chipscale.facts.model import MLP, Attention, Block, CompressedAttention, LatentAttention, Model
from chipscale.facts.parameters import parameters
from chipscale.report.words import percent
from chipscale.units import GIGA


def billions(n: int) -> str:
    return f"{n / GIGA:,.2f} B" if n else "–"


def mixer_words(block: Block) -> str:
    """Describe a token mixer."""
    m = block.mixer
    if isinstance(m, LatentAttention):
        sparse = f", indexer keeps {m.indexer.top_k:,} tokens" if m.indexer else ""
        return f"latent attention, {m.heads} heads, rank {m.kv_rank}{sparse}"
    if isinstance(m, CompressedAttention):
        entries = f", {m.ratio} tokens an entry" if m.ratio else ""
        kept = f", indexer keeps {m.indexer.top_k:,}" if m.indexer else ""
        return f"shared-key attention, {m.heads} heads of {m.head_dim}, window of {m.window:,}{entries}{kept}"
    if isinstance(m, Attention):
        reach = "" if m.reach is None else f", {'chunks' if m.chunked else 'window'} of {m.reach:,}"
        return f"attention, {m.heads} heads on {m.kv_heads} of {m.head_dim}{reach}"
    return f"linear attention, {m.value_heads} value heads of {m.value_dim}"


def feed_words(block: Block) -> str:
    """Describe a feed-forward."""
    f = block.feed
    if isinstance(f, MLP):
        return f"{'gated ' if f.gated else ''}MLP of {f.d_ff:,}"
    shared = f", shared {f.shared_d_ff:,}" if f.shared_d_ff else ""
    return f"{f.top_k} of {f.count} experts of {f.d_ff:,}{shared}"


def models_table(models: Sequence[Model], believed: Sequence[str] = ()) -> RenderableType:
    """List models: parameters, active ones, layers, mixers; those that are only believed by name."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("model", no_wrap=True)
    for head in ("parameters", "active", "layers"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("kinds of layer", ratio=1)
    for m in models:
        count = parameters(m)
        table.add_row(
            Text(m.id), billions(count.total), billions(count.active), f"{m.layers}", "; ".join(dict.fromkeys(mixer_words(b) for b in m.kinds))
        )
    for id in believed:
        table.add_row(Text(id), "", "", "", Text(f"not certain: chipscale models {id}"))
    return table


def belief_page(name: str, held: Belief[Model]) -> RenderableType:
    """Show a model that is only believed: each hypothesis with its weight, parameters and reason, nothing averaged."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for head in ("weight", "parameters", "active"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("hypothesis", overflow="fold", ratio=1)
    for h in sorted(held.hypotheses, key=lambda h: -h.weight):
        c = parameters(h.value)
        table.add_row(
            percent(h.weight), billions(c.total), billions(c.active_without_embedding), Text(f"{h.title} [{h.key}]\n{h.reason}\nmodel: {h.value.id}")
        )
    return Group(Text(f"{name}: not certain, {len(held.hypotheses)} hypotheses", style="bold"), table)


def model_page(model: Model) -> RenderableType:
    """Show one model: counts by place, MTP and vision apart, layers by kind."""
    c = parameters(model)
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(ratio=1)
    rows = (("parameters", c.total, "text model, without MTP heads and vision tower"), ("active", c.active, "one token's routed experts; embedding included"),
            ("active, no look-up", c.active_without_embedding, "as some model cards count"), ("embedding", c.embedding, ""), ("head", c.head, "tied" if model.tied else ""),
            ("token mixers", c.attention, ""), ("hyper-connections", c.connections, f"{model.streams} residual streams" if c.connections else ""), ("dense MLPs", c.dense_mlp, ""), ("routed experts", c.experts_routed, ""), ("shared experts", c.experts_shared, ""),
            ("MTP layers", c.mtp, f"{model.mtp_layers} of them, apart" if model.mtp_layers else ""), ("vision tower", c.vision, "; ".join(model.notes)))  # fmt: skip
    for name, n, note in rows:
        table.add_row(name, billions(n), note)
    layers = [Text(f"{b.repeat:4d} x  {mixer_words(b)};  {feed_words(b)}") for b in model.kinds]
    return Group(Text(f"{model.id}   d_model {model.d_model:,}, vocabulary {model.vocab:,}", style="bold"), table, *layers)
