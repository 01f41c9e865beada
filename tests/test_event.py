"""The event simulator against the closed form, plan by plan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from chipscale.plan import SCHEDULES, Plan, degrees
from chipscale.schedules.forms import Passes, chunks, problem
from chipscale.schedules.orders import Order, order
from chipscale.simulators.closed_form import pipeline
from chipscale.simulators.event import stage_layers
from chipscale.simulators.timeline import Load, Timeline, replay


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A random pipeline: passes of a layer and of the head (forward, inputs, weights), and a message with the share that is shown."""

    plan: Plan
    batches: int
    layers: int
    layer: np.ndarray
    head: np.ndarray
    hop: float
    shown: float

    @property
    def order(self) -> Order:
        return order(SCHEDULES[self.plan.schedule], self.plan.pp, self.plan.vpp, self.batches)

    def closed(self) -> float:
        """Return the closed form's seconds, as `simulate` assembles them."""
        d = degrees(self.plan)
        body, top = (Passes(total=n * x.sum(), forward=n * x[0], weights=n * x[2]) for n, x in ((self.layers, self.layer), (1, self.head)))
        parts = pipeline(body, top, float(self.layers), d, float(self.batches), self.hop)
        return float(sum(parts) + self.shown * 2.0 * chunks(d) * self.batches * self.hop)

    def replayed(self) -> Timeline:
        """Replay the same pipeline."""
        worth = float(self.head.sum() / self.layer.sum())
        layers = np.array(stage_layers(self.layers, worth, self.plan, self.order), dtype=float)
        compute = self.layer[:, None] * layers
        compute[:, -1] += self.head
        return replay(self.order, Load(compute=compute, traffic=(), hop=self.hop, shown=self.shown * self.hop))


def drawn(rng: np.random.Generator, *, plain: bool) -> Case:
    """Draw a plan that its schedule can hold; a plain one has even stages, no head and no messages."""
    name = SCHEDULES[rng.integers(len(SCHEDULES))]
    p = 2 * int(rng.integers(1, 7)) if name == "dualpipe" else int(rng.integers(2, 13))
    v = int(rng.integers(1, 5)) if name == "1f1b" else 1
    m = int(rng.integers(1, 4 * p))
    m += m % 2
    while problem(name, p, v, m):
        m += 2
    stages = p * (2 if name in ("zb-v", "dualpipe-v") else v)
    uneven = not plain and v == 1 and (name == "gpipe" or (name == "1f1b" and m >= p))
    layers = int(rng.integers(stages, 6 * stages)) if uneven else stages * int(rng.integers(1, 6))
    layer = np.array([1.0, rng.uniform(0.7, 1.8), rng.uniform(0.4, 1.4)])
    head = rng.uniform(0.0, 0.0 if plain else (0.5 if layers % stages else 1.5) * layers / p) * layer * rng.uniform(0.8, 1.2, 3)
    plan = Plan(pp=p, vpp=v, schedule=SCHEDULES.index(name))
    return Case(plan=plan, batches=m, layers=layers, layer=layer, head=head, hop=0.0 if plain else rng.uniform(0.0, 0.1), shown=rng.uniform(0.0, 1.0))


def test_a_thousand_random_plans_agree_within_two_percent() -> None:
    rng = np.random.default_rng(20261125)
    cases = [drawn(rng, plain=False) for _ in range(1000)]
    errors = {
        (str(c.plan), c.batches, c.layers, round(float(c.head.sum() / c.layer.sum()), 2), round(c.hop, 3)): c.closed() / c.replayed().seconds - 1.0
        for c in cases
    }
    far = {c: e for c, e in errors.items() if abs(e) > 0.02}
    assert not far


def test_where_the_closed_form_is_exact_they_agree_within_a_thousandth() -> None:
    rng = np.random.default_rng(7)
    for case in (drawn(rng, plain=True) for _ in range(300)):
        assert case.closed() == pytest.approx(case.replayed().seconds, rel=1e-3), case
