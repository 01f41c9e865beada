"""nccl-tests and rccl-tests: the table of one collective by size."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from chipscale.bench.collectives import bus_factor
from chipscale.bench.record import Check, Measure, Setting
from chipscale.evidence import EvidenceError
from chipscale.importers.found import Found, Importer, device

TEST = "collectives"
HEADER = re.compile(r"^#\s+size\s+count\b.*\btime\b.*\bbusbw\b.*$", re.MULTILINE)
NAME = re.compile(r"\b(all_reduce|all_gather|reduce_scatter|alltoallv?|broadcast|reduce|sendrecv|gather|scatter|hypercube)_perf\b")
RANK = re.compile(r"^#\s+Rank\s+\d+\b.*?\bon\s+(\S+)\s+device\s+\d+\s+\[[^\]]*\]\s+(.+?)\s*$", re.MULTILINE)
#: printed bandwidths are rounded to two decimals, times to four digits
ROUNDING, DIGIT = 0.01, 0.011


def recognises(text: str) -> bool:
    return HEADER.search(text) is not None


def read(text: str, told: Mapping[str, str]) -> Found:
    """Read the table; bandwidths follow from sizes and times, and must agree with those printed."""
    head = HEADER.search(text)
    if head is None:
        return Found(test=TEST, measures=(), identity=device())
    named = told.get("operation") or (found.group(1) if (found := NAME.search(text)) else "")
    ranks = RANK.findall(text)
    n = int(told.get("ranks", len(ranks)) or 0)
    hosts = {host for host, _ in ranks}
    columns = head.group(0).lstrip("#").split()
    measures: list[Measure] = []
    checks: list[Check] = []
    for row in _rows(text[head.end() :], columns):
        for measure, check in _measured(row, columns, named or "collective", n, len(hosts) <= 1):
            measures.append(measure)
            checks += [check] if check else []
    version = re.search(r"(?:nccl-tests|rccl-tests) version (\S+)", text)
    library = re.search(r"NCCL version (\S+)", text) or re.search(r"nccl-library=(\S+)", text) or re.search(r"rccl-library=(\S+)", text)
    versions = {k: v.group(1) for k, v in (("nccl-tests", version), ("nccl", library)) if v}
    name = ranks[0][1] if ranks else ""
    command = re.search(r"^.*\S*" + NAME.pattern + r"\s+-.*$", text, re.MULTILINE)
    return Found(test=TEST, measures=tuple(measures), checks=tuple(checks), identity=device(name=name, count=max(n, 1)), nodes=len(hosts),
                 versions=versions, command=command.group(0).strip() if command else "", complete="Avg bus bandwidth" in text)  # fmt: skip


def _rows(text: str, columns: list[str]) -> Iterator[list[str]]:
    for line in text.splitlines():
        fields = line.split()
        if fields and fields[0].isdigit() and len(fields) >= columns.index("busbw") + 1:
            yield fields


def _measured(row: list[str], columns: list[str], operation: str, n: int, inside: bool) -> Iterator[tuple[Measure, Check | None]]:
    """Yield what a row says out of place, then in place."""
    size, count = int(row[0]), int(row[1])
    if size == 0:
        return
    starts = [i for i, c in enumerate(columns) if c == "time"]
    labels: dict[str, Setting] = {c: row[columns.index(c)] for c in ("type", "redop", "root") if c in columns and columns.index(c) < starts[0]}
    for start, place in zip(starts, ("", ", in place"), strict=False):
        cells = row[start : start + 4]
        if len(cells) < 3:
            continue
        micro, algorithm, bus = (float(c) for c in cells[:3])
        factor = _factor(operation, n, algorithm, bus)
        _consistent(size, micro, factor, bus, f"{operation} of {size:,} B")
        settings: dict[str, Setting] = {"size": size, "count": count, **labels, "ranks": n, "bus_factor": factor}
        measure = Measure(test=TEST, case=operation + place, unit="B/s", work=size * factor, samples=(micro * 1e-6,), settings=settings,
                          quantity="scaleup_bandwidth" if inside else "")  # fmt: skip
        wrong = cells[3] if len(cells) > 3 else "N/A"
        check = None
        if re.fullmatch(r"[\d.eE+-]+", wrong):
            check = Check(test=TEST, case=f"{operation}{place} result", value=float(wrong), limit=0.0 if wrong.isdigit() else 1e-2, unit="wrong elements",
                          settings={"size": size, "ranks": n})  # fmt: skip
        yield measure, check


def _factor(operation: str, n: int, algorithm: float, bus: float) -> float:
    """Return the factor of the bus bandwidth, by operation and ranks, else by the two bandwidths printed."""
    if n > 1:
        try:
            return bus_factor(operation, n)
        except KeyError:
            pass
    return bus / algorithm if algorithm > 0 else 1.0


def _consistent(size: int, micro: float, factor: float, bus: float, where: str) -> None:
    """Refuse a table whose bandwidths do not follow from its times: columns moved, or somebody changed them."""
    follows = size * factor / (micro * 1e-6) / 1e9 if micro > 0 else math.inf
    if abs(follows - bus) > ROUNDING * bus + DIGIT:
        raise EvidenceError(
            f"{where}: busbw says {bus:g} GB/s, size and time give {follows:.2f}; ranks or operation are others (--set ranks=N, --set operation=NAME), or the table was changed"
        )


IMPORTER = Importer(
    kind="nccl-tests",
    title="nccl-tests",
    expects="its table, with a line '#  size  count  type  redop  root  time  algbw  busbw  #wrong'",
    recognises=recognises,
    read=read,
)
