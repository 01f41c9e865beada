"""Client: what a user sees of a service, beyond what the service itself spends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chipscale.ops.work import Num
from chipscale.serving.constants import Constants
from chipscale.serving.steady import Steady


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Mean seconds to the first token and between tokens as the client sees them; `waiting` is the part of the first before the prompt is computed."""

    ttft: Num
    tpot: Num
    waiting: Num


def seen(served: Steady, k: Constants, *, users: Num, requests: Num, input: Num, output: Num, prompt: Num) -> Seen:
    """Add to what a service spends what stands between it and its client.

    TTFT = burst (TTFT' + stream t) + first + a + admit C + (C - 1) / 2 max(a - p, 0) C / N,  a = tokenise i;
    TPOT = TPOT' - stream t / o,  t the mean step, p seconds of one prompt on the chip, N requests of C users.

    Holds when one process tokenises the prompts one after the other, so that a burst waits for it where it is slower than the chip.
    Source: law-2015, section 1.4 (two stations in a row).

    >>> from chipscale.serving.steady import Steady
    >>> one = Steady(**{name: np.array([0.1]) for name in ("ttft", "tpot", "queueing", "requests", "tokens", "running", "step")})
    >>> k = Constants(**{name: 1.0 for name in Constants.__dataclass_fields__ if name not in ("first", "tokenise", "admit", "stream")}, first=0.01, tokenise=1e-5, admit=0.0, stream=0.0)
    >>> float(seen(one, k, users=1.0, requests=10.0, input=1000.0, output=100.0, prompt=0.05).ttft[0])
    0.12
    """
    hidden = k.stream * served.step
    tokenising = k.tokenise * input
    front = k.first + tokenising + k.admit * users
    behind = (users - 1.0) / 2.0 * np.maximum(tokenising - prompt, 0.0) * users / requests
    tpot = np.maximum(served.tpot - hidden / np.maximum(output, 1.0), 0.2 * served.tpot)
    return Seen(ttft=k.burst * (served.ttft + hidden) + front + behind, tpot=tpot, waiting=k.burst * served.queueing + behind)
