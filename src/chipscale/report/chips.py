"""Chips and clusters as terminal tables: what is known, who says so, what was rejected."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from chipscale.catalog import Catalog
from chipscale.evidence import Belief, Fact
from chipscale.facts.chip import Chip
from chipscale.facts.cluster import Cluster
from chipscale.units import show

OVERVIEW = (
    ("bf16 TFLOP/s", "peak_bf16"),
    ("fp16", "peak_fp16"),
    ("fp8", "peak_fp8"),
    ("memory", "memory_bytes"),
    ("bandwidth", "memory_bandwidth"),
    ("scale-up 1 way", "scaleup_bandwidth"),
    ("power", "power"),
)


def _known(chip: Chip, quantity: str) -> Text:
    """Return a chosen value in print, dim where only a rejected one exists, a dash where nothing is known."""
    if not chip.has(quantity):
        return Text("-", style="dim")
    fact = chip.fact(quantity)
    return Text(show(fact.value, fact.unit).removesuffix(" TFLOP/s"))


def _overview_row(table: Table, name: str, chip: Chip, weight: str) -> None:
    values = [_known(chip, quantity) for _, quantity in OVERVIEW]
    table.add_row(name, chip.family, weight, *values, str(len([f for group in chip.facts.values() for f in group])))


def chips_table(catalog: Catalog) -> Table:
    """List every chip; a chip that is a belief has one line per hypothesis with its weight."""
    table = Table(title="Chips, per package, dense", title_justify="left", box=None, padding=(0, 1, 0, 0), header_style="bold")
    for name in ("chip", "family", "weight", *(title for title, _ in OVERVIEW), "facts"):
        table.add_column(name, no_wrap=name in ("chip", "family"))
    for name in catalog.chips():
        found = catalog.chip(name)
        if isinstance(found, Belief):
            for h in found.hypotheses:
                _overview_row(table, f"{name} = {h.key}", h.value, f"{h.weight:.0%}")
        else:
            _overview_row(table, name, found, "")
    return table


def _range(fact: Fact) -> str:
    """Write a range, its unit once where both ends share it."""
    if fact.low == fact.high:
        return ""
    low, high = show(fact.low, fact.unit), show(fact.high, fact.unit)
    unit = high.partition(" ")[2]
    return f"{low.removesuffix(' ' + unit) if unit else low} – {high}"


def _facts_table(chip: Chip) -> list[RenderableType]:
    """List facts with value, range, sense, class and note; the numbered sources stand below."""
    numbers = {key: i for i, key in enumerate(dict.fromkeys(f.source.key for facts in chip.facts.values() for f in facts), start=1)}
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for name in ("", "quantity", "value", "80 % range", "sense", "class", "source"):
        table.add_column(name, no_wrap=True)
    table.add_column("note", overflow="fold", ratio=1, min_width=16)
    for quantity, facts in chip.facts.items():
        for i, fact in enumerate(facts):
            mark, style = ("x", "dim") if fact.rejected else ("*", "bold") if i == 0 else ("", "")
            note = f"rejected: {fact.rejected}" if fact.rejected else fact.note
            sense = fact.sense if fact.per == "package" else f"{fact.sense} per {fact.per}".strip()
            cells = (mark, quantity if i == 0 else "", show(fact.value, fact.unit), _range(fact) if i == 0 else "", sense, str(fact.source.kind),
                     f"[{numbers[fact.source.key]}]", note)  # fmt: skip
            table.add_row(*(Text(cell, style=style if n < 3 else "") for n, cell in enumerate(cells)))
    where = {f.source.key: f"{f.source.date or 'no date'}: {f.source.where}" for facts in chip.facts.values() for f in facts}
    return [table, *(Text(f"[{n}] {where[key]}", style="dim", overflow="fold") for key, n in numbers.items())]


def _page(chip: Chip) -> list[RenderableType]:
    head = f"{chip.vendor}, {chip.family}, stands in {chip.cluster or 'no cluster of its own'}; per package and one direction unless said"
    return [Text(f"{chip.name} ({chip.id})", style="bold"), Text(head), *_facts_table(chip), *(Text(f"- {note}") for note in chip.notes)]


def chip_page(found: Chip | Belief[Chip]) -> Group:
    """Show every fact: * chosen, x rejected with its reason; a belief shows each hypothesis with weight and reason."""
    legend = Text("* computed with, its range spans the credible others    x known error, shown but not counted", style="dim")
    if isinstance(found, Chip):
        return Group(*_page(found), legend)
    parts: list[RenderableType] = []
    for h in found.hypotheses:
        parts += [Text(f"{h.key}: {h.title}, weight {h.weight:.0%}", style="bold"), Text(h.reason), *_page(h.value), Text("")]
    return Group(*parts, legend)


def clusters_table(catalog: Catalog) -> Table:
    """List every cluster with its tiers, innermost first."""
    table = Table(title="Clusters, bandwidth per chip and direction", title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("cluster", "chip", "chips a host", "tiers"):
        table.add_column(name)
    for name in catalog.clusters():
        cluster = catalog.cluster(name)
        tiers = ", ".join(f"{t.size:,} at {show(t.bandwidth.value, t.bandwidth.unit)}" for t in cluster.tiers)
        table.add_row(name, cluster.chip, str(cluster.node), tiers)
    return table


def cluster_page(cluster: Cluster) -> Group:
    """Show a cluster's tiers with the source of each."""
    table = Table(title=f"{cluster.name} ({cluster.id}), {cluster.node} chips a host", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("tier", "chips", "bandwidth", "range", "latency", "topology", "oversubscription", "class", "source", "note"):
        table.add_column(name, overflow="fold")
    for t in cluster.tiers:
        fact = t.bandwidth
        cells = (t.name, f"{t.size:,}", show(fact.value, fact.unit), _range(fact), show(t.latency, "s"), t.topology,
                 f"{t.oversubscription:g}", str(fact.source.kind), fact.source.key, fact.note)  # fmt: skip
        table.add_row(*(Text(cell) for cell in cells))
    return Group(table, Text(f"for {cluster.chip}"), *(Text(f"- {note}") for note in cluster.notes))
