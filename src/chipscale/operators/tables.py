"""Measured tables of an optional package: what it has, and its rows near given calls in the words of the shipped files.

Tables hold millions of rows: only those of one operator, chip and engine are read, and only those near a call become samples.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chipscale.catalog import Catalog
from chipscale.evidence import Belief, EvidenceError
from chipscale.operators.corpus import Sample, held_out, understood
from chipscale.operators.reading import MOST, Chips, Row

if TYPE_CHECKING:
    import polars as pl

#: repeated runs of one call differ by under 1 % (median) and at most 7 times in the package; the faster fits its neighbours more often and counts;
#: beyond this factor they are two calls, or two units
REPEATS = 10.0
#: a kernel takes longer than nothing and less than this many seconds, or units are mixed
LONGEST = 1e4
#: rows near a call that are read: the measured tier needs four beside the call itself
NEAR = 8
#: columns that every table of ours has beside its operator's own
LABELS = ("engine", "seconds", "source", "_line")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What one kind of table means: its operator, file name, seconds of a latency of 1, our columns from theirs; `engine` where columns do not name it; `optional` are
    those of our columns that a file may lack, with what a file without them means.
    """

    operator: str
    file: str
    seconds: float
    engine: str
    columns: Mapping[str, Sequence[str]]
    only: Mapping[str, int]
    optional: Mapping[str, int]
    elements: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A table's file: which operator on which chip."""

    operator: str
    chip: str
    layout: Layout
    path: Path

    def may_hold(self, engine: str) -> bool:
        """Say whether the file's name and folder leave room for an engine."""
        return not self.layout.engine or engine == f"{self.layout.engine} {self.path.parent.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """The tables under a folder, by the rules of data/measurements/tables.toml; `held` says why a chip's are refused."""

    name: str
    root: Path
    chips: Mapping[str, str]
    formats: Mapping[str, str]
    layouts: Sequence[Layout]
    held: Mapping[str, str]

    def listed(self, operator: str = "", chip: str = "") -> list[Listed]:
        """List the files, of one operator or of one chip where asked; none is opened."""
        return [
            Listed(operator=layout.operator, chip=id, layout=layout, path=path)
            for system, id in self.chips.items()
            for layout in self.layouts
            if operator in ("", layout.operator) and chip in ("", id)
            for path in sorted((self.root / system).glob(f"*/*/*/{layout.file}"))
        ]

    def rows(self, operator: str, chip: str, engine: str) -> pl.DataFrame | None:
        """Return the calls of one operator, chip (id) and engine in our columns, each once; none where no table has them.

        Errors: a chip held out for tests; a broken file, a missing column, a blank field, mixed units, one call with two very different times.
        """
        import polars as pl

        if chip in self.held:
            raise EvidenceError(f"{chip}: its measured tables are held out ({self.held[chip]}); ask for the calibrated or prior tier")
        parts = [part for table in self.listed(operator, chip) if table.may_hold(engine) and len(part := self._part(table, engine))]
        if not parts:
            return None
        try:
            every = pl.concat(parts, how="vertical_relaxed")
        except pl.exceptions.PolarsError as problem:
            raise EvidenceError(f"{self.root}: tables of {operator}, {chip}, {engine} have columns of different kinds ({problem})") from problem
        key = [c for c in every.columns if c not in LABELS]
        repeats = every.sort("seconds").group_by(key, maintain_order=True)
        slowest = {f"slowest_{c}": pl.col(c).last() for c in ("seconds", "source", "_line")}
        once = repeats.agg(*(pl.col(c).first() for c in LABELS), **slowest)
        apart = once.filter(pl.col("slowest_seconds") > REPEATS * pl.col("seconds"))
        if len(apart):
            r = apart.row(0, named=True)
            raise EvidenceError(f"{self.root / r['source']}: row {r['_line']} holds the same call as row {r['slowest__line']} of {r['slowest_source']}, "
                                f"with {r['seconds']:g} s against {r['slowest_seconds']:g} s; units are mixed, or a column that tells them apart is not read")  # fmt: skip
        return once.drop(list(slowest))

    def _part(self, table: Listed, engine: str) -> pl.DataFrame:
        """Return one file's rows of an engine in our columns."""
        import polars as pl

        layout, path = table.layout, table.path
        name, _, version = engine.partition(" ")
        try:
            scan = pl.scan_parquet(path).with_row_index("_line", offset=1)
            have = scan.collect_schema().names()
            label = [] if layout.engine else ["framework", "version"]
            columns = {c: names for c, names in layout.columns.items() if c not in layout.optional or set(names) <= set(have)}
            theirs = sorted({c for names in columns.values() for c in names} | {"latency"})
            if missing := sorted({*theirs, *label} - set(have)):
                raise EvidenceError(f"{path}: column {', '.join(missing)} is missing; {layout.operator} tables need it")
            wanted = dict(zip(label, (name, version), strict=False)) | {c: v for c, v in layout.only.items() if c in have}
            scan = scan.filter(*(pl.col(c) == v for c, v in wanted.items()))
            raw = scan.select("_line", *theirs).collect()
        except (pl.exceptions.PolarsError, OSError) as problem:
            raise EvidenceError(f"{path}: cannot be read as a parquet table ({problem}); install the package again") from problem
        _checked(raw, path, layout)
        word = [
            pl.lit(layout.optional[c], pl.Int64).alias(c)
            if c not in columns
            else pl.sum_horizontal(names).alias(c)
            if len(names) > 1
            else pl.col(names[0]).alias(c)
            for c, names in layout.columns.items()
        ]
        ours = raw.select("_line", *word, seconds=pl.col("latency").cast(pl.Float64) * layout.seconds)
        ours = ours.with_columns(pl.col(pl.String).replace(dict(self.formats)))
        ours = ours.with_columns(engine=pl.lit(engine), source=pl.lit(path.relative_to(self.root).as_posix()))
        return _in_bytes(ours, path, layout)

    def samples(self, operator: str, chip: str, engine: str, near: Sequence[Row], catalog: Catalog) -> list[Sample]:
        """Return the calls that are nearest to each given row: of the same words, by distance in doublings of the numbers."""
        table = self.rows(operator, chip, engine)
        if table is None:
            return []
        unstated = {c: str(value) for kind in self.layouts if kind.operator == operator for c, value in kind.optional.items()}
        chosen = table[_nearest(table, [unstated | {c: v for c, v in row.items() if v or c not in unstated} for row in near])]
        known: Chips = {}
        found = []
        for values in chosen.iter_rows(named=True):
            row = {**{c: str(v) for c, v in values.items()}, "chip": chip, "seconds": repr(values["seconds"]), "apart": ""}
            found.append(understood(row, f"{row['source']}:{row['_line']}", operator, self.root / row["source"], catalog, known))
        return found


def _checked(raw: pl.DataFrame, path: Path, layout: Layout) -> None:
    """Refuse blank fields, sizes that are none, and seconds that no kernel takes."""
    import polars as pl

    if not raw["latency"].dtype.is_numeric():
        raise EvidenceError(f"{path}: column latency holds {raw['latency'].dtype}, not numbers")
    for column in raw.columns:
        number = raw[column].dtype.is_numeric() and column != "latency"
        bad = pl.col(column).is_null() | ~(pl.col(column).cast(pl.Float64).is_between(0.0, MOST) if number else pl.lit(True))
        if len(wrong := raw.filter(bad)):
            what = "a number from 0 to 2^62" if number else "a value"
            raise EvidenceError(f"{path}: row {wrong['_line'][0]}, column {column}: {wrong[column][0]!r} is not {what}; correct it")
    fine = pl.col("latency").cast(pl.Float64).is_between(0.0, LONGEST / layout.seconds, closed="right")
    if len(wrong := raw.filter(~fine)):
        row = wrong.row(0, named=True)
        raise EvidenceError(f"{path}: row {row['_line']}, column latency: {row['latency']:g} would be {row['latency'] * layout.seconds:g} s; "
                            f"a kernel takes more than 0 and at most {LONGEST:g} s: units are mixed")  # fmt: skip


def _in_bytes(ours: pl.DataFrame, path: Path, layout: Layout) -> pl.DataFrame:
    """Turn elements into bytes where the layout says that a column counts elements."""
    import polars as pl

    if not layout.elements:
        return ours
    column, of, width = layout.elements["column"], layout.elements["of"], layout.elements["width"]
    if len(strange := ours.filter(~pl.col(of).is_in(list(width)))):
        raise EvidenceError(f"{path}: row {strange['_line'][0]}: the width of {strange[of][0]!r} is unknown; use one of {', '.join(width)}")
    return ours.with_columns(pl.col(column) * pl.col(of).replace_strict(width, return_dtype=pl.Float64))


def _nearest(table: pl.DataFrame, near: Sequence[Row]) -> np.ndarray:
    """Return the places of rows that are among the nearest to any given row."""
    from scipy.spatial import cKDTree

    own = [c for c in table.columns if c not in LABELS]
    words = [c for c in own if not table[c].dtype.is_numeric()]
    numbers = [c for c in own if c not in words]
    there: dict[tuple[str, ...], list[int]] = {}
    for i, cell in enumerate(table.select(words).iter_rows()):
        there.setdefault(cell, []).append(i)
    asked: dict[tuple[str, ...], list[Row]] = {}
    for row in near:
        asked.setdefault(tuple(row[c] for c in words), []).append(row)
    places = np.log2(1.0 + table.select(numbers).to_numpy().astype(float))
    chosen: list[np.ndarray] = []
    for cell, rows in asked.items():
        inside = np.array(there.get(cell, ()), dtype=np.int64)
        if len(inside):
            here = np.log2(1.0 + np.array([[float(r[c]) for c in numbers] for r in rows]))
            _, index = cKDTree(places[inside]).query(here, k=min(NEAR, len(inside)))
            chosen.append(inside[np.unique(index)])
    return np.unique(np.concatenate(chosen)) if chosen else np.array([], dtype=np.int64)


def at(root: Path, name: str, catalog: Catalog) -> Tables:
    """Return the tables under a folder in the package's layout."""
    t = tomllib.loads(catalog.text("measurements/tables.toml"))
    layouts = [Layout(**{"engine": "", "only": {}, "optional": {}, "elements": {}, **entry}) for entry in t["table"]]
    return Tables(name=name, root=root, chips=t["chips"], formats=t["formats"], layouts=layouts, held=held_out(catalog, "operators"))


def installed(catalog: Catalog) -> Tables | None:
    """Return the installed package's tables; none without the package or without what reads it."""
    t = tomllib.loads(catalog.text("measurements/tables.toml"))
    package = util.find_spec(t["package"])
    if package is None or not package.submodule_search_locations or util.find_spec("polars") is None:
        return None
    return at(Path(package.submodule_search_locations[0]) / t["folder"], f"{t['distribution']} {metadata.version(t['distribution'])}", catalog)


def near(tables: Tables, samples: Sequence[Sample], catalog: Catalog) -> tuple[list[Sample], list[str]]:
    """Return the tables' rows near measured calls, and notes on what was read and what was held back."""
    asked: dict[tuple[str, str, str], list[Row]] = {}
    for s in samples:
        if s.reading:
            chip = catalog.chip(s.row["chip"])
            if not isinstance(chip, Belief):
                asked.setdefault((s.labels["file"], chip.id, s.row.get("engine", "")), []).append(s.row)
    found: list[Sample] = []
    used: dict[str, list[str]] = {}
    notes = [f"{chip}: measured tables are held out ({tables.held[chip]})" for chip in sorted({id for _, id, _ in asked} & set(tables.held))]
    for (operator, id, engine), rows in asked.items():
        if id not in tables.held:
            part = tables.samples(operator, id, engine, rows, catalog)
            found += part
            used.setdefault(operator, []).extend(sorted({s.row["source"] for s in part}))
    return found, notes + [f"measured tables of {tables.name}, {operator}: {', '.join(sources)}" for operator, sources in used.items() if sources]
