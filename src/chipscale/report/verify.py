"""A record held against claims, what believing it changes, and the tests that would settle a verdict, as screens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from chipscale.report.words import evidence, percent, ratio, short, span
from chipscale.units import show
from chipscale.verdict.experiments import Plan
from chipscale.verdict.nouns import Verdict
from chipscale.verify.nouns import Judged, Subject, Update, Verification

STYLES: Mapping[str, str] = {"holds": "bold green", "plausible": "yellow", "contradicted": "bold red", "not testable here": "dim"}
NAMES: Mapping[str, str] = {"memory_bandwidth": "memory bandwidth", "memory_bytes": "memory", "scaleup_bandwidth": "links, one way", "cores": "cores"}
#: facts that moved by less and rest on the same are not listed
MOVED = 0.01
#: hypotheses below this probability are listed without their claims
SHOWN = 0.02
LEGEND = "usual: what other chips reach of their claims; holds: a tenth or more of chips that keep their claims would reach no more; contradicted: less than one in a hundred; docs/verify.md"


def quantity(name: str) -> str:
    """Name a quantity as people do.

    >>> quantity("peak_bf16"), quantity("memory_bytes")
    ('bf16 products', 'memory')
    """
    return NAMES.get(name) or f"{name.removeprefix('peak_')} products"


def verify_screen(v: Verification) -> RenderableType:
    """Show each claim beside what was measured, its share, the usual share and the verdict."""
    parts: list[RenderableType] = [_head(v), *(Text(f"note: {r}", style="yellow") for r in v.remarks), Text()]
    if not v.subjects:
        return Group(*parts, _results(v))
    parts += [_identity(v), Text()]
    if len(v.subjects) > 1:
        parts += [_weights(v.subjects), Text()]
    shown = _shown(v.subjects)
    for s in shown:
        parts += [*_claims(s, len(v.subjects) > 1), Text()]
    if len(shown) < len(v.subjects):
        parts.append(Text(f"claims of the {len(v.subjects) - len(shown)} other hypotheses: --json", style="dim"))
    return Group(*parts, Text(LEGEND, style="dim"))


def _shown(subjects: Sequence[Subject]) -> list[Subject]:
    """Return the hypotheses whose claims are shown: those that are likely, one where all are alike."""
    order = sorted(subjects, key=lambda s: -s.after)
    tested = any(j.measured for s in order for j in s.claims)
    return [s for i, s in enumerate(order) if i == 0 or (tested and s.after >= SHOWN)]


def _head(v: Verification) -> Text:
    what = f" against {v.subjects[0].title if len(v.subjects) == 1 else short(v.chip)}" if v.chip else ""
    when = v.created.replace("T", " ").replace("+00:00", " UTC") or "no date"
    return Text(f"{v.device or 'a device without a name'}{what}", style="bold").append(
        f"  {v.record}, {when}, sha256 {v.sha256[:12]}", style="not bold dim"
    )


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _identity(v: Verification) -> Table:
    """Say by what the device is known."""
    nearest = max(v.subjects, key=lambda s: s.after)
    table = _table("the device", "says", f"{short(v.chip)}{f' as {nearest.hypothesis}' if nearest.hypothesis else ''}", "")
    for p in nearest.match.properties:
        word = {True: Text("agrees", style="green"), False: Text("differs", style="bold red"), None: Text("nothing to compare", style="dim")}[
            p.agrees
        ]
        table.add_row(f"  {p.name}", p.said, p.known, word)
    return table


def _weights(subjects: Sequence[Subject]) -> Table:
    table = _table("hypothesis", "before", "after", "")
    for s in sorted(subjects, key=lambda s: -s.after):
        table.add_row(f"  {s.hypothesis}", percent(s.before), Text(percent(s.after), style="bold"), s.title)
    return table


def _claims(s: Subject, named: bool) -> list[RenderableType]:
    tested = [j for j in s.claims if j.measured is not None]
    rest = [j for j in s.claims if j.measured is None]
    parts: list[RenderableType] = [Text(f"{s.hypothesis}, {percent(s.after)}", style="bold")] if named else []
    if tested:
        table = _table("claim", "claimed", "by", "measured", "share", "usual", "verdict", "because")
        for j in tested:
            table.add_row(*_row(j))
        parts.append(table)
    for why in dict.fromkeys(j.reason for j in rest):
        names = ", ".join(quantity(j.quantity) for j in rest if j.reason == why)
        parts.append(Text("not testable here: ", style="dim").append(f"{names} ({why})"))
    return parts


def _row(j: Judged) -> tuple[str | Text, ...]:
    assert j.measured is not None
    assert j.share is not None
    usual = f"{100 * j.usual.low:.0f}–{100 * j.usual.high:.0f} %" if j.usual else ""
    style = "bold red" if j.above else STYLES[j.verdict]
    return (f"  {quantity(j.quantity)}", _claimed(j), str(j.claim.source.kind), Text(show(j.measured.value, j.measured.unit), style="bold"),
            f"{100 * j.share:.0f} %", usual, Text("beyond the claim" if j.above else j.verdict, style=style), j.reason)  # fmt: skip


def _claimed(j: Judged) -> str:
    """Write a claim for one device, with its range where that is wide."""
    f, n = j.claim, j.devices
    return _fact(j.claimed, f.low / n, f.high / n, f.unit) if f.high > 1.15 * f.low else show(j.claimed, f.unit)


def _results(v: Verification) -> RenderableType:
    """List what was measured where nothing can be held against it."""
    if not v.results:
        return Text("nothing in this record bears on a claim about a chip", style="dim")
    table = _table("not testable here", "measured", "as")
    for m in v.results:
        table.add_row(f"  {quantity(m.quantity)}", show(m.value, m.unit), m.what)
    return table


def change_screen(updates: Sequence[Update], before: Verdict, after: Verdict) -> RenderableType:
    """Show what believing records changed: hypotheses, facts, and each job's ratio and probability before and after."""
    parts: list[RenderableType] = [Text(f"what {' and '.join(r for u in updates for r in u.records)} changed", style="bold"), Text()]
    jobs = _table("job", "before", "80 % interval", "P(≥ 1)", "after", "80 % interval", "P(≥ 1)", "narrower")
    for old, new in zip(before.jobs, after.jobs, strict=True):
        jobs.add_row(f"  {old.job.title}", ratio(old.ratio.median), span(old.ratio), percent(old.p_at_least), Text(ratio(new.ratio.median), style="bold"),
                     span(new.ratio), percent(new.p_at_least), _narrower(old.ratio.low, old.ratio.high, new.ratio.low, new.ratio.high))  # fmt: skip
    parts += [jobs, Text()]
    for u in updates:
        parts += _update(u)
    counted = dict(after.evidence)
    parts += [Text(f"{short(u.chip)} now rests on {evidence(counted[u.chip])}", style="dim") for u in updates if u.chip in counted]
    return Padding(Group(*parts), (0, 0, 0, 2))


def _narrower(low: float, high: float, new_low: float, new_high: float) -> str:
    """Say by how much an interval shrank on a logarithmic scale."""
    import math

    if min(low, new_low) <= 0 or high <= low:
        return ""
    share = 1 - math.log(new_high / new_low) / math.log(high / low)
    return f"{100 * share:+.0f} %".replace("+", "") if share >= 0 else f"wider by {-100 * share:.0f} %"


def _update(u: Update) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if u.weights:
        table = _table(f"hypothesis, {short(u.chip)}", "before", "after", "")
        for key, title, old, new in sorted(u.weights, key=lambda w: -w[3]):
            table.add_row(f"  {key}", percent(old), Text(percent(new), style="bold"), title)
        parts += [table, Text()]
    if u.facts:
        likeliest = max(u.weights, key=lambda w: w[3])[0] if u.weights else ""
        facts = _table(f"fact, {short(u.chip)}{f' as {likeliest}' if likeliest else ''}", "before", "by", "after", "by")
        for name, was, now in (f for f in u.facts if f[1].source.kind != f[2].source.kind or abs(f[2].value / f[1].value - 1) > MOVED):
            facts.add_row(f"  {quantity(name)}", _fact(was.value, was.low, was.high, was.unit), str(was.source.kind), _fact(now.value, now.low, now.high, now.unit),
                          str(now.source.kind))  # fmt: skip
        parts += [facts, Text()]
    return parts


def _fact(value: float, low: float, high: float, unit: str) -> str:
    """Write a value with its range, the unit once where it is the same.

    >>> _fact(4e12, 3.2e12, 4.2e12, "B/s"), _fact(144e9, 144e9, 144e9, "B")
    ('4 TB/s (3.2 – 4.2)', '144 GB')
    """
    if high <= low:
        return show(value, unit)
    texts = [show(v, unit).partition(" ") for v in (value, low, high)]
    same = len({t[2] for t in texts}) == 1
    span = " – ".join(t[0] if same else "".join(t) for t in texts[1:])
    return f"{show(value, unit)} ({span})"


def plan_screen(p: Plan) -> RenderableType:
    """Show the tests, most telling first: by how much each is expected to narrow the interval, its minutes, and the job that it tells most about."""
    table = _table("test", "narrows", "minutes", "per minute", "most in", "by")
    for t in p.tests:
        minutes = "" if t.minutes is None else f"{t.minutes:.2g}"
        rate = "" if t.per_minute is None else f"{100 * t.per_minute:.0f} %"
        job, most = max(t.by_job, key=lambda j: j[1])
        table.add_row(f"  {t.title}", Text(f"{100 * t.narrows:.0f} %", style="bold"), minutes, rate, job, f"{100 * most:.0f} %")
    foot = (
        f"narrows: expected share by which the 80 % interval of the log ratio shrinks, mean over {len(p.jobs)} jobs; minutes of machine time by the quick suite; "
        f"seed {p.seed}, {p.draws:,} draws"
    )
    head = Text(f"what would settle it: {p.question}", style="bold")
    best = f"most for its time: {p.cheapest}" if p.cheapest else ""
    none = Text("nothing that a test could tell is uncertain here", style="dim")
    return Group(head, Text(), table if p.tests else none, Text(), Text(best), Text(foot, style="dim"))
