"""The bibliography of a run: sources of the formulas, and of the facts about the chips."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import tomllib
from collections.abc import Iterator, Sequence
from types import ModuleType

from chipscale.catalog import Catalog
from chipscale.evidence import Belief, Source
from chipscale.facts.chip import Chip

#: where formulas live
FORMULAS = (
    "chipscale.ops",
    "chipscale.cost",
    "chipscale.operators",
    "chipscale.simulators",
    "chipscale.runs",
    "chipscale.memory",
    "chipscale.activations",
    "chipscale.peak",
    "chipscale.graph",
    "chipscale.facts.parameters",
    "chipscale.verify",
    "chipscale.results",
)
_STATED = re.compile(r"^\s*Source: (.+?)(?:\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)


def _modules(name: str) -> Iterator[ModuleType]:
    module = importlib.import_module(name)
    yield module
    for found in pkgutil.walk_packages(getattr(module, "__path__", []), f"{name}."):
        yield importlib.import_module(found.name)


def formulas() -> list[tuple[str, str]]:
    """List every formula with the source that its docstring states."""
    found = []
    for name in FORMULAS:
        for module in _modules(name):
            for label, member in sorted(vars(module).items()):
                if getattr(member, "__module__", "") == module.__name__ and (stated := _STATED.search(inspect.getdoc(member) or "")):
                    found.append((f"{module.__name__.removeprefix('chipscale.')}.{label}", " ".join(stated.group(1).split()).rstrip(".")))
    return found


def sources(catalog: Catalog, chips: Sequence[str]) -> list[Source]:
    """List the sources of all facts about these chips, by key."""
    found: dict[str, Source] = {}
    for name in chips:
        known = catalog.chip(name)
        each: list[Chip] = [h.value for h in known.hypotheses] if isinstance(known, Belief) else [known]
        found |= {f.source.key: f.source for chip in each for facts in chip.facts.values() for f in facts}
    return [found[key] for key in sorted(found)]


def references(catalog: Catalog) -> list[str]:
    """List the works that the formulas cite: authors, title, year, address."""
    table = tomllib.loads(catalog.text("bibliography.toml"))
    cited = " ".join(stated for _, stated in formulas())
    return [f"  {key}: {w['authors']}, {w['title']} ({w['year']}), {w['url']}" for key, w in sorted(table.items()) if key in cited]


def bibliography(catalog: Catalog, chips: Sequence[str]) -> str:
    """Write what a comparison of these chips rests on, as plain text."""
    lines = ["Formulas", ""]
    lines += [f"  {label}: {stated}" for label, stated in formulas()]
    lines += ["", "References", "", *references(catalog)]
    lines += ["", f"Facts about {', '.join(chips)}", ""]
    for s in sources(catalog, chips):
        rest = "; ".join(part for part in (s.kind.value, s.date, s.licence) if part)
        lines.append(f"  {s.key}: {s.where} ({rest})")
    return "\n".join(lines)
