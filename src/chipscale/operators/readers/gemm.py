"""Rows of gemm.csv: columns chip, dtype, m, n, k, engine, kernel, seconds."""

from __future__ import annotations

from chipscale.cost.kernels.gemm import GEMM, Gemm
from chipscale.evidence import EvidenceError
from chipscale.operators.reading import Reading, Row, name_of, number, seconds_of

#: per dtype: precision of the matrix engine, bytes an element of activations and of weights (with scales), whether activations are quantised
DTYPES = {
    "bf16": ("bf16", 2.0, 2.0, 0.0),
    "fp16": ("fp16", 2.0, 2.0, 0.0),
    "fp8": ("fp8", 1.0, 1.0, 1.0),
    "fp8_block": ("fp8", 1.0, 1.03, 1.0),
    "nvfp4": ("nvfp4", 0.5, 0.5625, 1.0),
    "int8": ("int8", 1.0, 1.0, 0.0),
    "int8_wo": ("bf16", 2.0, 1.0, 0.0),
    "int4_wo": ("bf16", 2.0, 0.53, 0.0),
}


def read(row: Row) -> Reading:
    """Understand one row."""
    dtype = row["dtype"]
    if dtype not in DTYPES:
        raise EvidenceError(f"{name_of(row)}, column dtype: {dtype!r} is unknown; use one of {', '.join(DTYPES)}")
    precision, a, b, quantised = DTYPES[dtype]
    call = Gemm(m=number(row, "m"), n=number(row, "n"), k=number(row, "k"), a=a, b=b, out=2.0, quantised=quantised)
    return Reading(form=GEMM, call=call, precision=precision, engine=row["engine"], kernel=f"{row['kernel']}:{dtype}", seconds=seconds_of(row))
