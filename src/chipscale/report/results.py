"""A store's records and two runs compared, as screens."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from chipscale.bench.record import Record
from chipscale.importers.mlperf import FOOTNOTE
from chipscale.report.bench import bench_screen
from chipscale.report.imported import imported_screen
from chipscale.report.words import short
from chipscale.results.compare import Comparison, Difference
from chipscale.results.store import Entry
from chipscale.units import show

STYLES = {"faster": "bold green", "slower": "bold red", "higher": "bold yellow", "lower": "bold yellow"}


def entries_screen(entries: Sequence[Entry]) -> RenderableType:
    """List records; logs of an official benchmark stand in a panel of their own, below their footnote."""
    own, official = [e for e in entries if not e.official], [e for e in entries if e.official]
    parts: list[RenderableType] = [_entries(own)] if own or not official else []
    if official:
        parts += [Text(), Text("logs of MLPerf, apart from the others", style="bold"), _entries(official), Text(FOOTNOTE, style="yellow")]
    return Group(*parts)


def _entries(entries: Sequence[Entry]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for column in ("record", "device", "chip", "what", "measured", "added", "results"):
        table.add_column(column, overflow="fold")
    for e in entries:
        what = e.suite if e.suite.startswith("imported") else f"suite {e.suite}"
        table.add_row(e.sha256[:12], e.device or "unnamed", short(e.chip) if e.chip else "unknown", what, e.created[:16].replace("T", " ") or "no date",
                      e.added[:16].replace("T", " "), f"{e.measures:,}")  # fmt: skip
    return table


def record_screen(record: Record) -> RenderableType:
    """Show a record as its maker does."""
    return imported_screen(record) if record.suite.startswith("imported") else bench_screen(record)


def diff_screen(c: Comparison) -> RenderableType:
    """Show each case of two runs: medians, b over a with its interval, p for all cases together, and what that says."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for column in ("test", "case", c.a[:8], c.b[:8], "change", "95 %", "n", "p, all together", ""):
        table.add_column(column, overflow="fold")
    last = ""
    for d in c.differences:
        table.add_row(d.test if d.test != last else "", *_row(d))
        last = d.test
    shown = sum(d.word not in ("no difference shown", "too few samples") for d in c.differences)
    head = Text(f"{shown} of {len(c.differences)} results differ", style="bold").append(f"  {c.a[:12]} against {c.b[:12]}", style="not bold dim")
    foot = (
        f"change: median ratio over all pairs of samples; p: Mann-Whitney U, two-sided, adjusted by Holm for {c.tested} tests at once (5 %); "
        "it tells two runs apart, not two machines: runs of one machine differ too, so repeat them"
    )
    alone = [Text(f"only in one of them: {', '.join(c.alone[:12])}{' ...' if len(c.alone) > 12 else ''}", style="dim")] if c.alone else []
    return Group(head, *(Text(f"note: {r}", style="yellow") for r in c.remarks), Text(), table, Text(), *alone, Text(foot, style="dim"))


def _value(value: float, unit: str) -> str:
    return f"{value:.4g}" if unit in ("1", "1/s", "tokens/s") else show(value, unit)


def _row(d: Difference) -> tuple[str | Text, ...]:
    change = f"{100 * (d.ratio - 1):+.1f} %" if d.ratio == d.ratio else ""
    span = f"{100 * (d.low - 1):+.1f} to {100 * (d.high - 1):+.1f} %" if d.low == d.low else ""
    p = "" if d.adjusted is None else "< 0.001" if d.adjusted < 0.001 else f"{d.adjusted:.3f}"
    word = Text(d.word, style=STYLES.get(d.word, "dim"))
    return (d.case, _value(d.medians[0], d.unit), _value(d.medians[1], d.unit), Text(change, style="bold"), span, f"{d.n[0]}, {d.n[1]}", p, word)
