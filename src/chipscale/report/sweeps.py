"""Tables over many plans, sizes and chips."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from chipscale.report.terminal import CERTAIN
from chipscale.report.words import percent
from chipscale.sweep import Swept
from chipscale.units import show
from chipscale.verdict.nouns import Side


def _table(left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def pareto_screen(sides: Sequence[Side], title: str) -> RenderableType:
    """Show the plans that none beats in time, memory or chips without losing in another, those of one size together, fastest first."""
    several = len({s.hypothesis for s in sides}) > 1
    table = _table(["taken as"] * several + ["plan", "precision"], ["chips", "seconds", "memory a chip"])
    for s in sides:
        table.add_row(*[s.hypothesis] * several, Text(s.plan.replace(",", ", ")), s.precision.upper(), f"{s.chips:,}", show(s.seconds.median, "s"),
                      show(s.memory_bytes, "B"))  # fmt: skip
    said = f"{len(sides)} plans that no other beats in seconds, memory a chip or chips without losing in another"
    return Group(Text(title, style="bold"), Text(said, style="dim"), Padding(table, (0, 0, 0, 2)))


def sweep_screen(swept: Swept) -> RenderableType:
    """Show a row for each result and hypothesis, sorted by model, chip and size; a task without a plan shows its reason."""
    table = _table(["model", "chip", "best plan"], ["chips", "seconds", "80 %", "memory a chip", "MFU"])
    for r in swept.results:
        lead = (Text(r.task.model), Text(r.task.chip))
        if r.reason:
            table.add_row(*lead, Text(r.reason, style="dim"), f"{r.task.chips:,}")
        for o in r.outcomes:
            named = Text(r.task.chip + ("" if o.hypothesis in ("", CERTAIN) else f" [{o.hypothesis}]"))
            table.add_row(lead[0], named, Text(f"{o.plan.replace(',', ', ')}, {o.precision.upper()}"), f"{r.task.chips:,}", show(o.seconds, "s"),
                          f"{show(o.low, 's')} – {show(o.high, 's')}", show(o.memory_bytes, "B"), percent(o.mfu))  # fmt: skip
    return table
