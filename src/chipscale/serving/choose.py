"""Choose: what every deployment of a fleet delivers over concurrency, in closed form, and the best of them within limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from chipscale.evidence import EvidenceError
from chipscale.ops.work import Num
from chipscale.serving.client import seen
from chipscale.serving.constants import Constants
from chipscale.serving.deployment import Deployment
from chipscale.serving.metrics import Objective
from chipscale.serving.plans import Fleet, Question, constants, pace_of, rules
from chipscale.serving.room import Room
from chipscale.serving.rules import Rules
from chipscale.serving.service import Pool, Service
from chipscale.serving.steady import Steady, steady

#: users of a replica at which fleets are compared
USERS = np.unique(np.round(2.0 ** np.arange(0.0, 12.26, 0.5)))
#: turns of all users in a closed form: long enough that the burst of all first prompts does not count
TURNS = 200.0
#: points between two neighbours of `USERS` at which the best are looked at again
BETWEEN = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A deployment on `chips` chips under a closed load of `users` users, and what it offers, in closed form.

    `decode` serves whole requests, or, where there is `prefill`, what that has read. `ttft`, `tpot` and `queueing` (before the prompt is first computed) are means in seconds;
    `requests` and `tokens` (of answers) a second; `running` decode at once on a replica, `step` is its mean step; `stops` says what keeps it from more users.
    """

    decode: Deployment
    replicas: int
    room: Room
    service: Service
    chips: int
    users: int
    ttft: float
    tpot: float
    queueing: float
    requests: float
    tokens: float
    running: float
    step: float
    stops: str = ""
    prefill: Deployment | None = None
    prefill_replicas: int = 0

    @property
    def chip(self) -> float:
        """The tokens a second and chip."""
        return self.tokens / self.chips

    @property
    def user(self) -> float:
        """The tokens a second that a user sees once they come."""
        return 1.0 / self.tpot


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A fleet over users of a replica: `users` and all numbers of `found` have shape (rows, users); `ttft` and `tpot` are what the client sees."""

    fleet: Fleet
    users: np.ndarray
    found: Steady
    ttft: np.ndarray
    tpot: np.ndarray

    @property
    def tokens(self) -> np.ndarray:
        """The tokens a second of all replicas."""
        return np.asarray(self.found.tokens * self.fleet.replicas[:, None])


def grid(question: Question, found: Fleet, users: Num = USERS) -> Grid:
    """Evaluate every row of a fleet at `users` of a replica (one row for all, or a row each)."""
    each = np.broadcast_to(np.asarray(users, dtype=float), (len(found), np.shape(users)[-1]))
    lengths = question.lengths
    result = steady(found.pace, _rules(question, found), users=each, requests=TURNS * each, input=lengths.input, output=lengths.output, low=lengths.low,
                    high=lengths.high, speculation=question.speculation)  # fmt: skip
    k, prompt = constants_of(question, found), alone(question, found)
    view = seen(result, k, users=each, requests=TURNS * each, input=lengths.mean_input, output=lengths.mean_output, prompt=prompt)
    return Grid(fleet=found, users=each, found=result, ttft=np.asarray(view.ttft), tpot=np.asarray(view.tpot))


def constants_of(question: Question, found: Fleet) -> Constants:
    """Return the constants of all rows, as columns."""
    each = [constants(question, d) for d in found.deployments]
    return Constants(**{f.name: np.array([[float(getattr(k, f.name))] for k in each]) for f in fields(Constants)})


def alone(question: Question, found: Fleet) -> np.ndarray:
    """Return the seconds of a step with one mean prompt alone, shape (rows, 1)."""
    prompt = np.full((len(found), 1), question.lengths.mean_input * (1.0 - question.cached))
    sees = question.lengths.mean_input - prompt / 2.0
    return np.asarray(found.pace.seconds(prompt, prompt * sees, 0.0 * prompt, 0.0, 0.0, 1.0))


def best(question: Question, given: Grid, limits: Objective, count: int = 8) -> list[Offer]:
    """Return the deployments that deliver most within the limits, each at its best number of users, best first, `count` of them and the best of each format; none where no point meets them."""
    meets = within(given, limits)
    most = np.where(meets, given.tokens, -1.0)
    ranked = [int(i) for i in np.argsort(-most.max(axis=1), kind="stable") if most[i].max() > 0.0]
    formats = {given.fleet.deployments[i].dense.id: i for i in reversed(ranked)}
    order = list(dict.fromkeys([*ranked[: 2 * count], *formats.values()]))
    if not order:
        return []
    at = most[order].argmax(axis=1)
    low, high = given.users[order, at], given.users[order, np.minimum(at + 1, given.users.shape[1] - 1)]
    finer = np.round(low[:, None] + (high - low)[:, None] * np.linspace(0.0, 1.0, BETWEEN, endpoint=False))
    close = grid(question, given.fleet.take(order), finer)
    held = np.where(within(close, limits), close.tokens, -1.0)
    offers = [offer(question, close, i, int(held[i].argmax()), stops=stops(given, order[i], int(at[i]), limits, question)) for i in range(len(order))]
    found = sorted(offers, key=lambda o: -o.tokens)
    return [*found[:count], *(o for o in found[count:] if o.decode.dense.id not in {p.decode.dense.id for p in found[:count]})]


def within(given: Grid, limits: Objective) -> np.ndarray:
    """Say which points keep both limits."""
    tpot = np.nan_to_num(given.tpot, nan=0.0)
    return np.asarray((given.ttft <= limits.ttft) & (tpot <= limits.tpot))


def reach(given: Grid, limits: Objective) -> np.ndarray:
    """Return the most tokens a second of each row within the limits, between the points of a grid too; 0 where the fewest users exceed them. Shape (rows,).

    X_j + f (X_(j+1) - X_j), f the least of (limit - v_j) / (v_(j+1) - v_j) over TTFT and TPOT, j the last point within.

    Holds when tokens, TTFT and TPOT run straight between neighbours.
    Source: de-boor-2001, chapter 1.
    """
    meets, rows = within(given, limits), np.arange(len(given.fleet))
    at = np.where(meets, given.tokens, -1.0).argmax(axis=1)
    after = np.minimum(at + 1, given.users.shape[1] - 1)
    share = np.ones(len(rows))
    for value, limit in ((given.ttft, limits.ttft), (np.nan_to_num(given.tpot), limits.tpot)):
        here, there = value[rows, at], value[rows, after]
        share = np.where(there > limit, np.minimum(share, (min(limit, 1e9) - here) / np.maximum(there - here, 1e-12)), share)
    here, there = given.tokens[rows, at], given.tokens[rows, after]
    return np.asarray(np.where(meets[rows, at], here + np.clip(share, 0.0, 1.0) * np.maximum(there - here, 0.0), 0.0))


def stops(given: Grid, row: int, at: int, limits: Objective, question: Question) -> str:
    """Say what keeps a row from more users than those of a column."""
    after = min(at + 1, given.users.shape[1] - 1)
    most = given.fleet.blocks[row] * question.engine.block / question.seen
    if given.users[row, after] > most:
        return "cache"
    if given.tpot[row, after] > limits.tpot:
        return "TPOT"
    return "TTFT" if given.ttft[row, after] > limits.ttft else "batch"


def offer(question: Question, given: Grid, row: int, at: int, stops: str = "") -> Offer:
    """Describe one point of a grid."""
    fleet, s = given.fleet, given.found
    on, replicas, users = fleet.deployments[row], int(fleet.replicas[row]), float(given.users[row, at])
    pool = Pool(pace=pace_of(fleet, row), rules=rules(question, on, float(fleet.blocks[row])), replicas=replicas, chips=float(on.tp * on.dp))
    return Offer(decode=on, replicas=replicas, room=fleet.rooms[row], service=Service(pool=pool, speculation=question.speculation), chips=question.chips,
                 users=round(users * replicas), ttft=float(given.ttft[row, at]), tpot=float(given.tpot[row, at]), queueing=float(s.queueing[row, at]),
                 requests=float(s.requests[row, at]) * replicas, tokens=float(given.tokens[row, at]), running=float(s.running[row, at]),
                 step=float(s.step[row, at]), stops=stops)  # fmt: skip


def at_users(question: Question, found: Fleet, users: int) -> Grid:
    """Evaluate a fleet under `users` users in all; where there are fewer than replicas, some replicas idle."""
    busy = np.minimum(found.replicas, users)
    return grid(question, replace(found, replicas=busy), (users / busy)[:, None])


def with_users(question: Question, found: Fleet, o: Offer, users: int) -> Offer:
    """Return an offer of one pool under other users."""
    row = found.deployments.index(o.decode)
    return offer(question, at_users(question, found.take([row]), users), 0, 0, stops=o.stops)


def at_rate(question: Question, given: Grid, rate: float) -> Grid:
    """Evaluate a fleet where `rate` requests come each second: at the users that are then under way, by Little's law.

    Errors: a rate that no deployment answers, with the most that one does.
    Source: little-1961.
    """
    answered = given.found.requests * given.fleet.replicas[:, None]
    able = np.maximum.accumulate(answered, axis=1)
    kept = [i for i in range(len(given.fleet)) if able[i, -1] > rate * (1.0 + 1e-9)]
    if not kept:
        best_ = int(able[:, -1].argmax())
        raise EvidenceError(
            f"a load of {rate:.4g} requests/s is unstable: the best deployment answers {able[best_, -1]:.4g} requests/s; lower --rate or give more chips"
        )
    users = [[float(np.interp(rate, able[i], given.users[i]))] for i in kept]
    return grid(question, given.fleet.take(kept), np.maximum(np.array(users), 1.0))


def front(offers: Sequence[Offer]) -> list[Offer]:
    """Return the offers that no other beats in tokens a chip and in tokens a user, fastest for a user first."""
    kept: list[Offer] = []
    for o in sorted(offers, key=lambda o: (-o.user, -o.chip)):
        if not kept or o.chip > kept[-1].chip * (1.0 + 1e-9):
            kept.append(o)
    return kept


def front_of(question: Question, given: Grid, limit: float = np.inf) -> list[Offer]:
    """Return the Pareto front of a grid, of points with a TTFT of at most `limit`."""
    user, chip = 1.0 / given.tpot.ravel(), (given.tokens / question.chips).ravel()
    allowed = given.ttft.ravel() <= limit
    order = np.lexsort((-chip, -user))
    order = order[allowed[order] & np.isfinite(user[order])]
    highest = np.maximum.accumulate(np.concatenate([[0.0], chip[order]]))[:-1]
    chosen = order[chip[order] > highest * (1.0 + 1e-9)]
    columns = given.users.shape[1]
    return [offer(question, given, int(i) // columns, int(i) % columns) for i in chosen]


def _rules(question: Question, found: Fleet) -> Rules:
    """Return the rules of all rows, their numbers as columns."""
    groups = np.array([[float(d.dp)] for d in found.deployments])
    one = rules(question, replace(found.deployments[0], dp=1, moe_ep=1, moe_tp=1), 1.0)
    changed = {"tokens": one.tokens * groups, "sequences": one.sequences * groups, "blocks": found.blocks[:, None]}
    return Rules(**{f.name: changed.get(f.name, getattr(one, f.name)) for f in fields(Rules)})
