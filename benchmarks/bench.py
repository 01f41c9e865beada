"""Does `chipscale bench` measure what others measure? `python -m benchmarks.bench` prints JSON: products beside torch.utils.benchmark, copies beside numpy.

Both sides take turns in one process on one thread, so that other work on the machine meets both alike; the ratio is the median over the turns.
Needs the extra [bench].
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np

from chipscale.bench.device import opened
from chipscale.bench.machine import identity
from chipscale.bench.matmul import kernels as products
from chipscale.bench.matmul import made
from chipscale.bench.memory import faster
from chipscale.bench.memory import kernels as copies
from chipscale.bench.physics import bounds
from chipscale.bench.runner import ENVIRONMENT
from chipscale.bench.statistics import quantile
from chipscale.bench.timing import Bench, timed

TURNS, SECONDS = 41, 0.3
SHAPES = ((512, 512, 512), (1024, 1024, 1024), (2048, 512, 1024))
ARRAY = 2**26


def median(samples: tuple[float, ...]) -> float:
    return quantile(sorted(samples), 0.5)


def turns(ours: Callable[[], float], theirs: Callable[[], float]) -> dict[str, float]:
    """Let both measure in turn; return the medians of seconds a call and of the ratio."""
    pairs = []
    for turn in range(TURNS):
        first, second = (ours, theirs) if turn % 2 else (theirs, ours)
        seconds = {first: first(), second: second()}
        pairs.append((seconds[ours], seconds[theirs]))
    ratio = statistics.median(a / b for a, b in pairs)
    return {"ours_s": statistics.median(a for a, _ in pairs), "theirs_s": statistics.median(b for _, b in pairs), "ratio": ratio, "turns": TURNS}


def matmul(bench: Bench, shape: tuple[int, int, int]) -> dict[str, object]:
    import torch
    from torch.utils.benchmark import Timer

    m, n, k = shape
    calls = made(bench, products("cpu")["fp32"], shape)
    timer = Timer("torch.mm(a, b)", globals={"torch": torch, "a": torch.randn(m, k), "b": torch.randn(k, n)}, num_threads=1)
    found = turns(lambda: median(timed(calls, bench.device, SECONDS).samples), lambda: timer.blocked_autorange(min_run_time=SECONDS * 0.8).median)
    return {"m": m, "n": n, "k": k, "gflops": 2 * m * n * k / found["ours_s"] / 1e9, **found, "within_5_percent": abs(found["ratio"] - 1) <= 0.05}


def memory(bench: Bench, name: str) -> dict[str, object]:
    """Compare a kernel of BabelStream through PyTorch with the same in numpy, both into arrays that exist."""
    import torch

    count = ARRAY // 8
    a, b, c = (np.full(count, v) for v in (0.1, 0.2, 0.0))
    x, y, z = (torch.full((count,), v, dtype=torch.float64) for v in (0.1, 0.2, 0.0))
    kernel = faster(bench, copies()[name], [(x, y, z)], SECONDS)
    with_numpy: dict[str, Callable[[], object]] = {
        "copy": lambda: np.copyto(c, a),
        "mul": lambda: np.multiply(c, 0.4, out=b),
        "add": lambda: np.add(a, b, out=c),
    }

    def theirs() -> float:
        spent, start = [], time.perf_counter()
        while time.perf_counter() - start < SECONDS * 0.8:
            once = time.perf_counter()
            with_numpy[name]()
            spent.append(time.perf_counter() - once)
        return statistics.median(spent)

    found = turns(lambda: median(timed([lambda: kernel.call(x, y, z)], bench.device, SECONDS).samples), theirs)
    return {
        "kernel": name,
        "array_bytes": ARRAY,
        "gb_per_s": kernel.arrays * ARRAY / found["ours_s"] / 1e9,
        **found,
        "within_10_percent": abs(found["ratio"] - 1) <= 0.10,
    }


def main() -> None:
    os.environ.update({**ENVIRONMENT, **os.environ})  # as a worker of the suite, before PyTorch is imported
    import torch

    torch.set_num_threads(1)
    device = opened("cpu")
    known = identity(device)
    bench = Bench(device=device, cache_bytes=known.cache_bytes or 2**25, memory_bytes=known.memory_bytes, bounds=bounds(known), budget=SECONDS)
    results = {"matmul": [matmul(bench, s) for s in SHAPES], "memory": [memory(bench, n) for n in ("copy", "mul", "add")]}
    machine = {"processor": known.name, "python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__, "threads": 1}
    print(json.dumps({"benchmark": "bench beside others", "machine": machine, **results}, indent=1))


if __name__ == "__main__":
    main()
