"""Framework: what software does, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """How software holds a training state: bytes a parameter (weight, gradient, optimizer), a logit at the loss, and a weight of the layer at work.

    `optimizer` is the master copy where there is one, and the moments. `scratch` are gradients of one layer's weights before they are
    added up. `reserved` is what the allocator holds beyond what is allocated, as a share, where that is what the software reports.
    `offload_optimizer` and `offload_activations` are shares that lie in the host's memory.
    """

    weight: float = 2.0
    gradient: float = 4.0
    optimizer: float = 12.0
    logit: float = 2.0
    scratch: float = 2.0
    reserved: float = 0.0
    offload_optimizer: float = 0.0
    offload_activations: float = 0.0


#: 16-bit weights, 32-bit gradients, master copy and moments
MIXED = Keeping()


#: the flag by which coefficients know what is captured in CUDA graphs
GRAPHS: Mapping[str, tuple[str, ...]] = {"none": (), "part": ("part_graph",), "full": ("full_graph",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Framework:
    """A training framework: how it is recognised in a measured row, and what it does by default.

    `matches` are lower-case substrings of a framework's stated name. `recompute` weighs the settings that a
    row without a stated recompute may have used; they sum to 1. `selective` names what its selective recompute drops (`plan.MODULES`).
    `variants` are lower-case substrings of a stated name under which the framework holds its state otherwise.
    `cp_kinds` are the ways in which its context-parallel ranks share keys and values (`plan.CP_KINDS`), its default first.
    `cuda_graph` is what it captures in graphs unless told otherwise, from the year `since` states for it.
    `lacks` are features that it never had; `since` is the year in which a feature first shipped: an older result cannot have used it.
    """

    id: str
    name: str
    matches: tuple[str, ...]
    sharding: str
    recompute: tuple[tuple[str, float], ...]
    selective: tuple[str, ...]
    keeping: Keeping
    variants: tuple[tuple[str, Keeping], ...]
    cp_kinds: tuple[str, ...]
    cuda_graph: str
    lacks: tuple[str, ...]
    since: tuple[tuple[str, int], ...]
    source: str
    date: str

    def graph_in(self, year: float) -> str:
        """Return what is captured by default in a year: "none", "part" or "full"."""
        return self.cuda_graph if year >= dict(self.since).get("cuda_graph", 0) else "none"

    def keeping_of(self, stated: str) -> Keeping:
        """Return how a version of the framework, as a row names it, holds its state."""
        return next((keeping for name, keeping in self.variants if name in stated.lower()), self.keeping)
