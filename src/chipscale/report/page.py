"""One self-contained page: the verdict with its charts, facts and sources; nothing on it is fetched."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from html import escape

from chipscale.evidence import Belief, Fact
from chipscale.facts.chip import Chip
from chipscale.report.charts import NARROW, WIDE, Roofline, colour_of, pareto_chart, parts_chart, ratio_chart, roofline_chart, shown_causes, svg
from chipscale.report.style import STYLE
from chipscale.report.terminal import parts_lines, per_what, side_rows
from chipscale.report.words import call, cause, count, counts, evidence, pair, percent, plural, ratio, short, span, told
from chipscale.units import show
from chipscale.verdict.nouns import HypothesisShare, Interval, JobVerdict, Verdict

__all__ = ["Roofline", "page", "rooflines_of"]

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
Known = Chip | Belief[Chip]


def page(verdict: Verdict, facts_a: Known, facts_b: Known, rooflines: Sequence[Roofline], version: str, date: str) -> str:
    """Write the page of a verdict; `version` and `date` are printed as given."""
    v = verdict
    body = [
        _top(v, date), _compare(v), _time(v), _pareto(v), _rooflines(v, rooflines), _hypotheses(v), _settle(v), _wrong(v),
        _facts(v, facts_a, facts_b), _foot(v, version, date),
    ]  # fmt: skip
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f'<meta name="description" content="{escape(v.headline)}">\n'
        f"<title>{escape(v.question)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(p for p in body if p)
        + "\n</main>\n</body>\n</html>\n"
    )


def rooflines_of(name: str, known: Known, precisions: Sequence[str]) -> tuple[Roofline, ...]:
    """Collect a chip's ceilings at these precisions; of a believed chip, those of its likeliest hypothesis."""
    if isinstance(known, Belief):
        known = max(known.hypotheses, key=lambda h: h.weight).value
    if not known.has("memory_bandwidth"):
        return ()
    bandwidth = known.value("memory_bandwidth")
    return tuple(Roofline(chip=name, precision=p, peak=known.value(f"peak_{p}"), bandwidth=bandwidth) for p in precisions if known.has(f"peak_{p}"))


def table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """Write a table of cells that are HTML already; columns in `numbers` stand right, the first heads its row."""
    side = dict.fromkeys(numbers, ' class="n"')
    head = "".join(f'<th scope="col"{side.get(i, "")}>{escape(h)}</th>' for i, h in enumerate(heads))
    lines = []
    for row in rows:
        first, *rest = row
        cells = "".join(f"<td{side.get(i, '')}>{c}</td>" for i, c in enumerate(rest, 1))
        lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def figure(wide: str, small: str, alt: str, caption: str = "") -> str:
    """Write a chart in two widths as one image with its description."""
    said = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    text = escape(alt)
    return (
        f'<figure><div class="wide" role="img" aria-label="{text}">{wide}</div>'
        f'<div class="small" role="img" aria-label="{text}">{small}</div>{said}</figure>'
    )


def _range(medians: Sequence[float]) -> str:
    known = [m for m in medians if math.isfinite(m)]
    return " to ".join(dict.fromkeys(ratio(m) for m in (min(known), max(known)))) if known else "–"


def _top(v: Verdict, date: str) -> str:
    a, b = pair(v.a, v.b)
    needed = [j.a_per_1000_b.median for j in v.jobs if math.isfinite(j.a_per_1000_b.median)]
    replaced = " to ".join(dict.fromkeys(count(n) for n in (min(needed), max(needed)))) if needed else "–"
    measured = [f"{dict(counted).get('measured', 0):,}" for _, counted in v.evidence]
    jobs = f"median, over {len(v.jobs)} jobs" if len(v.jobs) > 1 else f"median, {v.jobs[0].job.title}" if v.jobs else ""
    keys = [
        (f"{a} / {b}, {per_what(v.match)}", _range([j.ratio.median for j in v.jobs]), jobs),
        (f"{plural(a)} for 1,000 {plural(b)}", replaced, jobs),
        ("power per unit of work", f"{_range([j.power_ratio.median for j in v.jobs])}x", f"of the {b}'s"),
        ("measured facts", " and ".join(measured), f"on the {a} and on the {b}"),
    ]
    tiles = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(n)}<small>{escape(s)}</small></dd></div>" for k, n, s in keys)
    return (
        f'<header><p class="kicker">chipscale, {escape(date)}</p><h1>{escape(v.question)}</h1>'
        f'<p class="headline">{escape(v.headline)}</p><dl class="keys">{tiles}</dl></header>'
    )


def _precision(j: JobVerdict, a: str, b: str) -> str:
    one, two = j.a.precision.upper(), j.b.precision.upper()
    return f"both {one}" if one == two else f"{a} {one}, {b} {two}"


def _compare(v: Verdict) -> str:
    a, b = pair(v.a, v.b)
    alt = f"Ratio {a} to {b} with 80 % intervals: " + "; ".join(f"{j.job.title} {ratio(j.ratio.median)} ({span(j.ratio)})" for j in v.jobs)
    drawn = figure(svg(ratio_chart(v, WIDE), "ratio-wide"), svg(ratio_chart(v, NARROW), "ratio-small"), alt)
    cost = any(j.cost_ratio for j in v.jobs)
    heads = [
        "job",
        "chips",
        "ratio",
        "80 % interval",
        "P(≥\N{NO-BREAK SPACE}1)",
        f"{plural(a)} for 1,000 {plural(b)}",
        "precision",
        "power",
        *(["cost"] if cost else []),
        "call",
    ]
    rows = [
        [escape(j.job.title), f"{j.job.chips:,}", f"<b>{ratio(j.ratio.median)}</b>", span(j.ratio), escape(percent(j.p_at_least)),
         counts(j.a_per_1000_b), escape(_precision(j, a, b)), _times(j.power_ratio), *([_times(j.cost_ratio)] if cost else []),
         escape(call(j.call, a))] for j in v.jobs
    ]  # fmt: skip
    words = (
        f"How much work one {a} does for each unit that one {b} does, {per_what(v.match)}, each chip with its own best plan and its "
        "own best allowed precision. The dot is the median, the band holds 80 % of the draws."
    )
    number = (1, 2, 3, 4, 5, 7, *((8,) if cost else ()))
    listed = table("Ratios; power and cost per unit of work", heads, rows, number)
    return f"<section><h2>How the two compare</h2><p>{escape(words)}</p>{drawn}{listed}</section>"


def _times(interval: Interval | None) -> str:
    return f"{ratio(interval.median)}x" if interval else "–"


def _time(v: Verdict) -> str:
    a, b = pair(v.a, v.b)
    causes = shown_causes(v)
    legend = "".join(f'<li><i style="background:{c}"></i>{escape(cause(n))}</li>' for n, c in colour_of(causes).items())
    alt = "Where the time of a step goes: " + "; ".join(
        f"{j.job.title}, {name}: " + ", ".join(f"{cause(n)} {show(t, 's')}" for n, t in parts_lines(s)[:3])
        for j in v.jobs for name, s in ((a, j.a), (b, j.b))
    )  # fmt: skip
    drawn = figure(svg(parts_chart(v, WIDE), "parts-wide"), svg(parts_chart(v, NARROW), "parts-small"), alt)
    plans = "".join(f"<details><summary>{escape(j.job.title)}: plans, memory and causes</summary>{_sides(j, a, b)}</details>" for j in v.jobs)
    return (
        "<section><h2>Where the time goes</h2><p>A step of training, of decoding, or a batch of prompts, at the likeliest hypothesis and the "
        f'best plan that fits.</p><ul class="legend">{legend}</ul>{drawn}{plans}</section>'
    )


def _sides(j: JobVerdict, a: str, b: str) -> str:
    one, two = dict(side_rows(j.a)), dict(side_rows(j.b))
    rows = [[escape(label), escape(one.get(label, "–")), escape(two.get(label, "–"))] for label in {**one, **two}]
    left, right = dict(j.a.parts), dict(j.b.parts)
    rows += [[escape(cause(n)), show(left.get(n, 0.0), "s"), show(right.get(n, 0.0), "s")] for n in {**left, **right}]
    found = table(j.job.title, ("", a, b), rows)
    if j.contributions:
        text = " × ".join(f"{name} {ratio(factor)}" for name, factor in j.contributions)
        found += f'<p class="note">Where the ratio comes from: {escape(text)}</p>'
    return found


def _pareto(v: Verdict) -> str:
    served = [j for j in v.jobs if j.a.front and j.b.front]
    if not served:
        return ""
    names = pair(v.a, v.b)
    legend = "".join(f'<li><i style="background:var(--{c})"></i>{escape(n)}</li>' for n, c in zip(names, "ab", strict=True))
    said = "; ".join(
        f"{j.job.title}, {n}: {count(s.front[0][1])} tokens/s a chip at {count(s.front[0][0])} of a user, {count(s.front[-1][1])} at {count(s.front[-1][0])}"
        for j in served for n, s in zip(names, (j.a, j.b), strict=True)
    )  # fmt: skip
    drawn = figure(
        svg(pareto_chart(v, WIDE), "pareto-wide"), svg(pareto_chart(v, NARROW), "pareto-small"), f"Tokens per chip against tokens per user: {said}"
    )
    words = (
        "Each point is a deployment under a load; no other gives both a user and a chip more. The dashed rule is the pace that the job owes its users. "
        "One pool of replicas, at the likeliest hypothesis."
    )
    return f'<section><h2>Fast for a user, or much for a chip</h2><p>{escape(words)}</p><ul class="legend">{legend}</ul>{drawn}</section>'


def _rooflines(v: Verdict, rooflines: Sequence[Roofline]) -> str:
    drawable = [r for r in rooflines if r.peak > 0 and r.bandwidth > 0]
    if not drawable:
        return ""
    first = drawable[0].chip
    said = "; ".join(f"{r.chip} {r.precision.upper()} {show(r.peak, 'FLOP/s')} and {show(r.bandwidth, 'B/s')}" for r in drawable)
    drawn = figure(
        svg(roofline_chart(drawable, first, WIDE), "roof-wide"),
        svg(roofline_chart(drawable, first, NARROW), "roof-small"),
        f"Rooflines: {said}",
    )
    believed = "; a chip that is not certain is drawn at its likeliest hypothesis" if v.hypotheses else ""
    words = f"Ceilings as stated, dense. To the left of the bend memory decides, to the right the matrix units{believed}."
    rows = [[escape(r.chip), escape(r.precision.upper()), show(r.peak, "FLOP/s"), show(r.bandwidth, "B/s")] for r in drawable]
    listed = table("Ceilings", ("chip", "precision", "peak", "memory bandwidth"), rows, (2, 3))
    return f"<section><h2>What each chip could reach</h2><p>{escape(words)}</p>{drawn}{listed}</section>"


def _hypotheses(v: Verdict) -> str:
    blocks = []
    for chip, shares in v.hypotheses:
        if not shares:
            continue
        ordered = sorted(shares, key=lambda h: -h.weight)
        rows = [[escape(h.title), _weight(h.weight), escape(h.reason), f"<code>{escape(h.key)}</code>"] for h in ordered]
        blocks.append(table(f"The {short(chip)}, by hypothesis", ("hypothesis", "weight", "reason", "key"), rows))
        jobs = [j for j in v.jobs if any(key in (h.key, h.title) for key, _ in j.by_hypothesis for h in ordered)]
        if jobs:
            heads = ["ratio, if it is", *(j.job.title for j in jobs)]
            blocks.append(table("The ratio under each hypothesis", heads, [_if(jobs, h) for h in ordered], range(1, len(heads))))
    return (
        f"<section><h2>What it may be</h2><p>Nothing is averaged: each draw takes one hypothesis whole.</p>{''.join(blocks)}</section>"
        if blocks
        else ""
    )


def _weight(weight: float) -> str:
    return f'<span class="bar"><span class="weight" style="width:{weight * 5:.2f}rem"></span>{escape(percent(weight))}</span>'


def _if(jobs: Sequence[JobVerdict], h: HypothesisShare) -> list[str]:
    found = [f"<code>{escape(h.key)}</code>"]
    for j in jobs:
        r = next((r for key, r in j.by_hypothesis if key in (h.key, h.title)), None)
        found.append(f"{ratio(r.median)}<br><span class='quiet'>{span(r)}</span>" if r else "–")
    return found


def _settle(v: Verdict) -> str:
    if not v.settle:
        return ""
    rows = [[escape(s.test), escape(told(s.fact)), escape(percent(s.share)), escape(percent(s.narrows))] for s in v.settle]
    heads = ("test", "what it would tell", "share of the variance", "narrows the interval by")
    return f"<section><h2>What would settle it</h2>{table('Tests, the most telling first', heads, rows, (2, 3))}</section>"


def _wrong(v: Verdict) -> str:
    if not v.wrongness:
        return ""
    lines = "".join(f"<li>{escape(line)}</li>" for line in v.wrongness)
    return f"<section><h2>How wrong we usually are</h2><ul>{lines}</ul></section>"


def _facts(v: Verdict, known_a: Known, known_b: Known) -> str:
    blocks = []
    for i, (title, known) in enumerate(((v.a, known_a), (v.b, known_b))):
        rests = f'<p class="note">{escape(evidence(v.evidence[i][1]))}</p>' if i < len(v.evidence) else ""
        blocks.append(f"<h3>{escape(title)}</h3>{rests}{_known(known)}")
    words = (
        "Every value with who says so. Where sources disagree the chosen value stands first and the others stay below it; a rejected one says why."
    )
    return f"<section><h2>Facts and sources</h2><p>{escape(words)}</p>{''.join(blocks)}</section>"


def _known(known: Known) -> str:
    if isinstance(known, Chip):
        return f"<details><summary>{escape(known.name)}: {_how_many(known)}</summary>{_fact_table(known)}</details>"
    ordered = sorted(known.hypotheses, key=lambda h: -h.weight)
    return "".join(
        f"<details><summary>{escape(h.title)} ({escape(percent(h.weight))}): {_how_many(h.value)}</summary>"
        f'<p class="note">{escape(h.reason)}</p>{_fact_table(h.value)}</details>' for h in ordered
    )  # fmt: skip


def _how_many(chip: Chip) -> str:
    return f"{sum(len(facts) for facts in chip.facts.values()):,} facts"


def _fact_table(chip: Chip) -> str:
    heads = ("quantity", "value, range", "sense", "class", "source, date")
    head = "".join(f'<th scope="col"{side}>{h}</th>' for h, side in zip(heads, ("", ' class="n"', "", "", ""), strict=True))
    rows = "".join(_fact_row(q, f, i, len(facts)) for q, facts in chip.facts.items() for i, f in enumerate(facts))
    label = escape(f"Facts about {chip.name}")
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table class="facts"><caption>{label}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _fact_row(quantity: str, f: Fact, place: int, of: int) -> str:
    style = " ".join(c for c, on in (("again", place < of - 1), ("other", place > 0), ("rejected", f.rejected)) if on)
    note = "".join(f"<br><span class='quiet'>{escape(n)}</span>" for n in (f.note, f"rejected: {f.rejected}" if f.rejected else "") if n)
    name = escape(quantity.replace("_", " ")) if not place else "<span class='quiet'>also stated</span>"
    ends = f"<br><span class='quiet'>{escape(show(f.low, f.unit))} – {escape(show(f.high, f.unit))}</span>" if f.low < f.high else ""
    sense = ", ".join(part for part in (f.sense, f"per {f.per}") if part)
    date = f" <span class='quiet'>({escape(f.source.date)})</span>" if f.source.date else ""
    return (
        f'<tr class="{style}"><th scope="row">{name}</th><td class="n"><span class="value">{escape(show(f.value, f.unit))}</span>{ends}</td>'
        f'<td>{escape(sense)}</td><td><span class="tag">{escape(f.source.kind)}</span></td><td class="source">{_source(f)}{date}{note}</td></tr>'
    )


def _source(f: Fact) -> str:
    """Write where a fact was read; an address becomes a link to follow by hand."""
    where = escape(f.source.where)
    return re.sub(r"https?://[^\s,;)]+", lambda m: f'<a href="{m.group()}" rel="noreferrer">{m.group()}</a>', where)


def _foot(v: Verdict, version: str, date: str) -> str:
    jobs = " ".join(f"--job {j.job.id}" for j in v.jobs)
    ids = " ".join(id for id, _ in v.evidence)
    again = f"chipscale weigh {ids} {jobs} --match {v.match} --seed {v.seed} --draws {v.draws}"
    return (
        f"<footer><p>chipscale {escape(version)}, {escape(date)}; seed {v.seed}, {v.draws:,} Sobol draws "
        "over facts, hypotheses and the error of the model; "
        f"intervals hold 80 % of the draws. The same figures again: <code>{escape(again)}</code></p></footer>"
    )
