"""hccl_test: sizes, times and algorithm bandwidths; the bus bandwidth follows by the factor of the operation."""

from __future__ import annotations

import re
from collections.abc import Mapping

from chipscale.bench.collectives import bus_factor
from chipscale.bench.record import Check, Measure, Setting
from chipscale.evidence import EvidenceError
from chipscale.importers.found import Found, Importer, device
from chipscale.units import GIBI, GIGA

TEST = "collectives"
HEADER = re.compile(r"^\s*(?:data_size|check_result|ave?g_time)\S*\s*\|.*alg_bandwidth", re.MULTILINE)
NAME = re.compile(r"\b(all_reduce|all_gather|reduce_scatter|alltoallv?|broadcast|reduce|scatter)_test\b")
RANKS = re.compile(r"\bmpirun\b[^\n]*?\s-n(?:p)?\s+(\d+)")
#: bandwidths are printed with five decimals, times with two
ROUNDING, DIGIT = 0.02, 2e-5


def recognises(text: str) -> bool:
    return HEADER.search(text) is not None


def read(text: str, told: Mapping[str, str]) -> Found:
    """Read the table, columns by their names; of a size that several ranks print, the slowest counts.

    Errors: operation or ranks that neither the text nor the user says.
    """
    head = HEADER.search(text)
    if head is None:
        return Found(test=TEST, measures=(), identity=device("npu"))
    operation = told.get("operation") or (m.group(1) if (m := NAME.search(text)) else "")
    ranks = told.get("ranks") or (m.group(1) if (m := RANKS.search(text)) else "")
    if not operation or not ranks.isdigit() or int(ranks) < 2:
        raise EvidenceError(
            "hccl_test prints neither the operation nor the number of ranks, and the command line is not in the text; "
            "add them, as in --set operation=all_reduce --set ranks=8"
        )
    n, factor = int(ranks), _factor(operation, int(ranks))
    line = text[head.start() :].splitlines()[0]
    columns = [re.sub(r"\(.*", "", c.strip().rstrip(":")) for c in line.split("|")]
    slowest: dict[int, tuple[float, str]] = {}
    for raw in text[head.start() :].splitlines()[1:]:
        cells = dict(zip(columns, (c.strip() for c in raw.split("|")), strict=False))
        size, micro = cells.get("data_size", ""), cells.get("aveg_time", cells.get("avg_time", ""))
        if size.isdigit() and re.fullmatch(r"[\d.]+", micro):
            _consistent(int(size), float(micro), float(cells.get("alg_bandwidth", "nan")))
            found = (float(micro), cells.get("check_result", "NULL"))
            slowest[int(size)] = max(slowest.get(int(size), found), found)
    measures, checks = [], []
    for size_bytes, (micro_s, result) in sorted(slowest.items()):
        settings: dict[str, Setting] = {"size": size_bytes, "ranks": n, "bus_factor": factor}
        measures.append(Measure(test=TEST, case=operation, unit="B/s", work=size_bytes * factor, samples=(micro_s * 1e-6,), settings=settings,
                                quantity="scaleup_bandwidth"))  # fmt: skip
        if result in ("success", "failed"):
            checks.append(
                Check(
                    test=TEST,
                    case=f"{operation} result",
                    value=float(result == "failed"),
                    limit=0.0,
                    unit="wrong results",
                    settings={"size": size_bytes, "ranks": n},
                )
            )
    command = re.search(r"^.*_test\s+-.*$", text, re.MULTILINE)
    return Found(test=TEST, measures=tuple(measures), checks=tuple(checks), identity=device("npu", name=told.get("device", ""), vendor="Huawei", count=n),
                 command=command.group(0).strip() if command else "")  # fmt: skip


def _factor(operation: str, n: int) -> float:
    try:
        return bus_factor(operation, n)
    except KeyError as problem:
        raise EvidenceError(
            f"operation {operation!r}: its bus bandwidth is not defined; choose all_reduce, all_gather, reduce_scatter, alltoall, broadcast or reduce"
        ) from problem


def _consistent(size: int, micro: float, algorithm: float) -> None:
    """Refuse a table whose bandwidths do not follow from its times; versions of the tool count in 10^9 or in 2^30 bytes."""
    follows = size / (micro * 1e-6) if micro > 0 else float("inf")
    if not any(abs(follows / giga - algorithm) <= ROUNDING * algorithm + DIGIT for giga in (GIGA, GIBI)):
        raise EvidenceError(
            f"{size:,} B: alg_bandwidth says {algorithm:g} GB/s, size and time give {follows / GIGA:.5f}; the table was changed: take the tool's own output"
        )


IMPORTER = Importer(
    kind="hccl_test",
    title="hccl_test",
    expects="its table, with a line 'data_size(Bytes): | aveg_time(us): | alg_bandwidth(GB/s): | check_result:'",
    recognises=recognises,
    read=read,
)
