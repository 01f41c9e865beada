"""Chip: the package as sold, every value with its sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chipscale.evidence import EvidenceError, Fact

PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "int8", "fp8", "mxfp8", "nvfp4", "mxfp4")

#: quantities of a chip that formulas read; each SI, per package, dense, one-way
QUANTITIES: Mapping[str, str] = {
    **{f"peak_{p}": "FLOP/s" for p in PRECISIONS},
    "memory_bytes": "B",
    "memory_bandwidth": "B/s",
    "cache_bytes": "B",
    "cores": "1",
    "dies": "1",
    "clock": "Hz",
    "power": "W",
    "price": "USD",
    "rent": "USD/h",
    "die_area": "mm2",
    "scaleup_bandwidth": "B/s",
    "scaleup_size": "1",
    "scaleout_bandwidth": "B/s",
    "host_bandwidth": "B/s",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """A package as sold (its dies inside).

    `facts` maps a quantity of `QUANTITIES` (or `measured_bf16_matmul` and its like, shown but not computed
    with) to all facts about it, the chosen one first and the rejected ones last. A missing precision is missing, never guessed.
    `family` keys the calibration (ampere, hopper, blackwell, davinci-a2, ...).
    """

    id: str
    name: str
    vendor: str
    family: str
    facts: Mapping[str, tuple[Fact, ...]]
    released: str = ""
    cluster: str = ""
    notes: tuple[str, ...] = ()

    def fact(self, quantity: str) -> Fact:
        """Return the chosen fact, or say that nothing is known of it."""
        known = self.facts.get(quantity)
        if not known or known[0].rejected:
            nothing = "every fact is rejected about" if known else "nothing is known of"
            raise EvidenceError(f"{self.id}: {nothing} {quantity}; add a [[fact]] with a source to a chip file of your own (--catalog DIR)")
        return known[0]

    def has(self, quantity: str) -> bool:
        """Say whether a fact that is not rejected is known."""
        known = self.facts.get(quantity)
        return known is not None and len(known) > 0 and not known[0].rejected

    def value(self, quantity: str) -> float:
        return self.fact(quantity).value

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions whose dense matrix peak is known."""
        return tuple(p for p in PRECISIONS if self.has(f"peak_{p}"))
