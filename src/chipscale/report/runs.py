"""What a whole run takes, on the screen of its best plan."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from rich.console import RenderableType

from chipscale.report.terminal import step_screen
from chipscale.report.words import count, duration, duration_span, percent
from chipscale.runs.nouns import Answer, Bill, Run
from chipscale.units import KILO, MEGA, show
from chipscale.verdict.nouns import Interval


def run_screen(answer: Answer, title: str, extra: Sequence[tuple[str, str]] = ()) -> RenderableType:
    """Show the best plan with its step, and what the token budget takes on it."""
    run = answer.runs[0]
    head = f"{title}: {show(run.tokens, 'tokens')} tokens in {duration(run.days.median)}, {duration(run.ideal_days.median)} without failures"
    spans = [duration_span(r.days) for r in answer.runs]
    return step_screen(answer.plans, head, (*run_rows(run), *extra), spans if len({s.hypothesis for s in answer.plans}) > 1 else ())


def lapse(seconds: float) -> str:
    """Write a time of any length.

    >>> lapse(22.4), lapse(900.0), lapse(7200.0), lapse(6.1e5)
    ('22.4 s', '15 minutes', '2.0 hours', '7 days')
    """
    return show(seconds, "s") if seconds < 120.0 else duration(seconds / 86400.0)


def megawatt_hours(watt_hours: float) -> str:
    """Write an energy in MWh.

    >>> megawatt_hours(2.757e9)
    '2,760 MWh'
    """
    return f"{count(watt_hours / MEGA) if watt_hours >= 10 * MEGA else show(watt_hours / MEGA, '')} MWh".replace("  ", " ")


def dollars(value: float) -> str:
    """Write an amount of money.

    >>> dollars(5.328e6), dollars(4200.0)
    ('5.33 million USD', '4,200 USD')
    """
    if value < MEGA:
        return f"{count(value)} USD"
    return f"{value / MEGA:.3g} million USD" if value < KILO * MEGA else f"{count(value / MEGA)} million USD"


def ranged(i: Interval, write: Callable[[float], str]) -> str:
    """Write a value with its interval; a range of no width is left out, a unit that all share is written once, and what grows without bound has no end.

    >>> ranged(Interval(median=84.0, low=62.0, high=115.0), duration)
    '84 days (62 – 115)'
    """
    value, low, high = (write(x) if math.isfinite(x) else "no end" for x in (i.median, i.low, i.high))
    if low == high:
        return value
    units = {text.partition(" ")[2] for text in (value, low, high)}
    if len(units) == 1:
        low, high = low.partition(" ")[0], high.partition(" ")[0]
    return f"{value} ({low} – {high})"


def run_rows(run: Run) -> Iterator[tuple[str, str]]:
    """List what a run takes, as pairs of label and text."""
    yield "days without failures", ranged(run.ideal_days, duration)
    yield "days with failures", ranged(run.days, duration)
    yield "steps", f"{count(run.steps)} of {show(run.tokens / run.steps, 'tokens')} tokens"
    yield (
        "useful time",
        f"{ranged(run.useful, percent)}; restarting {percent(run.restarting)}, repeating {percent(run.repeating)}, writing {percent(run.writing)}",
    )
    yield "failures", f"{ranged(run.failures, count)}, one in {ranged(run.between, lapse)}"
    yield "checkpoints", f"{show(run.checkpoint_bytes, 'B')} every {ranged(run.interval, lapse)}, written in {ranged(run.checkpoint_seconds, lapse)}"
    yield "chip-hours", ranged(run.chip_hours, count)
    yield from bill_rows(run.bill)


def bill_rows(bill: Bill) -> Iterator[tuple[str, str]]:
    """List energy by part and money; what is not known is said."""
    parts = {"chips": bill.chips, "host": bill.host, "network": bill.network, "cooling": bill.cooling}
    if bill.energy is not None and bill.power is not None:
        yield "energy", ranged(bill.energy, megawatt_hours)
        yield "", ", ".join(f"{name} {megawatt_hours(part.median)}" for name, part in parts.items() if part is not None)
        yield "mean power", ranged(bill.power, lambda w: show(w, "W"))
    if bill.rent is not None:
        yield "cost if rented", ranged(bill.rent, dollars)
    if bill.capital is not None:
        yield "cost if owned", f"capital {ranged(bill.capital, dollars)}"
    if bill.electricity is not None:
        yield "electricity", ranged(bill.electricity, dollars)
    for gap in bill.missing:
        yield "not known", gap
