"""Steady state in closed form where one pool reads prompts and another decodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chipscale.evidence import EvidenceError
from chipscale.ops.work import Num
from chipscale.serving.rules import Speculation
from chipscale.serving.service import Pool, Service
from chipscale.serving.steady import TURNS, Means, Steady, given, held, means

#: rounds in which decodes and prompts, and the prompts of a step, find their balance
ROUNDS, BATCHES = 12, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """The prefill pool, a replica at a time: `share` of all users reach it; `full` seconds of a step of `rate` prompts, `pieces` steps a prompt; the first prompts of
    all users take `opening` seconds, the mean one of them `first`.
    """

    share: np.ndarray
    full: np.ndarray
    rate: np.ndarray
    pieces: np.ndarray
    opening: np.ndarray
    first: np.ndarray


def apart(service: Service, *, users: Num, requests: Num, input: Num, output: Num, low: Num = 1.0, high: Num = 1.0) -> Steady:
    """Return means of a run of `requests` requests by `users` users of a service with two pools, all of whom start at once; every number may be an array.

    C / X = TTFT + transfer + D t(n) + waits, n = X D t(n) / replicas.

    Holds when routing keeps replicas evenly loaded and answers have several tokens; prompts that come with the first requests are a burst, later ones come at random in a window
    that widens with the spread of answers. The wait for a place in the decode pool counts to the answer where the first token is `early`.
    Source: little-1961; distserve-2024, section 3; law-2015, section 1.4.
    """
    if service.prefill is None:
        raise EvidenceError("this service has one pool, which reads and decodes; ask steady, or give a prefill pool")
    prefill = service.prefill
    c, count, i, o, lo, hi = given(users, requests, input, output, low, high)
    work = means(service.pool.rules, service.speculation, i, o, lo, hi)
    prompt = means(prefill.rules, Speculation(), i, np.ones(i.shape), lo, hi)
    c = np.minimum(c, count)
    return _turns(service, prefill, work, prompt, c, count, _reading(prefill, prompt, c))


def _step(pool: Pool, work: Means, prompts: np.ndarray) -> np.ndarray:
    """Return the seconds in which a prefill replica reads so many prompts, or as many tokens of them as fit into a step."""
    axes = (1,) * (prompts.ndim - work.prompt.ndim)
    length, sees = work.prompt.reshape(work.prompt.shape + axes), work.sees.reshape(work.sees.shape + axes)
    tokens = np.minimum(prompts * length, pool.rules.tokens)
    return np.asarray(pool.pace.seconds(tokens, tokens * sees, 0.0, 0.0, 0.0, np.ceil(prompts)))


def _reading(pool: Pool, work: Means, c: np.ndarray) -> _Reading:
    """Cost the burst of all first prompts."""
    share = np.maximum(c / pool.replicas, 1.0)
    fit = np.maximum(pool.rules.tokens / work.prompt, 1.0)
    rate, pieces = np.minimum(fit if pool.rules.chunked else np.floor(fit), pool.rules.sequences), np.maximum(work.prompt / pool.rules.tokens, 1.0)
    full, steps = _step(pool, work, np.minimum(rate, share)), np.maximum(share * pieces / rate, 1.0)
    return _Reading(
        share=share, full=full, rate=rate, pieces=pieces, opening=steps * full, first=(steps + np.maximum(pieces / rate, 1.0)) / 2.0 * full
    )


def _later(pool: Pool, work: Means, reading: _Reading, window: np.ndarray, strayed: np.ndarray) -> np.ndarray:
    """Return the seconds from arrival to the first token of prompts that come at random in windows: the step under way, one's own with what waits beside, and a queue."""
    rate, pieces, full = (x[..., None] for x in (reading.rate, reading.pieces, reading.full))
    often, together = reading.share[..., None] / window, np.ones(window.shape)
    for _ in range(BATCHES):
        together = np.clip(often * _step(pool, work, together) * pieces, 1.0, rate)
    own = _step(pool, work, together) * pieces
    busy = np.minimum(often * own / together, 1.0)
    load = np.minimum(reading.opening[..., None] / window, 1.0) * (reading.share > 1.0)[..., None]
    each = full * pieces / rate
    queue = 1.0 / (2.0 * (1.0 - load) / np.maximum(load * each, 1e-300) + 1.0 / (0.3 * np.sqrt(reading.share)[..., None] * each)) / pool.replicas
    loose = np.minimum(strayed / full, 1.0)
    random = own + busy * own / 2.0 * (reading.share > 1.0)[..., None] / pool.replicas + queue
    return np.asarray(full * pieces + loose * (random - full * pieces))


def _turns(service: Service, prefill: Pool, work: Means, prompt: Means, c: np.ndarray, count: np.ndarray, reading: _Reading) -> Steady:
    """Balance both pools turn by turn."""
    pool, drafts, transfer, d, turns = service.pool, service.speculation, service.transfer, work.steps, count / c
    most = np.minimum(pool.rules.sequences, held(pool.rules, work))

    def decoding(n: np.ndarray) -> np.ndarray:
        return np.asarray(pool.pace.seconds(0.0 * n, 0.0, n, n * work.context, drafts.drafts))

    k = 1.0 + np.maximum(turns[..., None] - 2.0, 0.0) * (np.arange(TURNS) + 0.5) / TURNS
    caught = 0.5 * np.minimum((c - 1.0) / pool.replicas, 1.0)
    moved, n = transfer.fixed + transfer.token * work.whole, np.minimum(c / pool.replicas, most)
    for _ in range(ROUNDS):
        pace = decoding(n)
        stay = moved + (d + caught) * pace
        strayed = np.sqrt(k) * (work.spread * pace)[..., None]
        window = np.clip(np.hypot(reading.opening[..., None], strayed), 1e-9, np.maximum(reading.opening, stay)[..., None])
        read = np.maximum(np.mean(_later(prefill, prompt, reading, window, strayed), axis=-1), reading.opening - stay)
        n = 0.5 * n + 0.5 * np.minimum(c / pool.replicas * d * pace / (read + stay), most)
    waiting = np.maximum(c / pool.replicas * d * pace / np.maximum(n, 1e-300) - read - stay, 0.0) * (n > 0.99 * most)
    ending = np.minimum(window[..., -1], d * pace) / 2.0
    faster = np.minimum(reading.opening, d * pace) / 2.0 * (pace / decoding(2.0 / 3.0 * n) - 1.0)
    answer = d * pace - faster / turns - ending * (1.0 - decoding(2.0 / 3.0 * n) / pace) / turns
    prompted = reading.first / turns + (1.0 - 1.0 / turns) * read
    arrive = moved + caught * pace + waiting
    silent = np.ceil(np.minimum(pool.rules.stream - 1.0, work.rest) / (1.0 + drafts.accepted) - 1e-9) * pace
    hidden = np.where(silent > 0, arrive, 0.0 if transfer.early else arrive) + silent
    period = prompted + arrive + answer
    total = turns * period + ending * decoding(n / 3.0) / pace
    return Steady(
        ttft=prompted + hidden, tpot=(arrive + answer - hidden) / np.where(work.rest > 0, work.rest, np.nan), queueing=0.0 * period, requests=count / total,
        tokens=count / total * (work.rest + 1.0), running=c * answer / period, step=answer / np.maximum(d, 1e-300),
    )  # fmt: skip
