"""Rows of attention_decode.csv: columns chip, dtype, kv_dtype, batch_size, kv_tokens, num_heads, num_kv_heads, head_dim, engine, kernel, seconds; window where there is one."""

from __future__ import annotations

from chipscale.cost.kernels.decode import DECODE, Decode
from chipscale.operators.reading import Reading, Row, number, seconds_of, width_of, window_of


def read(row: Row) -> Reading:
    """Understand one row."""
    call = Decode(
        batch=number(row, "batch_size"),
        past=number(row, "kv_tokens"),
        heads=number(row, "num_heads"),
        kv_heads=number(row, "num_kv_heads"),
        head_dim=number(row, "head_dim"),
        q=width_of(row, "dtype"),
        kv=width_of(row, "kv_dtype"),
        window=window_of(row),
    )
    kernel = f"{row['kernel']}:{row['dtype']}:kv-{row['kv_dtype']}"
    return Reading(form=DECODE, call=call, precision=row["dtype"], engine=row["engine"], kernel=kernel, seconds=seconds_of(row))
