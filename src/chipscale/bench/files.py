"""Records as files: JSON, sealed when written, checked when read."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn

from pydantic import TypeAdapter, ValidationError

from chipscale.bench.record import FORMAT, SCHEMA, Check, Measure, Record
from chipscale.evidence import EvidenceError

#: a record of a full suite has about 2 MB
LARGEST = 256 * 2**20
_SHAPE = TypeAdapter(Record)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def seal(content: dict[str, Any]) -> str:
    """Return the sha256 of a record's content without its own field: JSON with sorted keys, no blanks, all but ASCII escaped."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")).hexdigest()


def _content(record: Record) -> dict[str, Any]:
    """Turn a record into JSON's values, each measure with its summary beside the samples."""
    content: dict[str, Any] = _SHAPE.dump_python(record, mode="json", by_alias=True)
    for trial, kept in zip(content["trials"], record.trials, strict=True):
        for table, measure in zip(trial["measures"], kept.measures, strict=True):
            table["summary"] = None if measure.summary is None else asdict(measure.summary)
        for table, check in zip(trial["checks"], kept.checks, strict=True):
            table["passed"] = check.passed
    return content


def sealed(record: Record) -> Record:
    """Return a record with its seal."""
    return replace(record, sha256=seal(_content(record)))


def text(record: Record) -> str:
    """Write a record as JSON text, sealed.

    Raises ValueError where a number is not finite.
    """
    content = _content(record)
    return json.dumps({**content, "sha256": seal(content)}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read(path: Path) -> Record:
    """Read a record and check its shape, its seal and that every summary follows from its samples.

    Raises EvidenceError that names file, field and remedy.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise EvidenceError(f"{path}: has {path.stat().st_size:,} bytes, more than any record; give a file that chipscale bench wrote")
        written = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise EvidenceError(
            f"{path}: cannot be read ({getattr(problem, 'strerror', None) or problem}); give a file that chipscale bench wrote"
        ) from problem
    return parsed(written, str(path))


def parsed(written: str, name: str) -> Record:
    """Read a record from its text; `name` stands in messages."""
    try:
        content = json.loads(written, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as problem:
        raise EvidenceError(
            f"{name}: is no whole JSON ({problem}); it was cut short or is another file: copy it again from where it was measured"
        ) from problem
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise EvidenceError(f"{name}: field format: is not {FORMAT!r}; this is not a record of chipscale bench")
    _versioned(content, name)
    if content.get("sha256") != (right := seal(content)):
        said = str(content.get("sha256"))[:12] or "nothing"
        raise EvidenceError(
            f"{name}: field sha256: says {said}, the content has {right[:12]}; it was changed after it was measured: take the original file"
        )
    return _checked(content, name)


def _versioned(content: dict[str, Any], name: str) -> None:
    """Refuse a record of another schema, with what helps."""
    version = content.get("schema_version")
    if version == SCHEMA and not isinstance(version, bool):
        return
    if isinstance(version, int) and version > SCHEMA:
        raise EvidenceError(f"{name}: field schema_version: is {version}, this chipscale reads {SCHEMA}; install a newer chipscale")
    raise EvidenceError(f"{name}: field schema_version: is {version!r}, no released chipscale wrote that; measure again with this one")


def _checked(content: dict[str, Any], name: str) -> Record:
    """Check the shape, then that what was derived follows from what was measured."""
    derived = [
        (f"trials.{i}.{group}.{j}.{field}", table.pop(field, "missing"))
        for i, trial in _tables(content.get("trials"))
        for group, field in (("measures", "summary"), ("checks", "passed"))
        for j, table in _tables(trial.get(group))
    ]
    try:
        record = _SHAPE.validate_json(json.dumps(content), strict=True)
    except ValidationError as problem:
        bad = "; ".join(f"field {'.'.join(map(str, e['loc']))}: {e['msg'].lower()}" for e in problem.errors()[:4])
        raise EvidenceError(f"{name}: {bad}; docs/bench.md lists the fields") from problem
    held: list[Measure | Check] = []
    for trial in record.trials:
        held += [*trial.measures, *trial.checks]
    for (field, said), found in zip(derived, held, strict=True):
        if not _follows(said, found, f"{name}: field {field.rpartition('.')[0]}"):
            raise EvidenceError(f"{name}: field {field}: does not follow from what was measured; take the original file")
    return record


def _tables(value: object) -> list[tuple[int, dict[str, Any]]]:
    """Return the objects in an array with their places, none where it is no array."""
    return [(i, v) for i, v in enumerate(value) if isinstance(v, dict)] if isinstance(value, list) else []


def _follows(said: object, found: Measure | Check, where: str) -> bool:
    """Say whether what stands in the file as derived is what its samples give."""
    if isinstance(found, Check):
        return said is found.passed
    _possible(found, where)
    return _same(said, None if found.summary is None else asdict(found.summary))


def _same(said: object, right: dict[str, float] | None) -> bool:
    if right is None or not isinstance(said, dict) or said.keys() != right.keys():
        return said is None and right is None
    return all(isinstance(said[k], int | float) and math.isclose(said[k], v, rel_tol=1e-9, abs_tol=1e-300) for k, v in right.items())


def _possible(measure: Measure, where: str) -> None:
    """Refuse samples that no clock can have given, and those above the bound that were not set apart."""
    if any(not math.isfinite(s) or s < 0 or (measure.work > 0 and s == 0) for s in (*measure.samples, *measure.flagged)):
        raise EvidenceError(f"{where}.samples: seconds and values are finite and positive; take the original file")
    if measure.bound is not None and any(v > measure.bound for v in measure.values()):
        raise EvidenceError(
            f"{where}.samples: one lies above the bound {measure.bound:g} {measure.unit} ({measure.bound_source}); it belongs in flagged"
        )
