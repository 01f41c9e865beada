"""The table of docs/accuracy-operators.md, from what `chipscale validate operators` wrote about the shipped files.

Run: make accuracy-operators (about 20 minutes), or python -m benchmarks.operator_accuracy DIR, where DIR holds FILE.chip.json, FILE.engine.json and FILE.points.json.
"""

from __future__ import annotations

import csv
import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from scipy.stats import binom

from chipscale.catalog import load
from chipscale.operators.corpus import shipped

Row = Mapping[str, str]
MOVING = ("all_gather", "reduce_scatter", "all_reduce")
PRODUCTS = ("gemm", "batch-matmul")


def of_die(row: Row, kind: str) -> bool:
    """Say whether a row of the Ascend die is of a kind."""
    name = row["operator"]
    found = "HCCL" if name in MOVING else "GEMM" if name in PRODUCTS else "attention" if name.startswith("attention") else "vector"
    return found == kind


#: line of the table: file, which of its rows, targets with chips, engines left out and after 12 points (fractions)
LINES: tuple[tuple[str, str, Callable[[Row], bool], tuple[float | None, float | None, float | None]], ...] = (
    ("GEMM bf16", "gemm", lambda r: r["dtype"] == "bf16", (0.12, 0.10, 0.09)),
    ("GEMM all precisions", "gemm", lambda _: True, (0.15, 0.17, 0.10)),
    ("attention prefill", "attention_prefill", lambda _: True, (0.13, 0.20, 0.11)),
    ("attention decode", "attention_decode", lambda _: True, (0.17, 0.20, 0.12)),
    ("MLA prefill", "mla_prefill", lambda _: True, (0.09, 0.16, 0.08)),
    ("MLA decode", "mla_decode", lambda _: True, (0.12, 0.14, 0.07)),
    ("MoE", "moe", lambda _: True, (0.20, 0.28, 0.15)),
    ("collectives on NVLink", "collective", lambda _: True, (0.10, 0.06, 0.06)),
    ("custom all-reduce (graph)", "custom_allreduce", lambda r: "eager" not in r["kernel"].lower(), (0.18, None, 0.08)),
    ("custom all-reduce (eager: host time)", "custom_allreduce", lambda r: "eager" in r["kernel"].lower(), (None, None, None)),
    ("expert all-to-all", "expert_alltoall", lambda _: True, (0.22, None, 0.08)),
    ("element-wise", "elementwise", lambda _: True, (0.20, None, 0.12)),
    ("Ascend 910C die: GEMM", "ascend_910c_die_profiled", lambda r: of_die(r, "GEMM"), (0.15, None, 0.08)),
    ("Ascend 910C die: HCCL", "ascend_910c_die_profiled", lambda r: of_die(r, "HCCL"), (0.15, None, 0.10)),
    ("Ascend 910C die: attention", "ascend_910c_die_profiled", lambda r: of_die(r, "attention"), (0.25, None, 0.12)),
    ("Ascend 910C die: vector", "ascend_910c_die_profiled", lambda r: of_die(r, "vector"), (0.35, None, 0.20)),
)
CASES = ("chip", "engine", "points")


def cell_of(row: Row) -> tuple[str, ...]:
    return tuple(row.get(c, "") for c in ("chip", "dtype", "kv_dtype", "engine", "backend", "kernel", "collective", "operator", "phase"))


def judged(file: str, case: str, wanted: Callable[[Row], bool], rows: Mapping[str, Row], folder: Path) -> list[tuple[Row, float, bool]]:
    """Return the rows that are judged: each with its absolute error and whether its interval holds the measurement."""
    found = json.loads((folder / f"{file}.{case}.json").read_text())
    out = []
    for r in found["rows"]:
        row = rows[r["row"]]
        if r["error"] is not None and math.isfinite(r["error"]) and not row.get("apart") and not r["apart"] and wanted(row):
            out.append((row, abs(r["error"]), r["low_s"] <= r["measured_s"] <= r["high_s"]))
    return out


def figures(scored: list[tuple[Row, float, bool]], target: float | None) -> str:
    """Write median error, mean of cell medians and coverage; marked where a target or the band is missed."""
    if not scored:
        return "–"
    cells: dict[tuple[str, ...], list[float]] = {}
    for row, error, _ in scored:
        cells.setdefault(cell_of(row), []).append(error)
    median, cell = statistics.median(e for _, e, _ in scored), statistics.mean(statistics.median(v) for v in cells.values())
    inside, n = sum(ok for _, _, ok in scored), len(scored)
    low, high = binom.ppf([0.025, 0.975], n, 0.8)
    mark = "" if target is None else f" ({100 * target:.0f}{'' if median <= target else ', missed'})"
    band = "" if n < 30 or low <= inside <= high else "*"
    return f"{100 * median:.1f}{mark}; {100 * cell:.1f}{'' if cell <= 1.5 * median else '†'}; {100 * inside / n:.0f}{band}"


def main() -> None:
    """Print the table as Markdown."""
    folder = Path(sys.argv[1])
    paths = {p.stem: p for p in shipped(load(None))}
    print("| operator | rows | chips left out | engines left out | 12 points of each cell |\n|---|--:|--:|--:|--:|")
    for name, file, wanted, targets in LINES:
        with paths[file].open() as handle:
            rows = {str(i): row for i, row in enumerate(csv.DictReader(handle), start=1)}
        scored = [judged(file, case, wanted, rows, folder) for case in CASES]
        print(f"| {name} | {len(scored[0]):,} | " + " | ".join(figures(s, t) for s, t in zip(scored, targets, strict=True)) + " |", flush=True)


if __name__ == "__main__":
    main()
