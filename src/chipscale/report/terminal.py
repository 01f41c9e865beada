"""The first screen of a verdict, its details, and a training step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from chipscale.facts.job import Job
from chipscale.report.bars import axis, bar, scale_of
from chipscale.report.words import call, cause, count, counts, evidence, losing, pair, percent, plural, ratio, short, span, told
from chipscale.units import show
from chipscale.verdict.nouns import HypothesisShare, Interval, JobVerdict, Sensitivity, Side, Verdict

LABEL = 26
CERTAIN = "known"  # the key of the one hypothesis about a chip that is no belief
WIDE = 96


def per_what(match: str) -> str:
    """Say what the two sides are made equal in."""
    return {"chips": "per chip", "power": "per watt", "cost": "per dollar"}.get(match, f"per {match}")


@dataclass(frozen=True, slots=True)
class VerdictScreen:
    """The first screen, laid out for the width that it is given."""

    verdict: Verdict

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        v, width = self.verdict, min(options.max_width, 132)
        yield _head(v, width)
        yield Text("")
        yield Padding(_jobs(v, width - 2), (0, 0, 0, 2))
        yield Text("")
        yield Padding(_grounds(v, width - 2), (0, 0, 0, 2))
        yield Text("")
        foot = f"seed {v.seed}, {v.draws:,} draws; --details shows plans and reasons, chipscale report --out page.html a page"
        yield Padding(Text(foot, style="dim"), (0, 0, 0, 2))


def verdict_screen(verdict: Verdict) -> RenderableType:
    """Show the answer on one screen: question, headline, a row a job, and what it rests on."""
    return VerdictScreen(verdict)


def _head(v: Verdict, width: int) -> RenderableType:
    question, headline = Text(v.question, style="bold"), Text(v.headline, style="bold cyan")
    if len(v.question) + len(v.headline) + 4 <= width:
        return Text("    ").join([question, headline])
    return Group(question, headline)


def _bar_width(v: Verdict, width: int) -> int:
    """Give the bars what the other columns leave."""
    title = max(len(j.job.title) for j in v.jobs)
    return max(16, min(40, width - min(title, 36) - 62))


def _jobs(v: Verdict, width: int) -> Table:
    a, b = pair(v.a, v.b)
    wide = width >= WIDE - 2
    scale = scale_of([j.ratio for j in v.jobs], _bar_width(v, width) if wide else 14)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("job", overflow="fold", min_width=16)
    table.add_column("ratio", justify="right", no_wrap=True)
    table.add_column(Text(f"{per_what(v.match)}, {a} / {b}") if wide else Text(f"{a} / {b}"), no_wrap=True, min_width=scale.width)
    table.add_column("80 % interval", justify="right", no_wrap=True)
    table.add_column("P(≥ 1)", justify="right", no_wrap=True)
    table.add_column(Text(f"{plural(a)} for 1,000 {plural(b)}" if wide else "for 1,000"), justify="right", no_wrap=wide)
    for j in v.jobs:
        needed = counts(j.a_per_1000_b) if wide else count(j.a_per_1000_b.median)
        title = Text(j.job.title)
        table.add_row(title, Text(ratio(j.ratio.median), style="bold"), bar(j.ratio, scale), span(j.ratio), percent(j.p_at_least), needed)
    table.add_row("", "", axis(scale), "", "", "")
    return table


def _grounds(v: Verdict, width: int) -> Table:
    """List what the answer rests on, one label a row."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False, width=width)
    table.add_column("label", width=min(LABEL, width // 4), style="dim", overflow="fold")
    table.add_column("text", ratio=1, overflow="fold")
    for label, lines in _rows(v):
        table.add_row(label, Text("\n".join(lines)))
    return table


def _rows(v: Verdict) -> Iterator[tuple[str, list[str]]]:
    a, b = pair(v.a, v.b)
    yield "precision", precisions(v)
    yield "call", _said([(call(j.call, a), j.job.title) for j in v.jobs])
    yield "power per unit of work", [f"{spread([j.power_ratio for j in v.jobs])} of the {b}'s"]
    costs = [j.cost_ratio for j in v.jobs if j.cost_ratio is not None]
    if costs:
        yield "cost per unit of work", [f"{spread(costs)} of the {b}'s"]
    names = dict(zip((chip for chip, _ in v.evidence), (a, b), strict=False))
    yield "what it rests on", [f"{names.get(chip, chip)}: {evidence(counted)}" for chip, counted in v.evidence]
    for chip, shares in v.hypotheses:
        if shares:
            yield f"hypotheses, {names.get(chip, short(chip))}", hypotheses(shares)
    if v.settle:
        yield "what would settle it", [settle(v.settle)]
    if v.wrongness:
        yield "how wrong we usually are", list(v.wrongness)


def _said(pairs: list[tuple[str, str]]) -> list[str]:
    """Say each thing once with the jobs that it holds for."""
    groups: dict[str, list[str]] = {}
    for key, title in pairs:
        groups.setdefault(key, []).append(title)
    if len(groups) == 1 and len(pairs) > 1:
        return [f"{key}, in every job" for key in groups]
    return [f"{key}: {'; '.join(titles)}" for key, titles in groups.items()]


def precisions(v: Verdict) -> list[str]:
    """Say at which precision each side works, at its likeliest hypothesis; unequal pairs are said in full."""
    a, b = pair(v.a, v.b)
    said = []
    for j in v.jobs:
        one, two = j.a.precision.upper(), j.b.precision.upper()
        said.append((f"both {one}" if one == two else f"{a} {one} against {b} {two}", j.job.title))
    lines = _said(said)
    return [*lines, "(at the likeliest hypothesis)"] if v.hypotheses else lines


def spread(intervals: Sequence[Interval]) -> str:
    """Write the range of several medians, and the widest interval."""
    medians = [i.median for i in intervals]
    low, high = min(i.low for i in intervals), max(i.high for i in intervals)
    ends = list(dict.fromkeys(f"{ratio(m)}x" for m in (min(medians), max(medians))))
    return f"{' to '.join(ends)}{' by job' if len(ends) > 1 else ''} (80 %: {ratio(low)} – {ratio(high)})"


def hypotheses(shares: Sequence[HypothesisShare]) -> list[str]:
    """List hypotheses, the likeliest first."""
    return [f"{percent(h.weight):>5}  {h.title}" for h in sorted(shares, key=lambda h: -h.weight)]


def settle(tests: Sequence[Sensitivity]) -> str:
    """Say which tests would narrow the interval most, and by how much."""
    first, *rest = tests[:3]
    tail = "".join(f", then {s.test} ({percent(s.narrows)})" for s in rest)
    return f"{first.test} (narrows the interval by {percent(first.narrows)}){tail}"


def verdict_details(verdict: Verdict) -> RenderableType:
    """Show for each job both sides' plans and times, where the ratio comes from, and what it is sensitive to."""
    blocks: list[RenderableType] = []
    for j in verdict.jobs:
        blocks += [Text(""), _job_title(j, verdict), *_job_details(j, verdict)]
    for chip, shares in verdict.hypotheses:
        if shares:
            blocks += [Text(""), Text(f"Why these hypotheses of the {short(chip)}", style="bold")]
            blocks += [Padding(Text(f"{percent(h.weight)} {h.title} [{h.key}]: {h.reason}", overflow="fold"), (0, 0, 0, 2)) for h in shares]
    return Group(*blocks)


def _job_title(j: JobVerdict, v: Verdict) -> Text:
    said = call(j.call, pair(v.a, v.b)[0])
    title = f"{j.job.title}: {ratio(j.ratio.median)} ({span(j.ratio)}), P(≥ 1) {percent(j.p_at_least)}; {said}"
    return Text(f"{title}  [{j.job.chips:,} chips, {per_what(v.match)}]", style="bold")


def _job_details(j: JobVerdict, v: Verdict) -> list[RenderableType]:
    found: list[RenderableType] = [Padding(_sides((j.a, j.b), pair(v.a, v.b)), (0, 0, 0, 2))]
    lines: list[tuple[str, str]] = []
    if j.contributions:
        lines.append(("where it comes from", " × ".join(f"{cause} {ratio(factor)}" for cause, factor in j.contributions)))
    lines.append(("power per unit of work", f"{ratio(j.power_ratio.median)}x ({span(j.power_ratio)})"))
    if j.cost_ratio is not None:
        lines.append(("cost per unit of work", f"{ratio(j.cost_ratio.median)}x ({span(j.cost_ratio)})"))
    held = j.by_hypothesis if len(j.by_hypothesis) > 1 else ()
    lines += [("if it is" if not i else "", f"{key}: {ratio(r.median)} ({span(r)})") for i, (key, r) in enumerate(held)]
    for i, s in enumerate(j.sensitivities[:6]):
        text = f"{told(s.fact)}: {percent(s.share)} of the variance; {s.test} narrows by {percent(s.narrows)}"
        lines.append(("what it is sensitive to" if not i else "", text))
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column("label", style="dim", width=LABEL)
    table.add_column("text", overflow="fold")
    for label, text in lines:
        table.add_row(label, Text(text))
    return [*found, Padding(table, (0, 0, 0, 2))]


def _interval(i: Interval, unit: str) -> str:
    return f"{show(i.median, unit)} ({show(i.low, unit)} – {show(i.high, unit)})"


def side_rows(s: Side) -> list[tuple[str, str]]:
    """List what a side is and does, as pairs of label and text."""
    rows = [("cluster", s.cluster)]
    if s.hypothesis not in ("", CERTAIN):
        rows.append(("taken as", s.hypothesis))
    rows += [
        ("plan", s.plan.replace(",", ", ")),
        ("precision", s.precision.upper()),
        ("seconds", _interval(s.seconds, "s")),
        ("tokens per second and chip", f"{count(s.rate.median)} ({count(s.rate.low)} – {count(s.rate.high)})"),
        ("model FLOP utilisation", percent(s.mfu)),
        ("memory a chip", f"{show(s.memory_bytes, 'B')} of {show(s.memory_capacity, 'B')}"),
    ]
    if s.held:
        rows.append(("memory by kind", ", ".join(f"{name} {show(b, 'B')}" for name, b in s.held if b > 0)))
    if s.fits < 1:
        rows.append(("fits in", f"{percent(s.fits)} of the draws"))
    return rows


def parts_lines(s: Side) -> list[tuple[str, float]]:
    """Return where the time goes, the largest part first; what is zero is left out."""
    return sorted(((name, t) for name, t in s.parts if t > 0), key=lambda p: -p[1])


def _sides(sides: Sequence[Side], names: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("", style="dim", width=LABEL)
    for name in names:
        table.add_column(Text(name), overflow="fold", ratio=1)
    rows = [dict(side_rows(s)) for s in sides]
    for label in dict.fromkeys(key for row in rows for key in row):
        table.add_row(label, *(Text(row.get(label, "")) for row in rows))
    parts = [[f"{name} {show(t, 's')}" for name, t in parts_lines(s)] for s in sides]
    table.add_row("where the time goes", *(Text(", ".join(p)) for p in parts))
    return table


def step_screen(sides: Sequence[Side], title: str, extra: Sequence[tuple[str, str]] = (), days: Sequence[str] = ()) -> RenderableType:
    """Show the best plan with its step, where its time goes, and the next best plans.

    `sides` are best first, those of one hypothesis together; `days` to a token budget, one a side, and `extra` lines (energy, cost) are already written.
    """
    best, *others = sides
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column("label", style="dim", width=LABEL)
    table.add_column("text", overflow="fold")
    for label, text in (*side_rows(best), *(("time for all tokens", d) for d in days[:1]), *extra):
        table.add_row(label, Text(text))
    blocks: list[RenderableType] = [Text(title, style="bold"), Padding(table, (0, 0, 0, 2)), Text("")]
    blocks += [Text("where the time goes", style="bold"), Padding(_parts(best), (0, 0, 0, 2))]
    if others:
        several = len({s.hypothesis for s in sides}) > 1
        title = "other plans, and the best under other hypotheses" if several else "next best plans"
        blocks += [Text(""), Text(title, style="bold"), Padding(_others(others, several, days[1:]), (0, 0, 0, 2))]
    return Group(*blocks)


def _parts(s: Side) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column("cause", style="dim", width=LABEL)
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("bar", no_wrap=True)
    parts = parts_lines(s)
    longest = parts[0][1] if parts else 1.0
    for name, t in parts:
        table.add_row(Text(cause(name)), show(t, "s"), "█" * max(1, round(30 * t / longest)))
    return table


def _others(sides: Sequence[Side], several: bool, days: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    if several:
        table.add_column("taken as", no_wrap=True)
    table.add_column("plan", overflow="fold")
    for head in ("seconds", "memory a chip", *(["time for all tokens"] if days else [])):
        table.add_column(head, justify="right", no_wrap=True)
    loses = any(s.loss for s in sides)
    if loses:
        table.add_column("what it loses", overflow="fold")
    for i, s in enumerate(sides):
        named = [s.hypothesis] if several else []
        why = [Text(losing(s.loss) if s.loss else "")] if loses else []
        table.add_row(*named, Text(s.plan.replace(",", ", ")), show(s.seconds.median, "s"), show(s.memory_bytes, "B"), *days[i : i + 1], *why)
    return table


def jobs_table(jobs: Sequence[Job]) -> RenderableType:
    """List jobs with everything that they state."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("job", no_wrap=True)
    table.add_column("model", overflow="fold")
    for head in ("chips", "length", "batch", "tokens"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("precisions", overflow="fold")
    for j in jobs:
        tokens = show(j.tokens, "") if j.tokens else ""
        table.add_row(Text(j.id), Text(j.model), f"{j.chips:,}", f"{j.length:,}", f"{j.batch:,}", tokens, ", ".join(j.precisions))
    return table
