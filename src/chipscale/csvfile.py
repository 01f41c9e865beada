"""CSV files: lines in, rows of text by column out, and the numbers in them; what is broken is named by file, line or row, and column."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from chipscale.evidence import EvidenceError

Row = Mapping[str, str]
#: the least number above 0
ABOVE_ZERO = math.ulp(0.0)


def read(path: Path, needed: Sequence[str] = (), documented: str = "docs/measurements.md") -> list[Row]:
    """Read a CSV; a broken line, a doubled or a missing column is an error that names it. `_line` counts the lines of data."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        raise EvidenceError(f"{path}: cannot be read ({problem}); give a CSV file in UTF-8") from problem
    try:
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line]
    except csv.Error as problem:
        raise EvidenceError(f"{path}: malformed CSV ({problem}); quote fields that hold commas or quotes") from problem
    if len(lines) < 2:
        raise EvidenceError(f"{path}: holds no rows; give a header line and at least one row")
    header = [name.strip() for name in lines[0]]
    twice = sorted({c for c in header if c and header.count(c) > 1})
    if twice:
        raise EvidenceError(f"{path}: column {', '.join(twice)} stands twice in the header; remove one")
    missing = [c for c in needed if c not in header]
    if missing:
        raise EvidenceError(f"{path}: column {', '.join(missing)} is missing; {documented} lists the columns")
    rows: list[Row] = []
    for count, line in enumerate(lines[1:], start=1):
        if len(line) != len(header):
            raise EvidenceError(f"{path}, data line {count}: {len(line)} fields under {len(header)} columns; quote fields that hold commas")
        rows.append({**dict(zip(header, (f.strip() for f in line), strict=True)), "_line": str(count)})
    return rows


def name_of(row: Row) -> str:
    """Name a row for messages: by its column `row`, else by its line.

    >>> name_of({"row": "G12", "_line": "3"}), name_of({"_line": "3"})
    ('row G12', 'row 3')
    """
    return f"row {row.get('row') or row.get('_line') or '?'}"


def text(row: Row, column: str) -> str:
    """Return a field, empty where it is blank or not there."""
    return (row.get(column) or "").strip()


def number(row: Row, column: str, *, least: float, below: float, wanted: str, remedy: str = "correct or blank it") -> float | None:
    """Return a number from `least` up to `below`, None where the field is blank; what is not `wanted` is an error.

    >>> number({"tp": "8", "pp": ""}, "tp", least=1.0, below=1e9, wanted="a degree")
    8.0
    """
    said = text(row, column)
    if not said:
        return None
    try:
        value = float(said)
    except ValueError:
        value = math.nan
    if not least <= value < below:
        raise EvidenceError(f"{name_of(row)}, column {column}: {said[:40]!r} is not {wanted}; {remedy}")
    return value


def whole(row: Row, column: str, value: float | None) -> int | None:
    """Return the number of a column as a whole one, None where it is None."""
    if value is not None and value != int(value):
        raise EvidenceError(f"{name_of(row)}, column {column}: {value:g} is not a whole number; correct or blank it")
    return None if value is None else int(value)
