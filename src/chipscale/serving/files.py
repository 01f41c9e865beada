"""Files of measured serving: which kind a file is, and how it is compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from chipscale import csvfile
from chipscale.catalog import Catalog
from chipscale.evidence import EvidenceError
from chipscale.scores import Validation
from chipscale.serving.published import validated
from chipscale.serving.timed import timed
from chipscale.serving.validate import serving


def compared(path: Path | None, *, leave_out: str | None, hide_protocol: bool, calibrate_points: int, catalog: Catalog) -> Sequence[Validation]:
    """Compare a file of measured serving with predictions, one validation a quantity; the shipped points without a file.

    A file with the column `arrival_s` holds single requests, one with `reliability` published figures of many kinds (whatever is left out there, it is whole sources), any other
    points at fixed concurrency.
    Errors: as the readers of these files; a question that a kind of file cannot answer.
    """
    header = csvfile.read(path)[0] if path else {}
    if path and ("arrival_s" in header or "reliability" in header) and (hide_protocol or calibrate_points):
        raise EvidenceError("these rows state their load, where there is one: --hide-protocol and --calibrate-points do not apply; leave them out")
    if path and "reliability" in header:
        return (validated(path, catalog, "source" if leave_out else None),)
    if path and "arrival_s" in header:
        found = timed(path, leave_out=leave_out is not None, catalog=catalog)
    else:
        found = serving(path, leave_out=leave_out, hide_protocol=hide_protocol, calibrate_points=calibrate_points, catalog=catalog)
    return found.ttft, found.tpot
