"""Single: one step of a replica whose layout and load are stated in full, with drafts and with every attention group's own share."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from chipscale.facts.model import Attention, Block, CompressedAttention, Experts, LatentAttention, Mixer, Model
from chipscale.serving.constants import Constants, paced
from chipscale.serving.deployment import Deployment
from chipscale.serving.parts import RUNNING, Bench, Parts, parts, prompt_seconds, token_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Seconds of one step by cause: `flow` (products, experts, element-wise), `links` that nothing hides, `attention`, `head` (logits), `host`."""

    flow: float
    links: float
    attention: float
    head: float
    host: float

    @property
    def seconds(self) -> float:
        """The whole step."""
        return self.flow + self.links + self.attention + self.head + self.host


def drafting(model: Model, drafts: int) -> Model:
    """Return a model that runs a multi-token-prediction layer for each draft, shaped as its last layer.

    Source: deepseek-v3, section 2.2 (one block and the shared head a depth).
    """
    last = model.blocks[-1]
    return replace(model, blocks=(*model.blocks[:-1], replace(last, repeat=last.repeat + drafts))) if drafts else model


def spare(model: Model, on: Deployment) -> Model:
    """Return a model as ranks beyond its routed experts run it: they hold copies of loaded experts and the shared expert, which so becomes one more choice of each token.

    Holds when each rank holds one expert.
    Source: deepseek-v3, section 3.4.2 (320 ranks, 64 of them for redundant and shared experts; nine experts a token).
    """

    def wide(block: Block) -> Block:
        feed = block.feed
        if not isinstance(feed, Experts) or on.moe_ep <= feed.count:
            return block
        return replace(block, feed=replace(feed, count=on.moe_ep, top_k=feed.top_k + round(feed.shared_d_ff / feed.d_ff), shared_d_ff=0))

    return replace(model, blocks=tuple(map(wide, model.blocks)))


def positions_of(mixer: Mixer, positions: int) -> Mixer:
    """Return a mixer whose attention of one new token costs what `positions` new tokens of a sequence do: they share each read of its cache, so that heads multiply."""
    if isinstance(mixer, Attention | LatentAttention | CompressedAttention):
        return replace(mixer, heads=mixer.heads * positions)
    return mixer


def decode_step(bench: Bench, model: Model, on: Deployment, k: Constants, *, sequences: float, past: float, drafts: int = 0) -> Step:
    """Cost a step that gives each of `sequences` one new position and its drafts, over `past` cached tokens.

    t = flow(n (1 + d)) + attention(n / dp, (1 + d) heads) + (1 + d) head + host(n / dp).

    Holds when sequences spread evenly over the attention groups, each with its own scheduler, and drafts run a layer each.
    Source: deepseek-v3, section 2.2; vllm-2023, section 4.3.
    """
    wide, tokens, each = drafting(spare(model, on), drafts), sequences * (1.0 + drafts), np.ceil(sequences / on.dp)
    cost = parts(bench, wide, on, past, past)
    pace = paced(cost, k)
    attention = sum(b.repeat * float(token_seconds(bench, positions_of(b.mixer, 1 + drafts), each, past, on)) for b in wide.kinds)
    head = float(np.interp(tokens, RUNNING, cost.head)) + drafts * float(np.interp(sequences, RUNNING, cost.head))
    attended = float(k.scale * k.token) * attention
    return _step(bench, cost, k, tokens, attended, float(k.scale) * head, float(pace.step + pace.sequence * each))  # fmt: skip


def prefill_step(bench: Bench, model: Model, on: Deployment, k: Constants, *, prompts: float, length: float, drafts: int = 0) -> Step:
    """Cost a step that reads `prompts` whole prompts of `length` tokens.

    t = flow(p n) + p / dp attention(n) + head(p) + host(p / dp).

    Holds when prompts spread evenly over the attention groups and none is cached.
    Source: sarathi-2024, section 4; vllm-2023, section 4.3.
    """
    wide, each = drafting(spare(model, on), drafts), np.ceil(prompts / on.dp)
    cost = parts(bench, wide, on, length, length)
    pace = paced(cost, k)
    attention = sum(b.repeat * float(np.ravel(prompt_seconds(bench, b.mixer, length, on))[0]) for b in wide.kinds)
    head = float(k.scale) * (1 + drafts) * float(np.interp(prompts, RUNNING, cost.head))
    host = float(pace.step + k.scale * k.eager * cost.layers + pace.sequence * each)
    return _step(bench, cost, k, prompts * length, float(k.scale * k.prompt) * attention * float(each), head, host)


def _step(bench: Bench, cost: Parts, k: Constants, tokens: float, attention: float, head: float, host: float) -> Step:
    """Split what `tokens` tokens cost into work of the chip and links; with two micro-batches the shorter of both hides."""
    flow = float(paced(replace(cost, links=np.zeros_like(cost.links)), k).flowing(tokens))
    links = float(paced(cost, k).flowing(tokens)) - flow
    shown = max(links - flow - attention, 0.0) if bench.engine and bench.engine.pipelined else links
    return Step(flow=flow, links=shown, attention=attention, head=head, host=host)
