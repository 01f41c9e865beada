"""Confirm: what the event simulation says of an offer that the closed form made."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from chipscale.evidence import EvidenceError
from chipscale.serving.choose import Offer
from chipscale.serving.load import Closed, Lengths, Load, Open, Trace
from chipscale.serving.metrics import Metrics, Objective, measure
from chipscale.serving.plans import Question, constants
from chipscale.serving.served import Served
from chipscale.serving.server import simulate

#: turns of all users that are counted, behind turns of warm-up and ahead of one turn in which the service runs empty, which is cut off; counted requests at least, recorded ones at most
TURNS, WARMUP, FEWEST, MOST = 3, 2, 600, 20_000
#: users up to which replicas are simulated side by side; beyond, some of the replicas stand for all, which are alike
CROWD = 1_500
#: users that are tried, as shares of those that the closed form offers, and offers
SHARES, OFFERS = (1.0, 0.94, 0.85, 0.7), 6

#: the least share of an answer's time that is left when its first tokens come late, as in `client.seen`
LEAST = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """An offer with the metrics of its simulation; `load` is what one of its `share` equal parts was simulated under.

    `tokens` of answers a second: of a closed load C o / latency, which has no empty service at its ends; of an open one what comes.
    """

    offer: Offer
    metrics: Metrics
    load: Load
    share: int
    tokens: float


def confirmed(question: Question, offers: Sequence[Offer], limits: Objective, arrival: Open | Trace | None, statistic: str, seed: int,
              lower: Callable[[Offer, int], Offer] | None) -> Confirmed:  # fmt: skip
    """Simulate offers, best first, until one keeps the limits in the statistic asked for and none behind it offers more.

    `lower` returns an offer with fewer users, where they may be lowered until the limits are kept.
    Errors: no offer keeps the limits, with the nearest.
    """
    kept: Confirmed | None = None
    nearest: tuple[float, Confirmed] | None = None
    for o in offers[:OFFERS]:
        if kept is not None and (lower is None or o.tokens <= kept.tokens):
            break
        for share in SHARES if lower else (1.0,):
            if kept is not None and o.tokens * share <= kept.tokens:
                break
            one = lower(o, max(round(o.users * share), 1)) if lower and share < 1.0 else o
            found = confirm(question, one, arrival, limits, seed)
            over = excess(found.metrics, limits, statistic)
            if over <= 1.0:
                kept = found if kept is None or found.tokens > kept.tokens else kept
                break
            nearest = (over, found) if nearest is None or over < nearest[0] else nearest
    if kept is None:
        assert nearest is not None
        m, what = nearest[1].metrics, "" if statistic == "mean" else f" in {statistic}"
        raise EvidenceError(f"the simulation keeps no offer within the limits{what}: the nearest reaches a TTFT of {m.ttft.of(statistic).value:.3g} s and a TPOT of "
                            f"{1e3 * m.tpot.of(statistic).value:.3g} ms; relax --slo-ttft or --slo-tpot, bring less load, or give more chips")  # fmt: skip
    return kept


def excess(metrics: Metrics, limits: Objective, statistic: str) -> float:
    """Return by which factor the worse of TTFT and TPOT is above its limit; 1 or less where both are kept."""
    tpot = metrics.tpot.of(statistic).value
    return max(metrics.ttft.of(statistic).value / limits.ttft, (tpot if np.isfinite(tpot) else 0.0) / limits.tpot)


def confirm(question: Question, offer: Offer, arrival: Open | Trace | None, limits: Objective, seed: int) -> Confirmed:
    """Simulate an offer under its closed load, or under an open one; the burst of first prompts and the end, where no request comes any more, are left out."""
    share = 1 if isinstance(arrival, Trace) else alike(offer)
    few, part = shrunk(offer, share), replace(arrival, rate=arrival.rate / share) if isinstance(arrival, Open) else arrival
    load = load_of(few, part, question.lengths, seed)
    run = to_client(question, few, simulate(few.service, load))
    found = measure(run if isinstance(arrival, Trace) else trimmed(run, few.users), float(question.chips) / share, limits)
    output = question.lengths.mean_output
    tokens = (
        offer.users * output / found.latency.mean.value if arrival is None else arrival.rate * output if isinstance(arrival, Open) else found.tokens
    )
    return Confirmed(offer=offer, metrics=found, load=load, share=share, tokens=tokens)


def alike(offer: Offer) -> int:
    """Return how many equal parts a service is made of, of which one is simulated: no more than keep `CROWD` users in it."""
    parts = math.gcd(offer.replicas, offer.prefill_replicas)
    return next(n for n in range(1, parts + 1) if parts % n == 0 and (offer.users <= n * CROWD or n == parts))


def shrunk(offer: Offer, share: int) -> Offer:
    """Return one of `share` equal parts of an offer."""
    pool, prefill = offer.service.pool, offer.service.prefill
    service = replace(
        offer.service, pool=replace(pool, replicas=pool.replicas // share), prefill=prefill and replace(prefill, replicas=prefill.replicas // share)
    )
    return replace(
        offer,
        service=service,
        replicas=offer.replicas // share,
        prefill_replicas=offer.prefill_replicas // share,
        users=max(round(offer.users / share), 1),
    )


def load_of(offer: Offer, arrival: Open | Trace | None, lengths: Lengths, seed: int) -> Load:
    """Return the load that an offer is simulated under."""
    if isinstance(arrival, Trace):
        return Load(arrival=arrival, requests=min(len(arrival.arrival), MOST), seed=seed)
    counted = max(TURNS * offer.users, FEWEST) + offer.users
    return Load(
        arrival=arrival or Closed(users=offer.users), requests=counted, lengths=lengths, warmup=WARMUP * offer.users, drained=False, seed=seed
    )


def trimmed(run: Served, last: int) -> Served:
    """Leave out the last requests."""
    kept = {n: getattr(run, n)[:-last] for n in ("arrival", "start", "first", "end", "input", "output", "stopped")}
    return replace(run, counted=run.counted - last, **kept)


def to_client(question: Question, offer: Offer, run: Served) -> Served:
    """Shift first tokens and ends to what the client sees, as `client.seen` does means.

    first' = arrival + burst (first - arrival + stream t) + first_0 + tokenise i + admit C;  end' = first' + end - first - stream t (o - 1) / o.

    Holds when tokenising one prompt does not wait for another.
    Source: law-2015, section 1.4 (two stations in a row).
    """
    k = constants(question, offer.prefill or offer.decode)
    hidden = k.stream * offer.step
    first = run.arrival + k.burst * (run.first - run.arrival + hidden) + k.first + k.tokenise * run.input + k.admit * offer.users / offer.replicas
    rest = run.end - run.first
    return replace(run, first=first, end=first + np.maximum(rest - hidden * (run.output - 1.0) / run.output, LEAST * rest))
