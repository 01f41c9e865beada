"""Rows of attention_prefill.csv: columns chip, dtype, kv_dtype, batch_size, new_tokens, past_tokens, num_heads, num_kv_heads, head_dim, engine, kernel, seconds; window where there is one."""

from __future__ import annotations

from chipscale.cost.kernels.prefill import PREFILL, Prefill
from chipscale.operators.reading import Reading, Row, number, seconds_of, width_of, window_of


def read(row: Row) -> Reading:
    """Understand one row."""
    dtype, kv_dtype = row["dtype"], row["kv_dtype"]
    call = Prefill(
        batch=number(row, "batch_size"),
        new=number(row, "new_tokens"),
        past=number(row, "past_tokens", 0.0),
        heads=number(row, "num_heads"),
        kv_heads=number(row, "num_kv_heads"),
        head_dim=number(row, "head_dim"),
        q=width_of(row, "dtype"),
        kv=width_of(row, "kv_dtype"),
        fused=float(row["engine"].lower().startswith("trtllm")),
        window=window_of(row),
    )
    return Reading(
        form=PREFILL, call=call, precision=dtype, engine=row["engine"], kernel=f"{row['kernel']}:{dtype}:kv-{kv_dtype}", seconds=seconds_of(row)
    )
