"""Confirm: what the event simulation says of an offer that the closed form made."""

from __future__ import annotations

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

#: counted requests of a simulation: so many turns of all users, within bounds
TURNS, FEWEST, MOST = 4, 600, 8_000
#: users that are tried, as shares of those that the closed form offers, and offers
SHARES, OFFERS = (1.0, 0.94, 0.85, 0.7), 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """An offer with the metrics of its simulation; `load` is what it was simulated under.

    `tokens` of answers a second: of a closed load C o / latency, which has no empty service at its ends; of an open one what comes.
    """

    offer: Offer
    metrics: Metrics
    load: Load
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
    """Simulate an offer under its closed load, or under an open one; the burst of first prompts is served and left out."""
    load = load_of(offer, arrival, question.lengths, seed)
    found = measure(to_client(question, offer, simulate(offer.service, load)), float(question.chips), limits)
    output = question.lengths.mean_output
    tokens = offer.users * output / found.latency.mean.value if arrival is None else arrival.rate * output if isinstance(arrival, Open) else found.tokens
    return Confirmed(offer=offer, metrics=found, load=load, tokens=tokens)


def load_of(offer: Offer, arrival: Open | Trace | None, lengths: Lengths, seed: int) -> Load:
    """Return the load that an offer is simulated under."""
    if isinstance(arrival, Trace):
        return Load(arrival=arrival, requests=min(len(arrival.arrival), MOST), seed=seed)
    if isinstance(arrival, Open):
        waiting = min(max(2 * offer.users, FEWEST // 2), MOST // 2)
        return Load(arrival=arrival, requests=min(max(TURNS * offer.users, 2 * FEWEST), MOST), lengths=lengths, warmup=waiting, drained=False, seed=seed)
    return Load(arrival=Closed(users=offer.users), requests=min(max(TURNS * offer.users, FEWEST), MOST), lengths=lengths,
                warmup=min(2 * offer.users, MOST), drained=False, seed=seed)  # fmt: skip


def to_client(question: Question, offer: Offer, run: Served) -> Served:
    """Shift first tokens and ends by what stands between engine and client.

    first' = arrival + burst (first - arrival) + first_0 + tokenise i + admit C + stream t.

    Holds when tokenising one prompt does not wait for another.
    Source: data/calibration/serving.toml (fitted).
    """
    k = constants(question, offer.prefill or offer.decode)
    late = (k.burst - 1.0) * (run.first - run.arrival) + k.first + k.tokenise * run.input + k.admit * run.present / offer.replicas + k.stream * offer.step
    return replace(run, first=run.first + late, end=run.end + late)
