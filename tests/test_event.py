"""The event simulator against the closed form, plan by plan."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from chipscale.catalog import load as load_catalog
from chipscale.cost.calibration import constants, read_calibration
from chipscale.cost.hardware import hardware
from chipscale.evidence import Belief, EvidenceError
from chipscale.plan import SCHEDULES, Plan, degrees
from chipscale.planning import training_job
from chipscale.report.trace import chrome_trace
from chipscale.schedules.forms import Passes, chunks, problem
from chipscale.schedules.orders import Order, order
from chipscale.search import Evaluator, Problem, evaluator, space
from chipscale.simulators.closed_form import pipeline
from chipscale.simulators.event import Replay, replayed, stage_layers
from chipscale.simulators.timeline import Load, Timeline, replay
from chipscale.verdict.world import context


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
    uneven = not plain and v == 1 and name in ("1f1b", "gpipe")
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


def plain(schedule: str, p: int, m: int) -> Load:
    return Load(compute=np.ones((3, order(schedule, p, 1, m).stages)), traffic=())


def test_zero_bubble_on_a_v_is_zero_without_a_barrier() -> None:
    found = replay(order("zb-v", 8, 1, 24), plain("zb-v", 8, 24))
    assert found.seconds == pytest.approx(24 * 6)
    assert found.makespan == pytest.approx(24 * 6 + 7)
    assert found.busy == pytest.approx(np.full(8, 24 * 6.0))


def test_a_straggler_slows_the_whole_pipeline() -> None:
    o, load = order("1f1b", 4, 1, 32), plain("1f1b", 4, 32)
    slow = replay(o, load, pace=(1.0, 1.0, 1.2, 1.0)).seconds
    assert slow == pytest.approx(3 * (3 * 1.0 + 32 * 1.2), rel=0.02)


def test_jitter_costs_time_and_repeats_with_its_seed() -> None:
    o, load = order("1f1b", 8, 1, 64), plain("1f1b", 8, 64)
    first, again, other = (replay(o, load, jitter=0.1, rng=np.random.default_rng(seed)).seconds for seed in (1, 1, 2))
    assert first == again != other
    assert first > replay(o, load).seconds


def test_offload_copies_hide_behind_compute_until_they_are_too_long() -> None:
    """A copy shorter than a forward pass is hidden; either pass lasts as long as a longer one."""
    o, load = order("1f1b", 4, 1, 32), plain("1f1b", 4, 32)
    short, long = (np.array([x, x, x, 0.0]) for x in (0.5, 4.0))
    assert replay(o, replace(load, copy=short)).seconds == pytest.approx(replay(o, load).seconds)
    assert replay(o, replace(load, copy=long)).seconds >= 32 * 2 * 4.0


def test_reduction_is_late_by_its_share_and_the_optimizer_follows() -> None:
    o, load = order("1f1b", 4, 1, 32), plain("1f1b", 4, 32)
    assert replay(o, replace(load, reduce=8.0, late=2.0, optimizer=1.0)).seconds == pytest.approx(replay(o, load).seconds + 3.0)


def test_sharded_gathers_run_ahead_of_what_waits_anyway() -> None:
    o, load = order("1f1b", 4, 1, 32), plain("1f1b", 4, 32)
    assert replay(o, replace(load, ahead=0.1)).seconds == pytest.approx(replay(o, load).seconds + 0.1 * 3 * 32)


MODELS = ("meta-llama/Meta-Llama-3.1-8B", "deepseek-ai/DeepSeek-V3")


@cache
def prepared(model: str) -> Evaluator:
    catalog = load_catalog()
    chip = catalog.chip("nvidia-h100-sxm-80gb")
    assert not isinstance(chip, Belief)
    job = training_job(model, 64, batch=512)
    k = constants(read_calibration(catalog).coefficients(), context(catalog, chip, job, "bf16"))
    problem_ = Problem(model=catalog.model(model), length=4096.0, batch=512.0, precision="bf16")
    return evaluator(problem_, hardware(chip, catalog.cluster_for(chip), "bf16"), k)


def run(e: Evaluator, plan: Plan, **more: Any) -> Replay:
    return replayed(e.times(degrees(plan)), e.sizes, plan, e.hardware, e.constants, **more)


@pytest.mark.parametrize("model", MODELS)
def test_real_plans_agree_within_two_percent(model: str) -> None:
    """Every schedule on real costs, where chunks are equal: head, recompute, sharding, traffic and messages as the closed form has them."""
    e = prepared(model)
    table = space(e.problem.model, 64, 512, 8, SCHEDULES)
    rng = np.random.default_rng(3)
    seen = set()
    for i in rng.permutation(len(table)):
        plan = table.row(int(i))
        stages = plan.pp * (2 if SCHEDULES[plan.schedule] in ("zb-v", "dualpipe-v") else plan.vpp)
        m = 512 // plan.dp // plan.micro_batch
        even = e.sizes.layers % stages == 0 or (plan.vpp == 1 and plan.schedule < 2)
        if even and not problem(SCHEDULES[plan.schedule], plan.pp, plan.vpp, m, e.sizes.layers):
            seen.add(plan.schedule)
            assert float(e.step(degrees(plan)).seconds) == pytest.approx(run(e, plan).seconds, rel=0.02), plan
        if i % 400 == 0 and len(seen) > 3:
            break
    assert len(seen) > 3


def test_layers_may_be_dealt_by_hand() -> None:
    e, plan = prepared(MODELS[0]), Plan(tp=2, pp=4, dp=8)
    found = run(e, plan, layers=(9, 8, 8, 7))
    assert found.layers == (9, 8, 8, 7)
    assert found.seconds < run(e, plan).seconds  # the head's stage is the slowest
    for wrong, words in (((9, 8, 8), "3 numbers for 4 stages"), ((9, 9, 9, 9), "sum to 36, the model has 32")):
        with pytest.raises(EvidenceError, match=words):
            run(e, plan, layers=wrong)


def test_a_trace_is_whole() -> None:
    """Arrows have both ends, threads run forward without overlap, nothing lasts less than nothing, the counter returns to zero."""
    e, plan = prepared(MODELS[1]), Plan(pp=4, ep=16, dp=16, schedule=SCHEDULES.index("dualpipe"))
    found = run(e, plan)
    events = json.loads(chrome_trace(found, "a step", 1e6))["traceEvents"]
    slices = [x for x in events if x["ph"] == "X"]
    begun, ended = ({x["id"]: x["ts"] for x in events if x["ph"] == phase} for phase in "sf")
    assert begun.keys() == ended.keys()
    assert len(begun) == len(found.timeline.messages) > 0
    assert all(ended[i] >= begun[i] for i in begun)
    threads: dict[tuple[int, int], float] = {}
    for x in slices:
        assert x["dur"] >= 0.0
        assert x["name"]
        assert x["cat"]
        assert x["ts"] >= threads.get((x["pid"], x["tid"]), 0.0) - 1e-3
        threads[x["pid"], x["tid"]] = x["ts"] + x["dur"]
    counters = [x for x in events if x["ph"] == "C"]
    assert {x["pid"] for x in counters} == set(range(4))
    assert all(next(c for c in reversed(counters) if c["pid"] == rank)["args"]["GB"] == 0.0 for rank in range(4))
    names = {x["args"]["name"] for x in events if x["name"] == "thread_name"}
    assert {"compute", "ep", "pp forward", "pp backward", "dp"} <= names
