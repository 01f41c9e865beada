"""Traces: files of recorded requests, CSV or JSON lines, read line by line; what is broken is named by file, line and field."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from chipscale.evidence import EvidenceError
from chipscale.serving.load import Trace

#: the fields of a request: seconds, tokens of the prompt, tokens of the answer
FIELDS = ("arrival_s", "input_tokens", "output_tokens")
#: more tokens than any request has
MOST = 1e9


def read_trace(path: Path) -> Trace:
    """Read a CSV with the columns `FIELDS`, or a file `.jsonl` with an object of these names on each line; arrivals count from the first.

    Raises `EvidenceError` with file, line, field and remedy: a missing or doubled field, no number, a part of a token, no token, a time before that of the line above.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        raise EvidenceError(f"{path}: cannot be read ({problem}); give a trace in UTF-8") from problem
    found: list[tuple[float, int, int]] = []
    for line, entry in _objects(path, text) if path.suffix == ".jsonl" else _rows(path, text):
        place = f"{path}, line {line}"
        arrival, *tokens = (_number(place, name, entry.get(name)) for name in FIELDS)
        for name, value in zip(FIELDS[1:], tokens, strict=True):
            if not 1 <= value < MOST or value != int(value):
                raise EvidenceError(f"{place}, {name}: {value:g} is not a whole number of tokens from 1; correct or remove the line")
        if found and arrival < found[-1][0]:
            raise EvidenceError(f"{place}, arrival_s: {arrival:g} lies before {found[-1][0]:g} of the request above; sort the trace by arrival")
        found.append((arrival, int(tokens[0]), int(tokens[1])))
    if not found:
        raise EvidenceError(f"{path}: holds no requests; give lines with {', '.join(FIELDS)}")
    arrival_, input_, output = (np.array(column) for column in zip(*found, strict=True))
    return Trace(arrival=arrival_ - arrival_[0], input=input_, output=output)


def _rows(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yield the lines of a CSV with their numbers."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    try:
        for line in reader:
            if not line:
                continue
            if not header:
                header = [name.strip() for name in line]
                for name in FIELDS:
                    if header.count(name) != 1:
                        raise EvidenceError(
                            f"{path}, line {reader.line_num}: column {name} stands {header.count(name)} times in the header; give it once"
                        )
            elif len(line) != len(header):
                raise EvidenceError(
                    f"{path}, line {reader.line_num}: {len(line)} fields under {len(header)} columns; complete the line, quote fields that hold commas"
                )
            else:
                yield reader.line_num, dict(zip(header, line, strict=True))
    except csv.Error as problem:
        raise EvidenceError(f"{path}, line {reader.line_num}: malformed CSV ({problem}); quote fields that hold commas or quotes") from problem


def _objects(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yield the objects of a file of JSON lines with their line numbers."""
    for count, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as problem:
            raise EvidenceError(f"{path}, line {count}: malformed JSON ({problem}); give one object a line") from problem
        if not isinstance(entry, dict):
            raise EvidenceError(f"{path}, line {count}: not an object; give one object with {', '.join(FIELDS)} a line")
        yield count, entry


def _number(place: str, name: str, said: object) -> float:
    """Return a field as a finite number of 0 or more."""
    try:
        value = float(said) if isinstance(said, str | int | float) and not isinstance(said, bool) else math.nan
    except (ValueError, OverflowError):
        value = math.nan
    if not 0.0 <= value < math.inf:
        raise EvidenceError(f"{place}, {name}: {str(said)[:40]!r} is not a number of 0 or more; correct or remove the line")
    return value
