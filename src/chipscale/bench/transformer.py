"""A transformer block as plain functions of its parameters, built from a model of the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from chipscale.evidence import EvidenceError
from chipscale.facts.model import MLP, Attention, Block, Experts, LatentAttention, Model

Linear = Callable[[Any, Any], Any]
#: base of the rotary angles
THETA = 10_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One block of width `d_model` that can be built and run."""

    d_model: int
    block: Block


def layer_of(model: Model, shrink: int, experts: int) -> Layer:
    """Return a model's last block, its widths and heads divided by `shrink` and at most `experts` routed experts; heads keep their dimension.

    Raises EvidenceError where its attention is of a kind that is not built here.
    """
    last = model.blocks[-1]
    mixer, feed = last.mixer, last.feed
    if isinstance(mixer, Attention):
        kv = max(1, mixer.kv_heads // shrink)
        mixer = replace(mixer, heads=max(kv, mixer.heads // shrink // kv * kv), kv_heads=kv)
    elif isinstance(mixer, LatentAttention) and mixer.indexer is None:
        mixer = replace(mixer, heads=max(1, mixer.heads // shrink), q_rank=mixer.q_rank // shrink, kv_rank=max(1, mixer.kv_rank // shrink))
    else:
        raise EvidenceError(
            f"{model.id}: its attention ({type(mixer).__name__}) cannot be run here; choose a model with grouped-query or latent attention"
        )
    if isinstance(feed, Experts):
        count = min(feed.count, experts)
        feed = replace(
            feed, count=count, top_k=min(feed.top_k, count), d_ff=feed.d_ff // shrink, shared_d_ff=feed.shared_d_ff // shrink, groups=1, top_groups=1
        )
    else:
        feed = replace(feed, d_ff=feed.d_ff // shrink)
    return Layer(d_model=model.d_model // shrink, block=replace(last, mixer=mixer, feed=feed, repeat=1))


def shapes(layer: Layer) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter; matrices are (out, in), experts stacked."""
    d, mixer, feed = layer.d_model, layer.block.mixer, layer.block.feed
    found: dict[str, tuple[int, ...]] = {"norm_mixer": (d,), "norm_feed": (d,)}
    if isinstance(mixer, Attention):
        found |= {
            "q": (mixer.heads * mixer.head_dim, d),
            "k": (mixer.kv_heads * mixer.head_dim, d),
            "v": (mixer.kv_heads * mixer.v_head_dim, d),
            "o": (d, mixer.heads * mixer.v_head_dim),
        }
    elif isinstance(mixer, LatentAttention):
        q_in = mixer.q_rank or d
        found |= {"q_down": (mixer.q_rank, d), "norm_q": (mixer.q_rank,)} if mixer.q_rank else {}
        found |= {
            "q": (mixer.heads * (mixer.nope_dim + mixer.rope_dim), q_in),
            "kv_down": (mixer.kv_rank + mixer.rope_dim, d),
            "norm_kv": (mixer.kv_rank,),
            "kv": (mixer.heads * (mixer.nope_dim + mixer.v_head_dim), mixer.kv_rank),
            "o": (d, mixer.heads * mixer.v_head_dim),
        }
    if isinstance(feed, MLP):
        return found | {"gate": (feed.d_ff, d), "up": (feed.d_ff, d), "down": (d, feed.d_ff)}
    found |= {"router": (feed.count, d), "gates": (feed.count, feed.d_ff, d), "ups": (feed.count, feed.d_ff, d), "downs": (feed.count, d, feed.d_ff)}
    if feed.shared_d_ff:
        found |= {"gate": (feed.shared_d_ff, d), "up": (feed.shared_d_ff, d), "down": (d, feed.shared_d_ff)}
    return found


def parameters(layer: Layer, device: str, dtype: Any, seed: int = 0) -> dict[str, Any]:
    """Make the parameters: norms 1, matrices normal with variance 1 / in; drawn on the processor, so that every device starts alike."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in shapes(layer).items():
        start = torch.ones(shape) if len(shape) == 1 else torch.randn(shape, generator=draw) / shape[-1] ** 0.5
        made[name] = start.to(device=device, dtype=dtype).requires_grad_()
    return made


def rotated(x: Any) -> Any:
    """Turn pairs of the last dimension by angles that grow with the position; x is (batch, heads, length, dim)."""
    import torch

    half = x.shape[-1] // 2
    rate = THETA ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = torch.arange(x.shape[-2], device=x.device, dtype=torch.float32)[:, None] * rate
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def _heads(x: Any, heads: int) -> Any:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _attention(mixer: Attention, x: Any, p: Mapping[str, Any], linear: Linear) -> Any:
    from torch.nn.functional import scaled_dot_product_attention as sdpa

    q, k, v = (_heads(linear(x, p[w]), n) for w, n in (("q", mixer.heads), ("k", mixer.kv_heads), ("v", mixer.kv_heads)))
    group = mixer.heads // mixer.kv_heads
    k, v = (t.repeat_interleave(group, 1) if group > 1 else t for t in (rotated(k), v))
    return linear(sdpa(rotated(q), k, v, is_causal=True).transpose(1, 2).flatten(2), p["o"])


def _latent(mixer: LatentAttention, x: Any, p: Mapping[str, Any], linear: Linear) -> Any:
    import torch
    from torch.nn.functional import scaled_dot_product_attention as sdpa

    inner = _normed(linear(x, p["q_down"]), p["norm_q"]) if mixer.q_rank else x
    q = _heads(linear(inner, p["q"]), mixer.heads)
    latent, shared = linear(x, p["kv_down"]).split([mixer.kv_rank, mixer.rope_dim], -1)
    kv = _heads(linear(_normed(latent, p["norm_kv"]), p["kv"]), mixer.heads)
    k_nope, v = kv.split([mixer.nope_dim, mixer.v_head_dim], -1)
    q_nope, q_rope = q.split([mixer.nope_dim, mixer.rope_dim], -1)
    k_rope = rotated(shared[:, None]).expand(-1, mixer.heads, -1, -1)
    out = sdpa(torch.cat([q_nope, rotated(q_rope)], -1), torch.cat([k_nope, k_rope], -1), v, is_causal=True)
    return linear(out.transpose(1, 2).flatten(2), p["o"])


def _normed(x: Any, weight: Any) -> Any:
    from torch.nn.functional import rms_norm

    return rms_norm(x, (x.shape[-1],), weight, 1e-6)


def _gated(x: Any, gate: Any, up: Any, down: Any, linear: Linear) -> Any:
    from torch.nn.functional import silu

    return linear(silu(linear(x, gate)) * linear(x, up), down)


def _routed(feed: Experts, x: Any, p: Mapping[str, Any], linear: Linear) -> Any:
    """Send each token to its experts, one expert after the other."""
    import torch

    flat = x.flatten(0, 1)
    weight, chosen = torch.softmax(linear(flat, p["router"]).float(), -1).topk(feed.top_k, -1)
    order = chosen.flatten().argsort(stable=True)
    token = order // feed.top_k
    sizes = torch.bincount(chosen.flatten(), minlength=feed.count).tolist()
    parts = [
        _gated(part, gate, up, down, linear)
        for part, gate, up, down in zip(flat[token].split(sizes), p["gates"].unbind(), p["ups"].unbind(), p["downs"].unbind(), strict=True)
    ]
    mixed = torch.cat(parts) * weight.flatten()[order, None].to(x.dtype)
    return torch.zeros_like(flat).index_add(0, token, mixed).view_as(x)


def forward(layer: Layer, x: Any, p: Mapping[str, Any], linear: Linear) -> Any:
    """Run the block on x (batch, length, d_model); `linear(x, weight)` is every product with a parameter."""
    mixer, feed = layer.block.mixer, layer.block.feed
    inner = _normed(x, p["norm_mixer"])
    x = x + (_attention(mixer, inner, p, linear) if isinstance(mixer, Attention) else _latent(mixer, inner, p, linear))  # type: ignore[arg-type]
    inner = _normed(x, p["norm_feed"])
    if isinstance(feed, MLP):
        return x + _gated(inner, p["gate"], p["up"], p["down"], linear)
    out = x + _routed(feed, inner, p, linear)
    return out + _gated(inner, p["gate"], p["up"], p["down"], linear) if feed.shared_d_ff else out
