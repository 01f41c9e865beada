"""Architecture: what all chips of a family share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chipscale.evidence import EvidenceError, Fact

#: quantities of one core (SM, CU, cube core, tensor core) or of the usual chip of a family that kernel forms read, in SI units
ARCHITECTURE_QUANTITIES: Mapping[str, str] = {
    "flop_per_cycle": "1",  # 16-bit matrix FLOP a core and cycle
    "legacy_share": "1",  # of that rate under the matrix instructions of the generation before
    "vector_flop_per_cycle": "1",  # 32-bit vector FLOP a core and cycle
    "exponentials_per_cycle": "1",
    "matrix_rows": "1",
    "matrix_columns": "1",
    "matrix_depth": "1",
    "register_bytes": "B",
    "local_bytes": "B",  # L1, shared or unified buffer, scratchpad
    "operand_bytes": "B",  # L0 buffers beside the matrix engine
    "accumulator_bytes": "B",
    "cache_bandwidth_per_cycle": "1",  # bytes a core and cycle from the last cache
    "cache_bytes": "B",
    "cores": "1",
    "clock": "Hz",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A chip family's cores, caches and clocks; `facts` maps a quantity of `ARCHITECTURE_QUANTITIES` to its facts, the chosen one first.

    `cores`, `cache_bytes` and `clock` are those of the family's usual chip, read where a chip's own file is silent.
    """

    id: str
    name: str
    core: str
    facts: Mapping[str, tuple[Fact, ...]]

    def has(self, quantity: str) -> bool:
        return quantity in self.facts

    def value(self, quantity: str) -> float:
        """Return the chosen value, or say that nothing is known of it."""
        if quantity not in self.facts:
            raise EvidenceError(
                f"architecture {self.id}: nothing is known of {quantity}; add a [[fact]] with a source to architectures/{self.id}.toml"
            )
        return self.facts[quantity][0].value
