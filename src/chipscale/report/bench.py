"""A record of measurements as a screen."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from chipscale.bench.record import Measure, Record
from chipscale.units import show


def _row(table: Table, found: Measure) -> None:
    s = found.summary
    if s is None:
        table.add_row(found.case, "flagged")
        return
    table.add_row(found.case, show(s.value, found.unit), f"{show(s.low, found.unit)} - {show(s.high, found.unit)}", str(s.n))


def bench_screen(record: Record) -> RenderableType:
    """Show what was measured."""
    parts: list[RenderableType] = [Text(record.identity.name)]
    for trial in record.trials:
        table = Table(title=trial.name, box=None)
        for m in trial.measures:
            _row(table, m)
        parts.append(table)
        parts += [Text(f"{n.kind} {n.case} {n.text}") for n in trial.notes]
        parts += [Text(f"{c.case} {c.value} {c.limit} {c.passed}") for c in trial.checks]
    return Group(*parts)
