"""Capacity: how many requests a second a service can answer for ever, and the refusal of loads that bring more."""

from __future__ import annotations

import numpy as np

from chipscale.evidence import EvidenceError
from chipscale.serving.load import Lengths, Load, Open
from chipscale.serving.rules import Speculation
from chipscale.serving.service import Pool, Service
from chipscale.serving.steady import Means, held, means, steady

#: turns of all users after which a closed loop counts as endless
ENDLESS = 1000.0


def capacity(service: Service, lengths: Lengths) -> float:
    """Return the requests a second that all replicas answer while requests always wait; of two pools the slower one's.

    X = n / (TTFT + D t(n) + X) of a replica that runs as many requests at once as its rules and blocks admit.

    Holds when routing keeps replicas evenly loaded; where blocks are scarce and requests are stopped, less is delivered.
    Source: little-1961; distserve-2024, section 3.
    """
    drafts, pool = service.speculation, service.pool
    work = means(pool.rules, drafts, *(np.asarray(float(x)) for x in (lengths.input, lengths.output, lengths.low, lengths.high)))
    most = np.minimum(pool.rules.sequences, held(pool.rules, work))
    if service.prefill is None:
        users = np.minimum(most, 1e5)
        found = steady(
            pool.pace, pool.rules, users=users, requests=ENDLESS * users, input=lengths.input, output=lengths.output, low=lengths.low, high=lengths.high, speculation=drafts
        )  # fmt: skip
        return pool.replicas * float(found.requests)
    step = float(np.asarray(pool.pace.seconds(0.0, 0.0, most, most * work.context, drafts.drafts)))
    decoded = pool.replicas * float(most) / (float(work.steps) * step) if lengths.output > 1 else np.inf
    return min(decoded, _read(service.prefill, lengths))


def _read(pool: Pool, lengths: Lengths) -> float:
    """Return the prompts a second that a pool reads in full steps."""
    rules = pool.rules
    work: Means = means(rules, Speculation(), *(np.asarray(float(x)) for x in (lengths.input, 1, lengths.low, lengths.high)))
    together = max(rules.tokens / float(work.prompt), 1.0)
    prompts = min(together if rules.chunked else np.floor(together), float(np.minimum(rules.sequences, held(rules, work))))
    pieces = max(float(work.prompt) / rules.tokens, 1.0)
    seconds = pool.pace.seconds(prompts * work.prompt / pieces, prompts * work.prompt / pieces * work.sees, 0.0, 0.0, 0.0, np.ceil(prompts))
    return pool.replicas * prompts / (pieces * float(seconds))


def stable(service: Service, load: Load) -> None:
    """Refuse an open load that brings more requests than the service can answer; the queue, and with it the time to the first token, would grow for ever."""
    if isinstance(load.arrival, Open) and load.lengths is not None:
        most = capacity(service, load.lengths)
        if load.arrival.rate >= most:
            raise EvidenceError(
                f"a load of {load.arrival.rate:.4g} requests/s is unstable: the service answers {most:.4g} requests/s; lower the rate or add replicas"
            )
