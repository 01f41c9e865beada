"""Files of measured operators: which reader a file has, and the shipped rows."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

from chipscale.catalog import Catalog
from chipscale.cost.kernels.form import Form
from chipscale.evidence import EvidenceError
from chipscale.operators.fit import Table
from chipscale.operators.reading import Chips, Reading, Row, assembled, numbers_of, read_csv

#: the operators that a file may hold, by the start of its name; each has a reader of the same name
FILES = ("gemm", "attention_prefill", "attention_decode", "mla_prefill", "mla_decode", "moe", "collective_nodes", "collective",
         "custom_allreduce", "expert_alltoall", "elementwise", "ascend_910c_die_profiled")  # fmt: skip
SHIPPED = "measurements/operators"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measured call: its key, the file's operator, labels to group by, and the reading or the reason why there is none."""

    key: str
    operator: str
    labels: Mapping[str, str]
    seconds: float
    apart: str
    row: Row
    reading: Reading | None = None
    reason: str = ""


def operator_of(path: Path) -> str:
    """Return which operators a file holds: its name says it."""
    for name in FILES:
        if path.stem.startswith(name):
            return name
    raise EvidenceError(f"{path}: the name does not say which operators it holds; let it start with one of {', '.join(FILES)}")


def files_of(path: Path) -> list[Path]:
    """List the operator files of a folder, or the file itself."""
    if not path.is_dir():
        return [path]
    found = [p for p in sorted(path.glob("*.csv")) if p.stem.startswith(FILES)]
    if not found:
        raise EvidenceError(f"{path}: holds no file of measured operators; name one {', '.join(FILES)} with the ending .csv")
    return found


def shipped(catalog: Catalog) -> list[Path]:
    """List the shipped files."""
    return files_of(next(folder / SHIPPED for folder in reversed(catalog.folders) if (folder / SHIPPED).is_dir()))


@cache
def _reader(operator: str) -> Callable[[Row], Reading]:
    read: Callable[[Row], Reading] = import_module(f"chipscale.operators.readers.{operator}").read
    return read


def held_out(catalog: Catalog, rows: str) -> dict[str, str]:
    """Return the chips whose measurements of a kind (operators, training) are kept for tests, each with the reason."""
    listed = tomllib.loads(catalog.text("measurements/held_out.toml"))
    return {chip: entry["reason"] for chip, entry in listed.items() if rows in entry["rows"]}


def load(paths: Sequence[Path], catalog: Catalog) -> list[Sample]:
    """Read and understand files; a row that has no form carries its reason, a broken one is an error."""
    samples: list[Sample] = []
    known: Chips = {}
    for path in paths:
        operator = operator_of(path)
        rows, seen = read_csv(path), set()
        for row in rows:
            line = row.get("row") or row["_line"]
            if line in seen:
                raise EvidenceError(f"{path}: row {line} stands twice; give each row its own key")
            seen.add(line)
            samples.append(understood(row, line if len(paths) == 1 else f"{path.name}:{line}", operator, path, catalog, known))
    return samples


def understood(row: Row, key: str, operator: str, path: Path, catalog: Catalog, known: Chips) -> Sample:
    """Understand one row by its operator's reader; a row that has no form carries its reason."""
    try:
        reading: Reading = _reader(operator)(row)
        numbers_of(reading, row, catalog, known)
    except KeyError as problem:
        raise EvidenceError(f"{path}: column {problem.args[0]} is missing; {operator} rows need it") from problem
    except EvidenceError as problem:
        if "no form is known" not in str(problem) and " has no " not in str(problem):
            raise EvidenceError(f"{path}: {problem}") from problem
        seconds = float("nan")
        return Sample(
            key=key, operator=operator, labels=_labels(row, operator), seconds=seconds, apart=row.get("apart", ""), row=row, reason=str(problem)
        )
    return Sample(
        key=key, operator=operator, labels=_labels(row, operator), seconds=reading.seconds, apart=row.get("apart", ""), row=row, reading=reading
    )


def _labels(row: Row, operator: str) -> Mapping[str, str]:
    kind = row.get("operator") or row.get("collective") or row.get("phase") or ""
    precision = row.get("dtype", "") + (f"/kv {row['kv_dtype']}" if row.get("kv_dtype") else "")
    return {"operator": f"{operator}: {kind}" if kind and operator != "moe" else operator, "chip": row.get("chip", ""), "precision": precision,
            "engine": row.get("engine", ""), "file": operator,
            "cell": "|".join((operator, row.get("chip", ""), precision, row.get("engine", ""), row.get("backend", "") or row.get("kernel", ""), kind))}  # fmt: skip


def tables(samples: Sequence[Sample], catalog: Catalog) -> dict[str, tuple[Form, list[int], Table]]:
    """Put samples into one table a form; the list says which sample each row is."""
    places: dict[str, list[int]] = {}
    known: Chips = {}
    for i, s in enumerate(samples):
        if s.reading:
            places.setdefault(s.reading.form.id, []).append(i)
    found = {}
    for form, where in places.items():
        readings = [r for i in where if (r := samples[i].reading)]
        found[form] = (readings[0].form, where, assembled(readings, [samples[i].row for i in where], catalog, known))
    return found
