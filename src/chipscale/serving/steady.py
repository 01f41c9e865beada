"""Steady state in closed form: a replica at fixed concurrency, cycle by cycle of its users, on arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chipscale.evidence import EvidenceError
from chipscale.ops.work import Num
from chipscale.serving.pace import Pace
from chipscale.serving.rules import Rules, Speculation

#: prompts that may begin in one step, as far as they are told apart, and cycles of the users likewise
MOST, TURNS = 12, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """What a replica delivers, all of one shape.

    `ttft` and `tpot` are means over requests (s); `queueing` is the part of `ttft` before the prompt is first computed; `requests` and `tokens` (of answers) are a second; `running` is how
    many requests decode on average; `step` the mean seconds of a decode step, prompts included.
    """

    ttft: np.ndarray
    tpot: np.ndarray
    queueing: np.ndarray
    requests: np.ndarray
    tokens: np.ndarray
    running: np.ndarray
    step: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """Means of the requests, all of one shape: `prompt` tokens to compute, each of which sees `sees` tokens; `steps` of decode for the `rest` of the answer behind its first token,
    in which `context` tokens are cached; `spread`: how many steps the uniform spread of answers is wide.
    """

    prompt: np.ndarray
    sees: np.ndarray
    whole: np.ndarray
    context: np.ndarray
    steps: np.ndarray
    rest: np.ndarray
    spread: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flow:
    """How prompts meet decodes: `running` requests decode, prompts come in `pieces` of `unit` tokens, `rate` of which fit into a step that leaves `left` tokens. All prompts of the
    requests under way fill `opening` steps where none decodes yet, `fill` steps later; requests come back after `cycle` steps.
    """

    running: np.ndarray
    left: np.ndarray
    unit: np.ndarray
    pieces: np.ndarray
    rate: np.ndarray
    opening: np.ndarray
    fill: np.ndarray
    cycle: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class _Burst:
    """Prompts that come together within `window` steps, in seconds: `prompt` from arrival to the end of one's own, `behind` until the others' are done, as far as that delays the
    first tokens, and `added` to the decodes of a request by the prompts of the others, but those that come in its own step.
    """

    prompt: np.ndarray
    behind: np.ndarray
    added: np.ndarray
    window: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    """All that a step's cost depends on."""

    pace: Pace
    rules: Rules
    drafts: Speculation
    work: Means
    flow: _Flow

    def step(self, prompt: np.ndarray, decoding: np.ndarray, context: np.ndarray | None = None) -> np.ndarray:
        """Return the seconds of a step of `prompt` tokens and `decoding` requests; axes of `prompt` behind those of the load are new."""
        more = (1,) * (prompt.ndim - self.work.prompt.ndim)
        cached, sees, unit = (x.reshape(x.shape + more) for x in (self.work.context if context is None else context, self.work.sees, self.flow.unit))
        return np.asarray(self.pace.seconds(prompt, sees * prompt, decoding, decoding * cached, self.drafts.drafts, np.ceil(prompt / unit)))


def steady(
    pace: Pace,
    rules: Rules,
    *,
    users: Num,
    requests: Num,
    input: Num,
    output: Num,
    low: Num = 1.0,
    high: Num = 1.0,
    speculation: Speculation | None = None,
) -> Steady:
    """Return means of a run of `requests` requests by `users` users, all of whom start at once; every number may be an array.

    TPOT = (D t(n) + X) / (o - 1): D decode steps of t(n) seconds, and X seconds that the prompts of the n - 1 others add. requests = C / (TTFT + D t(n) + X).

    Holds when a user sends the next request at once and nothing is stopped for want of blocks. The first prompts are a burst; those of later turns come in a window that
    widens with the spread of answers, at random within it. Where blocks are scarce, the requests that run at once are those that fit on average.
    Source: little-1961; feller-1968, chapter VI (binomial numbers of prompts in a step); law-2015, section 1.4 (queue of fixed service times).
    """
    drafts = Speculation() if speculation is None else speculation
    c, count, i, o, lo, hi = given(users, requests, input, output, low, high)
    work = means(rules, drafts, i, o, lo, hi)
    c = np.minimum(c, count)
    most, bound = np.minimum(rules.sequences, held(rules, work)), _bound(rules, drafts, work)
    slots = np.where(bound < most, c, np.minimum(c, most))
    return _turns(_Scene(pace=pace, rules=rules, drafts=drafts, work=work, flow=_flow(rules, drafts, work, slots)), c, count, slots)


def given(users: Num, requests: Num, input: Num, output: Num, low: Num, high: Num) -> tuple[np.ndarray, ...]:
    """Return the numbers of a load as arrays of one shape; what is below 1 is refused."""
    c, count, i, o, lo, hi = np.broadcast_arrays(*(np.asarray(x, dtype=float) for x in (users, requests, input, output, low, high)))
    for name, value in (("concurrency", c), ("requests", count), ("input length", i), ("output length", o)):
        if np.any(~(value >= 1.0)):
            raise EvidenceError(f"{name} {np.min(value):g} is no load; give at least 1")
    return c, count, i, o, lo, hi


def means(rules: Rules, drafts: Speculation, i: np.ndarray, o: np.ndarray, low: np.ndarray, high: np.ndarray) -> Means:
    """Return the means of requests whose lengths are uniform from `low` to `high` of nominal ones."""
    centre, vary = (low + high) / 2.0, 1.0 + (high - low) ** 2 / (3.0 * (low + high) ** 2)
    cached, rest, bring = rules.cached * i * centre, o * centre - 1.0, 1.0 + drafts.accepted
    prompt, powers = np.maximum(i * centre - cached, 1.0), [drafts.chance**k for k in range(1, drafts.drafts + 1)]
    noise = sum((2 * k + 1) * p for k, p in enumerate(powers)) - drafts.accepted**2
    return Means(
        prompt=prompt, sees=cached * vary + (prompt * vary + 1.0) / 2.0, whole=i * centre, context=i * centre + np.maximum(rest - 1.0, 0.0) / 2.0 * vary, steps=rest / bring, rest=rest,
        spread=np.sqrt(((high - low) * o / bring) ** 2 + 12.0 * rest * noise / bring**3),
    )  # fmt: skip


def held(rules: Rules, work: Means) -> np.ndarray:
    """Return how many requests the blocks hold at once: so many whole ones, or half-answered ones on average."""
    whole, half = (np.ceil((work.whole + ahead) / rules.block) for ahead in (work.rest, work.rest / 2.0))
    return np.asarray(np.maximum(np.floor(rules.blocks / whole) if rules.reserve else rules.blocks / half, 1.0))


def _bound(rules: Rules, drafts: Speculation, work: Means) -> np.ndarray:
    """Return how many requests can decode while a shared budget of tokens lets no more prompts through.

    n = D T / (u + (1 + drafts) D).
    """
    width = 1.0 + drafts.drafts
    bound: np.ndarray = work.steps * rules.tokens / (work.prompt + width * work.steps)
    return bound if rules.shared else np.full(work.steps.shape, np.inf)


def _flow(rules: Rules, drafts: Speculation, work: Means, slots: np.ndarray) -> _Flow:
    """Balance decodes and prompts in the budget of a step: n = min(slots D / (D + pieces), D tokens / (prompt + width D)) where they share steps."""
    width, d = 1.0 + drafts.drafts if rules.shared else 0.0, work.steps

    def split(decoding: np.ndarray) -> tuple[np.ndarray, ...]:
        left = np.maximum(rules.tokens - width * decoding, 1.0)
        unit = np.minimum(work.prompt, left)
        return left, unit, work.prompt / unit, left / unit if rules.chunked else np.maximum(np.floor(left / unit), 1.0)

    bound = _bound(rules, drafts, work)
    n = np.minimum(slots, bound)
    n = np.minimum(slots * d / (d + split(n)[2]), bound) if rules.shared else n
    left, unit, pieces, rate = split(n)
    _, _, first_pieces, first_rate = split(n / 2.0)
    opening, fill = np.maximum(slots * first_pieces / first_rate, 1.0), np.maximum(slots * pieces / rate, 1.0)
    cycle = np.maximum(d + pieces, fill) if rules.shared else np.maximum(d, 1.0)
    return _Flow(running=n, left=left, unit=unit, pieces=pieces, rate=rate, opening=opening, fill=fill, cycle=cycle)


def _turns(scene: _Scene, c: np.ndarray, count: np.ndarray, slots: np.ndarray) -> Steady:
    """Follow the requests that run at once from the opening burst through windows in which they are answered and replaced, to the end where none comes."""
    work, flow, d, n = scene.work, scene.flow, scene.work.steps, scene.flow.running
    turns, opening, later = count / slots, _opening(scene, slots), _later(scene, slots, count / slots)
    none, again = np.zeros(n.shape), 1.0 - slots / count
    alone, thin, thinner = (scene.step(none, n * share) for share in (1.0, 2.0 / 3.0, 1.0 / 3.0))
    ending = np.minimum(later.window[..., -1], d) / 2.0
    met = np.mean(later.added, axis=-1) * (d / flow.cycle if scene.rules.shared else 1.0)
    decode = d * alone + opening.behind / turns + again * met - ending * (alone - thin) / turns
    prompted = opening.prompt / turns + again * np.mean(later.prompt, axis=-1)

    silent = np.ceil(np.minimum(scene.rules.stream - 1.0, work.rest) / (1.0 + scene.drafts.accepted) - 1e-9)
    missed = _overlap(silent, flow.opening - 1.0) / np.maximum((flow.opening - 1.0) / 2.0, 1e-300) if scene.rules.shared else 1.0 * (silent > 0)
    within = _overlap(silent[..., None], later.window - 1.0) / later.window * later.added + later.behind * (silent > 0)[..., None]
    hidden = np.minimum(silent * alone + opening.behind * missed / turns + again * np.mean(within, axis=-1), decode)

    period = prompted + decode
    queueing = period * ((c - slots) * c / (2.0 * slots) + (count - c) * (c / slots - 1.0)) / count
    clumped = 1.0 - np.minimum(later.window[..., -1] / np.maximum(flow.cycle, 1.0), 1.0)
    total = (turns + clumped * (np.ceil(turns) - turns)) * period + ending * thinner
    return Steady(
        ttft=queueing + prompted + hidden, tpot=(decode - hidden) / np.where(work.rest > 0, work.rest, np.nan), queueing=queueing, requests=count / total,
        tokens=count / total * (work.rest + 1.0), running=slots * decode / period, step=decode / np.maximum(d, 1e-300),
    )  # fmt: skip


def _opening(scene: _Scene, slots: np.ndarray) -> _Burst:
    """Cost the burst of all first prompts: its steps grow as those that are done begin to decode."""
    flow, shared, none = scene.flow, float(scene.rules.shared), np.zeros(slots.shape)
    most, steps = np.minimum(slots * scene.work.prompt, flow.rate * flow.unit), flow.opening
    first, last = scene.step(most, none), scene.step(most, flow.running * (1.0 - 1.0 / steps) * shared, context=scene.work.whole)
    prompt = (steps + np.maximum(flow.pieces / flow.rate, 1.0)) / 2.0 * (first + (last - first) / 3.0)
    behind = (steps - 1.0) * (first / 2.0 + (last - first) / 3.0 - scene.step(none, flow.running) / 2.0 * shared)
    return _Burst(prompt=prompt, behind=behind, added=behind, window=steps)


def _later(scene: _Scene, slots: np.ndarray, turns: np.ndarray) -> _Burst:
    """Cost the prompts of later turns, `TURNS` of them evenly taken from all; arrays have these as last axis."""
    work, flow, rules, shared = scene.work, scene.flow, scene.rules, float(scene.rules.shared)
    k = 1.0 + np.maximum(turns[..., None] - 2.0, 0.0) * (np.arange(TURNS) + 0.5) / TURNS
    strayed, fill, pieces = np.sqrt(k) * work.spread[..., None], flow.fill[..., None], slots * flow.pieces
    before = np.where(k > 1.5, np.maximum(fill, flow.opening[..., None]), flow.opening[..., None]) * shared
    wide = np.hypot(before, strayed)
    window = np.clip(np.maximum(wide, fill * shared), 1.0, np.maximum(flow.cycle, flow.fill)[..., None])

    reach, decoding = (flow.rate * flow.unit)[..., None, None], flow.running[..., None, None] * shared

    def prompts(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the seconds of a step with so many pieces, and how many such steps they take where decodes pause for them."""
        tokens = numbers * flow.unit[..., None, None]
        return scene.step(np.minimum(tokens, reach), decoding), np.maximum(tokens / reach, 1.0) if not rules.shared else np.ones(tokens.shape)

    loose, typical = np.minimum(strayed, 1.0)[..., None], pieces[..., None, None] / window[..., None]
    drawn, chance = _numbers(pieces, window)
    units = typical + loose * (drawn - typical)
    seconds, steps = prompts(units)
    base = scene.step(np.zeros(slots.shape), flow.running)[..., None, None] * shared
    done = np.minimum(units, flow.rate[..., None, None]) if rules.shared else units
    added = pieces[..., None] * np.sum(chance * np.where(units > 0, seconds * steps - base, 0.0), axis=-1) / np.sum(chance * done, axis=-1)

    apart = (1.0 - loose[..., 0] / slots[..., None]) * (1.0 - (flow.pieces[..., None] if rules.shared else 0.5) / window)
    mine = np.ones(slots.shape) if rules.shared else flow.pieces
    drawn, chance = _numbers(pieces - mine, window)
    beside, least = np.maximum(typical, mine[..., None, None]), np.maximum(mine / flow.rate, 1.0)[..., None, None]
    seconds, steps = prompts(beside + loose * (drawn + mine[..., None, None] - beside))
    own, behind = (np.sum(chance * seconds * share, axis=-1) for share in ((steps + least) / 2.0, (steps - least) / 2.0))
    waits = np.maximum(_wait(flow, slots, wide, window, strayed) + flow.pieces[..., None] - 1.0, (flow.cycle - work.steps)[..., None] - 1.0)
    saturated = scene.step(np.minimum(slots * work.prompt, flow.rate * flow.unit), flow.running * shared)[..., None]
    return _Burst(prompt=own + waits * saturated * shared, behind=behind * (1.0 - shared), added=added * np.maximum(apart, 0.0), window=window)


def _numbers(pieces: np.ndarray, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many of `pieces` may fall into one of the steps of a window, and the chance of each number (a last axis beside that of windows).

    P(m) = C(N, m) w^-m (1 - 1/w)^(N - m).

    Holds when pieces fall anywhere in the window; beyond a third of `MOST` on average they are bundled, so that the mean stays and numbers reach as far as they can.
    Source: feller-1968, chapter VI.
    """
    from scipy.special import xlog1py

    bundles = np.minimum(pieces[..., None], MOST / 3.0 * window)[..., None]
    m, p = np.arange(MOST + 1.0), 1.0 / window[..., None]
    ways = np.cumsum(np.concatenate([0.0 * bundles, np.log(np.maximum(bundles - m[:-1], 1e-300)) - np.log(m[1:])], axis=-1), axis=-1)
    log = np.where(m <= np.ceil(bundles), ways + m * np.log(p) + xlog1py(np.maximum(bundles - m, 0.0), -p), -np.inf)
    chance = np.exp(log - log.max(axis=-1, keepdims=True))
    return m * np.where(bundles > 0, pieces[..., None, None] / np.maximum(bundles, 1e-300), 0.0), chance / chance.sum(axis=-1, keepdims=True)


def _wait(flow: _Flow, slots: np.ndarray, wide: np.ndarray, window: np.ndarray, strayed: np.ndarray) -> np.ndarray:
    """Return the steps that a prompt waits for those ahead of it: at random within the window, and for want of window.

    w = rho b / (2 (1 - rho)), b = pieces / rate, at most what n prompts pile up; and half of what the window is too short.

    Holds when prompts take alike many steps.
    Source: law-2015, section 1.4; feller-1968, chapter III (how far a random walk of fixed ends strays).
    """
    load = np.minimum(flow.fill[..., None] / window, 1.0) * (slots > 1.0)[..., None]
    each = (flow.pieces / flow.rate)[..., None]
    random = 1.0 / (
        2.0 * (1.0 - load) / np.maximum(load * each, 1e-300) + 1.0 / np.maximum(0.3 * np.minimum(np.sqrt(slots)[..., None] * each, strayed), 1e-300)
    )
    return np.asarray(random + np.maximum(flow.fill[..., None] - wide, 0.0) / 2.0)


def _overlap(steps: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Return how many of the `steps` after a moment at random in a window still lie in it."""
    return np.where(steps < window, steps - steps**2 / (2.0 * np.maximum(window, 1e-300)), window / 2.0)
