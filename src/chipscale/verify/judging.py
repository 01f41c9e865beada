"""One claim held against one measurement."""

from __future__ import annotations

import math

from chipscale.evidence import Fact
from chipscale.units import show
from chipscale.verify.measured import REDUCED_IN_NETWORK
from chipscale.verify.nouns import Judged, Measurement, Usual, Word
from chipscale.verify.usual import tail

#: a claim holds where one in ten chips that keep theirs would reach less, and is contradicted where one in a hundred would
HOLDS, CONTRADICTED = 0.10, 0.01
#: reported memory over claimed: what drivers and firmware keep back at most, and GiB sold as GB
CAPACITY_HOLDS, CAPACITY_PLAUSIBLE = (0.92, 1.08), 0.85
#: standard normal at 90 % (facts state 80 % ranges) and at 97.5 % (measurements state 95 % intervals)
Z90, Z975 = 1.2815515655446004, 1.959963984540054


def judge(claim: Fact, devices: int, measured: Measurement | None, usual: Usual | None, why: str = "") -> Judged:
    """Hold a claim against a measurement."""
    if measured is None:
        return Judged(
            quantity=claim.quantity, claim=claim, devices=devices, measured=None, share=None, usual=usual, verdict="not testable here", reason=why
        )
    share = measured.value / (claim.value / devices)
    above = False
    if claim.quantity == "memory_bytes":
        verdict, reason = _capacity(share, claim, devices, measured)
    elif measured.low > claim.high / devices:
        verdict, reason, above = "not testable here", _above(claim, devices, measured), True
    else:
        verdict, reason = _rate(share, claim, measured, usual)
    return Judged(
        quantity=claim.quantity,
        claim=claim,
        devices=devices,
        measured=measured,
        share=share,
        usual=usual,
        verdict=verdict,
        reason=reason,
        above=above,
    )


def _above(claim: Fact, devices: int, measured: Measurement) -> str:
    most = show(claim.high / devices, claim.unit)
    if measured.what.startswith(REDUCED_IN_NETWORK):
        return f"an all-reduce beyond the links' {most} was reduced inside a switch; run all-gather to test the links"
    return f"beyond the most that is claimed, {most}: no chip of this claim does that; check clocks, caches, sparsity and which chip it is"


def _capacity(share: float, claim: Fact, devices: int, measured: Measurement) -> tuple[Word, str]:
    least, most = (f / devices / measured.value for f in (claim.low, claim.high))
    if least <= 1 / CAPACITY_HOLDS[0] and most >= 1 / CAPACITY_HOLDS[1]:
        near = CAPACITY_HOLDS[0] <= share <= CAPACITY_HOLDS[1]
        return "holds", "as much as is claimed, less what the driver keeps" if near else f"inside the range that is claimed, {_span(claim, devices)}"
    if least <= 1 / CAPACITY_PLAUSIBLE and share < 1:
        return "plausible", "some of it is kept back, more than is usual"
    return "contradicted", "the device has less than is claimed" if share < 1 else "the device has more than is claimed: it is another chip"


def _span(claim: Fact, devices: int) -> str:
    return f"{show(claim.low / devices, claim.unit)} to {show(claim.high / devices, claim.unit)}"


def doubt(claim: Fact, measured: Measurement) -> float:
    """Return the log-scale spread of a claim's range (an 80 % interval) and of a measurement (a 95 % one), joined."""
    return math.hypot(math.log(claim.high / claim.low) / 2 / Z90, math.log(measured.high / measured.low) / 2 / Z975)


def _rate(share: float, claim: Fact, measured: Measurement, usual: Usual | None) -> tuple[Word, str]:
    if usual is None:
        return "plausible", "below the claim, and nobody measured this on another chip"
    chance = tail(share, usual, doubt(claim, measured))
    n = len(usual.shares)
    others = f"{100 * usual.shares[0].share:.0f} to {100 * usual.shares[-1].share:.0f} % on {n} other chip{'s' * (n > 1)}"
    if chance >= HOLDS:
        return "holds", f"others reach {others}"
    odds = f"{100 * chance:.1f} % of chips that keep their claim would reach so little"
    if chance >= CONTRADICTED:
        return "plausible", f"low beside {others}; {odds}"
    return "contradicted", f"far below {others}; {odds}"
