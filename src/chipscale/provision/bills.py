"""Bills: energy and money of a million tokens."""

from __future__ import annotations

from dataclasses import dataclass

from chipscale.provision.nouns import Wish
from chipscale.runs.bill import draw
from chipscale.serving.plans import Question
from chipscale.verdict.nouns import Interval

HOUR, MILLION, JOULES_PER_KWH = 3600.0, 1e6, 3.6e6


@dataclass(frozen=True, slots=True, kw_only=True)
class PerMillion:
    """Watts of a chip and all around it, and joules, rent and electricity (USD) of a million tokens of answers; None where a fact is not known, which `missing` names."""

    watts: Interval | None
    joules: Interval | None
    rent: Interval | None
    electricity: Interval | None
    missing: tuple[str, ...]


def bills(question: Question, wish: Wish, chip: Interval) -> PerMillion:
    """Return energy and money of a million tokens where a chip answers `chip` tokens a second.

    E = W / X 10^6;  rent = p / 3600 / X 10^6;  electricity = E p_kWh.

    Holds when chips draw their busy share of rated power all the time, and are paid for by the hour.
    Source: patel-2024, section 4; latif-2025; by definition of a tariff.
    """
    site, facts = question.bench.catalog.site(question.cluster.site), question.bench.chip
    missing: list[str] = []
    watts = None
    if wish.watts is not None:
        watts = Interval(median=wish.watts, low=wish.watts, high=wish.watts)
    elif facts.has("power"):
        rated = facts.fact("power")

        def whole(end: str) -> float:
            share = {q: getattr(site.fact(q), end) for q in ("busy_power", "host_power", "network_power", "cooling_power")}
            power = getattr(rated, end)
            return float(draw(power, power * share["busy_power"], share["host_power"], share["network_power"], share["cooling_power"]).total)

        watts = Interval(median=whole("value"), low=whole("low"), high=whole("high"))
    else:
        missing.append("energy: nothing is known of the chip's power; state --watts")
    price = wish.price if wish.price is not None else facts.value("rent") if facts.has("rent") else None
    if price is None:
        missing.append("rent: nothing is known of the chip's price per hour; state --price")
    tariff = site.fact("electricity")
    cents = wish.electricity if wish.electricity is not None else tariff.value
    joules = None if watts is None else _over(watts, chip)
    return PerMillion(
        watts=watts, joules=joules, rent=None if price is None else _over(Interval(median=price / HOUR, low=price / HOUR, high=price / HOUR), chip),
        electricity=None if joules is None else Interval(**{n: getattr(joules, n) / JOULES_PER_KWH * cents for n in ("median", "low", "high")}), missing=tuple(missing),
    )  # fmt: skip


def _over(amount: Interval, rate: Interval) -> Interval:
    """Divide what is spent a second by tokens a second, for a million of them."""
    return Interval(median=MILLION * amount.median / rate.median, low=MILLION * amount.low / rate.high, high=MILLION * amount.high / rate.low)
