"""Operator costs a second: one kernel's times on arrays, beside the same formula called one by one.

Run: python -m benchmarks.operators
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from chipscale.catalog import load
from chipscale.cost.kernels.costing import Tags, costing
from chipscale.cost.kernels.gemm import GEMM, Gemm
from chipscale.cost.silicon import silicon
from chipscale.facts.chip import Chip
from chipscale.operators.calibration import read

ROWS, BLOCK, SINGLE = 2**20, 2**14, 2_000


def median_seconds(run: Callable[[], object]) -> float:
    """Return the median of five runs."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Print JSON: GEMM costs a second on arrays (one and two threads) and one by one."""
    catalog = load(None)
    chip = catalog.chip("h100")
    assert isinstance(chip, Chip)
    numbers = silicon(chip, catalog, "bf16")
    tags = Tags(precision="bf16", family="linear:bf16", kernel="vllm/torch.nn.functional.linear:bf16:bf16", arch=chip.family, chip=chip.id, engine="")
    ready = costing(GEMM, read(catalog, "gemm").found, tags)
    m, n, k = (2.0 ** np.random.default_rng(0).uniform(0, 14, (3, ROWS))).round()
    blocks = [slice(i, i + BLOCK) for i in range(0, ROWS, BLOCK)]

    def cost(part: slice) -> float:
        call = Gemm(m=m[part], n=n[part], k=k[part], a=2.0, b=2.0, out=2.0, quantised=0.0)
        return float(np.sum(ready.seconds(call, numbers)))

    def threads() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(cost, blocks))

    def singly() -> None:
        for i in range(SINGLE):
            call = Gemm(m=float(m[i]), n=float(n[i]), k=float(k[i]), a=2.0, b=2.0, out=2.0, quantised=0.0)
            ready.seconds(call, numbers)

    one, two, single = median_seconds(lambda: [cost(b) for b in blocks]), median_seconds(threads), median_seconds(singly)
    print(json.dumps({"benchmark": "GEMM costs a second", "machine": platform.processor() or platform.machine(), "python": platform.python_version(),
                      "numpy": np.__version__, "arrays_one_thread_per_s": ROWS / one, "arrays_two_threads_per_s": ROWS / two,
                      "one_by_one_per_s": SINGLE / single, "scalar_cost_us": single / SINGLE * 1e6}, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
