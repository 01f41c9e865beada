"""Seconds to replay a step event by event, and how far the closed form is from it.

python -m benchmarks.events
"""

from __future__ import annotations

import json
import platform
import statistics
import time

import numpy as np

from chipscale.plan import SCHEDULES, Plan, degrees
from chipscale.schedules.forms import Passes, problem
from chipscale.schedules.orders import order
from chipscale.simulators.closed_form import pipeline
from chipscale.simulators.event import stage_layers
from chipscale.simulators.timeline import Load, replay

LAYERS, RANKS, BATCHES = 61, 16, 120


def load_of(plan: Plan, layers: int, batches: int, layer: np.ndarray, head: np.ndarray) -> Load:
    """Cost the stages of a model whose layers are alike, its head on the last."""
    o = order(SCHEDULES[plan.schedule], plan.pp, plan.vpp, batches)
    compute = layer[:, None] * np.array(stage_layers(layers, float(head.sum() / layer.sum()), plan, o), dtype=float)
    compute[:, -1] += head
    return Load(compute=compute, traffic=())


def timed(schedule: str) -> dict[str, object]:
    """Replay 61 layers on 16 ranks with 120 micro-batches five times, the order written anew each time."""
    plan, layer = Plan(pp=RANKS, schedule=SCHEDULES.index(schedule)), np.array([1.0, 1.2, 0.9])
    seconds = []
    for _ in range(5):
        order.cache_clear()
        start = time.perf_counter()
        line = replay(order(schedule, RANKS, 1, BATCHES), load_of(plan, LAYERS, BATCHES, layer, 0.5 * layer))
        seconds.append(time.perf_counter() - start)
    return {"schedule": schedule, "operations": sum(s.op is not None for s in line.slices), "median_s": round(statistics.median(seconds), 3)}


def misses(schedule: str, count: int = 100) -> dict[str, object]:
    """Compare both simulators where layers do not divide over the stages: random plans, a head of up to half a rank's layers."""
    rng, errors = np.random.default_rng(1), []
    while len(errors) < count:
        p = 2 * int(rng.integers(1, 7)) if schedule == "dualpipe" else int(rng.integers(2, 13))
        m = 2 * int(rng.integers(1, 2 * p + 1))
        stages = p * (2 if schedule in ("zb-v", "dualpipe-v") else 1)
        layers = int(rng.integers(stages, 6 * stages))
        if problem(schedule, p, 1, m, layers) or layers % stages == 0:
            continue
        plan, layer = Plan(pp=p, schedule=SCHEDULES.index(schedule)), np.array([1.0, rng.uniform(0.7, 1.8), rng.uniform(0.4, 1.4)])
        head = layer * rng.uniform(0.0, 0.5 * layers / p)
        body, top = (Passes(total=n * x.sum(), forward=n * x[0], weights=n * x[2]) for n, x in ((layers, layer), (1, head)))
        closed = float(sum(pipeline(body, top, float(layers), degrees(plan), float(m), 0.0)))
        errors.append(abs(closed / replay(order(schedule, p, 1, m), load_of(plan, layers, m, layer, head)).seconds - 1.0))
    return {"schedule": schedule, "plans": count, "mean_percent": round(100 * float(np.mean(errors)), 1),
            "most_percent": round(100 * max(errors), 1)}  # fmt: skip


def main() -> None:
    machine = {"processor": platform.processor() or platform.machine(), "python": platform.python_version(), "numpy": np.__version__}
    found = {"machine": machine, "layers_ranks_batches": [LAYERS, RANKS, BATCHES], "replay": [timed(s) for s in SCHEDULES],
             "closed_form_where_layers_do_not_divide": [misses(s) for s in SCHEDULES]}  # fmt: skip
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
