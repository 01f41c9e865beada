"""A record of measurements as a screen: what was reached, how sure that is, what went wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from chipscale.bench.record import Check, Identity, Measure, Note, Record, Trial
from chipscale.units import GIBI, show

#: load beyond this share of the cores slows what is measured
BUSY = 0.3
#: half an interval from which a figure is marked
WIDE = 0.1
#: unit of checks that are 1 where all is well
RATIO = "times"
LEGEND = "± is half the 95 % interval of a median of n samples; held for 2 s: the highest mean over 2 s without a pause; docs/bench.md says what each figure means"
TITLES: Mapping[str, str] = {
    "matmul": "matrix products",
    "memory": "memory",
    "layers": "parts of a transformer",
    "collectives": "collectives",
    "block": "transformer blocks",
    "arithmetic": "arithmetic",
    "learning": "a small model learns",
}
ENDS: Mapping[str, str] = {"timeout": "it hung and was ended", "failed": "it failed", "skipped": "not for this device", "stopped": "interrupted"}


def bench_screen(record: Record) -> RenderableType:
    """Show a record: the device, what was reached by test, checks, and all that did not go as planned."""
    parts: list[RenderableType] = [*_head(record), *_short(record), Text()]
    for trial in record.trials:
        parts += [*_section(trial), Text()]
    return Group(*parts, *_checks(record.checks), *_caveats(record), Text(LEGEND, style="dim"))


def _head(record: Record) -> list[RenderableType]:
    known = record.identity
    what = f"{known.count}x " if known.count > 1 else ""
    units = "cores" if known.kind == "cpu" else "units"
    first = Text(f"{what}{known.name}", style="bold").append(
        f"  {known.units} {units}, {known.capability}, {known.memory_bytes / GIBI:.0f} GiB", style="not bold"
    )
    ended = "" if record.complete else ", cut short"
    host = "" if known.kind == "cpu" else f"; host {record.system.host_processor_model_name}"
    second = f"{record.system.framework}, {_runtime(known)}{host}; {record.created.replace('T', ' ').replace('+00:00', ' UTC')}; suite {record.suite}, {record.seconds:.0f} s{ended}"
    return [first, Text(second, style="dim"), *_busy(record)]


def _busy(record: Record) -> list[RenderableType]:
    """Say so where other work shared the cores: the rates are then lower than the machine's own."""
    cores = max(record.system.host_processor_vcpu_count, 1)
    load = record.before.load
    if load is None or load <= BUSY * cores:
        return []
    return [Text(f"busy: load {load:.1f} on {cores} cores before the run; other work slowed it, so repeat it on an idle machine", style="yellow")]


def _short(record: Record) -> list[RenderableType]:
    """Say in a line what was reached: products by precision, the largest copy, checks."""
    found = [f"{m.case.partition(' ')[0]} {_value(m)}" for m in record.measures if m.test == "matmul" and m.case.endswith("achievable")]
    copies = [m for m in record.of("memory_bandwidth") if m.case == "copy"]
    found += [f"memory {_value(m)}" for m in copies[-1:]]
    held = [c for c in record.checks if c.limit is not None]
    found += [f"{sum(c.passed for c in held)} of {len(held)} checks passed"] if held else []
    return [Text("reached: " + ", ".join(found), style="bold")] if found else []


def _runtime(known: Identity) -> str:
    return known.runtime.partition(", ")[2] if known.kind == "cpu" else f"runtime {known.runtime}, driver {known.driver or 'unknown'}"


def _section(trial: Trial) -> list[RenderableType]:
    """Show one test; a test that has no screen of its own is listed measure by measure."""
    table = {"matmul": _products, "memory": _memory, "collectives": _collectives, "block": _blocks, "learning": _learning}.get(trial.name, _plain)
    if not trial.measures:
        ended = ENDS.get(trial.outcome, "only checked, see below" if trial.checks else "nothing could be measured")
        return [Text(TITLES.get(trial.name, trial.name), style="bold").append(f"  {ended}", style="not bold dim")]
    return [table(trial)]


def _table(title: str, *columns: str, first: int = 30) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column(Text(title, style="bold"), no_wrap=True, min_width=first)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _value(found: Measure | None) -> str:
    if found is None:
        return ""
    return show(found.summary.value, found.unit) if found.summary else "above the bound"


def _spread(found: Measure) -> Text:
    """Write the half width of the 95 % interval as a share of the value, marked where the value is hardly known."""
    s = found.summary
    if s is None or s.n < 2 or not s.value:
        return Text()
    half = (s.high - s.low) / 2 / s.value
    return Text(f"± {half:.1%}".replace("%", " %"), style="yellow" if half > WIDE else "")


def _n(found: Measure | None) -> str:
    return f"{found.summary.n:,}" if found and found.summary else ""


def _share(found: Measure | None, bound: float | None) -> str:
    return f"{found.summary.value / bound:.0%}".replace("%", " %") if found and found.summary and bound else ""


def _products(trial: Trial) -> Table:
    named = any(m.bound_source.startswith("claimed") for m in trial.measures)
    heads = ("achievable", "95 %", "n", "held for 2 s", *(("of the claim",) if named else ()), "fastest m x n x k", "tried")
    table = _table(TITLES["matmul"], *heads, first=18)
    by_case = {m.case: m for m in trial.measures}
    for case, best in by_case.items():
        precision, _, what = case.partition(" ")
        if what == "achievable":
            held = by_case.get(f"{precision} sustained")
            shape = " x ".join(f"{best.settings[a]:,}" for a in ("m", "n", "k"))
            claim = [_share(best, best.bound)] if named else []
            table.add_row(f"  {precision}", _value(best), _spread(best), _n(best), _value(held), *claim, shape, str(best.settings["shapes_tried"]))
    return table


def _size(found: Measure, field: str) -> str:
    size = float(found.settings[field])
    return next((f"{size / f:.4g} {u}" for f, u in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")) if size >= f), f"{size:.0f} B")


def _memory(trial: Trial) -> Table:
    table = _table(TITLES["memory"], "rate", "95 %", "n", "an array", "")
    for found in trial.measures:
        field = "array_bytes" if "array_bytes" in found.settings else "bytes" if "bytes" in found.settings else ""
        where = "" if field != "array_bytes" else "beyond the last cache" if found.settings["beyond_cache"] else "may stay in caches"
        table.add_row(f"  {found.case}", _value(found), _spread(found), _n(found), _size(found, field) if field else "", where)
    return table


def _collectives(trial: Trial) -> Table:
    ranks, backend = trial.measures[0].settings["ranks"], trial.measures[0].settings["backend"]
    table = _table(f"{TITLES['collectives']}, {ranks} ranks, {backend}", "size", "count", "type", "redop", "time", "algbw", "busbw", "#wrong")
    last = ""
    for found in trial.measures:
        s, bus = found.summary, float(found.settings["bus_factor"])
        row = [f"{found.settings['size']:,}", f"{found.settings['count']:,}", str(found.settings["type"]), str(found.settings["redop"])]
        rates = [show(found.work / s.value, "s"), show(s.value / bus, "B/s"), show(s.value, "B/s")] if s else ["", "", "above the bound"]
        table.add_row(f"  {found.case}" if found.case != last else "", *row, *rates, str(found.settings["wrong"]))
        last = found.case
    return table


def _blocks(trial: Trial) -> Table:
    table = _table(TITLES["block"], "forward", "+ backward", "+ AdamW", "95 %", "n", "memory", "width", "tokens", "experts")
    names = list(dict.fromkeys(m.case.rpartition(", ")[0] for m in trial.measures))
    for name in names:
        of = {m.case.rpartition(", ")[2]: m for m in trial.measures if m.case.rpartition(", ")[0] == name}
        said, step = next(iter(of.values())).settings, of.get("step")
        rates = [_value(of.get(k)).removesuffix("okens/s") + "/s" if k in of else "" for k in ("forward", "forward + backward", "step")]
        what = [f"{said['d_model']:,}", f"{said['batch']} x {said['length']:,}", str(said.get("experts", ""))]
        table.add_row(f"  {name}", *rates, _spread(step) if step else "", _n(step), _value(of.get("peak memory")), *what)
    return table


def _learning(trial: Trial) -> Table:
    table = _table(TITLES["learning"], "loss reached", "float32 reaches", "from", "steps")
    for m in trial.measures:
        reached = f"{m.summary.value:.4f}" if m.summary else "none"
        table.add_row(
            f"  {m.settings['dtype']}",
            reached,
            f"{float(m.settings['reference']):.4f}",
            f"{float(m.settings['first']):.2f}",
            str(m.settings["steps"]),
        )
    return table


def _plain(trial: Trial) -> Table:
    table = _table(TITLES.get(trial.name, trial.name), "median", "95 %", "n")
    table.add_column("on")
    for found in trial.measures:
        said = ", ".join(
            f"{k.replace('_', ' ')} {v:,}" for k, v in found.settings.items() if isinstance(v, int) and k not in ("calls_a_sample", "causal")
        )
        table.add_row(f"  {found.case}", _value(found), _spread(found), _n(found), said)
    return table


def _line(check: Check) -> str:
    return f"{check.case}: {check.value:.3g}" + (f", at most {check.limit:.3g}" if check.limit is not None else "") + f" {check.unit}"


def _checks(checks: Sequence[Check]) -> list[RenderableType]:
    """Say how many checks passed, and each that did not."""
    held = [c for c in checks if c.limit is not None]
    failed = [c for c in held if not c.passed]
    if not held:
        return []
    style = "bold red" if failed else "bold green"
    parts: list[RenderableType] = [Text(f"{len(held) - len(failed)} of {len(held)} checks passed", style=style)]
    parts += [Text(f"  failed  {c.test}, {_line(c)}", style="red") for c in failed]
    near = [c for c in held if c.passed and c.limit and c.unit != RATIO]
    if near:
        nearest = max(near, key=lambda c: c.value / (c.limit or 1.0))
        parts.append(Text(f"  nearest to its limit  {nearest.test}, {_line(nearest)}", style="dim"))
    differ = [c for c in checks if c.limit is None and c.value > 0]
    parts += [Text(f"  seen  {c.test}, {_line(c)}", style="dim") for c in differ]
    return [*parts, Text()]


def _grouped(notes: Sequence[Note]) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for note in notes:
        found.setdefault((note.kind, note.text), []).append(note.case)
    return found


def _caveats(record: Record) -> list[RenderableType]:
    """List what a reader must know before believing the figures."""
    lines: list[tuple[str, str]] = []
    for trial in record.trials:
        if trial.outcome in ENDS:
            lines.append((trial.outcome, f"{TITLES.get(trial.name, trial.name)}: {ENDS[trial.outcome]} after {trial.seconds:.0f} s"))
        lines += [(kind, f"{', '.join(cases)}: {text}") for (kind, text), cases in _grouped(trial.notes).items()]
    if not any(m.bound for m in record.measures if m.test == "matmul") and record.identity.kind != "cpu":
        lines.append(("no bound", "no peak is claimed, so that no sample could be too fast; add --against CHIP (chipscale chips)"))
    if not lines:
        return []
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False, pad_edge=False)
    table.add_column(style="yellow", no_wrap=True)
    table.add_column()
    for kind, text in lines:
        table.add_row(kind, text)
    return [Text("to know before believing it", style="bold"), Padding(table, (0, 0, 0, 2))]
