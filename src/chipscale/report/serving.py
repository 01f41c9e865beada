"""What a service delivers, on one screen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from chipscale.provision.nouns import Choice, Felt, Serving
from chipscale.report.terminal import CERTAIN, LABEL
from chipscale.report.words import NONE, cause, count, counts, pair, percent, plural, ratio, short, span
from chipscale.units import show
from chipscale.verdict.nouns import Interval, Verdict

#: bars of the longest cause
BAR = 30


def serving_screen(answers: Sequence[Serving]) -> RenderableType:
    """Show the first answer whole: deployment, what users feel, where the time goes, other deployments, the front; and what other hypotheses would give."""
    first = answers[0]
    blocks: list[RenderableType] = [Text(headline(first), style="bold"), Padding(_pairs(list(rows(first))), (0, 0, 0, 2)), Text("")]
    blocks += [
        Text(f"where a decode step goes ({show(first.step, 's')}, {count(first.running)} requests at once)", style="bold"),
        Padding(_parts(first), (0, 0, 0, 2)),
    ]
    if first.others:
        blocks += [Text(""), Text("other deployments, in closed form", style="bold"), Padding(_choices([first.best, *first.others]), (0, 0, 0, 2))]
    blocks += [Text(""), *_front(first)]
    if len(answers) > 1:
        blocks += [Text(""), Text("what else may be", style="bold"), Padding(_if(answers), (0, 0, 0, 2))]
    blocks += [Text(""), *(Padding(Text(note, style="dim"), (0, 0, 0, 2)) for note in first.notes)]
    return Group(*blocks)


def front_screen(answers: Sequence[Serving]) -> RenderableType:
    """Show the front of tokens per chip against tokens per user, an answer after the other."""
    blocks: list[RenderableType] = []
    for a in answers:
        blocks += [Text(f"{title(a)}{_taken(a)}", style="bold"), *_front(a), Text("")]
    return Group(*blocks[:-1])


def versus_screen(verdict: Verdict, chips: int) -> RenderableType:
    """Say how many of the first chips serve what so many of the second serve."""
    j, (a, b) = verdict.jobs[0], pair(verdict.a, verdict.b)
    n = Interval(**{end: getattr(j.a_per_1000_b, end) * chips / 1000.0 for end in ("median", "low", "high")})
    lines = [
        ("per chip", f"{ratio(j.ratio.median)} ({span(j.ratio)}) of the {b}'s tokens; P(≥ 1) {percent(j.p_at_least)}"),
        ("power per token", f"{ratio(j.power_ratio.median)}x ({span(j.power_ratio)})"),
        *((("where it comes from", " × ".join(f"{c} {ratio(f)}" for c, f in j.contributions)),) if j.contributions else ()),
        *(("if it is" if not i else "", f"{key}: {ratio(r.median)} ({span(r)})") for i, (key, r) in enumerate(j.by_hypothesis if len(j.by_hypothesis) > 1 else ())),
        (f"{a} served with", j.a.plan), (f"{b} served with", j.b.plan),
        *(("what would settle it", f"{s.test} (narrows the interval by {percent(s.narrows)})") for s in j.sensitivities[:1]),
    ]  # fmt: skip
    head = f"{j.job.title}: {counts(n)} {plural(a)} serve what {chips:,} {plural(b)} do"
    foot = f"seed {verdict.seed}, {verdict.draws:,} draws; 80 % intervals"
    return Group(Text(head, style="bold"), Padding(_pairs(lines), (0, 0, 0, 2)), Text(""), Padding(Text(foot, style="dim"), (0, 0, 0, 2)))


def title(s: Serving) -> str:
    """Say what is served on what."""
    return f"serve {s.model} on {s.chips:,} {s.chip_id}"


def headline(s: Serving) -> str:
    """Say the answer in one line."""
    return f"{title(s)}: {count(s.chip.median)} tokens/s a chip, {count(s.user.median)} tokens/s for each of {s.best.users:,} users"


def _taken(s: Serving) -> str:
    said = [x for x in (s.hypothesis if s.hypothesis != CERTAIN else "", s.assumed) if x]
    return f" ({', '.join(said)})" if said else ""


def rows(s: Serving) -> Iterator[tuple[str, str]]:
    """List what a service is and does, as pairs of label and text."""
    yield "deployment", deployed(s.best)
    if s.hypothesis != CERTAIN:
        yield "taken as", f"{s.hypothesis} ({percent(s.weight)})"
    if s.assumed:
        yield "speculation", s.assumed
    yield "engine, cluster", f"{s.engine} on {s.cluster}"
    yield "load", s.load
    asked = [f"{name} {show(limit, 's')}" for name, limit in zip(("TTFT", "TPOT"), s.limits, strict=True) if math.isfinite(limit)]
    yield "limits", f"{' and '.join(asked)}, {s.statistic} of the requests" if asked else "none stated (--slo-ttft, --slo-tpot)"
    yield "precision", f"weights {s.precision}, cache {8 * s.kv:g} bit"
    yield "time to the first token", _felt(s.ttft)
    yield "", f"waiting {show(s.waiting, 's') if s.waiting > 1e-6 else 'nothing'}, reading the prompt and sending {show(s.service, 's')}"
    yield "time a token after it", _felt(s.tpot)
    yield "whole answer", show(s.latency, "s")
    yield "tokens per second", f"a chip {_span(s.chip)}, a user {_span(s.user)}, all {_span(s.tokens)}"
    good = f", {s.goodput:.3g} within the limits" if asked else ""
    yield "requests per second", f"{s.requests:.3g}{good}; {s.capacity:.3g} can be answered for ever"
    if s.joules is not None and s.watts is not None:
        yield "energy a million tokens", f"{_span(s.joules, 'J')}; {show(s.watts.median, 'W')} a chip with all around it"
    money = [f"{name} {_dollars(i)}" for name, i in (("rent", s.rent), ("electricity", s.electricity)) if i is not None]
    if money:
        yield "cost a million tokens", ", ".join(money)
    held = ", ".join(f"{name} {show(b, 'B')}" for name, b in s.held)
    yield "memory a chip", f"{held} of {show(s.memory, 'B')}; a replica caches {count(s.cached)} tokens"


def deployed(c: Choice) -> str:
    """Say a deployment in words."""
    copies = f"{c.replicas:g} replica{'s' if c.replicas != 1 else ''}"
    return f"{c.reads} reads on {c.reading} chip{'s' if c.reading != 1 else ''}; {c.plan} decodes, {copies}" if c.reads else f"{c.plan}, {copies}"


def _felt(f: Felt) -> str:
    return f"{_span(f.mean, 's')}; half below {show(f.p50, 's')}, 90 % {show(f.p90, 's')}, 99 % {show(f.p99, 's')}"


def _span(i: Interval, unit: str = "") -> str:
    if not unit:
        return f"{count(i.median)} ({count(i.low)} – {count(i.high)})" if i.low < i.high else count(i.median)
    return f"{show(i.median, unit)} ({show(i.low, unit)} – {show(i.high, unit)})" if i.low < i.high else show(i.median, unit)


def _dollars(i: Interval) -> str:
    return f"{i.median:.2g} USD ({i.low:.2g} – {i.high:.2g})" if i.low < i.high else f"{i.median:.2g} USD"


def _pairs(lines: Sequence[tuple[str, str]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column("label", style="dim", width=LABEL)
    table.add_column("text", overflow="fold")
    for label, text in lines:
        table.add_row(label, Text(text))
    return table


def _parts(s: Serving) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column("cause", style="dim", width=LABEL)
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("bar", no_wrap=True)
    parts = sorted(s.parts, key=lambda p: -p[1])
    for name, t in parts:
        table.add_row(Text(cause(name)), show(t, "s"), "█" * max(1, round(BAR * t / parts[0][1])))
    return table


def _choices(choices: Sequence[Choice]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("deployment", overflow="fold")
    for head in ("users", "TTFT", "TPOT", "tokens/s a chip", "loses"):
        table.add_column(head, justify="right", no_wrap=True)
    stopped = any(c.stops for c in choices)
    if stopped:
        table.add_column("kept from more by", no_wrap=True)
    for i, c in enumerate(choices):
        loses = (
            "best"
            if not i
            else percent(c.loses)
            if c.loses > 0.005
            else "as good"
            if c.loses > -0.005
            else f"{percent(-c.loses)} more, but fails simulated"
        )
        table.add_row(Text(written(c)), f"{c.users:,}", show(c.ttft, "s"), show(c.tpot, "s"), count(c.chip), loses, *([c.stops] if stopped else []))
    return table


def written(c: Choice) -> str:
    """Write a deployment shortly."""
    return f"{c.reads} ({c.reading}) → {c.plan}" if c.reads else c.plan


def _front(s: Serving) -> list[RenderableType]:
    """Show the points that no other beats in both rates."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for head in ("tokens/s a user", "tokens/s a chip"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for head in ("TTFT", "users"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("deployment", overflow="fold")
    most = max((c.chip for c in s.front), default=1.0)
    for c in s.front:
        table.add_row(count(c.user), count(c.chip), "█" * max(1, round(20 * c.chip / most)), show(c.ttft, "s"), f"{c.users:,}", Text(written(c)))
    return [Text("tokens per chip against tokens per user: what no other deployment beats in both", style="bold"), Padding(table, (0, 0, 0, 2))]


def _if(answers: Sequence[Serving]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("taken as", overflow="fold")
    for head in ("weight", "tokens/s a chip", "TTFT", "TPOT"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("deployment", overflow="fold")
    for a in answers:
        name = ", ".join(x for x in (a.hypothesis if a.hypothesis != CERTAIN else "", a.assumed) if x) or short(a.chip_id)
        table.add_row(
            Text(name),
            percent(a.weight) if a.hypothesis != CERTAIN else NONE,
            _span(a.chip),
            show(a.ttft.mean.median, "s"),
            show(a.tpot.mean.median, "s"),
            Text(written(a.best)),
        )
    return table
