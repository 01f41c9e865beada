"""The page's charts: Vega-Lite through Altair, drawn as SVG that takes its colours from the page."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chipscale.report.bars import TICKS, scale_of
from chipscale.report.words import cause, pair, ratio, span
from chipscale.units import show
from chipscale.verdict.nouns import JobVerdict, Verdict

if TYPE_CHECKING:
    import altair as alt

    Drawing = alt.LayerChart | alt.FacetChart | alt.VConcatChart

WIDE, NARROW = 820, 340
A, B, INK, QUIET, GRID = "var(--a)", "var(--b)", "currentColor", "var(--quiet)", "var(--grid)"
SHOWN = 9
LEFT, RIGHT = 10.0, 10_000.0
OTHER = "other"
#: compute in blue, memory in green, traffic in orange, waiting in grey
COLOURS: Mapping[str, str] = {
    "gemm": "#2b66b1", "experts": "#4f8fd6", "attention": "#86b4e8", "head": "#a9c6ea", "elementwise": "#3a9b8c", "recompute": "#79bfb1",
    "optimizer": "#8a6bbd", "offload": "#a98fd0", "tp": "#d9822b", "ep": "#eba559", "cp": "#f0c48b", "pp": "#b9551c", "fsdp": "#b98a3e", "dp": "#dcbb58",
    "links": "#c86b4f", "stages": "#b9551c", "prompts": "#8a6bbd", "bubble": "#979da8", "imbalance": "#bfc4cc", "host": "#6b7280", "fixed": "#565b64", OTHER: "#7d838d",
}  # fmt: skip
FURTHER = ("#2b66b1", "#3a9b8c", "#d9822b", "#8a6bbd", "#86b4e8", "#dcbb58", "#b9551c", "#979da8")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [1, 3])


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """The ceilings of a chip at one precision: `peak` FLOP/s, `bandwidth` B/s."""

    chip: str
    precision: str
    peak: float
    bandwidth: float


def svg(chart: Drawing, name: str) -> str:
    """Draw a chart as an SVG element that scales; `name` keeps its ids apart from those of other charts."""
    import vl_convert

    dressed = (
        chart.configure(
            font="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif",
            background="transparent",
            padding={"left": 26 if name.endswith("wide") else 8, "right": 8, "top": 5, "bottom": 5},
        )
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=INK,
            titleColor=INK,
            gridColor=GRID,
            domainColor=GRID,
            tickColor=GRID,
            labelFontSize=12,
            titleFontSize=12,
            titleFontWeight="normal",
            titlePadding=8,
        )
        .configure_text(color=INK, fontSize=12)
    )
    drawn: str = vl_convert.vegalite_to_svg(dressed.to_dict())
    drawn = re.sub(r'(id="|url\(#|href="#)(?=[A-Za-z])', rf"\g<1>{name}-", drawn)
    drawn = re.sub(r' (aria-[a-z]+|role)="[^"]*"', "", drawn)
    size = re.search(r'<svg[^>]* width="([\d.]+)" height="([\d.]+)"', drawn)
    most = f' style="max-width:{float(size.group(1)):.0f}px"' if size else ""
    return re.sub(r'<svg ([^>]*?) width="[\d.]+" height="[\d.]+"', rf'<svg \1 aria-hidden="true" focusable="false"{most}', drawn, count=1)


def _values(rows: Sequence[Mapping[str, object]]) -> Any:
    import altair as alt

    return alt.Data(values=[dict(r) for r in rows])  # type: ignore[no-untyped-call]


def ratio_chart(v: Verdict, width: int) -> Drawing:
    """Draw each job's ratio with its 80 % interval on a logarithmic axis, parity marked."""
    import altair as alt

    scale = scale_of([j.ratio for j in v.jobs], width)
    narrow = width < WIDE
    rows = [{"job": j.job.title, "low": j.ratio.low, "mid": j.ratio.median, "high": j.ratio.high,
             "label": f"{ratio(j.ratio.median)}  ({span(j.ratio)})", "start": scale.low}
            for j in v.jobs if math.isfinite(j.ratio.median) and j.ratio.low > 0 and math.isfinite(j.ratio.high)]  # fmt: skip
    a, b = pair(v.a, v.b)
    gaps = [t for t in TICKS if scale.low <= t <= scale.high]
    x = alt.X("low:Q", scale=alt.Scale(type="log", domain=[scale.low, scale.high], nice=False),
              axis=alt.Axis(values=gaps, title=f"{a} / {b}, logarithmic", format="~g", labelOverlap=True))  # fmt: skip
    order = [str(r["job"]) for r in rows]
    titles = alt.Axis(labelLimit=250, ticks=False, domain=False, labelPadding=14, labelFontSize=13)
    y = alt.Y("job:N", sort=order, title=None, axis=None if narrow else titles)
    base = alt.Chart(_values(rows)).encode(y=y)
    parity = alt.Chart(_values([{"one": 1.0, "label": "one for one"}])).encode(x="one:Q")
    layers: list[Any] = [
        parity.mark_rule(color=INK, strokeWidth=1.2),
        parity.mark_text(align="center", dy=-9, y=0, fontSize=12).encode(text="label:N"),
        base.mark_rule(strokeWidth=7, opacity=0.38, color=A, strokeCap="round").encode(x=x, x2="high:Q"),
        base.mark_point(filled=True, size=130, opacity=1, color=A).encode(x="mid:Q"),
    ]
    if narrow:
        layers.append(base.mark_text(align="left", dy=-15, fontSize=13).encode(x="start:Q", text="job:N"))
    else:
        label = base.encode(x="mid:Q", text="label:N")
        layers += [label.mark_text(dy=-15, stroke="var(--page)", strokeWidth=4, strokeJoin="round"), label.mark_text(dy=-15)]
    return alt.layer(*layers).properties(width=width - (20 if narrow else 285), height=alt.Step(54))


def _apart(levels: Sequence[float], gap: float) -> list[float]:
    """Push labels up until they are `gap` apart in decades, order kept."""
    placed = [0.0] * len(levels)
    last = -math.inf
    for i in sorted(range(len(levels)), key=lambda i: levels[i]):
        last = placed[i] = max(levels[i], last + gap)
    return [10**p for p in placed]


def _roofline_rows(rooflines: Sequence[Roofline], first: str) -> list[dict[str, object]]:
    """Trace each roofline through its bend."""
    return [
        {"name": label_of(r), "x": x, "y": min(r.peak, r.bandwidth * x), "colour": A if r.chip == first else B, "precision": r.precision}
        for r in rooflines for x in sorted({LEFT, r.peak / r.bandwidth, RIGHT})
    ]  # fmt: skip


def label_of(r: Roofline) -> str:
    """Name a roofline."""
    return f"{r.chip} {r.precision.upper()}"


def roofline_chart(rooflines: Sequence[Roofline], first: str, width: int) -> Drawing:
    """Draw the ceilings of both chips: FLOP/s against FLOP per byte, one colour a chip, one dash a precision."""
    import altair as alt

    wide = width >= WIDE
    tops = _apart([math.log10(r.peak) for r in rooflines], 0.14)
    ends = [
        {
            "x": RIGHT,
            "y": top,
            "label": f"{label_of(r)}, {show(r.peak, 'FLOP/s')}" if wide else label_of(r),
            "colour": A if r.chip == first else B,
        }
        for r, top in zip(rooflines, tops, strict=True)
    ]
    x = alt.X("x:Q", scale=alt.Scale(type="log", domain=[LEFT, RIGHT]),
              axis=alt.Axis(title="FLOP per byte of memory traffic", values=[10, 100, 1000, 10000], format="~s", grid=True))  # fmt: skip
    lowest = min(r.bandwidth * LEFT for r in rooflines)
    decades = [10.0**e for e in range(12, 18)]
    y = alt.Y("y:Q", scale=alt.Scale(type="log", domain=[lowest, max(tops) * 1.25]),
              axis=alt.Axis(title="TFLOP/s", values=decades, labelExpr="format(datum.value / 1e12, ',')", grid=True))  # fmt: skip
    colour = alt.Color("colour:N", scale=None, legend=None)
    precisions = list(dict.fromkeys(r.precision for r in rooflines))
    strokes = alt.Scale(domain=precisions, range=[DASHES[i % len(DASHES)] for i in range(len(precisions))])
    dash = alt.StrokeDash("precision:N", legend=None, scale=strokes)
    lines = alt.Chart(_values(_roofline_rows(rooflines, first))).mark_line(strokeWidth=2.2)
    labels = alt.Chart(_values(ends))
    beside = labels.mark_text(align="left", baseline="middle", dx=8, fontSize=11.5)
    above = labels.mark_text(align="right", baseline="bottom", dx=-2, dy=-2, fontSize=11.5)
    return alt.layer(
        lines.encode(x=x, y=y, color=colour, strokeDash=dash, detail="name:N"),
        (beside if wide else above).encode(x="x:Q", y="y:Q", text="label:N", color=colour),
    ).properties(width=width - (280 if wide else 70), height=340)


def shown_causes(v: Verdict) -> list[str]:
    """Name the causes that the chart tells apart: those that take the largest share of any step."""
    largest: dict[str, float] = {}
    order: list[str] = []
    for s in (side for j in v.jobs for side in (j.a, j.b)):
        whole = sum(t for _, t in s.parts) or 1.0
        for name, t in s.parts:
            order += [] if name in order else [name]
            largest[name] = max(largest.get(name, 0.0), t / whole)
    kept = sorted((n for n in largest if largest[n] > 0), key=lambda n: -largest[n])
    chosen = kept if len(kept) <= SHOWN else kept[: SHOWN - 1]
    ranked = [n for n in COLOURS if n in order] + [n for n in order if n not in COLOURS]
    return [n for n in ranked if n in chosen] + ([OTHER] if len(chosen) < len(kept) else [])


def colour_of(causes: Sequence[str]) -> dict[str, str]:
    """Give each cause its colour."""
    return {name: COLOURS.get(name, FURTHER[i % len(FURTHER)]) for i, name in enumerate(causes)}


def _parts_rows(v: Verdict, names: Sequence[str]) -> list[dict[str, object]]:
    """List every part of every step, small causes as one, in multiples of the second side's step."""
    causes = shown_causes(v)
    colours = colour_of(causes)
    rows: list[dict[str, object]] = []
    for j in v.jobs:
        whole = sum(t for _, t in j.b.parts) or 1.0
        for who, s in enumerate((j.a, j.b)):
            label = f"{names[who]}  {show(sum(t for _, t in s.parts), 's')}"
            for part, t in s.parts:
                kept = part if part in causes else OTHER
                rank = causes.index(kept) if kept in causes else len(causes)
                colour = colours.get(kept, COLOURS[OTHER])
                rows.append({"job": j.job.title, "side": label, "cause": cause(kept), "rank": rank, "colour": colour, "t": t / whole, "who": who})
    return rows


def parts_chart(v: Verdict, width: int) -> Drawing:
    """Draw where the time of a step goes on both sides, in multiples of the second side's step."""
    import altair as alt

    names = pair(v.a, v.b)
    sides = alt.Axis(ticks=False, domain=False, labelLimit=170, labelPadding=10)
    bars = (
        alt.Chart(_values(_parts_rows(v, names)))
        .mark_bar(height=17, stroke="var(--page)", strokeWidth=0.8)
        .encode(
            x=alt.X("sum(t):Q", title=f"time of a step, in steps of the {names[1]}", axis=alt.Axis(tickCount=5, format="~g")),
            y=alt.Y("side:N", title=None, sort=alt.EncodingSortField("who", order="ascending"), axis=sides),
            color=alt.Color("colour:N", scale=None, legend=None),
            order=alt.Order("rank:Q"),
        )
        .properties(width=width - 155, height=46)
    )
    header = alt.Header(title=None, labelAnchor="start", labelOrient="top", labelFontSize=13, labelColor=INK, labelPadding=4, labelLimit=width)
    facet = alt.Facet("job:N", sort=[j.job.title for j in v.jobs], header=header)
    drawn: Drawing = bars.facet(facet=facet, columns=1, spacing=14).resolve_scale(y="independent")
    return drawn


def pareto_chart(v: Verdict, width: int) -> Drawing:
    """Draw what each serving job's deployments give a user and a chip, where no other gives more of both; a rule marks the pace that the job owes its users."""
    import altair as alt

    drawn: Drawing = alt.vconcat(*(_pareto_panel(j, pair(v.a, v.b), width) for j in v.jobs if j.a.front and j.b.front), spacing=22)
    return drawn


def _pareto_panel(j: JobVerdict, names: tuple[str, str], width: int) -> Any:
    """Draw the fronts of one job."""
    import altair as alt

    rows = [{"who": name, "colour": colour, "user": user, "chip": chip}
            for name, colour, s in zip(names, (A, B), (j.a, j.b), strict=True) for user, chip in s.front]  # fmt: skip
    users, chips = [u for s in (j.a, j.b) for u, _ in s.front], [c for s in (j.a, j.b) for _, c in s.front]
    x, y = (
        axis(
            f"{field}:Q",
            scale=alt.Scale(type="log", domain=_decade(values), nice=False),
            axis=alt.Axis(title=f"tokens/s of a {field}", format="~s", values=_ticks(values)),
        )
        for axis, field, values in ((alt.X, "user", users), (alt.Y, "chip", chips))
    )
    base, owed = alt.Chart(_values(rows)), alt.Chart(_values([{"owed": 1.0 / j.job.tpot, "label": "owed to a user"}]))
    colour_ = alt.Color("colour:N", scale=None, legend=None)
    return alt.layer(
        owed.mark_rule(color=INK, strokeDash=[3, 3], strokeWidth=1).encode(x=alt.X("owed:Q")),
        owed.mark_text(align="left", dx=4, y=8, fontSize=11).encode(x="owed:Q", text="label:N"),
        base.mark_line(strokeWidth=2.2, interpolate="monotone").encode(x=x, y=y, color=colour_, detail="who:N", order="user:Q"),
        base.mark_point(filled=True, size=34, opacity=1).encode(x=x, y=y, color=colour_),
    ).properties(width=width - 110, height=210, title=alt.Title(j.job.title, anchor="start", fontSize=13, fontWeight="normal", color=INK))


def _decade(values: Sequence[float]) -> list[float]:
    return [0.8 * min(values), 1.25 * max(values)]


def _ticks(values: Sequence[float]) -> list[float]:
    """Return 1, 2 and 5 times powers of ten in the range of values."""
    low, high = _decade(values)
    return [m * 10.0**e for e in range(-2, 7) for m in (1.0, 2.0, 5.0) if low <= m * 10.0**e <= high]
