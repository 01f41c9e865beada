"""Requests: timings of single requests under a recorded load, against the simulated server."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from chipscale import csvfile
from chipscale.catalog import Catalog
from chipscale.csvfile import Row, name_of, text
from chipscale.evidence import EvidenceError
from chipscale.facts.chip import Chip
from chipscale.facts.engine import Engine
from chipscale.facts.model import Model
from chipscale.serving.constants import Constants, paced
from chipscale.serving.deployment import Deployment
from chipscale.serving.load import Load, Trace
from chipscale.serving.parts import Bench, Parts, parts
from chipscale.serving.room import room, routed
from chipscale.serving.rows import Unusable, engine_named, formats_of, model_named, one_chip
from chipscale.serving.rules import Rules
from chipscale.serving.server import simulate
from chipscale.serving.service import Pool, Service

NEEDED = ("engine", "model", "chip", "isl", "osl", "arrival_s", "measured_ttft_ms", "measured_tpot_ms")
#: constants in which a recorded service may deviate of its own, their spread in logs, and the noise of single requests
OWN = ("products_few", "products_many", "token", "sequence", "scale", "links_few", "first")
OWN_SPREAD = 0.3
NOISE = (0.05, 0.02)
#: requests of a trace count as so many independent ones
INDEPENDENT = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One service under one recorded load: arrays of shape (requests,), in the order of the file; `ttft` and `tpot` as measured (s)."""

    keys: tuple[str, ...]
    labels: Mapping[str, str]
    engine: Engine
    version: str
    chip: Chip
    model: Model
    on: Deployment
    tokens: int
    sequences: int
    arrival: np.ndarray
    input: np.ndarray
    output: np.ndarray
    ttft: np.ndarray
    tpot: np.ndarray
    notes: tuple[str, ...] = ()


def load(path: Path, catalog: Catalog) -> list[Recorded]:
    """Read a file of request timings: rows of one engine, model, chip and tensor-parallel degree are one service."""
    rows = csvfile.read(path, NEEDED, "docs/serving.md")
    groups: dict[tuple[str, ...], list[Row]] = {}
    keys: set[str] = set()
    for row in rows:
        key = text(row, "row") or row["_line"]
        if key in keys:
            raise EvidenceError(f"{path}: row {key} stands twice; give each row its own key")
        keys.add(key)
        groups.setdefault(tuple(text(row, c) for c in ("engine", "model", "chip", "tp", "dtype")), []).append(row)
    return [_recorded(found, catalog) for found in groups.values()]


def _recorded(rows: Sequence[Row], catalog: Catalog) -> Recorded:
    first = rows[0]
    engine, model = engine_named(catalog, text(first, "engine")), model_named(catalog, text(first, "model"))
    chip = one_chip(catalog, text(first, "chip"))
    tp = _whole(first, "tp", 1)
    try:
        dense, experts = formats_of(text(first, "dtype"), "", text(first, "dtype"), model, chip)
    except Unusable as problem:
        raise EvidenceError(f"{name_of(first)}, column dtype: {problem}") from problem
    column = {c: np.array([_value(r, c) for r in rows]) for c in ("arrival_s", "isl", "osl", "measured_ttft_ms", "measured_tpot_ms")}
    stated = _whole(first, "max_num_seqs", engine.sequences)
    most = at_once(rows, column)
    notes: tuple[str, ...] = ()
    if most > stated:
        notes = (f"{model.name}: {most} requests ran at once, more than the stated {stated}: the larger counts",)
    version = text(first, "engine").partition(" ")[2]
    return Recorded(
        keys=tuple(text(r, "row") or r["_line"] for r in rows), engine=engine, version=version, chip=chip, model=model,
        labels={"chip": chip.id, "engine": engine.id, "family": model.id, "mode": "agg", "cell": f"{model.id}|{chip.id}|{engine.id}"},
        on=Deployment(tp=tp, moe_tp=tp if routed(model) else 1, dense=dense, experts=experts), tokens=_whole(first, "max_num_batched_tokens", engine.tokens),
        sequences=max(stated, most), arrival=column["arrival_s"], input=column["isl"].astype(int), output=column["osl"].astype(int), ttft=column["measured_ttft_ms"] / 1e3,
        tpot=column["measured_tpot_ms"] / 1e3, notes=notes,
    )  # fmt: skip


def at_once(rows: Sequence[Row], column: Mapping[str, np.ndarray]) -> int:
    """Count the most requests that ran at once, from when each left the queue to its end; 0 where the file does not say."""
    queue = np.array([_value(r, "measured_queue_ms", math.nan) for r in rows]) / 1e3
    if not np.all(np.isfinite(queue)):
        return 0
    start = column["arrival_s"] + queue
    end = column["arrival_s"] + column["measured_ttft_ms"] / 1e3 + column["measured_tpot_ms"] / 1e3 * np.maximum(column["osl"] - 1.0, 0.0)
    return int(max(np.sum((start <= t) & (end > t)) for t in start))


def _value(row: Row, column: str, blank: float | None = None) -> float:
    value = csvfile.number(row, column, least=0.0, below=1e12, wanted="a number of 0 or more")
    if value is None and blank is None:
        raise EvidenceError(f"{name_of(row)}, column {column}: is blank; state it")
    return blank if value is None and blank is not None else float(value or 0.0)


def _whole(row: Row, column: str, blank: int) -> int:
    value = csvfile.whole(row, column, csvfile.number(row, column, least=1.0, below=1e9, wanted="a count of 1 or more"))
    return blank if value is None else value


class Replay:
    """A recorded load, played again on a simulated server."""

    def __init__(self, recorded: Recorded, catalog: Catalog) -> None:
        i, o = float(recorded.input.mean()), float(recorded.output.mean())
        self._recorded = recorded
        self._parts: Parts = parts(Bench(catalog=catalog, chip=recorded.chip, engine=recorded.engine), recorded.model, recorded.on, i, i + o / 2.0)
        held = room(recorded.model, recorded.on, recorded.chip, seen=i + o / 2.0).tokens
        e = recorded.engine
        self._rules = Rules(
            tokens=recorded.tokens,
            sequences=recorded.sequences,
            chunked=e.chunked,
            shared=e.shared,
            block=e.block,
            reserve=e.reserve,
            blocks=held / e.block,
        )
        order = np.argsort(recorded.arrival, kind="stable")
        trace = Trace(arrival=recorded.arrival[order], input=recorded.input[order], output=recorded.output[order])
        self._order, self._load = order, Load(arrival=trace, requests=len(order))

    def times(self, k: Constants) -> tuple[np.ndarray, np.ndarray]:
        """Return seconds to the first token and between tokens of each request, in the order of the file."""
        r = self._recorded
        served = simulate(Service(pool=Pool(pace=paced(self._parts, k), rules=self._rules, chips=float(r.on.chips))), self._load)
        ttft, tpot = np.empty(len(self._order)), np.empty(len(self._order))
        ttft[self._order] = served.first - served.arrival
        tpot[self._order] = (served.end - served.first) / np.maximum(r.output[self._order] - 1, 1)
        return ttft + float(k.first) + float(k.tokenise) * r.input, tpot


def moved(k: Constants, own: Mapping[str, float]) -> Constants:
    """Return constants with the deviations (logs) of a service."""
    return replace(k, **{n: getattr(k, n) * math.exp(v) for n, v in own.items()})


def own_deviations(recorded: Recorded, k: Constants, catalog: Catalog) -> dict[str, float]:
    """Fit the deviations of one recorded service: Gauss-Newton on logs of both quantities, with finite differences of the whole simulation.

    Holds when a few constants suffice; their spread keeps them near what other services share.
    Source: gelman-2013, section 13.3 (posterior mode by Newton's method).
    """
    replay, weight = Replay(recorded, catalog), math.sqrt(INDEPENDENT / len(recorded.keys))

    def misses(theta: np.ndarray) -> np.ndarray:
        both = replay.times(moved(k, dict(zip(OWN, theta.tolist(), strict=True))))
        return weight * np.concatenate([np.log(p / m) / n for p, m, n in zip(both, (recorded.ttft, recorded.tpot), NOISE, strict=True)])

    def loss(theta: np.ndarray, miss: np.ndarray) -> float:
        return float(np.sum(2.0 * (np.sqrt(1.0 + miss**2) - 1.0)) + np.sum((theta / OWN_SPREAD) ** 2))

    theta = np.zeros(len(OWN))
    miss = misses(theta)
    best = loss(theta, miss)
    for _ in range(10):
        slope = np.stack([(misses(theta + 0.03 * unit) - miss) / 0.03 for unit in np.eye(len(OWN))], axis=1)
        counted = 1.0 / np.sqrt(1.0 + miss**2)
        left = slope.T @ (slope * counted[:, None]) + np.eye(len(OWN)) / OWN_SPREAD**2
        step, share = np.linalg.solve(left, slope.T @ (counted * miss) + theta / OWN_SPREAD**2), 1.0
        while share > 0.05 and loss(theta - share * step, trial := misses(theta - share * step)) >= best:
            share /= 2.0
        if share <= 0.05:
            break
        theta, miss = theta - share * step, trial
        gain, best = best - loss(theta, miss), loss(theta, miss)
        if gain < 0.01 * best:
            break
    return dict(zip(OWN, theta.tolist(), strict=True))
