"""Rows of elementwise.csv: columns chip, operator, num_tokens, tp, hidden_size, inter_size, n_head, n_kv_head, dtype, seconds."""

from __future__ import annotations

from chipscale.cost.kernels.elementwise import ELEMENTWISE, Elementwise
from chipscale.evidence import EvidenceError
from chipscale.operators.reading import Reading, Row, name_of, number, seconds_of

#: bytes an element
WIDTH = {"fp16": 2.0, "bf16": 2.0, "fp32": 4.0, "fp8": 1.0, "int8": 1.0}
#: operators that work row by row
BY_ROW = ("input_layernorm", "post_attention_layernorm", "attn_rope", "emb")
OPERATORS = ("add", "input_layernorm", "post_attention_layernorm", "mlp_act", "attn_rope", "emb")


def values_of(row: Row) -> tuple[float, float]:
    """Return elements read and written a token; tensor parallelism splits heads and the inner size, not the hidden size."""
    operator, tp, hidden = row["operator"], number(row, "tp"), number(row, "hidden_size")
    if operator == "add":
        return 2.0 * hidden, hidden
    if operator in ("input_layernorm", "post_attention_layernorm", "emb"):
        return hidden, hidden
    if operator == "mlp_act":
        inner = number(row, "inter_size") / tp
        return 2.0 * inner, inner
    if operator == "attn_rope":
        heads = number(row, "n_head")
        width = hidden / heads * (heads + number(row, "n_kv_head")) / tp
        return width, width
    raise EvidenceError(f"{name_of(row)}, column operator: {operator!r} is unknown; use one of {', '.join(OPERATORS)}")


def read(row: Row) -> Reading:
    """Understand one row."""
    if row["dtype"] not in WIDTH:
        raise EvidenceError(f"{name_of(row)}, column dtype: {row['dtype']!r} is unknown; use one of {', '.join(WIDTH)}")
    tokens, width = number(row, "num_tokens"), WIDTH[row["dtype"]]
    into, out = values_of(row)
    call = Elementwise(read=into * tokens * width, written=out * tokens * width, rows=tokens * (row["operator"] in BY_ROW))
    return Reading(form=ELEMENTWISE, call=call, precision="", engine=row.get("engine", ""), kernel=row["operator"], seconds=seconds_of(row))
