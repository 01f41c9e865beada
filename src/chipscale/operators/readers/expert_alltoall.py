"""Rows of expert_alltoall.csv: columns chip, phase, dtype, chips, nodes, hidden_size, topk, num_experts, num_tokens, backend, engine, seconds.

Optional: node_limit, the most nodes that a token's experts lie on.
"""

from __future__ import annotations

import re

from chipscale.cost.kernels.exchange import EXCHANGE, Exchange
from chipscale.evidence import EvidenceError
from chipscale.operators.reading import Reading, Row, name_of, number, seconds_of

#: bytes an element on the wire by dtype, scales included
WIDTHS = {"bf16": 2.0, "fp16": 2.0, "default": 2.0, "fp8": 1.0, "nvfp4": 0.5625, "fp4": 0.5625}
PHASES = ("dispatch", "combine")
#: backends that send a row once for each of its experts
EACH = re.compile(r"(^|_)ll($|_)|low_?latency|generation", re.IGNORECASE)


def read(row: Row) -> Reading:
    """Understand one row."""
    dtype, phase, backend = row["dtype"], row["phase"], row["backend"]
    if dtype not in WIDTHS:
        raise EvidenceError(f"{name_of(row)}, column dtype: {dtype!r} is unknown; use one of {', '.join(WIDTHS)}")
    if phase not in PHASES:
        raise EvidenceError(f"{name_of(row)}, column phase: {phase!r} is unknown; use one of {', '.join(PHASES)}")
    ranks, experts, top_k = number(row, "chips", 2.0), number(row, "num_experts"), number(row, "topk")
    if top_k > experts:
        raise EvidenceError(f"{name_of(row)}, column topk: {top_k:g} of {experts:g} experts; give at most num_experts")
    nodes, limit = number(row, "nodes"), number(row, "node_limit") if row.get("node_limit") else 0.0
    if nodes > ranks or ranks % nodes:
        raise EvidenceError(f"{name_of(row)}, column nodes: {row['nodes']} nodes for {ranks:g} chips; give a number that divides the chips")
    if limit > nodes or (limit and top_k > experts * limit / nodes):
        raise EvidenceError(
            f"{name_of(row)}, column node_limit: {limit:g} of {nodes:g} nodes cannot hold the experts; give at most nodes, with top-k experts on them"
        )
    call = Exchange(tokens=number(row, "num_tokens"), hidden=number(row, "hidden_size"), top_k=top_k, experts=experts, ranks=ranks,
                    width=WIDTHS[dtype], once=0.0 if EACH.search(backend) else 1.0, nodes=nodes, limit=limit)  # fmt: skip
    return Reading(form=EXCHANGE, call=call, precision="bf16", engine=row["engine"], kernel=f"{backend}/{phase}:{dtype}", seconds=seconds_of(row))
