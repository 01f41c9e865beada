"""Any result as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path


def jsonable(value: object) -> object:
    """Turn a result into what JSON knows: dataclasses and mappings to objects, sequences to arrays, NaN and infinity to null."""
    if value is None or (isinstance(value, bool | int | str) and not isinstance(value, Enum)):
        return value
    if isinstance(value, Enum):
        return jsonable(value.value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: jsonable(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(jsonable(k)): jsonable(v) for k, v in value.items()}
    if isinstance(value, Path):
        return str(value)
    return _other(value)


def _other(value: object) -> object:
    plain = getattr(value, "tolist", None)  # numpy numbers and arrays
    if callable(plain):
        return jsonable(plain())
    if isinstance(value, set | frozenset):
        return sorted((jsonable(v) for v in value), key=str)
    if isinstance(value, Iterable):
        return [jsonable(v) for v in value]
    raise TypeError(f"{type(value).__name__} has no JSON form")


def to_json(value: object) -> str:
    """Write a result as JSON, keys in the order of the fields.

    >>> from chipscale.verdict.nouns import Interval
    >>> to_json(Interval(median=1.0, low=0.5, high=float("nan"))).split()
    ['{', '"median":', '1.0,', '"low":', '0.5,', '"high":', 'null', '}']
    """
    return json.dumps(jsonable(value), indent=2, ensure_ascii=False, allow_nan=False)
