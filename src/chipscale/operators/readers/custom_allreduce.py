"""Rows of custom_allreduce.csv: columns chip, chips, elements, dtype, engine, kernel, seconds."""

from __future__ import annotations

from chipscale.cost.kernels.allreduce import ALLREDUCE, AllReduce
from chipscale.evidence import EvidenceError
from chipscale.operators.reading import Reading, Row, name_of, number, seconds_of

#: bytes an element
WIDTH = {"bf16": 2.0, "fp16": 2.0, "half": 2.0, "float16": 2.0, "bfloat16": 2.0, "fp32": 4.0, "fp8": 1.0, "int8": 1.0}


def read(row: Row) -> Reading:
    """Understand one row."""
    dtype = row["dtype"]
    if dtype not in WIDTH:
        raise EvidenceError(f"{name_of(row)}, column dtype: {dtype!r} is unknown; use one of {', '.join(WIDTH)}")
    if not row["kernel"]:
        raise EvidenceError(f"{name_of(row)}, column kernel: is blank; give the kernel's name, with graph or eager where both exist")
    call = AllReduce(ranks=number(row, "chips", 2.0), bytes=number(row, "elements") * WIDTH[dtype])
    return Reading(form=ALLREDUCE, call=call, precision="", engine=row["engine"], kernel=row["kernel"], seconds=seconds_of(row))
