"""account(side, ...) -> Run: the formulas of failures, energy and money on draws of everything that is not certain.

Arrays hold one element a draw, the stated values first; none holds an element a chip, so that a million chips cost what one costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from chipscale.catalog import Catalog
from chipscale.evidence import EvidenceError, Fact
from chipscale.facts.chip import Chip
from chipscale.facts.parameters import parameters
from chipscale.facts.site import SITE_QUANTITIES, Site
from chipscale.ops.work import Num
from chipscale.planning import taken
from chipscale.runs.bill import Draw, capital_dollars, chip_watts, draw, electricity_dollars, rent_dollars
from chipscale.runs.failures import Reliability, Shares, checkpoint_bytes, checkpoint_seconds, shares
from chipscale.runs.nouns import Bill, Run, Terms, check_tokens
from chipscale.step import COMPUTING
from chipscale.verdict.draws import Draws, deal
from chipscale.verdict.nouns import Interval, Side

DRAWS = 1024
HOUR, DAY = 3600.0, 86400.0
#: a run of which less than this is useful never ends
LEAST = 1e-6


@dataclass(frozen=True, slots=True)
class World:
    """Every uncertain quantity of a run as an array: its stated value, then its draws."""

    draws: Draws

    def of(self, name: str, value: float, low: float, high: float) -> np.ndarray:
        return np.concatenate([[value], self.draws.between(name, value, low, high)])

    def fact(self, fact: Fact) -> np.ndarray:
        return self.of(fact.quantity, fact.value, fact.low, fact.high)


def interval(quantity: Num) -> Interval:
    """Return the value at the stated quantities, and the 80 % interval of the draws."""
    values = np.asarray(quantity)
    low, high = (float(q) for q in np.quantile(values[1:], (0.1, 0.9), method="inverted_cdf"))
    stated = float(values[0])
    return Interval(median=stated, low=min(low, stated), high=max(high, stated))


def account(catalog: Catalog, model: str, chip: str, side: Side, chips: int, tokens: float, terms: Terms | None = None) -> Run:
    """Return what `tokens` tokens take on `chips` chips at the pace of `side`, failures included.

    Errors: a token budget that cannot be; so many chips, or chips that fail so often, that the run never ends.
    """
    terms = terms or Terms()
    check_tokens(tokens)
    (whole, one), site = taken(catalog, model, chip, side), catalog.site(catalog.cluster(side.cluster).site)
    world = World(deal(["rate", "power", "price", "rent", *SITE_QUANTITIES], DRAWS, 0))
    rate = world.of("rate", side.rate.median, side.rate.low, side.rate.high)
    step = side.seconds.median * side.rate.median / rate
    reliability = _reliability(world, site, terms, checkpoint_bytes(float(parameters(whole).total)))
    share = shares(reliability, chips, step)
    useful = np.asarray(share.useful)
    if useful[0] < LEAST:
        raise EvidenceError(f"{chips:,} chips: one of them fails every {float(np.asarray(share.between)[0]):.3g} s, so that the run never ends; "
                            "take fewer chips, or state with --mtbf how many hours one runs between failures")  # fmt: skip
    ideal = tokens / (rate * chips)
    elapsed = np.where(useful < LEAST, np.inf, ideal / np.maximum(useful, LEAST))
    write = np.asarray(checkpoint_seconds(reliability.checkpoint, chips, reliability.bandwidth))
    return Run(
        chips=chips, tokens=tokens, steps=tokens / (side.rate.median * chips * side.seconds.median), site=site.id,
        ideal_days=interval(ideal / DAY), days=interval(elapsed / DAY), chip_hours=interval(elapsed * chips / HOUR),
        useful=interval(useful), writing=_stated(share.writing), restarting=_stated(share.restarting), repeating=_stated(share.repeating),
        failures=interval(elapsed / np.asarray(share.between)), between=interval(np.asarray(share.between)),
        interval=interval(np.asarray(share.interval)), checkpoint_bytes=float(np.asarray(reliability.checkpoint)),
        checkpoint_seconds=interval(write), bill=_bill(world, one, site, side, terms, share, chips, elapsed),
    )  # fmt: skip


def _stated(values: Num) -> float:
    return float(np.asarray(values)[0])


def _reliability(world: World, site: Site, terms: Terms, size: Num) -> Reliability:
    mtbf = world.fact(site.fact("mtbf")) if terms.mtbf is None else np.full(DRAWS + 1, terms.mtbf * HOUR)
    return Reliability(mtbf=mtbf, restart=world.fact(site.fact("restart")), checkpoint=size, bandwidth=world.fact(site.fact("storage_bandwidth")))


def computing(side: Side) -> float:
    """Return the share of a step in which a chip computes; it waits for the rest."""
    return sum(t for cause, t in side.parts if cause in COMPUTING) / sum(t for _, t in side.parts)


def watts(world: World, chip: Chip, site: Site, side: Side, terms: Terms, share: Shares) -> Draw:
    """Return what one chip and all that stands around it draw, averaged over the run (W)."""
    rated = world.fact(chip.fact("power"))
    busy, waiting = world.fact(site.fact("busy_power")), world.fact(site.fact("waiting_power"))
    works = np.asarray(share.useful) + np.asarray(share.repeating)
    mean = chip_watts(rated, np.maximum(busy, waiting), waiting, computing(side) * works)
    cooling = world.fact(site.fact("cooling_power")) if terms.pue is None else terms.pue - 1.0
    return draw(rated, mean, world.fact(site.fact("host_power")), world.fact(site.fact("network_power")), cooling)


def _bill(world: World, chip: Chip, site: Site, side: Side, terms: Terms, share: Shares, chips: int, elapsed: np.ndarray) -> Bill:
    missing: list[str] = []
    hours = elapsed / HOUR * chips
    energy: dict[str, Interval] = {}
    electricity = power = total = None
    if chip.has("power"):
        drawn = watts(world, chip, site, side, terms, share)
        energy = {f.name: interval(getattr(drawn, f.name) * hours) for f in fields(Draw)}
        whole = np.asarray(drawn.total)
        tariff = world.fact(site.fact("electricity")) if terms.electricity is None else terms.electricity
        total, power, electricity = interval(whole * hours), interval(whole * chips), interval(electricity_dollars(whole * hours, tariff))
    else:
        missing.append(f"energy: the power of {chip.id} is not known")
    rent = capital = None
    if terms.price is not None:
        rent = interval(rent_dollars(hours, terms.price))
    elif chip.has("rent"):
        rent = interval(rent_dollars(hours, world.fact(chip.fact("rent"))))
    else:
        missing.append(f"rent: no price per hour of {chip.id} is known; state one with --price")
    if chip.has("price"):
        capital = interval(
            capital_dollars(chips, elapsed, world.fact(chip.fact("price")), world.fact(site.fact("capital")), world.fact(site.fact("life")))
        )
    else:
        missing.append(f"capital: the price of {chip.id} is not known")
    return Bill(energy=total, chips=energy.get("chips"), host=energy.get("host"), network=energy.get("network"), cooling=energy.get("cooling"),
                power=power, rent=rent, capital=capital, electricity=electricity, missing=tuple(missing))  # fmt: skip


def accounts(
    catalog: Catalog, model: str, chip: str, sides: Sequence[Side], chips: int, tokens: float, terms: Terms | None = None
) -> tuple[Run, ...]:
    """Return the run on each of several plans."""
    return tuple(account(catalog, model, chip, side, chips, tokens, terms) for side in sides)
