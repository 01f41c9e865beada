"""`chipscale validate` and `chipscale calibrate`: how wrong we are, and the fits behind it."""

from __future__ import annotations

import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chipscale.catalog import Catalog, load
from chipscale.console import say, show, write
from chipscale.evidence import EvidenceError

if TYPE_CHECKING:
    from chipscale.scores import Validation


class Kind(StrEnum):
    """What is validated."""

    TRAINING = "training"
    OPERATORS = "operators"
    SERVING = "serving"


class LeaveOut(StrEnum):
    """What is left out, one after the other, when the error is estimated."""

    SOURCE = "source"
    CHIP = "chip"
    ENGINE = "engine"
    CELL = "cell"
    MODEL_AND_CHIP = "model-and-chip"


class Tier(StrEnum):
    """Where seconds of an operator come from."""

    PRIOR = "prior"
    CALIBRATED = "calibrated"
    MEASURED = "measured"


Folder = Annotated[Path | None, typer.Option("--catalog", metavar="DIR", help="a folder of your own chips, clusters, models, jobs, sources")]
HEADING = "# How wrong we are\n\nWritten by `chipscale validate training --write docs/accuracy.md`; errors are of step seconds.\n\n"


def validate(
    kind: Annotated[Kind, typer.Argument(help="what is validated")] = Kind.TRAINING,
    file: Annotated[Path | None, typer.Argument(help="a CSV of measured rows, or a folder of them (operators); the shipped ones if left out")] = None,
    leave_out: Annotated[LeaveOut | None, typer.Option(help="refit without each source (training), engine, chip, cell (model, chip and engine) or both model and chip in turn")] = None,
    tier: Annotated[Tier | None, typer.Option(help="operators: as an unseen chip, as calibrated, or bent to the nearest measured calls")] = None,
    calibrate_points: Annotated[int, typer.Option(min=0, max=10**6, help="rows of each cell shown first; the others are scored")] = 0,
    hide_protocol: Annotated[bool, typer.Option("--hide-protocol", help="serving: predict over all load protocols that a row may have followed")] = False,
    json_out: Annotated[Path | None, typer.Option("--json", metavar="OUT", help="write the scores as JSON")] = None,
    write_to: Annotated[Path | None, typer.Option("--write", metavar="PATH", help="write the scores as Markdown, worst first")] = None,
    catalog: Folder = None,
) -> None:  # fmt: skip
    """Say how wrong we are: predicted against measured."""
    for path, option in ((json_out, "--json"), (write_to, "--write")):
        if path and (path.is_dir() or not path.parent.is_dir()):
            write(path, "", option)  # says what is wrong before the work is done
    from chipscale.report.accuracy import contract, markdown, memory_markdown, screen
    from chipscale.report.jsonable import to_json

    known = load(catalog)
    out = leave_out.value if leave_out else None
    if hide_protocol and kind is not Kind.SERVING:
        raise EvidenceError(f"--hide-protocol: {kind.value} has no load protocol; leave it out")
    if kind is Kind.SERVING:
        _serving(file, tier, out, calibrate_points, hide_protocol, json_out, write_to, known)
        return
    if kind is Kind.OPERATORS:
        result = _operators(file, tier, out, calibrate_points, known)
    else:
        from chipscale.validate import everything, peaks, training

        if tier:
            raise EvidenceError(f"--tier {tier.value}: only operators have tiers; leave it out")
        result = training(file, leave_out=out, calibrate_points=calibrate_points, catalog=known)
    if json_out:
        write(json_out, to_json(contract(result)) + "\n", "--json")
    if write_to:
        alone = kind is Kind.OPERATORS or file or leave_out or calibrate_points
        parts = [markdown(part) for part in ([result] if alone else [result, *everything(known)])]
        write(write_to, HEADING + "\n".join(parts if alone else [*parts, memory_markdown(peaks(known))]), "--write")
    show(screen(result))


def _serving(
    file: Path | None, tier: Tier | None, leave_out: str | None, points: int, hide: bool, json_out: Path | None, write_to: Path | None, catalog: Catalog
) -> None:  # fmt: skip
    """Validate serving: points, timings of single requests or published figures, told apart by the columns of the file."""
    from chipscale.report.accuracy import screen
    from chipscale.report.jsonable import to_json
    from chipscale.report.serving_accuracy import contract, markdown
    from chipscale.serving.files import compared

    if tier:
        raise EvidenceError(f"--tier {tier.value}: only operators have tiers; leave it out")
    if leave_out and points:
        raise EvidenceError("--leave-out and --calibrate-points are two questions; ask one at a time")
    found = compared(file, leave_out=leave_out, hide_protocol=hide, calibrate_points=points, catalog=catalog)
    if json_out:
        write(json_out, to_json(contract(found)) + "\n", "--json")
    if write_to:
        write(write_to, markdown(found), "--write")
    for part in found:
        show(screen(part))


def _operators(file: Path | None, tier: Tier | None, leave_out: str | None, points: int, catalog: Catalog) -> Validation:
    """Validate operators; the three ways to ask exclude each other."""
    from chipscale.operators.tables import installed
    from chipscale.operators.validate import operators

    if (tier is not None) + (leave_out is not None) + (points > 0) > 1:
        raise EvidenceError("--tier, --leave-out and --calibrate-points are three questions; ask one at a time")
    if leave_out == "source":
        raise EvidenceError("--leave-out source: for operators it is chip or engine")
    chosen = tier or Tier.CALIBRATED
    measured = installed(catalog) if chosen is Tier.MEASURED else None
    return operators(file, tier=chosen, leave_out=leave_out, calibrate_points=points, catalog=catalog, measured=measured)


def calibrate(
    out: Annotated[Path, typer.Option(metavar="DIR", help="an existing folder for the files of coefficients")],
    date: Annotated[str, typer.Option(metavar="YYYY-MM-DD", help="the date written into the files")],
    kind: Annotated[Kind, typer.Argument(help="what is fitted")] = Kind.TRAINING,
    catalog: Folder = None,
) -> None:
    """Redo the fit on the shipped rows, with the errors on whole sources, engines and chips left out."""
    from chipscale.calibrate import calibrate as training
    from chipscale.calibrate import write as store
    from chipscale.operators.calibration import calibrate as operators
    from chipscale.serving.calibrate import calibrate as serving

    if not out.is_dir():
        raise EvidenceError(f"--out {out}: no such folder; make it first")
    try:
        datetime.date.fromisoformat(date)
    except ValueError as problem:
        raise EvidenceError(f"--date {date}: is no day; write it as in 2026-11-25") from problem
    files = {Kind.OPERATORS: operators, Kind.SERVING: serving, Kind.TRAINING: training}[kind](load(catalog), date)
    store(files, out)
    say("written: " + ", ".join(f"{out}/{name}" for name in files))
