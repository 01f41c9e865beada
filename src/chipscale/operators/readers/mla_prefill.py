"""Rows of mla_prefill.csv: columns chip, dtype, kv_dtype, batch_size, new_tokens, num_heads (on the rank), engine, kernel, seconds."""

from __future__ import annotations

import re

from chipscale.cost.kernels.latent import LATENT_PREFILL, LatentPrefill
from chipscale.operators.reading import Reading, Row, number, seconds_of, width_of

#: kernels that run a prompt on the compressed cache itself (SGLang's general attention back ends); the others make keys and values wide
ON_CACHE = re.compile("flash_attention|fa3|triton", re.IGNORECASE)


def read(row: Row) -> Reading:
    """Understand one row."""
    absorbed = ON_CACHE.search(row["kernel"]) is not None
    call = LatentPrefill(
        batch=number(row, "batch_size"),
        new=number(row, "new_tokens"),
        heads=number(row, "num_heads"),
        key=576.0 if absorbed else 192.0,
        value=512.0 if absorbed else 128.0,
        q=width_of(row, "dtype"),
        kv=width_of(row, "kv_dtype"),
    )
    kernel = f"{row['kernel']}:{row['dtype']}:kv-{row['kv_dtype']}"
    return Reading(form=LATENT_PREFILL, call=call, precision=row["dtype"], engine=row["engine"], kernel=kernel, seconds=seconds_of(row))
