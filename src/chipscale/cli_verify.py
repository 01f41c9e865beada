"""`chipscale verify`, and what `weigh` does with records: believe them, and plan the tests that would settle it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chipscale.console import say, show
from chipscale.evidence import EvidenceError

if TYPE_CHECKING:
    from chipscale.catalog import Catalog
    from chipscale.verify import Informed


def verify(
    file: Annotated[Path, typer.Argument(metavar="RESULT.json", help="a record of chipscale bench, or of chipscale import")],
    against: Annotated[str | None, typer.Option(metavar="CHIP", help="the chip that the device is said to be; by its properties if left out")] = None,
    catalog: Annotated[Path | None, typer.Option("--catalog", metavar="DIR", help="a folder of your own chips")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Hold the claims about a chip against a record of measurements."""
    from chipscale.bench.files import read
    from chipscale.catalog import load
    from chipscale.report.jsonable import to_json
    from chipscale.report.verify import verify_screen
    from chipscale.verify import verify as hold

    known = load(catalog)
    found = hold(known, read(file), str(file), against)
    if as_json:
        return say(to_json(found))
    return show(verify_screen(found))


def believed(catalog: Catalog, files: Sequence[str], sides: Sequence[str]) -> Informed:
    """Return the catalogue after the records named by --with (FILE, or CHIP=FILE) were believed.

    Errors: a record of a chip that is not weighed, of no known chip, of another chip than stated, or beyond what the chip can do.
    """
    from chipscale.bench.files import read
    from chipscale.bench.record import Record
    from chipscale.verify import informed
    from chipscale.verify import verify as hold
    from chipscale.verify.claims import refuse_beyond
    from chipscale.verify.usual import read as shares

    weighed = [catalog.aliases().get(s.lower(), s) for s in sides]
    found: dict[str, list[tuple[str, Record, int]]] = {}
    for text in files:
        name, _, path = text.rpartition("=") if not Path(text).exists() else ("", "", text)
        record = read(Path(path))
        seen = hold(catalog, record, path, name or None)
        if not seen.chip:
            raise EvidenceError(f"--with {text}: {'; '.join(seen.remarks)}; state the chip, as in --with {sides[0]}={path}")
        if seen.chip not in weighed:
            raise EvidenceError(f"--with {text}: is a record of {seen.chip}, which is not weighed here ({', '.join(weighed)})")
        if all(j.measured is None for s in seen.subjects for j in s.claims):
            raise EvidenceError(
                f"--with {text}: {'; '.join(seen.remarks) or f'nothing in it bears on a claim of {seen.chip}'}; give a record of that chip"
            )
        if all(any(j.above for j in s.claims) for s in seen.subjects):
            refuse_beyond(path, max(seen.subjects, key=lambda s: max(j.claim.high for j in s.claims)))
        likeliest = max(seen.subjects, key=lambda s: s.after)
        found.setdefault(seen.chip, []).append((path, record, likeliest.match.devices))
    return informed(catalog, shares(catalog), found)


def weigh_with(catalog: Catalog, a: str, b: str, files: Sequence[str], jobs: Sequence[str], match: str, seed: int, draws: int,
               assume: Mapping[str, str], as_json: bool, details: bool) -> None:  # fmt: skip
    """Print the verdict before and after records were believed."""
    from chipscale.report.jsonable import to_json
    from chipscale.report.terminal import verdict_details, verdict_screen
    from chipscale.report.verify import change_screen
    from chipscale.verdict import weigh

    heard = believed(catalog, files, (a, b))
    before = weigh(catalog, a, b, jobs, match=match, seed=seed, draws=draws, assume=assume)
    after = weigh(heard.catalog, a, b, jobs, match=match, seed=seed, draws=draws, assume=assume)
    if as_json:
        return say(to_json({"updates": heard.updates, "before": before, "after": after}))
    show(verdict_screen(after))
    show(change_screen(heard.updates, before, after))
    return show(verdict_details(after)) if details else None


def plan_tests(catalog: Catalog, a: str, b: str, files: Sequence[str], jobs: Sequence[str], match: str, seed: int, draws: int,
               assume: Mapping[str, str], as_json: bool) -> None:  # fmt: skip
    """Print the tests that would settle a verdict, most telling first; after the records named, where some are."""
    from chipscale.report.jsonable import to_json
    from chipscale.report.verify import plan_screen
    from chipscale.verdict.experiments import plan

    known = believed(catalog, files, (a, b)).catalog if files else catalog
    found = plan(known, a, b, jobs, match=match, seed=seed, draws=draws, assume=assume)
    return say(to_json(found)) if as_json else show(plan_screen(found))
