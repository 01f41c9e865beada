"""`chipscale bench`: measure the device of this machine."""

from __future__ import annotations

import sys
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from chipscale.console import show, write
from chipscale.evidence import EvidenceError


class SuiteName(StrEnum):
    """How much is measured."""

    QUICK = "quick"
    FULL = "full"


class DeviceKind(StrEnum):
    """What is measured."""

    CUDA = "cuda"
    NPU = "npu"
    CPU = "cpu"


def bench(
    suite: Annotated[SuiteName, typer.Option(help="quick: some minutes; full: half an hour on an accelerator")] = SuiteName.QUICK,
    device: Annotated[DeviceKind | None, typer.Option(help="an accelerator if one is here, else the processor")] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="where the record is written, after each test anew")] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="NAME", help="one test of the suite; may be repeated")] = None,
    against: Annotated[str | None, typer.Option(metavar="CHIP", help="set apart samples above what is claimed of this chip")] = None,
    catalog: Annotated[Path | None, typer.Option("--catalog", metavar="DIR", help="a folder of your own chips, for --against")] = None,
) -> None:
    """Measure this machine's accelerator or processor, and write down what was measured."""
    from chipscale.bench.device import NO_TORCH
    from chipscale.bench.files import text
    from chipscale.bench.record import Record
    from chipscale.bench.runner import Opening, run
    from chipscale.bench.suite import parsed
    from chipscale.catalog import load
    from chipscale.report.bench import bench_screen

    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        write(out, "")  # says what is wrong before the work is done
    if find_spec("torch") is None:
        raise EvidenceError(NO_TORCH)
    name = f"bench/{suite.value}.toml"
    chosen = parsed(load(None).text(name), name).only(only or [])

    def keep(record: Record) -> None:
        if out is not None:
            write(out, text(record))

    def watch(title: str, share: float) -> None:
        typer.echo(f"{share:4.0%}  {title}", err=True)

    command = ["chipscale", *sys.argv[1:]]
    opening = Opening(kind=device.value if device else None, against=against, catalog=catalog)
    record = run(chosen, opening, command, watch, keep)
    keep(record)
    show(bench_screen(record))
    typer.echo(f"wrote {out} (sha256 {record.sha256[:12]})" if out else "not kept: add --out result.json to write the record", err=True)
