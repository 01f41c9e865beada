"""Predict: measured points as arrays, and what the closed form says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from chipscale.catalog import Catalog
from chipscale.evidence import EvidenceError
from chipscale.facts.protocol import Protocol
from chipscale.ops.work import Num
from chipscale.serving.apart import apart
from chipscale.serving.client import seen
from chipscale.serving.constants import Constants, paced
from chipscale.serving.deployment import Deployment
from chipscale.serving.pace import Pace
from chipscale.serving.parts import Bench, Parts, parts
from chipscale.serving.room import room, token_bytes
from chipscale.serving.rows import Point
from chipscale.serving.rules import Rules
from chipscale.serving.service import Pool, Service, Transfer
from chipscale.serving.steady import steady

#: shares of memory tried for a measured point: it ran, so where the usual one leaves no room the engine was told to take more
GIVEN = (0.9, 0.95, 0.99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Points that share a scheduling rule, as arrays of shape (rows,): parts with rows ahead of their knots, tokens that caches hold, the load."""

    rows: np.ndarray
    parts: Parts
    rules: Rules
    users: np.ndarray
    input: np.ndarray
    output: np.ndarray
    requests: np.ndarray
    low: np.ndarray
    high: np.ndarray


def rules_of(point: Point, on: Deployment, tokens: float) -> Rules:
    """Return the scheduling rule of a replica whose caches hold `tokens` tokens; each attention group has a budget of its own."""
    e = point.engine
    return Rules(tokens=e.tokens * on.dp, sequences=e.sequences * on.dp, chunked=e.chunked, shared=e.shared, block=e.block, reserve=e.reserve,
                 blocks=max(tokens / e.block, np.ceil((point.input + point.output) / e.block)))  # fmt: skip


def tokens_held(point: Point, on: Deployment, input: float, output: float) -> float:
    """Return the tokens that the caches of a measured replica hold; one whose weights should not fit did run, so a request at a time does."""
    for given in GIVEN:
        try:
            return room(point.model, on, point.chip, seen=input + output / 2.0, given=given).tokens
        except EvidenceError:
            continue
    return input + output


class Costs:
    """Parts of points, computed once for each deployment and pair of lengths."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._benches: dict[tuple[str, str], Bench] = {}
        self._parts: dict[tuple[object, ...], Parts] = {}

    def of(self, point: Point, on: Deployment, input: float, output: float) -> Parts:
        """Return the parts of a step of a point's deployment under prompts and answers of these mean lengths."""
        where = (point.chip.id, point.engine.id)
        if where not in self._benches:
            self._benches[where] = Bench(catalog=self._catalog, chip=point.chip, engine=point.engine)
        key = (*where, point.model.id, on, input, output)
        if key not in self._parts:
            self._parts[key] = parts(self._benches[where], point.model, on, input, input + output / 2.0)
        return self._parts[key]

    def moving(self, point: Point) -> Transfer:
        """Return the transfer of a cache between pools over the chips' outermost network: each rank sends its part.

        t = v_token / B a token.

        Holds when ranks send side by side and share the network with nobody.
        Source: distserve-2024, section 3.3.
        """
        outer = self._catalog.cluster_for(point.chip).tiers[-1]
        rate = outer.bandwidth.value / outer.oversubscription
        return Transfer(token=token_bytes(point.model, point.on, point.input) / rate, fixed=outer.latency)


def mean_lengths(point: Point, protocol: Protocol) -> tuple[float, float]:
    """Return the mean tokens of prompts and answers under a protocol."""
    middle = (protocol.low + protocol.high) / 2.0
    return point.input * middle, point.output * middle


def stacked(found: Sequence[Parts]) -> Parts:
    """Write parts one below the other: rows ahead of their knots."""
    columns: dict[str, Any] = {f.name: np.array([getattr(p, f.name) for p in found], dtype=float) for f in fields(Parts)}
    return Parts(**columns)


def stack(points: Sequence[Point], protocols: Sequence[Protocol], costs: Costs) -> list[Stack]:
    """Lay out points of one pool as arrays, those with the same scheduling rule together."""
    groups: dict[str, list[int]] = {}
    for i, p in enumerate(points):
        if p.prefill is None:
            groups.setdefault(p.engine.id, []).append(i)
    out = []
    for rows in groups.values():
        lengths = [mean_lengths(points[i], protocols[i]) for i in rows]
        held = np.array([tokens_held(points[i], points[i].on, *n) for i, n in zip(rows, lengths, strict=True)])
        first = rules_of(points[rows[0]], points[rows[0]].on, held[0])
        least = np.array([np.ceil((points[i].input + points[i].output) / first.block) for i in rows])
        users = np.array([points[i].users for i in rows])
        groups_of = np.array([points[i].on.dp for i in rows])
        engine = points[rows[0]].engine
        columns: dict[str, Any] = {
            "blocks": np.maximum(held / first.block, least),
            "tokens": engine.tokens * groups_of,
            "sequences": engine.sequences * groups_of,
        }
        shared = replace(first, **columns)
        out.append(
            Stack(rows=np.array(rows), parts=stacked([costs.of(points[i], points[i].on, *n) for i, n in zip(rows, lengths, strict=True)]),
                  rules=shared, users=users, input=np.array([points[i].input for i in rows]),
                  output=np.array([points[i].output for i in rows]), requests=users * np.array([protocols[i].requests_a_user for i in rows]),
                  low=np.array([protocols[i].low for i in rows]), high=np.array([protocols[i].high for i in rows]))
        )  # fmt: skip
    return out


def at(k: Constants, rows: np.ndarray) -> Constants:
    """Take the constants of some rows."""
    return Constants(**{f.name: np.asarray(getattr(k, f.name))[rows] for f in fields(Constants)})


def alone(pace: Pace, rules: Rules, prompt: Num) -> Num:
    """Return the seconds that the chip spends on one prompt, in steps of the budget of tokens."""
    step = np.minimum(prompt, rules.tokens)
    none = np.zeros(np.shape(prompt))
    return (pace.seconds(step, step * prompt / 2.0, none, none) - pace.seconds(none, none, none, none)) * prompt / step


def predicted(stacks: Sequence[Stack], k: Constants, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return seconds to the first token and between tokens of points of one pool, shape (count,); NaN for those of no stack."""
    ttft, tpot = np.full(count, np.nan), np.full(count, np.nan)
    for s in stacks:
        mine = at(k, s.rows)
        pace = paced(s.parts, mine)
        served = steady(pace, s.rules, users=s.users, requests=s.requests, input=s.input, output=s.output, low=s.low, high=s.high)
        middle = (s.low + s.high) / 2.0
        view = seen(
            served,
            mine,
            users=s.users,
            requests=s.requests,
            input=s.input * middle,
            output=s.output * middle,
            prompt=alone(pace, s.rules, s.input * middle),
        )
        ttft[s.rows], tpot[s.rows] = view.ttft, view.tpot
    return ttft, tpot


def predicted_apart(point: Point, protocol: Protocol, k: Constants, costs: Costs) -> tuple[float, float]:
    """Return seconds to the first token and between tokens of a point whose prompts have a pool of their own."""
    assert point.prefill is not None
    i, o = mean_lengths(point, protocol)
    pools = [Pool(pace=paced(costs.of(point, on, i, o), k), rules=rules_of(point, on, tokens_held(point, on, i, o)), replicas=n, chips=float(on.chips))
             for on, n in ((point.on, point.workers), (point.prefill, point.readers))]  # fmt: skip
    service = Service(pool=pools[0], prefill=pools[1], transfer=costs.moving(point))
    n = np.array([point.users * protocol.requests_a_user])
    served = apart(service, users=np.array([point.users]), requests=n, input=point.input, output=point.output, low=protocol.low, high=protocol.high)
    prompt = alone(pools[1].pace, pools[1].rules, i)
    view = seen(served, k, users=point.users, requests=n, input=i, output=o, prompt=prompt / point.readers)
    return float(np.ravel(view.ttft)[0]), float(np.ravel(view.tpot)[0])
