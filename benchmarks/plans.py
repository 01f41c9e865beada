"""Plans per second: `python -m benchmarks.plans` prints JSON, a plain loop over single plans as the baseline in the same run."""

from __future__ import annotations

import json
import platform
import resource
import statistics
import time

import numpy as np

from chipscale.catalog import load
from chipscale.cost.calibration import constants, read_calibration
from chipscale.cost.hardware import hardware
from chipscale.evidence import Belief
from chipscale.facts.job import Job
from chipscale.plan import degrees
from chipscale.search import Evaluator, Problem, evaluator, most_tp, space
from chipscale.verdict.contest import precisions
from chipscale.verdict.world import context

JOBS = (
    Job(id="gpt3", title="GPT-3 175B on 64", phase="train", model="openai/gpt-3-175b", chips=64, length=2048, batch=1536, tokens=1.0),
    Job(id="dsv3", title="DeepSeek-V3 on 2,048", phase="train", model="deepseek-ai/DeepSeek-V3", chips=2048, length=4096, batch=15360, tokens=1.0),
)


def prepared(job: Job) -> Evaluator:
    catalog = load()
    chip = catalog.chip("nvidia-h100-sxm-80gb")
    assert not isinstance(chip, Belief)
    precision = precisions(job, chip)[0]
    k = constants(read_calibration(catalog).coefficients(), context(catalog, chip, job, precision))
    problem = Problem(model=catalog.model(job.model), length=float(job.length), batch=float(job.batch), precision=precision)
    return evaluator(problem, hardware(chip, catalog.cluster_for(chip), precision), k)


def measure(job: Job, repeats: int = 5) -> dict[str, object]:
    e = prepared(job)
    plans = space(e.problem.model, job.chips, job.batch, most_tp(e.hardware))
    e.evaluate(plans)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        e.evaluate(plans)
        seconds.append(time.perf_counter() - start)
    sample = [plans.row(int(i)) for i in np.linspace(0, len(plans) - 1, 100)]
    start = time.perf_counter()
    for plan in sample:
        e.step(degrees(plan))
        e.need(degrees(plan))
    one_by_one = len(sample) / (time.perf_counter() - start)
    rate = len(plans) / statistics.median(seconds)
    return {"job": job.title, "plans": len(plans), "median_s": statistics.median(seconds), "plans_per_s": round(rate), "one_by_one_plans_per_s": round(one_by_one),
            "times_faster": round(rate / one_by_one)}  # fmt: skip


def main() -> None:
    results = [measure(job) for job in JOBS]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    machine = {"processor": platform.processor() or platform.machine(), "python": platform.python_version(), "numpy": np.__version__}
    print(json.dumps({"machine": machine, "peak_memory_mib": round(peak), "memory_check_and_moe": True, "results": results}, indent=2))


if __name__ == "__main__":
    main()
