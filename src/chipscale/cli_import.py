"""`chipscale import`: other tools' results as records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from chipscale.console import say, show, write
from chipscale.evidence import EvidenceError


def pairs(texts: Sequence[str]) -> dict[str, str]:
    """Read KEY=VALUE options."""
    found = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or key not in ("operation", "ranks", "precision", "device") or not value:
            raise EvidenceError(f"--set {text}: write operation=NAME, ranks=N, precision=NAME or device=NAME")
        found[key] = value
    return found


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="what another tool printed or wrote")],
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="nccl-tests, hccl_test, mamf-finder, ...; recognised if left out")] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="RECORD.json", help="where the record is written")] = None,
    told: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="what the text does not say: operation, ranks, precision, device")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the record")] = False,
) -> None:
    """Turn another tool's result into a record, for verify, weigh --with and results."""
    from chipscale.bench.files import text
    from chipscale.importers.reading import imported
    from chipscale.report.imported import imported_screen

    record = imported(file, kind, pairs(told or ()))
    if out is not None:
        write(out, text(record))
        typer.echo(f"wrote {out} (sha256 {record.sha256[:12]})", err=True)
    return say(text(record)) if as_json else show(imported_screen(record))
