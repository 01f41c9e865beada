"""Rows of collective_nodes.csv: columns chip, collective, chips, chips_per_node, bytes (the full vector), seconds."""

from __future__ import annotations

from chipscale.cost.kernels.collective import COLLECTIVE, collective_of
from chipscale.evidence import EvidenceError
from chipscale.operators.readers.collective import arithmetic, kind_of
from chipscale.operators.reading import Reading, Row, name_of, number, seconds_of


def read(row: Row) -> Reading:
    """Understand one row."""
    kind, ranks, per_node = kind_of(row), number(row, "chips", 2.0), number(row, "chips_per_node")
    if per_node > ranks or ranks % per_node:
        raise EvidenceError(f"{name_of(row)}, column chips_per_node: {per_node:g} does not divide {ranks:g} chips; give the ranks on one node")
    call = collective_of(kind, ranks, per_node, number(row, "bytes"))
    place = "nodes" if ranks > per_node else "node"
    return Reading(form=COLLECTIVE, call=call, precision="", engine="", kernel=f"{kind}:{arithmetic(kind, 'fp16')}:{place}", seconds=seconds_of(row))
