"""The share of its claims that a chip usually reaches."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chipscale.catalog import UNITS, Catalog
from chipscale.evidence import Belief, EvidenceError
from chipscale.facts.chip import PRECISIONS, Chip
from chipscale.units import parse
from chipscale.verify.nouns import Share, Usual

FILE = "verify/shares.toml"
#: log-scale spread of a share before any chip was measured, and how many measurements that opinion is worth (assumed; the ten products in bf16 have 0.18)
PRIOR_SPREAD, PRIOR_WEIGHT = 0.2, 2.0


class _ShareFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    quantity: str
    chip: str
    measured: str
    claimed: str = ""
    source: str


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    like: dict[str, str]
    share: list[_ShareFile] = Field(min_length=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """All measured shares, and which quantity borrows another's."""

    all: tuple[Share, ...]
    like: Mapping[str, str]

    def usual(self, quantity: str, without: str = "") -> Usual | None:
        """Return the usual share of a quantity over all chips but one, None where nobody measured it."""
        for name in (quantity, self.like.get(quantity, "")):
            found = tuple(s for s in self.all if s.quantity == name and s.chip != without)
            if found:
                return usual(quantity, found)
        return None


def read(catalog: Catalog) -> Shares:
    """Return the shares of the shipped file and of the chip files, chips that are kept for tests left out."""
    path = Path(FILE)
    try:
        table = _File.model_validate(tomllib.loads(catalog.text(FILE)))
    except (tomllib.TOMLDecodeError, ValidationError) as problem:
        raise EvidenceError(f"{FILE}: {' '.join(str(problem).split())[:200]}; correct the file") from problem
    held = _held_out(catalog)
    listed = [_share(catalog, s, path) for s in table.share if s.chip not in held]
    own = [s for id in catalog.chips() if id not in held for s in _own(catalog.chip(id))]
    return Shares(all=(*own, *listed), like=table.like)


def _held_out(catalog: Catalog) -> frozenset[str]:
    """Return the chips whose kernels are kept for tests."""
    listed: Mapping[str, Mapping[str, Any]] = tomllib.loads(catalog.text("measurements/held_out.toml"))
    return frozenset(id for id, table in listed.items() if "operators" in table["rows"])


def _share(catalog: Catalog, s: _ShareFile, path: Path) -> Share:
    unit = UNITS[s.quantity]
    if s.claimed:
        claimed = parse(s.claimed, unit)
    else:
        chip = catalog.chip(s.chip)
        if isinstance(chip, Belief):
            raise EvidenceError(f"{path}: field share.chip: {s.chip!r} is only believed; name a chip, or state what is claimed")
        claimed = chip.value(s.quantity)
    return Share(quantity=s.quantity, chip=s.chip, share=parse(s.measured, unit) / claimed, source=catalog.source(s.source, path))


def _own(chip: Chip | Belief[Chip]) -> list[Share]:
    """Return the pairs of a chip file: a measured product beside the claimed peak."""
    if isinstance(chip, Belief):
        return []
    found = []
    for p in PRECISIONS:
        measured, peak = f"measured_{p}_matmul", f"peak_{p}"
        if chip.has(measured) and chip.has(peak):
            fact = chip.fact(measured)
            found.append(Share(quantity=peak, chip=chip.id, share=fact.value / chip.value(peak), source=fact.source))
    return found


def spread(logs: Sequence[float]) -> tuple[float, float]:
    """Estimate how far the log share of one more chip lies from the mean of others, and the degrees of freedom of that estimate.

    s^2 = (nu0 s0^2 + sum (x - mean)^2) / (nu0 + n - 1) (1 + 1/n),  nu = nu0 + n - 1

    Holds when log shares are normal over chips; s0, worth nu0 measurements, keeps few of them from looking sure.
    Source: gelman-bda-2013, section 3.3 (normal data, conjugate prior).

    >>> s, nu = spread([math.log(x) for x in (0.51, 0.80, 0.97)])
    >>> round(s, 2), nu
    (0.32, 4.0)
    """
    n = len(logs)
    mean = sum(logs) / n
    freedom = PRIOR_WEIGHT + n - 1.0
    variance = (PRIOR_WEIGHT * PRIOR_SPREAD**2 + sum((x - mean) ** 2 for x in logs)) / freedom
    return math.sqrt(variance * (1.0 + 1.0 / n)), freedom


def usual(quantity: str, shares: tuple[Share, ...]) -> Usual:
    """Return what is usual from measured shares (one at least)."""
    from scipy.stats import t

    logs = [math.log(s.share) for s in shares]
    mean = sum(logs) / len(logs)
    s, freedom = spread(logs)
    reach = float(t.ppf(0.9, freedom)) * s
    return Usual(
        quantity=quantity,
        shares=tuple(sorted(shares, key=lambda x: x.share)),
        median=math.exp(mean),
        low=math.exp(mean - reach),
        high=min(math.exp(mean + reach), 1.0),
        spread=s,
        freedom=freedom,
    )


def tail(share: float, usual: Usual, doubt: float = 0.0) -> float:
    """Return how many of the chips that keep their claim would reach so little or less.

    P = T_nu((ln r - ln u) / sqrt(s^2 + d^2)), d: log-scale spread of claim and measurement

    Holds when log shares are normal over chips.
    Source: gelman-bda-2013, section 3.3 (posterior predictive t).
    """
    from scipy.stats import t

    return float(t.cdf((math.log(share) - math.log(usual.median)) / math.hypot(usual.spread, doubt), usual.freedom))
