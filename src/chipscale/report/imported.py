"""An imported result as a screen."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from chipscale.bench.record import Measure, Record
from chipscale.units import show

#: rows of a table that grows with message size or load
MOST = 24


def imported_screen(record: Record) -> RenderableType:
    """Show what was found, the device, checks, and what must stand below it."""
    known = record.identity
    memory = f", {show(known.memory_bytes, 'B')}" if known.memory_bytes else ""
    units = f", {known.units} units" if known.units else ""
    head = Text(f"{record.suite.removeprefix('imported: ')}: {known.name or 'no device named'}{memory}{units}", style="bold")
    head.append(f"  {record.versions.get('source', '')}, {record.created or 'no date'}, sha256 {record.sha256[:12]}", style="not bold dim")
    return Group(head, Text(), _table(record), *_checks(record), *_notes(record))


def _table(record: Record) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for column, justify in (("result", "left"), ("on", "left"), ("n", "right"), ("median", "right"), ("95 %", "left")):
        table.add_column(column, justify="right" if justify == "right" else "left")
    shown = record.measures if len(record.measures) <= MOST else record.measures[-MOST:]
    for m in shown:
        s = m.summary
        if s is None:
            continue
        spread = f"{_value(s.low, m.unit)} – {_value(s.high, m.unit)}" if s.n > 1 else ""
        table.add_row(f"  {m.case}", _on(m), f"{s.n:,}", Text(_value(s.value, m.unit), style="bold"), spread)
    if len(record.measures) > MOST:
        table.caption = Text(f"the last {MOST} of {len(record.measures)} results; all with --json", style="dim")
    return table


def _value(value: float, unit: str) -> str:
    return f"{value:.4g}{'' if unit == '1' else '/s' if unit == '1/s' else ' tokens/s'}" if unit in ("1", "1/s", "tokens/s") else show(value, unit)


def _on(m: Measure) -> str:
    """Say on what: a message, a shape, or a load."""
    s = m.settings
    if "size" in s:
        return f"{show(float(s['size']), 'B')}, {s['ranks'] or 'unknown'} ranks"
    if {"m", "n", "k"} <= s.keys():
        return f"{s['m']} x {s['n']} x {s['k']}"
    return str(s.get("model_id") or s.get("submission_benchmark") or "")


def _checks(record: Record) -> list[RenderableType]:
    held = [c for c in record.checks if c.limit is not None]
    failed = [c for c in held if not c.passed]
    if not held:
        return []
    lines: list[RenderableType] = [Text(), Text(f"{len(held) - len(failed)} of {len(held)} checks passed", style="bold red" if failed else "green")]
    return [*lines, *(Text(f"  failed  {c.case}: {c.value:g} {c.unit}", style="red") for c in failed)]


def _notes(record: Record) -> list[RenderableType]:
    notes = [Text(f"{n.case}: {n.text}", style="dim") for t in record.trials for n in t.notes]
    foot = [Text(record.system.sw_notes, style="yellow")] if record.system.sw_notes else []
    return [*notes, *foot]
