"""Rows of collective.csv: columns chip, collective, chips, bytes (the full vector), dtype, engine, seconds."""

from __future__ import annotations

from chipscale.cost.kernels.collective import BUS, COLLECTIVE, collective_of
from chipscale.evidence import EvidenceError
from chipscale.operators.reading import Reading, Row, name_of, number, seconds_of

DTYPES = ("fp64", "fp32", "fp16", "bf16", "half", "float16", "bfloat16", "float32", "fp8", "int8", "uint8", "int32", "int64")
#: collectives that add: floats and integers take other paths in a switch
ADDING = ("all_reduce", "reduce_scatter")


def kind_of(row: Row) -> str:
    """Return the row's kind of collective."""
    kind = row["collective"]
    if kind not in BUS:
        raise EvidenceError(f"{name_of(row)}, column collective: {kind!r} is unknown; use one of {', '.join(BUS)}")
    return kind


def arithmetic(kind: str, dtype: str) -> str:
    """Return what a collective does with its elements: it adds floats or integers, or only moves them."""
    return "moved" if kind not in ADDING else "integer" if dtype.startswith(("int", "uint")) else "float"


def read(row: Row) -> Reading:
    """Understand one row."""
    kind, ranks = kind_of(row), number(row, "chips", 2.0)
    if row["dtype"] not in DTYPES:
        raise EvidenceError(f"{name_of(row)}, column dtype: {row['dtype']!r} is unknown; use one of {', '.join(DTYPES)}")
    call = collective_of(kind, ranks, ranks, number(row, "bytes"))
    kernel = f"{kind}:{arithmetic(kind, row['dtype'])}"
    return Reading(form=COLLECTIVE, call=call, precision="", engine=row["engine"], kernel=kernel, seconds=seconds_of(row))
