"""Cluster: tiers of fabric around a chip."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from chipscale.evidence import EvidenceError, Fact

Topology = Literal["switch", "mesh", "torus", "fat-tree"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """One tier: `size` chips reach each other at `bandwidth` B/s per chip and direction.

    On a `mesh` each chip has one link to each other chip of the tier, so a group of n uses only
    (n - 1) / (size - 1) of `bandwidth`. On a `torus` of `axes` chips a side each chip has two links an axis; an axis of a slice closes into a ring
    where its length is a multiple of `closes`. `in_network` says that the switches add and copy vectors. `oversubscription` >= 1
    divides the bandwidth above the tier below. Tiers of one `plane` share a chip's ports; a tier that names none is a plane of its own.
    """

    name: str
    size: int
    bandwidth: Fact
    latency: float
    topology: Topology
    oversubscription: float = 1.0
    axes: tuple[int, ...] = ()
    closes: int = 1
    in_network: bool = False
    plane: str = ""

    def __post_init__(self) -> None:
        if (self.topology == "torus") != bool(self.axes) or (self.axes and math.prod(self.axes) != self.size):
            raise EvidenceError(
                f"tier {self.name}: axes = {list(self.axes)} on a {self.topology} of {self.size} chips; give the chips along each axis of a torus, product {self.size}, and none elsewhere"
            )
        if self.size < 1 or self.latency < 0 or self.oversubscription < 1 or self.bandwidth.value <= 0:
            raise EvidenceError(f"tier {self.name}: size >= 1, latency >= 0, oversubscription >= 1 and bandwidth > 0 are needed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Chips of one kind on nested tiers, innermost first; `node` chips share one host, `site` names where they stand."""

    id: str
    name: str
    chip: str
    node: int
    tiers: tuple[Tier, ...]
    site: str = "typical"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        sizes = [t.size for t in self.tiers]
        if not sizes or sizes != sorted(set(sizes)):
            raise EvidenceError(f"cluster {self.id}: tier sizes must grow from the innermost tier outwards, got {sizes}; correct a size")
        if self.node > sizes[-1]:
            raise EvidenceError(
                f"cluster {self.id}: node = {self.node} chips share a host, but the outermost tier holds {sizes[-1]}; correct one of them"
            )

    @property
    def size(self) -> int:
        return self.tiers[-1].size

    def seat(self, chips: int) -> None:
        """Refuse more chips than the outermost tier joins."""
        if chips > self.size:
            raise EvidenceError(
                f"cluster {self.id} joins {self.size:,} chips, not {chips:,}; take fewer, or give a cluster with a larger tier (--catalog DIR)"
            )
