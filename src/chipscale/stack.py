"""Stack: many measured rows, each with its guesses, as one flat problem on arrays; the faster a guess, the more it weighs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np

from chipscale.cost.calibration import Design, design
from chipscale.cost.constants import Constants
from chipscale.cost.hardware import WIDTH, Hardware
from chipscale.cost.roofline import READ, seconds
from chipscale.facts.model import Model
from chipscale.graph import Graph, Shard, build
from chipscale.ops.work import Cause, Work
from chipscale.plan import Degrees, Plan
from chipscale.plan import degrees as plan_degrees
from chipscale.rows import Measured
from chipscale.simulators.closed_form import simulate
from chipscale.step import Sizes, Step, Times, sizes

T = TypeVar("T", Hardware, Constants)
N = TypeVar("N", Hardware, Sizes, Degrees)
#: how strongly people choose the faster of two settings: maximum likelihood over the rows that state their interleave
#: (`choice.py`, docs/decisions/0002-guessing-policy.md)
KAPPA = 12.0
CAUSE_NAMES: tuple[Cause, ...] = ("gemm", "experts", "attention", "elementwise", "head")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Works of one form and direction from all guesses; `owner` is the guess that each belongs to, `hardware` its owner's."""

    work: Work
    owner: np.ndarray
    hardware: Hardware


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """All guesses of all rows; `row` is the row of each guess, `weight` its weight before anything is known of its speed."""

    bundles: tuple[Bundle, ...]
    degrees: Degrees
    sizes: Sizes
    hardware: Hardware
    design: Design
    row: np.ndarray
    weight: np.ndarray
    log_measured: np.ndarray

    def step(self, theta: np.ndarray) -> Step:
        """Return the step of every guess under these coefficients."""
        k = self.design.constants(theta)
        return simulate(self.times(k), self.sizes, self.degrees, self.hardware, k)

    def times(self, k: Constants) -> Times:
        """Cost all bundles and sum them by guess and cause."""
        n = len(self.row)
        cause = {name: np.zeros(n) for name in CAUSE_NAMES}
        forward, core, weights, head_forward, head_weights = (np.zeros(n) for _ in range(5))
        for bundle in self.bundles:
            cost = seconds(bundle.work, bundle.hardware, gathered(k, bundle.owner, READ))
            total = np.bincount(bundle.owner, weights=np.broadcast_to(cost, bundle.owner.shape), minlength=n)
            cause[bundle.work.cause] += total
            if not bundle.work.backward and bundle.work.cause != "head":
                forward += total
                core += total * float(bundle.work.core)
            head = bundle.work.cause == "head"
            weights += total * (bundle.work.weights and not head)
            head_weights += total * (bundle.work.weights and head)
            head_forward += total * (head and not bundle.work.backward)
        return Times(forward=forward, core=core, weights=weights, head_forward=head_forward, head_weights=head_weights, **cause)

    def log_seconds(self, theta: np.ndarray) -> np.ndarray:
        """Return each row's log step time: the mean over its guesses, each with its weight of `likely`."""
        logs = np.log(self.step(theta).seconds)
        return np.bincount(self.row, weights=self.likely(logs) * logs, minlength=len(self.log_measured))

    def likely(self, logs: np.ndarray) -> np.ndarray:
        """Return each guess's weight: settings are chosen by people who want speed, so that faster ones are likelier.

        w_j t_j^-kappa, normalised over the guesses of a row.

        Holds when all guesses of a row could run: whether one fits in memory by our own count does not enter.
        Source: mcfadden-1974, section II (multinomial logit); kappa from `choice`.
        """
        n = len(self.log_measured)
        fastest = np.full(n, np.inf)
        np.minimum.at(fastest, self.row, logs)
        weight = self.weight * np.exp(-KAPPA * (logs - fastest[self.row]))
        share: np.ndarray = weight / np.bincount(self.row, weights=weight, minlength=n)[self.row]
        return share


def gathered(value: T, index: np.ndarray, names: Sequence[str] = ()) -> T:
    """Return the same noun with its array fields, or these of them, taken at `index`."""
    return replace(value, **{name: np.asarray(getattr(value, name))[index] for name in names or [f.name for f in fields(value)]})


def _columns_of(noun: type[N], values: Sequence[N]) -> N:
    return noun(**{f.name: np.array([float(getattr(v, f.name)) for v in values]) for f in fields(noun)})


def graph_of(row: Measured, model: Model, plan: Plan) -> Graph:
    """Build the training graph of one plan."""
    tokens = plan.micro_batch * row.length / plan.cp
    sp = float(plan.tp) if row.sequence_parallel else 1.0
    shard = Shard(
        length=row.length,
        tokens=tokens,
        tp=float(plan.tp),
        sp=sp,
        ep=float(plan.ep),
        etp=float(plan.etp),
        width=WIDTH[row.precision],
        fused=row.fused,
    )
    return build(model, shard)


def _bundles(graphs: Sequence[Graph], hardware: Hardware) -> tuple[Bundle, ...]:
    groups: dict[tuple[str, str, bool, bool, bool, bool], list[tuple[int, Work]]] = {}
    for owner, graph in enumerate(graphs):
        for work in graph.works:
            groups.setdefault((work.form, work.cause, work.narrow, work.backward, work.core, work.weights), []).append((owner, work))
    bundles = []
    for members in groups.values():
        owners = np.array([o for o, _ in members])
        bundles.append(Bundle(work=_joined([w for _, w in members]), owner=owners, hardware=gathered(hardware, owners)))
    return tuple(bundles)


def _joined(works: Sequence[Work]) -> Work:
    def column(name: str) -> np.ndarray:
        return np.array([float(getattr(w, name)) for w in works])

    calls = column("calls")
    return replace(works[0], name="bundle", calls=1.0, flop=column("flop") * calls, bytes=column("bytes") * calls, rows=column("rows"),
                   columns=column("columns"), depth=column("depth"))  # fmt: skip


def stack(rows: Sequence[Measured], coefficients: Sequence[str] | None = None) -> Stack:
    """Stack the rows that were understood."""
    pairs = [(i, row, g) for i, row in enumerate(rows) for g in range(len(row.guesses))]
    graphs, all_sizes = [], []
    for _, row, g in pairs:
        assert row.model is not None
        graph = graph_of(row, row.model, row.guesses[g].plan)
        graphs.append(graph)
        all_sizes.append(sizes(row.model, graph, length=row.length, batch=row.batch))
    degrees = _columns_of(Degrees, [plan_degrees(row.guesses[g].plan) for _, row, g in pairs])
    columns = _columns_of(Sizes, all_sizes)
    hardware = _columns_of(Hardware, [row.hardware[g] for _, row, g in pairs])
    return Stack(
        bundles=_bundles(graphs, hardware),
        degrees=degrees,
        sizes=columns,
        hardware=hardware,
        design=design([row.contexts[g] for _, row, g in pairs], coefficients),
        row=np.array([i for i, _, _ in pairs], dtype=np.int64),
        weight=np.array([row.guesses[g].weight for _, row, g in pairs]),
        log_measured=np.log(np.array([row.seconds for row in rows])),
    )
