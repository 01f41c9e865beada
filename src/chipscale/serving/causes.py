"""Causes: where the time of a decode step goes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from chipscale.serving.choose import Offer
from chipscale.serving.constants import paced
from chipscale.serving.pace import Pace
from chipscale.serving.parts import Parts, parts
from chipscale.serving.plans import Question, constants

#: causes of a step outside attention, each with its part
PARTS = {"gemm": "products", "experts": "experts", "elementwise": "vector", "links": "links"}


def causes(question: Question, offer: Offer) -> tuple[tuple[str, float], ...]:
    """Return the seconds of a mean decode step by cause; what prompts of others add is one of them.

    Holds when parts follow each other (see `Pace.seconds`), so that each is what is left with the others taken away.
    Source: vllm-2023, section 4.3.
    """
    found = parts(question.bench, question.model, offer.decode, question.lengths.mean_input, question.seen)
    k, n, drafts = constants(question, offer.decode), offer.running, question.speculation.drafts
    whole = paced(found, k)
    tokens = n * (1.0 + drafts)
    flow = [(name, float(paced(_only(found, part), k).flowing(tokens))) for name, part in PARTS.items()]
    headless = paced(replace(found, head=np.zeros_like(found.head)), k)
    head = float(whole.settled(n)) - float(headless.settled(n))
    attention = float(headless.settled(n)) + float(whole.reached(n)) * n * question.seen
    sends = float(offer.service.pool.pace.flowing(tokens)) - sum(t for _, t in flow)
    host = float(whole.step + whole.sequence * n)
    listed = [*flow, ("attention", attention), ("head", head), ("stages", sends), ("host", host)]
    listed.append(("prompts", max(offer.step - _alone(offer.service.pool.pace, question, n), 0.0)))
    return tuple((name, t) for name, t in listed if t > 1e-4 * offer.step)


def _alone(pace: Pace, question: Question, n: float) -> float:
    """Return the seconds of a step without prompts."""
    return float(pace.seconds(0.0, 0.0, n, n * question.seen, float(question.speculation.drafts)))


def _only(found: Parts, name: str) -> Parts:
    """Return parts of which all but one are nothing."""
    return replace(found, **{other: np.zeros_like(getattr(found, other)) for other in PARTS.values() if other != name})
