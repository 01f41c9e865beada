"""Rows of elementwise.csv: columns chip, operator, num_tokens, tp, hidden_size, inter_size, n_head, n_kv_head, dtype, seconds."""

from __future__ import annotations

from chipscale.cost.kernels.elementwise import ELEMENTWISE, Elementwise
from chipscale.cost.kernels.passes import embedding, gated_activation, norm, residual_add, rope
from chipscale.evidence import EvidenceError
from chipscale.operators.reading import Reading, Row, name_of, number, seconds_of

#: bytes an element
WIDTH = {"fp16": 2.0, "bf16": 2.0, "fp32": 4.0, "fp8": 1.0, "int8": 1.0}
OPERATORS = ("add", "input_layernorm", "post_attention_layernorm", "mlp_act", "attn_rope", "emb")


def call_of(row: Row, width: float) -> Elementwise:
    """Return the call of a row; tensor parallelism splits heads and the inner size, not the hidden size."""
    operator, tokens, tp, hidden = row["operator"], number(row, "num_tokens"), number(row, "tp"), number(row, "hidden_size")
    if operator == "add":
        return residual_add(hidden * tokens, width)
    if operator in ("input_layernorm", "post_attention_layernorm"):
        return norm(tokens, hidden, width)
    if operator == "emb":
        return embedding(tokens, hidden, width)
    if operator == "mlp_act":
        return gated_activation(tokens, number(row, "inter_size") / tp, width)
    if operator == "attn_rope":
        heads = number(row, "n_head")
        return rope(tokens, (heads + number(row, "n_kv_head")) / tp, hidden / heads, width)
    raise EvidenceError(f"{name_of(row)}, column operator: {operator!r} is unknown; use one of {', '.join(OPERATORS)}")


def read(row: Row) -> Reading:
    """Understand one row."""
    if row["dtype"] not in WIDTH:
        raise EvidenceError(f"{name_of(row)}, column dtype: {row['dtype']!r} is unknown; use one of {', '.join(WIDTH)}")
    call = call_of(row, WIDTH[row["dtype"]])
    return Reading(form=ELEMENTWISE, call=call, precision="", engine=row.get("engine", ""), kernel=row["operator"], seconds=seconds_of(row))
