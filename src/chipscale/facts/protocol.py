"""Protocol: how a benchmark asks a service, as data."""

from __future__ import annotations

from dataclasses import dataclass

from chipscale.evidence import EvidenceError


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """A load protocol at fixed concurrency: every user sends `requests_a_user` requests, lengths uniform from `low` to `high` of nominal.

    `statistic` is what is reported over requests; `weight` is how likely a result follows it where nobody says.
    """

    id: str
    name: str
    requests_a_user: float
    low: float
    high: float
    statistic: str
    weight: float
    source: str
    date: str

    def __post_init__(self) -> None:
        if not (self.requests_a_user >= 1 and 0 < self.low <= self.high and 0 < self.weight <= 1):
            raise EvidenceError(f"protocol {self.id}: needs at least one request a user, 0 < low <= high and a weight from 0 to 1")
