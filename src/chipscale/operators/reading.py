"""Measured operator rows: CSV in, one Table a form out."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from chipscale import csvfile
from chipscale.catalog import Catalog
from chipscale.cost.hardware import WIDTH, base_precision
from chipscale.cost.kernels.costing import Tags
from chipscale.cost.kernels.form import Form, Silicon
from chipscale.cost.silicon import silicon
from chipscale.evidence import Belief, EvidenceError
from chipscale.operators.fit import Prior, Table

Row = csvfile.Row
name_of, read_csv = csvfile.name_of, csvfile.read
#: what a count or a number of bytes may be at most, so that products stay finite
MOST = 2.0**62


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One row understood: the form and its call, the precision whose matrix peak counts, the engine and its kernel.

    `share` is the part of a package that ran the kernel: one die of two is 0.5. A precision of "" is the chip's own at 16 bit.
    """

    form: Form
    call: Any
    precision: str
    engine: str
    kernel: str
    seconds: float
    share: float = 1.0


def number(row: Row, column: str, least: float = 1.0) -> float:
    """Return a number of a row of at least `least`; blank, broken, not finite or beyond 64 bits is an error."""
    wanted = f"a number from {least:g} to 2^62"
    value = csvfile.number(row, column, least=least, below=MOST, wanted=wanted, remedy="correct it")
    if value is None:
        raise EvidenceError(f"{name_of(row)}, column {column}: is blank; give {wanted}")
    return value


def window_of(row: Row) -> float:
    """Return the tokens that a query sees; a column that is missing, blank or 0 says that there is no window."""
    return (number(row, "window", 0.0) or math.inf) if row.get("window") else math.inf


def seconds_of(row: Row, column: str = "seconds", unit: float = 1.0) -> float:
    """Return the measured seconds, above 0."""
    value = number(row, column, 1e-12) * unit
    if value > 1e4:
        raise EvidenceError(f"{name_of(row)}, column {column}: {value:g} s for one kernel mixes units; give seconds")
    return value


def width_of(row: Row, column: str) -> float:
    """Return bytes an element of a row's number format; one that nobody knows is an error."""
    if row.get(column) not in WIDTH:
        raise EvidenceError(f"{name_of(row)}, column {column}: {row.get(column)!r} is unknown; use one of {', '.join(WIDTH)}")
    return WIDTH[row[column]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Which family a kernel belongs to: patterns of engine, kernel, precision and chip architecture; the first rule that fits counts."""

    engine: re.Pattern[str]
    kernel: re.Pattern[str]
    precision: re.Pattern[str]
    arch: re.Pattern[str]
    family: str


def pattern(text: str) -> re.Pattern[str]:
    """Compile a pattern of a rule; a blank one fits everything."""
    return re.compile(text, re.IGNORECASE)


def rules(catalog: Catalog, form: str) -> tuple[Rule, ...]:
    """Read data/kernels/FORM.toml."""
    table = tomllib.loads(catalog.text(f"kernels/{form}.toml"))
    return tuple(Rule(family=r["family"], **{k: pattern(r.get(k, "")) for k in ("engine", "kernel", "precision", "arch")}) for r in table["rule"])


def family_of(found: Sequence[Rule], engine: str, kernel: str, precision: str, arch: str) -> str:
    """Return the family of the first rule that fits, else the precision's own."""
    for r in found:
        if r.engine.search(engine) and r.kernel.search(kernel) and r.precision.search(precision) and r.arch.search(arch):
            return f"{r.family}:{precision}"
    return f"other:{precision}"


def read_prior(catalog: Catalog, form: str) -> Prior:
    """Read data/calibration/operators/FORM.prior.toml."""
    t = tomllib.loads(catalog.text(f"calibration/operators/{form}.prior.toml"))
    return Prior(
        centre={k: math.log(v["value"]) for k, v in t["constant"].items()},
        spread={k: float(v["spread"]) for k, v in t["constant"].items()},
        levels={k: float(v) for k, v in t["levels"].items()},
        surface={k: float(v) for k, v in t.get("surface", {}).items()},
        noise=float(t["noise"]),
        own={f"{c}.own.{f}": (math.log(v["value"]), float(v["spread"])) for f, constants in t.get("own", {}).items() for c, v in constants.items()},
    )


#: a chip's numbers, id and architecture by (chip as stated, precision, share)
Chips = dict[tuple[str, str, float], tuple[Silicon, str, str]]


def numbers_of(reading: Reading, row: Row, catalog: Catalog, known: Chips) -> tuple[Silicon, str, str]:
    """Return the numbers, id and architecture of the chip that ran a call; `known` keeps what was looked up."""
    key = (row["chip"], reading.precision, reading.share)
    if key not in known:
        chip = catalog.chip(row["chip"])
        if isinstance(chip, Belief):
            raise EvidenceError(f"{name_of(row)}, column chip: {row['chip']} is a belief over several chips; name the one that was measured")
        numbers = silicon(chip, catalog, reading.precision or base_precision(chip))
        known[key] = (part(numbers, reading.share), chip.id, chip.family)
    return known[key]


def assembled(readings: Sequence[Reading], rows: Sequence[Row], catalog: Catalog, known: Chips) -> Table:
    """Put readings of one form into arrays, each with its chip's numbers and its tags."""
    form = readings[0].form
    found = rules(catalog, form.id)
    tags: list[Tags] = []
    chips: list[Silicon] = []
    families: dict[tuple[str, ...], str] = {}
    for reading, row in zip(readings, rows, strict=True):
        numbers, id, arch = numbers_of(reading, row, catalog, known)
        what = (reading.engine, reading.kernel, reading.precision, arch)
        if what not in families:
            families[what] = family_of(found, *what)
        brand = reading.engine.split()[0].lower() if reading.engine else ""
        tags.append(Tags(precision=reading.precision, family=families[what], kernel=f"{brand}/{reading.kernel}:{reading.precision}", arch=arch, chip=id,
                         engine=reading.engine))  # fmt: skip
        chips.append(numbers)
    return Table(call=_columns(form.call, [r.call for r in readings]), silicon=_columns(Silicon, chips), tags=tags,
                 seconds=np.array([r.seconds for r in readings]))  # fmt: skip


#: what a die has of its package's numbers
SHARED = ("peak", "peak16", "memory_bandwidth", "cache_bytes", "cores", "link_bandwidth", "outer_bandwidth")


def part(numbers: Silicon, share: float) -> Silicon:
    """Return the numbers of a part of a package, such as one die of two (0.5)."""
    return replace(numbers, **{name: getattr(numbers, name) * share for name in SHARED})


def _columns(noun: type[Any], values: Sequence[Any]) -> Any:
    return noun(**{f.name: np.array([float(getattr(v, f.name)) for v in values]) for f in fields(noun)})
