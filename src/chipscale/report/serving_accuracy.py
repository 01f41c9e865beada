"""How wrong serving is: the JSON of the contract, and a section of docs/accuracy-serving.md."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from chipscale.report.accuracy import HEADS, cells, worst_first
from chipscale.scores import Score, ScoredRow, Validation, score

NAMES = ("ttft", "tpot")
SHOWN = ("engine", "mode", "harness", "chip", "family")


def contract(found: Sequence[Validation]) -> Mapping[str, object]:
    """Return what `validate serving` promises: scores of the clean rows by quantity (the time between tokens stands at the top), groups, and both quantities of every row in ms.

    Of published figures of many kinds each row has its own quantity, in seconds or tokens a second.
    """
    if len(found) == 1:
        return _published(found[0])
    ttft, tpot = found
    return {
        "title": tpot.title,
        **asdict(tpot.clean),
        "n": len({r.row for v in found for r in v.rows}),
        "answered": len({r.row for v in found for r in v.rows if math.isfinite(r.predicted_s)}),
        "quantities": {name: {**asdict(v.clean), "all_rows": asdict(v.overall), "groups": _groups(v)} for name, v in zip(NAMES, found, strict=True)},
        "groups": _groups(tpot),
        "notes": list(tpot.notes),
        "rows": rows(ttft, tpot),
    }


def _published(v: Validation) -> Mapping[str, object]:
    lines = [{"row": r.row, "quantity": r.labels.get("quantity", ""), "unit": r.labels.get("unit", ""), "measured": r.measured_s, "predicted": r.predicted_s, "low": r.low_s,
              "high": r.high_s, "error": r.error, "clean": r.clean, "reason": r.reason, "labels": dict(r.labels)} for r in v.rows]  # fmt: skip
    return {
        "title": v.title,
        **asdict(v.clean),
        "n": len(v.rows),
        "answered": v.overall.answered,
        "all_rows": asdict(v.overall),
        "groups": _groups(v),
        "notes": list(v.notes),
        "rows": lines,
    }


def _groups(v: Validation) -> Mapping[str, Mapping[str, object]]:
    return {label: {value: asdict(s) for value, s in scores.items()} for label, scores in v.groups.items()}


def rows(ttft: Validation, tpot: Validation) -> list[Mapping[str, object]]:
    """Join both quantities of each row, in the order of the file; NaN where one is not measured or not predicted."""
    first, between = ({r.row: r for r in v.rows} for v in (ttft, tpot))
    out: list[Mapping[str, object]] = []
    for key in dict.fromkeys([*first, *between]):
        line: dict[str, object] = {"row": key}
        known = first.get(key) or between[key]
        for name, found in (("ttft", first.get(key)), ("tpot", between.get(key))):
            line |= _quantity(name, found)
        out.append({**line, "clean": known.clean, "reason": known.reason, "labels": dict(known.labels)})
    return out


def _quantity(name: str, r: ScoredRow | None) -> Mapping[str, float]:
    values = (r.measured_s, r.predicted_s, r.low_s, r.high_s) if r else (math.nan,) * 4
    ms = [1e3 * v for v in values]
    return {
        f"measured_{name}_ms": ms[0],
        f"predicted_{name}_ms": ms[1],
        f"{name}_low_ms": ms[2],
        f"{name}_high_ms": ms[3],
        f"{name}_error": r.error if r else math.nan,
    }


def markdown(found: Sequence[Validation]) -> str:
    """Write scores as a section: all clean rows, the others, and groups, both quantities."""
    lines = []
    for v in found:
        lines += [f"## {v.title[:1].upper()}{v.title[1:]}", "", *_table("rows", [("without doubt", v.clean), ("with a stated doubt", _doubtful(v))])]
        for label in SHOWN:
            if len(v.groups.get(label, {})) > 1:
                lines += [*_table(label, worst_first(v.groups[label]))]
        lines += [*(f"- {note}" for note in v.notes), ""]
    return "\n".join(lines)


def _doubtful(v: Validation) -> Score:
    return score([r for r in v.rows if not r.clean])


def _table(first: str, scores: Sequence[tuple[str, Score]]) -> list[str]:
    lines = [f"| {first} | {' | '.join(HEADS)} |", "|---|" + "--:|" * len(HEADS)]
    return [*lines, *(f"| {name} | {' | '.join(cells(s))} |" for name, s in scores if s.n), ""]
