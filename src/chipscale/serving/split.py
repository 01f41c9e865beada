"""Split: services in which some chips read prompts and others decode, with the ratio that suits both."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from chipscale.serving.apart import apart
from chipscale.serving.choose import Offer, alone
from chipscale.serving.client import seen
from chipscale.serving.metrics import Objective
from chipscale.serving.plans import Fleet, Question, constants, pace_of, rules
from chipscale.serving.room import token_bytes
from chipscale.serving.service import Pool, Service, Transfer
from chipscale.serving.steady import means

#: deployments of each pool that are paired, and users of a decode replica that are tried
KEPT, USERS = 4, np.unique(np.round(2.0 ** np.arange(0.0, 12.1, 0.5)))
#: multiples of the best users, up to the next point, at which the best services are looked at again
BETWEEN = np.linspace(1.0, 1.4, 9)
#: share of the limit of TTFT that one prompt alone may take
OWN = 0.7
#: seconds until two pools agree on a transfer (assumed: some round trips of a router)
HANDOVER = 5e-3
#: turns of all users, as in `choose`
TURNS = 200.0


def split(question: Question, found: Fleet, limits: Objective, users: int | None = None) -> tuple[list[Offer], list[Offer]]:
    """Return services of two pools within the limits, all ratios near the balance of both pools, each at its best number of users (or at `users`), best first; and every point looked at.

    Both are empty where two pools do not stand on the chips or meet the limits.
    """
    each = [offers_of(question, found, *pair, users=_users(question, found, pair[1]) if users is None else np.array([float(users)]))
            for pair in _pairs(question, found, limits)]  # fmt: skip
    best = sorted((max(kept, key=lambda o: o.tokens) for offers in each if (kept := _kept(offers, limits))), key=lambda o: -o.tokens)
    if users is None:
        finer = [max([o, *_kept(again(question, found, o, np.round(o.users * BETWEEN)), limits)], key=lambda o: o.tokens) for o in best[:KEPT]]
        best = sorted([*finer, *best[KEPT:]], key=lambda o: -o.tokens)
    return best, [o for offers in each for o in offers if o.ttft <= limits.ttft]


def again(question: Question, found: Fleet, top: Offer, users: np.ndarray) -> list[Offer]:
    """Return a service of two pools under other users."""
    p, d = found.deployments.index(top.prefill or top.decode), found.deployments.index(top.decode)
    return offers_of(question, found, p, d, top.prefill_replicas // found.deployments[p].pp, users)


def _kept(offers: Sequence[Offer], limits: Objective) -> list[Offer]:
    return [o for o in offers if o.ttft <= limits.ttft and o.tpot <= limits.tpot]


def _users(question: Question, found: Fleet, d: int) -> np.ndarray:
    """Return the users to try: up to twice what the caches of all decode replicas hold."""
    most = max(2.0 * found.blocks[d] * question.engine.block / question.seen, 1.0)
    return np.asarray(USERS[most >= USERS] * found.replicas[d])


def _pairs(question: Question, found: Fleet, limits: Objective) -> Iterator[tuple[int, int, int]]:
    """Yield rows that read, rows that decode and how many replicas read, near the balance of their rates."""
    reading, decoding = _reading(question, found, limits), _decoding(question, found, limits)
    for p in _first(reading, found):
        for d in _first(decoding, found):
            one, other = found.deployments[p].chips, found.deployments[d].chips
            most = (question.chips - other) // one
            ideal = question.chips * decoding[d] / (reading[p] + decoding[d]) / one if most >= 1 else 0.0
            for count in sorted({min(max(n, 1), most) for n in (math.floor(ideal), math.ceil(ideal))} if most >= 1 else ()):
                yield p, d, count


def _first(rate: np.ndarray, found: Fleet) -> list[int]:
    """Return the rows of the highest rates, those that differ in stages alone once."""
    kept: dict[str, int] = {}
    for i in np.argsort(-rate, kind="stable"):
        if rate[i] > 0:
            kept.setdefault(str(replace(found.deployments[i], pp=1)), int(i))
    return list(kept.values())[:KEPT]


def _reading(question: Question, found: Fleet, limits: Objective) -> np.ndarray:
    """Return the prompts a second and chip of each row that reads whole prompts; 0 where one alone takes too long."""
    e, lengths = question.engine, question.lengths
    prompt = np.full((len(found), 1), lengths.mean_input * (1.0 - question.cached))
    sees = lengths.mean_input - prompt / 2.0
    groups = np.array([[float(d.dp)] for d in found.deployments])
    together = np.maximum(np.floor(e.tokens / prompt), 1.0) * groups
    full = np.asarray(found.pace.seconds(together * prompt, together * prompt * sees, 0.0 * prompt, 0.0, 0.0, together))
    size = np.array([[d.chips / d.pp] for d in found.deployments])
    return np.asarray(np.where(alone(question, found) <= OWN * limits.ttft, together / (full * size), 0.0)[:, 0])


def _decoding(question: Question, found: Fleet, limits: Objective) -> np.ndarray:
    """Return the answers a second and chip of each row that only decodes, at as many users as TPOT and cache admit; 0 where one alone is too slow."""
    lengths, drafts = question.lengths, question.speculation
    scalar = [np.asarray(float(x)) for x in (lengths.input, lengths.output, lengths.low, lengths.high)]
    work = means(rules(question, found.deployments[0], 1.0), drafts, *scalar)
    n = np.broadcast_to(USERS, (len(found), len(USERS)))
    step = np.asarray(found.pace.seconds(0.0 * n, 0.0, n, n * float(work.context), float(drafts.drafts)))
    size = np.array([[d.chips / d.pp] for d in found.deployments])
    fits = n <= np.maximum(found.blocks[:, None] * question.engine.block / question.seen, 1.0)
    meets = (step * float(work.steps) <= limits.tpot * max(float(work.rest), 1.0)) & fits
    return np.asarray(np.where(meets, n / (max(float(work.steps), 1.0) * step * size), 0.0).max(axis=1))


def offers_of(question: Question, found: Fleet, p: int, d: int, count: int, users: np.ndarray) -> list[Offer]:
    """Evaluate `count` replicas of row `p` that read for all replicas of row `d` that the other chips hold, at `users` users in all."""
    reads, decodes, lengths = found.deployments[p], found.deployments[d], question.lengths
    others = (question.chips - count * reads.chips) // decodes.chips
    service = service_of(question, found, p, d, count, others)
    s = apart(service, users=users, requests=TURNS * users, input=lengths.input, output=lengths.output, low=lengths.low, high=lengths.high)
    k, replicas = constants(question, reads), others * decodes.pp
    prompt = float(alone(question, found.take([p]))[0, 0]) / (count * reads.pp)
    view = seen(s, k, users=users, requests=TURNS * users, input=lengths.mean_input, output=lengths.mean_output, prompt=prompt)
    ttft, tpot = np.asarray(view.ttft), np.asarray(view.tpot)
    return [Offer(decode=decodes, replicas=replicas, room=found.rooms[d], service=service, chips=question.chips, users=int(users[i]), ttft=float(ttft[i]),
                  tpot=float(tpot[i]), queueing=float(s.queueing[i]), requests=float(s.requests[i]), tokens=float(s.tokens[i]),
                  running=float(s.running[i]) / replicas, step=float(s.step[i]), prefill=reads, prefill_replicas=count * reads.pp)
            for i in range(len(users)) if np.isfinite(tpot[i])]  # fmt: skip


def service_of(question: Question, found: Fleet, p: int, d: int, count: int, others: int) -> Service:
    """Build the service of two pools."""
    reads, decodes = found.deployments[p], found.deployments[d]
    reading = Pool(
        pace=pace_of(found, p), rules=rules(question, reads, float(found.blocks[p])), replicas=count * reads.pp, chips=float(reads.tp * reads.dp)
    )
    decoding = Pool(pace=pace_of(found, d), rules=replace(rules(question, decodes, float(found.blocks[d])), cached=0.0), replicas=others * decodes.pp,
                    chips=float(decodes.tp * decodes.dp))  # fmt: skip
    s = question.silicon
    link = s.link_bandwidth if question.chips <= s.link_size else s.outer_bandwidth
    moving = Transfer(token=token_bytes(question.model, reads, question.seen) / float(link), fixed=HANDOVER, early=False)
    return Service(pool=decoding, prefill=reading, transfer=moving, speculation=question.speculation)
