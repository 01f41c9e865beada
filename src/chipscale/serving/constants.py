"""Constants: the numbers that turn kernels alone into steps of an engine, and steps into what a client sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chipscale.ops.work import Num
from chipscale.serving.pace import Pace
from chipscale.serving.parts import RUNNING, TOKENS, Parts

#: tokens of a step below which a product reads weights, and above which it computes; between, constants go over in log tokens
FEW, MANY = 64.0, 2048.0
#: the least share of a part that is left when starts overlap
LEAST = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """Fitted numbers, each a float or an array over rows.

    Multipliers on kernels alone: `products`, `experts`, `links` in steps of few and of many tokens, `vector`, `token` (attention of new tokens), `prompt` (attention of
    prompts); `start` (s) is what a kernel in a captured graph starts earlier than alone. Host: `step` (s a step), `layer` (s a layer and step), `sequence` (s a sequence and
    step), `eager` (s a layer more in a step with prompts, which runs outside the graph). `scale` multiplies all. Client: `first` (s until a request is queued and its first chunk sent),
    `tokenise` (s a prompt token, one prompt after the other), `admit` (s a user under way), `stream` (decode steps before the first chunk leaves), `burst` (multiplier on waiting and prompt).
    """

    products_few: Num
    products_many: Num
    experts_few: Num
    experts_many: Num
    links_few: Num
    links_many: Num
    vector: Num
    token: Num
    prompt: Num
    start: Num
    step: Num
    layer: Num
    sequence: Num
    eager: Num
    scale: Num
    first: Num
    tokenise: Num
    admit: Num
    stream: Num
    burst: Num


def paced(parts: Parts, k: Constants) -> Pace:
    """Turn the kernels of a step into its pace.

    flow(T) = sum over products, experts, links of m(T) (alone - start kernels) + vector;  log m goes from few to many tokens in log T;
    host = step + layer L, eager L more with prompts;  everything times scale.

    Holds when kernels follow each other on one stream, as captured graphs let them: each starts `start` earlier than it would alone.
    Source: vllm-2023, section 4.3; nvidia-pdl, "Programmatic Dependent Launch".
    """
    share = np.clip(np.log(TOKENS / FEW) / np.log(MANY / FEW), 0.0, 1.0)
    few = 1.0 - share

    def ahead(alone: np.ndarray, kernels: Num) -> np.ndarray:
        return np.maximum(alone - _wide(k.start * kernels), LEAST * alone)

    def times(low: Num, high: Num) -> np.ndarray:
        mixed: np.ndarray = np.exp(_wide(np.log(low)) * few + _wide(np.log(high)) * share)
        return mixed

    flow = (
        ahead(parts.products, parts.product_calls) * times(k.products_few, k.products_many)
        + ahead(parts.experts, parts.routed) * times(k.experts_few, k.experts_many)
        + ahead(parts.links, parts.link_calls) * times(k.links_few, k.links_many)
        + ahead(parts.vector, parts.vector_calls) * _wide(k.vector)
    )
    return Pace(
        tokens=TOKENS,
        flow=_wide(k.scale) * flow,
        running=RUNNING,
        settle=_wide(k.scale) * (parts.settle * _wide(k.token) + parts.head),
        reach=_wide(k.scale * k.token) * parts.reach,
        chunk=k.scale * (k.prompt * parts.chunk + k.eager * parts.layers),
        pair=k.scale * k.prompt * parts.pair,
        step=k.scale * (k.step + k.layer * parts.layers),
        sequence=k.scale * k.sequence,
    )


def _wide(value: Num) -> Num:
    """Give a value an axis for the knots of a table."""
    return np.asarray(value)[..., None] if np.ndim(value) else value
