"""Simulated requests a second, how far the closed form is from the simulation, and the seconds of a search of deployments.

python -m benchmarks.serving
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np

from benchmarks.serving_cases import misses, misses_apart
from benchmarks.stepwise import serve
from chipscale.catalog import load
from chipscale.facts.chip import Chip
from chipscale.serving.choose import USERS, best, grid
from chipscale.serving.load import Closed, Lengths, Load, requests
from chipscale.serving.metrics import Objective
from chipscale.serving.pace import Pace
from chipscale.serving.parts import Bench
from chipscale.serving.plans import Question, fleet, usual_formats
from chipscale.serving.rules import Rules, Speculation
from chipscale.serving.server import simulate
from chipscale.serving.service import Pool, Service
from chipscale.serving.split import split
from chipscale.serving.steady import steady

#: the size of DeepSeek-R1 on 32 H100: 8-bit weights and latent cache, ranks share the batch; rounded, for the benchmark alone
TOKENS = np.array([1, 64, 512, 1024, 4096, 16384.0])
PACE = Pace(
    tokens=TOKENS, flow=8e-3 + 2.2e-6 * TOKENS, running=np.array([1, 64, 512, 1024.0]), settle=np.array([1e-3, 1.1e-3, 2e-3, 3e-3]), reach=np.full(4, 3e-9),
    chunk=5e-4, pair=2e-11, step=1e-3, sequence=5e-6,
)  # fmt: skip
LOAD = Load(arrival=Closed(users=512), requests=10_000, lengths=Lengths(input=1024, output=1024, low=0.8))
PLENTY, SCARCE = Rules(tokens=8192, sequences=1024), Rules(tokens=8192, sequences=1024, blocks=40_000)


def rate(service: Service, leap: float, times: int) -> dict[str, float]:
    """Simulate `times` times; requests a second of wall time and of processor time, medians."""
    wall, processor = [], []
    for _ in range(times):
        start = time.perf_counter(), time.process_time()
        simulate(service, LOAD, leap=leap)
        wall.append(time.perf_counter() - start[0])
        processor.append(time.process_time() - start[1])
    return {"wall": round(LOAD.requests / statistics.median(wall)), "processor": round(LOAD.requests / statistics.median(processor))}


def stepwise() -> dict[str, float]:
    """Serve every step and every sequence by itself, once."""
    start = time.perf_counter(), time.process_time()
    serve(PACE, PLENTY, requests(LOAD))
    return {"wall": round(LOAD.requests / (time.perf_counter() - start[0])), "processor": round(LOAD.requests / (time.process_time() - start[1]))}


def accuracy(missed: Callable[[int], tuple[float, float, float]], count: int = 300) -> dict[str, dict[str, float]]:
    """Compare the closed form with the simulation on random replicas and loads, in percent."""
    found = 100.0 * np.array([missed(seed) for seed in range(count)])
    return {
        name: {"median": round(float(np.median(np.abs(x))), 2), "p90": round(float(np.quantile(np.abs(x), 0.9)), 1), "most": round(float(np.abs(x).max()), 1),
               "bias": round(float(np.median(x)), 2)}
        for name, x in zip(("ttft", "tpot", "requests"), found.T, strict=True)
    }  # fmt: skip


def closed_forms() -> int:
    """Count the closed forms a second of one replica over 10,000 numbers of users."""
    seconds, users = [], np.linspace(1, 512, 10_000)
    for _ in range(5):
        start = time.perf_counter()
        steady(PACE, PLENTY, users=users, requests=10 * users, input=1024, output=1024, low=0.8)
        seconds.append(time.perf_counter() - start)
    return round(len(users) / statistics.median(seconds))


def search(chips: int = 64, sampled: int = 24) -> dict[str, float]:
    """Search DeepSeek-R1 on 64 H200 within 5 s and 50 ms, as tables, and beside it a sample of the deployments one after the other, a load at a time; medians of seconds of wall time."""
    catalog, limits = load(), Objective(ttft=5.0, tpot=0.05)
    model, chip = catalog.model("deepseek-ai/DeepSeek-R1"), catalog.chip("h200")
    assert isinstance(chip, Chip)

    def ask() -> Question:
        return Question(bench=Bench(catalog=catalog, chip=chip, engine=catalog.engine("vllm")), model=model, chips=chips, formats=usual_formats(model, chip),
                        lengths=Lengths(input=4096, output=1024, low=0.8, high=1.2))  # fmt: skip

    taken: dict[str, list[float]] = {"one_pool": [], "two_pools": [], "one_at_a_time": []}
    for _ in range(3):
        start = time.perf_counter()
        question = ask()
        found = fleet(question)
        best(question, grid(question, found), limits)
        taken["one_pool"].append(time.perf_counter() - start)
        start = time.perf_counter()
        split(question, found, limits)
        taken["two_pools"].append(time.perf_counter() - start)
        start = time.perf_counter()
        for d in found.deployments[:: max(len(found) // sampled, 1)][:sampled]:
            one = fleet(question, [d])
            for users in USERS:
                grid(question, one, np.array([users]))
        taken["one_at_a_time"].append((time.perf_counter() - start) * len(found) / sampled)
    return {"deployments": len(found), "loads": len(USERS), **{name: round(statistics.median(t), 2) for name, t in taken.items()}}


def main() -> None:
    machine = {"processor": platform.processor() or platform.machine(), "python": platform.python_version(), "numpy": np.__version__}
    plenty = Service(pool=Pool(pace=PACE, rules=PLENTY))
    found = {
        "machine": machine, "requests": LOAD.requests, "users": 512, "tokens": [1024, 1024],
        "requests_a_second": {
            "leaping": rate(plenty, float("inf"), 5), "one_step_at_a_time": rate(plenty, 1, 3), "one_step_and_sequence_at_a_time": stepwise(),
            "two drafts, 1.4 accepted": rate(Service(pool=Pool(pace=PACE, rules=PLENTY), speculation=Speculation(drafts=2, accepted=1.4)), float("inf"), 3),
            "blocks for 8 in 10": rate(Service(pool=Pool(pace=PACE, rules=SCARCE)), float("inf"), 3),
            "four replicas": rate(Service(pool=Pool(pace=PACE, rules=PLENTY, replicas=4)), float("inf"), 3),
        },
        "closed_form_against_simulation_percent": accuracy(misses), "two_pools": accuracy(misses_apart), "closed_forms_a_second": closed_forms(),
        "search_seconds": search(),
    }  # fmt: skip
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
