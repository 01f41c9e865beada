"""Rows of ascend_910c_die_profiled.csv: kernels that CANN and HCCL ran on one die of a package; seconds are measured_us."""

from __future__ import annotations

import math
import re

from chipscale.cost.kernels.collective import COLLECTIVE, collective_of
from chipscale.cost.kernels.elementwise import ELEMENTWISE, Elementwise
from chipscale.cost.kernels.gemm import GEMM, Gemm
from chipscale.cost.kernels.latent import LATENT_DECODE, LatentDecode
from chipscale.cost.kernels.passes import gated_activation, norm, quantise, rope, softmax
from chipscale.cost.kernels.prefill import PREFILL, Prefill
from chipscale.evidence import EvidenceError
from chipscale.operators.readers.collective import arithmetic
from chipscale.operators.reading import Reading, Row, name_of, number, seconds_of

#: part of a package that `per` names
SHARE = {"die": 0.5, "package": 1.0}
#: bytes an element, in and out
WIDTH = {"bf16": (2.0, 2.0), "fp16": (2.0, 2.0), "fp32": (4.0, 4.0), "bf16->int8": (2.0, 1.0), "bf16->fp32": (2.0, 4.0)}
#: per dtype of a product: precision of the cube, bytes an element of either operand
OPERANDS = {"bf16": ("bf16", 2.0), "fp16": ("fp16", 2.0), "int8": ("int8", 1.0), "int8 (W8A8)": ("int8", 1.0)}
#: vector operators whose bytes are counted by what they do
NAMED = ("add-rmsnorm", "dynamic-quant", "quant", "rmsnorm", "rope", "softmax", "swiglu")
#: per other vector operator: how many of its leading tensors it reads, and elements written over those of the first
VECTOR = {
    "add": (2, 1.0),
    "copy": (1, 1.0),
    "div": (2, 1.0),
    "kv-cache-write": (2, 2.0),
    "kv-rmsnorm-rope-cache": (1, 1.0),
    "masked-fill": (2, 1.0),
    "neg": (1, 1.0),
    "slice-copy": (1, 1.0),
    "sort": (1, 2.0),
    "split-qkv-rmsnorm-rope": (1, 1.0),
    "topk-topp": (2, 1.0),
    "transpose": (1, 1.0),
}
#: vector operators that take their tensors as one run of elements, not row by row
FLAT = ("add", "copy", "div", "masked-fill", "neg", "slice-copy", "transpose")
#: per collective: 1 where message_bytes is a rank's share of the full vector
SHARES = {"all_gather": 1, "reduce_scatter": 1, "all_reduce": 0, "alltoall": 0, "broadcast": 0, "send_recv": 0}


def read(row: Row) -> Reading:
    """Understand one row."""
    operator = row["operator"]
    if operator in SHARES:
        return _collective(row)
    if operator in ("gemm", "batch-matmul"):
        return _product(row)
    if operator in VECTOR or operator in NAMED:
        return _vector(row)
    if operator == "attention-prefill":
        return _prompt(row)
    if operator == "attention-mla-decode":
        return _latent_token(row)
    known = ", ".join((*SHARES, "gemm", "batch-matmul", "attention-prefill", "attention-mla-decode", *NAMED, *VECTOR))
    raise EvidenceError(f"{name_of(row)}, column operator: no form is known for {operator!r}; use one of {known}")


def _seconds(row: Row) -> float:
    return seconds_of(row, "measured_us", 1e-6)


def _share(row: Row) -> float:
    if row["per"] not in SHARE:
        raise EvidenceError(f"{name_of(row)}, column per: {row['per']!r} is unknown; use one of {', '.join(SHARE)}")
    return SHARE[row["per"]]


def _collective(row: Row) -> Reading:
    kind, ranks = row["operator"], number(row, "batch", 2.0)
    full = number(row, "message_bytes") * ranks ** SHARES[kind]
    call, kernel = collective_of(kind, ranks, ranks, full), f"{kind}:{arithmetic(kind, 'bf16')}"
    return Reading(form=COLLECTIVE, call=call, precision="", engine=row["kernel"], kernel=kernel, seconds=_seconds(row), share=_share(row))


def _shapes(row: Row) -> list[list[float]]:
    """Return the extents of the tensors in shape_raw: "2048,1536;1536" is two; an empty one is left out."""
    try:
        shapes = [[float(extent) for extent in shape.split(",")] for shape in row["shape_raw"].split(";") if shape]
    except ValueError:
        shapes = []
    if not shapes or not all(1.0 <= extent < 2.0**40 for shape in shapes for extent in shape):
        raise EvidenceError(f"{name_of(row)}, column shape_raw: {row['shape_raw']!r} is no list of shapes; put commas in shapes, semicolons between")
    return shapes


def _product(row: Row) -> Reading:
    if row["dtype"] not in OPERANDS:
        raise EvidenceError(f"{name_of(row)}, column dtype: {row['dtype']!r} is unknown for a product; use one of {', '.join(OPERANDS)}")
    precision, width = OPERANDS[row["dtype"]]
    batch, m, n, k = _extents(row)
    call = Gemm(m=m, n=n * batch, k=k, a=width * batch, b=width, out=2.0, quantised=0.0)
    return Reading(form=GEMM, call=call, precision=precision, engine="CANN", kernel=f"cube:{precision}", seconds=_seconds(row), share=_share(row))


def _extents(row: Row) -> tuple[float, float, float, float]:
    """Return batch, m, n and k: from their columns, or a batched product's from the shapes of its operands."""
    if row["operator"] == "gemm":
        return 1.0, number(row, "m"), number(row, "n"), number(row, "k")
    shapes = _shapes(row)
    if len(shapes) < 2 or len(shapes[0]) != 3 or len(shapes[1]) != 3 or shapes[0][0] != shapes[1][0] or shapes[0][2] != shapes[1][1]:
        raise EvidenceError(f"{name_of(row)}, column shape_raw: {row['shape_raw']!r} does not multiply; give batch,m,k;batch,k,n")
    return shapes[0][0], shapes[0][1], shapes[1][2], shapes[0][2]


def _prompt(row: Row) -> Reading:
    """Read tokens, heads and width of the queries, heads of the keys, and as many prompts as lengths were given (the last shape)."""
    shapes = _shapes(row)
    if len(shapes) < 4 or len(shapes[0]) != 3 or len(shapes[1]) != 3:
        raise EvidenceError(f"{name_of(row)}, column shape_raw: {row['shape_raw']!r} is no prompt; give tokens,heads,width for queries, keys, values")
    (tokens, heads, width), prompts = shapes[0], shapes[-1][0]
    call = Prefill(batch=prompts, new=tokens / prompts, past=0.0, heads=heads, kv_heads=shapes[1][1], head_dim=width, q=2.0, kv=2.0, fused=0.0)
    return Reading(
        form=PREFILL, call=call, precision="bf16", engine="CANN", kernel="fused_infer_attention:bf16", seconds=_seconds(row), share=_share(row)
    )


def _latent_token(row: Row) -> Reading:
    """Read sequences and heads from the queries, the context from the prompt length that `phase` states ("isl4096")."""
    shapes, stated = _shapes(row), re.search(r"isl(\d+)(k?)", row["phase"])
    if not stated or len(shapes[0]) != 4:
        raise EvidenceError(f"{name_of(row)}, column phase: {row['phase']!r} states no context; write one as in 'decode isl4096'")
    past = float(stated.group(1)) * (1024.0 if stated.group(2) else 1.0)
    call = LatentDecode(batch=shapes[0][0], past=past, heads=shapes[0][1], q=2.0, kv=2.0)
    return Reading(form=LATENT_DECODE, call=call, precision="bf16", engine="CANN", kernel="fused_infer_attention:bf16", seconds=_seconds(row),
                   share=_share(row))  # fmt: skip


def _vector(row: Row) -> Reading:
    if row["dtype"] not in WIDTH:
        raise EvidenceError(f"{name_of(row)}, column dtype: {row['dtype']!r} is unknown; use one of {', '.join(WIDTH)}")
    into, out = WIDTH[row["dtype"]]
    shapes = _shapes(row)
    call = _named(row, shapes, into, out) if row["operator"] in NAMED else _tensors(row, shapes, into, out)
    return Reading(form=ELEMENTWISE, call=call, precision="", engine="CANN", kernel=row["operator"], seconds=_seconds(row), share=_share(row))


def _named(row: Row, shapes: list[list[float]], into: float, out: float) -> Elementwise:
    """Return the call of an operator that `passes` counts; rows are the first extent of its first tensor."""
    operator, rows, columns = row["operator"], shapes[0][0], math.prod(shapes[0][1:])
    if operator in ("rmsnorm", "add-rmsnorm"):
        return norm(rows, columns, into, residuals=float(operator == "add-rmsnorm"), out=out)
    if operator == "rope":
        return rope(rows, columns / shapes[0][-1], shapes[0][-1], into, angles=sum(math.prod(s) for s in shapes[1:3]) / rows, out=out)
    if operator == "softmax":
        return softmax(rows, columns, into, out=out)
    if operator == "swiglu":
        return gated_activation(rows, columns / 2.0, into, out=out)
    return quantise("int8" if operator == "dynamic-quant" else "int8_static", rows, columns, into)


def _tensors(row: Row, shapes: list[list[float]], into: float, out: float) -> Elementwise:
    """Return the call of an operator by the tensors that it reads and writes."""
    inputs, written = VECTOR[row["operator"]]
    sizes = [math.prod(shape) for shape in shapes]
    first = number(row, "m") * number(row, "n") if row["operator"] == "slice-copy" and row["n"] else sizes[0]
    taken = first + sum(sizes[1:inputs])
    return Elementwise(read=into * taken, written=out * first * written, rows=shapes[0][0] * (row["operator"] not in FLAT))
