"""Single: one step of a replica whose layout and load are stated in full, with drafts and with every attention group's own share."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from chipscale.facts.model import Attention, CompressedAttention, LatentAttention, Mixer, Model
from chipscale.serving.constants import Constants, paced
from chipscale.serving.deployment import Deployment
from chipscale.serving.parts import RUNNING, Bench, parts, prompt_seconds, token_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Seconds of one step by cause: `flow` (products, experts, element-wise and collectives), `attention`, `head` (logits), `host`."""

    flow: float
    attention: float
    head: float
    host: float

    @property
    def seconds(self) -> float:
        """The whole step."""
        return self.flow + self.attention + self.head + self.host


def drafting(model: Model, drafts: int) -> Model:
    """Return a model that runs a multi-token-prediction layer for each draft, shaped as its last layer.

    Source: deepseek-v3, section 2.2 (one block and the shared head a depth).
    """
    last = model.blocks[-1]
    return replace(model, blocks=(*model.blocks[:-1], replace(last, repeat=last.repeat + drafts))) if drafts else model


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
    wide, tokens, each = drafting(model, drafts), sequences * (1.0 + drafts), np.ceil(sequences / on.dp)
    cost = parts(bench, wide, on, past, past)
    pace = paced(cost, k)
    attention = sum(b.repeat * float(token_seconds(bench, positions_of(b.mixer, 1 + drafts), each, past, on)) for b in wide.kinds)
    head = float(np.interp(tokens, RUNNING, cost.head)) + drafts * float(np.interp(sequences, RUNNING, cost.head))
    return Step(flow=float(pace.flowing(tokens)), attention=float(k.scale * k.token) * attention, head=float(k.scale) * head,
                host=float(pace.step + pace.sequence * each))  # fmt: skip


def prefill_step(bench: Bench, model: Model, on: Deployment, k: Constants, *, prompts: float, length: float, drafts: int = 0) -> Step:
    """Cost a step that reads `prompts` whole prompts of `length` tokens.

    t = flow(p n) + p / dp attention(n) + head(p) + host(p / dp).

    Holds when prompts spread evenly over the attention groups and none is cached.
    Source: sarathi-2024, section 4; vllm-2023, section 4.3.
    """
    wide, each = drafting(model, drafts), np.ceil(prompts / on.dp)
    cost = parts(bench, wide, on, length, length)
    pace = paced(cost, k)
    attention = sum(b.repeat * float(np.ravel(prompt_seconds(bench, b.mixer, length, on))[0]) for b in wide.kinds)
    return Step(flow=float(pace.flowing(prompts * length)), attention=float(k.scale * k.prompt) * attention * float(each),
                head=float(k.scale) * (1 + drafts) * float(np.interp(prompts, RUNNING, cost.head)),
                host=float(pace.step + k.scale * k.eager * cost.layers + pace.sequence * each))  # fmt: skip
