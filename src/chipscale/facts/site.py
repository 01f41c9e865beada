"""Site: how a data centre feeds, cools, stores for and fails under its chips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chipscale.evidence import EvidenceError, Fact

#: quantities of a site; powers are shares of a chip's stated power, per chip; `cooling_power` is PUE - 1, a share of all IT power
SITE_QUANTITIES: Mapping[str, str] = {
    "busy_power": "1",
    "waiting_power": "1",
    "host_power": "1",
    "network_power": "1",
    "cooling_power": "1",
    "mtbf": "s",
    "restart": "s",
    "storage_bandwidth": "B/s",
    "life": "s",
    "capital": "1",
    "electricity": "USD/kWh",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a cluster of one kind draws beside its chips, how often it fails, and what it costs to own.

    `facts` maps every quantity of `SITE_QUANTITIES` to all facts about it, the chosen one first. `mtbf` is the mean time between
    failures that stop a job, of one chip with its share of host and network; `storage_bandwidth` is a chip's share of the store;
    `capital` is the price of a chip with its server and network over the price of the chip.
    """

    id: str
    name: str
    facts: Mapping[str, tuple[Fact, ...]]

    def __post_init__(self) -> None:
        if missing := [q for q in SITE_QUANTITIES if not self.facts.get(q) or self.facts[q][0].rejected]:
            raise EvidenceError(f'site {self.id}: nothing is known of {", ".join(missing)}; add a [[fact]] for each, or like = "typical"')

    def fact(self, quantity: str) -> Fact:
        """Return the chosen fact."""
        return self.facts[quantity][0]
