"""What a claim is held against, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from chipscale.evidence import Fact, Source

Word = Literal["holds", "plausible", "contradicted", "not testable here"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one chip was measured to reach of what is claimed of it."""

    quantity: str
    chip: str
    share: float
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """The share that other chips reach: median, 80 % interval for one more chip, log-scale spread with its degrees of freedom."""

    quantity: str
    shares: tuple[Share, ...]
    median: float
    low: float
    high: float
    spread: float
    freedom: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The best that a record measured of a quantity, in SI units, with its 95 % interval, n samples, and what was run."""

    quantity: str
    value: float
    low: float
    high: float
    n: int
    unit: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A claim beside what was measured. `devices` of them make the package that the claim is about; `above` says that no chip of the claim could do it."""

    quantity: str
    claim: Fact
    devices: int
    measured: Measurement | None
    share: float | None
    usual: Usual | None
    verdict: Word
    reason: str
    above: bool = False

    @property
    def claimed(self) -> float:
        """The claim for one device."""
        return self.claim.value / self.devices


@dataclass(frozen=True, slots=True, kw_only=True)
class Property:
    """One thing that tells chips apart: what the device says, what is known of the chip, and whether they agree (None where one is silent)."""

    name: str
    said: str
    known: str
    agrees: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A device compared with a chip, property by property; `devices` of them make a package."""

    chip: str
    hypothesis: str
    devices: int
    properties: tuple[Property, ...]

    @property
    def named(self) -> bool:
        return self.properties[0].agrees is True

    @property
    def agreeing(self) -> int:
        """Count the properties that agree."""
        return sum(p.agrees is True for p in self.properties)

    @property
    def against(self) -> tuple[Property, ...]:
        """The properties, other than the name, that speak against it."""
        return tuple(p for p in self.properties[1:] if p.agrees is False)

    @property
    def sure(self) -> bool:
        """Say whether this is the chip: two properties beside or without the name agree, none speaks against it."""
        return not self.against and sum(p.agrees is True for p in self.properties[1:]) >= (1 if self.named else 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A chip, or one hypothesis of a believed one, with its claims judged; `before` and `after` are the hypothesis' weights."""

    chip: str
    hypothesis: str
    title: str
    before: float
    after: float
    match: Match
    claims: tuple[Judged, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """A record held against a chip. `chip` is empty where none is known to be this device; `remarks` say what a reader must know first."""

    record: str
    sha256: str
    created: str
    device: str
    kind: str
    chip: str
    stated: bool
    remarks: tuple[str, ...]
    subjects: tuple[Subject, ...]
    results: tuple[Measurement, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What records change about a chip: weights of hypotheses before and after, and each fact that moved."""

    chip: str
    records: tuple[str, ...]
    weights: tuple[tuple[str, str, float, float], ...]
    facts: tuple[tuple[str, Fact, Fact], ...]
