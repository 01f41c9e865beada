"""Rows of moe.csv.

Columns chip, dtype, num_tokens, hidden_size, inter_size, topk, num_experts, moe_tp_size, moe_ep_size, distribution, engine, kernel, seconds.
"""

from __future__ import annotations

import re

from chipscale.cost.kernels.experts import EXPERTS, Experts
from chipscale.evidence import EvidenceError
from chipscale.operators.reading import Reading, Row, name_of, number, seconds_of

#: per dtype: precision of the matrix engine, bytes an element of weights (with scales) and of activations
DTYPES = {
    "bf16": ("bf16", 2.0, 2.0),
    "fp16": ("fp16", 2.0, 2.0),
    "fp8": ("fp8", 1.0, 1.0),
    "fp8_block": ("fp8", 1.0, 1.0),
    "int8": ("int8", 1.0, 1.0),
    "nvfp4": ("nvfp4", 0.5625, 0.5625),
    "w4afp8": ("fp8", 0.53, 1.0),
    "w4a8_mxfp4_mxfp8": ("mxfp8", 0.53125, 1.03),
    "w4a16_mxfp4": ("bf16", 0.53125, 2.0),
    "int4_wo": ("bf16", 0.53, 2.0),
    "int8_wo": ("bf16", 1.0, 2.0),
}
#: kernels that widen narrow weights to 16 bit before the matrix engine, whatever the dtype
WIDENING = re.compile("marlin", re.IGNORECASE)


def read(row: Row) -> Reading:
    """Understand one row."""
    dtype, kernel = row["dtype"], row["kernel"]
    if dtype not in DTYPES:
        raise EvidenceError(f"{name_of(row)}, column dtype: {dtype!r} is unknown; use one of {', '.join(DTYPES)}")
    precision, w, a = DTYPES[dtype]
    if WIDENING.search(kernel):
        precision, a = "bf16", 2.0
    experts, top_k = number(row, "num_experts"), number(row, "topk")
    moe_tp, moe_ep = number(row, "moe_tp_size"), number(row, "moe_ep_size")
    inter = number(row, "inter_size")
    if top_k > experts:
        raise EvidenceError(f"{name_of(row)}, column topk: {top_k:g} of {experts:g} experts; give at most num_experts")
    if moe_ep > experts:
        raise EvidenceError(f"{name_of(row)}, column moe_ep_size: {moe_ep:g} ranks for {experts:g} experts; give at most num_experts")
    if moe_tp > inter:
        raise EvidenceError(f"{name_of(row)}, column moe_tp_size: {moe_tp:g} ranks for {inter:g} columns; give at most inter_size")
    call = Experts(tokens=number(row, "num_tokens"), hidden=number(row, "hidden_size"), inter=inter, top_k=top_k, experts=experts, moe_tp=moe_tp,
                   moe_ep=moe_ep, matrices=2.0 if "nongated" in kernel.lower() else 3.0, w=w, a=a, skew=_skew(row))  # fmt: skip
    return Reading(form=EXPERTS, call=call, precision=precision, engine=row["engine"], kernel=f"{kernel}:{dtype}", seconds=seconds_of(row))


def _skew(row: Row) -> float:
    """Return the exponent of `power_law_EXPONENT`, 0 for `balanced`."""
    text = row["distribution"]
    if text == "balanced":
        return 0.0
    found = re.fullmatch(r"power_law_(\d+(?:\.\d+)?)", text)
    if not found or not 0.0 < float(found[1]) <= 4.0:
        raise EvidenceError(f"{name_of(row)}, column distribution: {text!r} is unknown; use balanced or power_law_EXPONENT, exponent up to 4")
    return float(found[1])
