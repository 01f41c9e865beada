"""How wrong we are: a screen, a section of docs/accuracy.md, and the JSON of the contract."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from chipscale.report.words import signed, tenth
from chipscale.scores import MemoryScore, Score, ScoredRow, Validation, memory_scores
from chipscale.units import show

COLUMNS = ("chip", "source_group", "architecture", "size", "precision")
WORST = 10
FEW = 30


def worst_first(scores: Mapping[str, Score]) -> list[tuple[str, Score]]:
    """Order groups by their mean error, the worst first, the unanswered before all."""
    return sorted(scores.items(), key=lambda item: (-item[1].mape if math.isfinite(item[1].mape) else -math.inf, item[0]))


def worst_rows(result: Validation) -> list[ScoredRow]:
    """Return the rows with the largest errors, over- and underestimates alike (a factor of two is as bad either way)."""
    answered = [r for r in result.rows if math.isfinite(r.error) and r.error > -1]
    return sorted(answered, key=lambda r: -abs(math.log1p(r.error)))[:WORST]


def refusals(result: Validation) -> list[tuple[str, list[str]]]:
    """Gather the rows without an answer by reason, the most frequent first; a row's own name is taken out of its reason."""
    found: dict[str, list[str]] = {}
    for r in result.rows:
        if r.reason:
            found.setdefault(re.sub(rf"^row {re.escape(r.row)}[,:]\s*", "", r.reason), []).append(r.row)
    return sorted(found.items(), key=lambda item: -len(item[1]))


def _some(rows: Sequence[str]) -> str:
    return ", ".join(rows[:5]) + (", ..." if len(rows) > 5 else "")


def cells(score: Score) -> tuple[str, ...]:
    """Write a score; few rows are marked."""
    answered = f"{score.answered:,} of {score.n:,}"
    return (answered, tenth(score.mape), tenth(score.mdape), signed(score.bias), tenth(score.coverage80))


HEADS = ("answered", "mean error", "median error", "bias", "in 80 % interval")


def _score_table(first: str, rows: list[tuple[str, Score]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(first, overflow="ellipsis", no_wrap=True, width=30)
    for head in HEADS:
        table.add_column(head, justify="right", no_wrap=True)
    for name, score in rows:
        table.add_row(Text(name), *cells(score))
    return table


MEMORY_HEADS = ("rows", "mean error", "median error", "bias")


def _memory_cells(score: MemoryScore) -> tuple[str, ...]:
    return (f"{score.n:,}", tenth(score.mape), tenth(score.mdape), signed(score.bias))


def _memory_table(scores: Mapping[str, MemoryScore]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("peak memory", overflow="ellipsis", no_wrap=True, width=30)
    for head in MEMORY_HEADS:
        table.add_column(head, justify="right", no_wrap=True)
    for name, score in scores.items():
        table.add_row(Text(name), *_memory_cells(score))
    return table


def memory_markdown(rows: Sequence[tuple[str, ScoredRow]]) -> str:
    """Write the section of docs/accuracy.md on peak memory: by file and source, and row by row, signed."""
    lines = [
        "## Peak memory",
        "",
        "Nothing in it is fitted to these rows; predicted / measured - 1. `max_memory_allocated` (SimuMax) and `max_memory_reserved` (torchtitan).",
        "",
    ]
    groups = {(file, source): [r for f, r in rows if f == file and r.labels.get("source_group") == source]
              for file, source in dict.fromkeys((f, r.labels.get("source_group", "")) for f, r in rows)}  # fmt: skip
    scored = [(f"{source}, {file}", *_memory_cells(memory_scores(group)["all"])) for (file, source), group in groups.items()]
    lines += _markdown_table(("source", *MEMORY_HEADS), scored)
    table = [(r.row, r.labels.get("chip", ""), show(r.measured_memory_b, "B"), show(r.predicted_memory_b, "B"),
              signed(r.predicted_memory_b / r.measured_memory_b - 1.0), "; ".join(r.assumed) or "nothing") for _, r in rows]  # fmt: skip
    lines += _markdown_table(("row", "chip", "measured", "predicted", "error", "assumed"), table)
    return "\n".join(lines).rstrip() + "\n"


def _figures(r: ScoredRow) -> tuple[str, ...]:
    unit = r.labels.get("unit", "s")
    measured, predicted, low, high = (show(v, unit) if unit == "s" else f"{v:,.0f} {unit}" for v in (r.measured_s, r.predicted_s, r.low_s, r.high_s))
    return (r.row, measured, predicted, f"{low} – {high}", signed(r.error))


def _row_table(rows: list[ScoredRow]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("row", overflow="fold", min_width=10)
    for head in ("measured", "predicted", "80 % interval", "error"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("assumed", overflow="fold", ratio=1)
    for r in rows:
        name, *figures = _figures(r)
        table.add_row(Text(name), *figures, Text("; ".join(r.assumed)))
    return table


def screen(result: Validation) -> RenderableType:
    """Show the overall score, the groups worst first, the ten worst rows, and what was not answered."""
    parts: list[RenderableType] = [Text(result.title, style="bold"), Text("")]
    parts.append(_score_table("rows", [("all", result.overall), ("clean", result.clean)]))
    if result.memory:
        parts += [Text(""), _memory_table(result.memory)]
    for column in _ordered(result.groups):
        if not any(s.answered for s in result.groups[column].values()):
            continue
        parts += [Text(""), _score_table(f"by {column.replace('_', ' ')}", worst_first(result.groups[column]))]
    worst = worst_rows(result)
    if worst:
        parts += [Text(""), Text(f"the {len(worst)} worst rows", style="bold"), _row_table(worst)]
    refused = refusals(result)
    if refused:
        parts += [Text(""), Text("rows without an answer", style="bold")]
        parts += [Text(f"{len(rows):,}: {reason} ({_some(rows)})", overflow="fold") for reason, rows in refused[:WORST]]
    parts += [Text(""), *(Text(f"· {note}") for note in result.notes)] if result.notes else []
    return Padding(Group(*parts), (0, 0, 0, 2))


def _ordered(groups: Mapping[str, Mapping[str, Score]]) -> list[str]:
    return [c for c in COLUMNS if c in groups] + [c for c in groups if c not in COLUMNS]


def _cell(text: str) -> str:
    """Escape what would break a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _markdown_table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    rule = "|".join(["---", *["--:"] * (len(heads) - 1)])
    return ["| " + " | ".join(heads) + " |", f"|{rule}|", *("| " + " | ".join(_cell(c) for c in row) + " |" for row in rows), ""]


def markdown(result: Validation) -> str:
    """Write a section of docs/accuracy.md: overall, groups worst first, the worst rows with their assumptions."""
    lines = [f"## {_cell(result.title)}", ""]
    lines += _markdown_table(("rows", *HEADS), [("all", *cells(result.overall)), ("clean", *cells(result.clean))])
    for column in _ordered(result.groups):
        lines += [f"### By {column.replace('_', ' ')}, worst first", ""]
        named = [(name if s.n >= FEW else f"{name} (few rows)", *cells(s)) for name, s in worst_first(result.groups[column])]
        lines += _markdown_table((column.replace("_", " "), *HEADS), named)
    worst = worst_rows(result)
    if worst:
        lines += [f"### The {len(worst)} worst rows", ""]
        table = [(*_figures(r), "; ".join(r.assumed) or "nothing") for r in worst]
        lines += _markdown_table(("row", "measured", "predicted", "80 % interval", "error", "assumed"), table)
    refused = refusals(result)
    if refused:
        lines += ["### Rows without an answer", ""]
        lines += [*(f"- {len(rows):,}: {_cell(reason)} ({_cell(_some(rows))})" for reason, rows in refused), ""]
    lines += [f"- {_cell(note)}" for note in result.notes]
    return "\n".join(lines).rstrip() + "\n"


def contract(result: Validation) -> Mapping[str, object]:
    """Arrange a validation as other programs read it: the overall score, groups by column and value, rows."""
    rows = [{"row": r.row, "measured_s": r.measured_s, "predicted_s": r.predicted_s, "low_s": r.low_s, "high_s": r.high_s, "error": r.error,
             "assumed": r.assumed, "reason": r.reason, "apart": r.labels.get("apart", ""),
             "measured_memory_b": r.measured_memory_b, "predicted_memory_b": r.predicted_memory_b} for r in result.rows]  # fmt: skip
    groups = {column: {value: asdict(score) for value, score in scores.items()} for column, scores in result.groups.items()}
    return {
        **asdict(result.overall),
        "clean": asdict(result.clean),
        "groups": groups,
        "rows": rows,
        "title": result.title,
        "notes": result.notes,
        "memory": {name: asdict(score) for name, score in result.memory.items()},
    }
