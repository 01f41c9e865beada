"""Service: pools of replicas, and how requests find them."""

from __future__ import annotations

from dataclasses import dataclass, field

from chipscale.evidence import EvidenceError
from chipscale.serving.pace import Pace
from chipscale.serving.rules import Rules, Speculation

#: how a request finds its replica: the next in turn, or the one with the fewest requests
ROUTINGS = ("round-robin", "least-loaded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """`replicas` alike, each with a `pace` under `rules` on `chips` chips."""

    pace: Pace
    rules: Rules
    replicas: int = 1
    chips: float = 1.0

    def __post_init__(self) -> None:
        if self.pace.flow.ndim > 1:
            raise EvidenceError(f"a pool has one pace, not the {len(self.pace.flow)} rows of this one; build a pool for each row")
        if self.replicas < 1 or not self.chips > 0:
            raise EvidenceError(f"{self.replicas} replicas on {self.chips:g} chips each serve nobody; give at least 1 replica and more than 0 chips")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Moving a cache from a prefill to a decode replica: `fixed` seconds and `token` seconds a token. `early`: the client sees the first token before it."""

    token: float = 0.0
    fixed: float = 0.0
    early: bool = True

    def __post_init__(self) -> None:
        if not (self.token >= 0.0 and self.fixed >= 0.0):
            raise EvidenceError(f"a cache transfer of {self.token:g} s a token and {self.fixed:g} s fixed runs backwards; give seconds of 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A deployment: `pool` serves requests whole, or, where there is a pool `prefill`, decodes what that one has read."""

    pool: Pool
    prefill: Pool | None = None
    transfer: Transfer = field(default_factory=Transfer)
    speculation: Speculation = field(default_factory=Speculation)
    routing: str = "round-robin"

    def __post_init__(self) -> None:
        if self.routing not in ROUTINGS:
            raise EvidenceError(f"routing {self.routing!r} is unknown; give one of {', '.join(ROUTINGS)}")

    @property
    def chips(self) -> float:
        """Return the chips of all replicas."""
        return sum(p.replicas * p.chips for p in (self.pool, self.prefill) if p is not None)
