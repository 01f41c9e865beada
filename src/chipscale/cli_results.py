"""`chipscale results`: a store of records."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

import typer

from chipscale.console import say, show

results = typer.Typer(rich_markup_mode=None, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
Where = Annotated[Path, typer.Option("--store", metavar="FILE", help="the store, a DuckDB file")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
DEFAULT = Path("results.duckdb")


@results.callback()
def group() -> None:
    """Keep records in a store that is only ever added to; list, show, compare and export them."""


@results.command()
def add(
    files: Annotated[list[Path], typer.Argument(metavar="RESULT.json...", help="records of chipscale bench or chipscale import")],
    against: Annotated[str | None, typer.Option(metavar="CHIP", help="the chip that the device is said to be")] = None,
    catalog: Annotated[Path | None, typer.Option("--catalog", metavar="DIR", help="a folder of your own chips")] = None,
    store: Where = DEFAULT,
) -> None:
    """Add records, with the claims that each was held against."""
    from chipscale.bench.files import read
    from chipscale.catalog import load
    from chipscale.results.store import opened
    from chipscale.verify import verify

    known = load(catalog)
    records = [(f, read(f)) for f in files]
    with opened(store, write=True) as kept:
        for file, record in records:
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            held = verify(known, record, str(file), against)
            typer.echo(f"{kept.add(record, held, now)} {record.sha256[:12]}  {file}{f' ({held.chip})' if held.chip else ''}")


@results.command("list")
def list_(store: Where = DEFAULT, as_json: AsJson = False) -> None:
    """List the records."""
    from chipscale.report.jsonable import to_json
    from chipscale.report.results import entries_screen
    from chipscale.results.store import opened

    with opened(store) as kept:
        found = kept.entries()
    return say(to_json(found)) if as_json else show(entries_screen(found))


@results.command("show")
def show_(
    record: Annotated[str, typer.Argument(metavar="HASH", help="the start of its sha256")], store: Where = DEFAULT, as_json: AsJson = False
) -> None:
    """Show one record."""
    from chipscale.bench.files import text
    from chipscale.report.results import record_screen
    from chipscale.results.store import opened

    with opened(store) as kept:
        found = kept.record(record)
    return say(text(found)) if as_json else show(record_screen(found))


@results.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="HASH", help="the run before")],
    b: Annotated[str, typer.Argument(metavar="HASH", help="the run after")],
    store: Where = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Compare two runs of the same tests: does any differ, and by how much."""
    from chipscale.report.jsonable import to_json
    from chipscale.report.results import diff_screen
    from chipscale.results.compare import compare
    from chipscale.results.store import opened

    with opened(store) as kept:
        found = compare(kept.record(a), kept.record(b))
    return say(to_json(found)) if as_json else show(diff_screen(found))


@results.command()
def export(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help=".csv or .parquet: a row a result; .json: all records whole")],
    claims: Annotated[bool, typer.Option("--claims", help="the claims that each record was held against instead of its results")] = False,
    store: Where = DEFAULT,
) -> None:
    """Write all results to a file."""
    from chipscale.console import write
    from chipscale.results.store import opened

    if out.is_dir() or not out.parent.is_dir():
        write(out, "")  # says what is wrong before the work is done
    with opened(store) as kept:
        count = kept.export(out, "claims" if claims else "measures")
    typer.echo(f"wrote {out} ({count:,} rows)", err=True)
