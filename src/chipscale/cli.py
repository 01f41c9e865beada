"""Parse, call, print."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chipscale.cli_bench import bench
from chipscale.cli_import import import_
from chipscale.cli_results import results
from chipscale.cli_serve import serve
from chipscale.cli_validate import calibrate, validate
from chipscale.cli_verify import plan_tests, verify, weigh_with
from chipscale.console import say, show, write
from chipscale.evidence import Belief, EvidenceError
from chipscale.options import MOST_CHIPS, assumptions, chip_count, chip_counts, counts, names

if TYPE_CHECKING:
    from chipscale.catalog import Catalog
    from chipscale.facts.chip import Chip
    from chipscale.facts.job import Job
    from chipscale.facts.model import Model
    from chipscale.verdict.nouns import Side, Verdict

QUESTION = ("huawei-ascend-910d", "nvidia-h100-sxm-80gb")

app = typer.Typer(
    rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False, context_settings={"help_option_names": ["-h", "--help"]}
)


class Match(StrEnum):
    """What the two sides are made equal in."""

    CHIPS = "chips"
    POWER = "power"
    COST = "cost"


Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="seed of the draws")]
Draws = Annotated[int, typer.Option(min=1024, max=2**17, help="number of Sobol draws, best a power of two")]
Assume = Annotated[
    list[str] | None, typer.Option(metavar="CHIP=HYPOTHESIS", help="take one hypothesis of a chip (train: or of a model) as true; may be repeated")
]
Folder = Annotated[Path | None, typer.Option("--catalog", metavar="DIR", help="a folder of your own chips, clusters, models, jobs, sources")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
Jobs = Annotated[
    list[str] | None,
    typer.Option("--job", metavar="NAME", help="a job (chipscale jobs); may be repeated; the five founding ones if left out"),
]
Matching = Annotated[Match, typer.Option(help="make both sides equal in number of chips, power or cost")]
Records = Annotated[
    list[str] | None, typer.Option("--with", metavar="[CHIP=]RESULT.json", help="believe a record of one of the chips first; may be repeated")
]
PlanTests = Annotated[bool, typer.Option("--plan-tests", help="rank the tests that would settle it by how much each is expected to narrow it")]
Details = Annotated[bool, typer.Option("--details", help="plans and reasons too")]
Name = Annotated[str | None, typer.Argument(help="its id or alias; all are listed if left out")]


def _catalog(folder: Path | None) -> Catalog:
    from chipscale.catalog import load

    return load(folder)


def _weigh(catalog: Catalog, a: str, b: str, jobs: Sequence[str] | None, match: str, seed: int, draws: int, assume: Sequence[str] | None) -> Verdict:
    from chipscale.verdict import weigh as compare

    chosen = tuple(dict.fromkeys(jobs or ()))
    return compare(catalog, a, b, chosen, match=match, seed=seed, draws=draws, assume=assumptions(assume))


def _print(verdict: Verdict, as_json: bool, details: bool) -> None:
    if as_json:
        from chipscale.report.jsonable import to_json

        return say(to_json(verdict))
    from chipscale.report.terminal import verdict_details, verdict_screen

    show(verdict_screen(verdict))
    if details:
        show(verdict_details(verdict))
    return None


@app.callback(invoke_without_command=True)
def question(
    context: typer.Context, seed: Seed = 0, draws: Draws = 1024, assume: Assume = None, catalog: Folder = None, as_json: AsJson = False
) -> None:
    """Weigh one AI accelerator against another, and say how sure that is.

    Without a command: can the Ascend 910D replace the H100?
    """
    if context.invoked_subcommand is None:
        _print(_weigh(_catalog(catalog), *QUESTION, None, Match.CHIPS.value, seed, draws, assume), as_json, False)
    elif seed or assume or catalog or as_json or draws != 1024:
        raise EvidenceError(f"write the options after the command: chipscale {context.invoked_subcommand} ... --seed N")


@app.command()
def weigh(a: str, b: str, job: Jobs = None, match: Matching = Match.CHIPS, seed: Seed = 0, draws: Draws = 1024, assume: Assume = None,
          record: Records = None, plan: PlanTests = False, catalog: Folder = None, as_json: AsJson = False, details: Details = False) -> None:  # fmt: skip
    """Weigh chip A against chip B: per job a ratio, its interval, what it rests on and what would settle it."""
    if record or plan:
        asked = (_catalog(catalog), a, b, record or [], tuple(dict.fromkeys(job or ())), match.value, seed, draws, assumptions(assume), as_json)
        return plan_tests(*asked) if plan else weigh_with(*asked, details)
    return _print(_weigh(_catalog(catalog), a, b, job, match.value, seed, draws, assume), as_json, details)


@app.command()
def report(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="where the page is written")],
    a: Annotated[str, typer.Argument()] = QUESTION[0],
    b: Annotated[str, typer.Argument()] = QUESTION[1],
    job: Jobs = None,
    match: Matching = Match.CHIPS,
    seed: Seed = 0,
    draws: Draws = 1024,
    assume: Assume = None,
    catalog: Folder = None,
) -> None:
    """Write the verdict as one self-contained HTML page."""
    if out.is_dir() or not out.parent.is_dir():
        write(out, "")  # says what is wrong before the work is done
    missing = [name for name in ("altair", "vl_convert") if find_spec(name) is None]
    if missing:
        raise EvidenceError(f"the page needs {' and '.join(missing)}; install with: pip install 'chipscale[report]'")
    import datetime
    from importlib.metadata import version

    from chipscale.report.page import page, rooflines_of
    from chipscale.report.words import pair

    known = _catalog(catalog)
    verdict = _weigh(known, a, b, job, match.value, seed, draws, assume)
    sides = {name: _pinned(known, chip, assumptions(assume)) for name, chip in zip(("a", "b"), (a, b), strict=True)}
    precisions = sorted({"bf16", *(s.precision for j in verdict.jobs for s in (j.a, j.b))})
    names = pair(verdict.a, verdict.b)
    rooflines = [r for name, side in zip(names, sides.values(), strict=True) for r in rooflines_of(name, side, precisions)]
    write(out, page(verdict, sides["a"], sides["b"], rooflines, version("chipscale"), datetime.date.today().isoformat()))
    typer.echo(f"wrote {out}", err=True)


def _pinned(catalog: Catalog, name: str, assume: Mapping[str, str]) -> Chip | Belief[Chip]:
    """Return a chip as it is assumed to be."""
    known = catalog.chip(name)
    aliases = catalog.aliases()
    for chip, key in assume.items():
        if isinstance(known, Belief) and aliases.get(chip.lower()) == aliases.get(name.lower()):
            return known.pinned(key)
    return known


@app.command()
def train(
    model: Annotated[str, typer.Argument(help="a model (chipscale models), or the path of a config.json")],
    on: Annotated[str, typer.Option(metavar="CHIP:N", help="the chip and how many, as in h100:64")],
    plan: Annotated[str | None, typer.Option(metavar="tp=8,pp=16,...", help="evaluate this plan; the best is sought if left out")] = None,
    length: Annotated[int | None, typer.Option(min=1, max=10**8, help="tokens of a sequence")] = None,
    batch: Annotated[int | None, typer.Option(min=1, max=10**9, help="sequences of a step, over all chips")] = None,
    tokens: Annotated[str | None, typer.Option(metavar="14.8T", help="tokens of the whole training, for days, energy and cost")] = None,
    days: Annotated[float | None, typer.Option(help="with --tokens: find the fewest of the chips that finish in so many days")] = None,
    price: Annotated[float | None, typer.Option(help="with --tokens: dollars per chip and hour")] = None,
    pue: Annotated[float | None, typer.Option(help="with --tokens: all power over the power of IT, from 1")] = None,
    mtbf: Annotated[float | None, typer.Option(help="with --tokens: hours that one chip runs between failures")] = None,
    electricity: Annotated[float | None, typer.Option(help="with --tokens: dollars per kWh")] = None,
    precision: Annotated[str | None, typer.Option(help="bf16, fp8, ...; the chip's best if left out")] = None,
    framework: Annotated[str | None, typer.Option(metavar="NAME", help="what software does")] = None,
    top: Annotated[int, typer.Option(min=1, max=1000, help="how many plans to show")] = 10,
    pareto: Annotated[bool, typer.Option("--pareto", help="every plan that none beats in time, memory or chips; several sizes with --on CHIP:N,N,...")] = False,
    offload: Annotated[str | None, typer.Option(metavar="optimizer,activations,both", help="what the search may also move to the host's memory")] = None,
    trace: Annotated[Path | None, typer.Option(metavar="FILE", help="replay the first plan event by event into a Chrome trace")] = None,
    stage_layers: Annotated[str | None, typer.Option(metavar="3,4,...", help="layers of each pipeline stage in the trace")] = None,
    assume: Assume = None, catalog: Folder = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Find the best plan to train MODEL, and say what a step, or a whole run of --tokens, costs."""
    from chipscale.plan import offloads
    from chipscale.planning import believed, training_job
    from chipscale.planning import train as search
    from chipscale.report.progress import bar
    from chipscale.report.runs import run_screen
    from chipscale.report.terminal import step_screen
    from chipscale.report.words import reasons
    from chipscale.runs import Terms, run

    if pareto:
        for option, given in (("--plan", plan), ("--tokens", tokens), ("--trace", trace), ("--stage-layers", stage_layers)):
            if given is not None:
                raise EvidenceError(f"{option} {given}: does not go with --pareto, which compares all plans; leave one of them out")
        return _pareto(_catalog(catalog), model, on, length, batch, precision, framework, assume, offloads(offload), as_json)
    if plan is not None and offload is not None:
        raise EvidenceError(f'--offload {offload}: is for the search; with --plan write it there, as in --plan "...,offload=optimizer"')
    chip, chips = chip_count(on)
    terms = Terms(price=price, pue=pue, mtbf=mtbf, electricity=electricity, days=days)
    if tokens is None and terms != Terms():
        named = next(name for name in ("days", "price", "pue", "mtbf", "electricity") if getattr(terms, name) is not None)
        raise EvidenceError(f"--{named} is about a whole run; state its tokens too, as in --tokens 14.8T")
    known, taken = _catalog(catalog), assumptions(assume)
    if tokens is not None:
        budget = _budget(tokens)
        answer = run(known, model, chip, chips, budget, terms=terms, length=length, batch=batch, precision=precision,
                     framework=framework, plan=plan, top=top, assume=taken, offloads=offloads(offload))  # fmt: skip
        sides, chips = answer.plans, answer.runs[0].chips
    else:
        answer = None
        with bar(f"plans of {model}", wanted=not as_json) as watch:
            sides = search(known, model, chip, chips, length=length, batch=batch, precision=precision,
                           framework=framework, plan=plan, top=top, assume=taken, offloads=offloads(offload), watch=watch)  # fmt: skip
    if trace is not None:
        job = training_job(model, chips, length=length, batch=batch, precision=precision)
        _trace(known, chip, sides[0], job, trace, framework=framework, layers=counts(stage_layers))
    elif stage_layers is not None:
        raise EvidenceError("--stage-layers: deals layers in a trace; add --trace FILE")
    if as_json:
        return _json(answer or sides)
    held = believed(known, model, chip, taken)
    title, extra = f"train {model} on {chips:,} {chip}", [("what the model may be" if not i else "", text) for i, text in enumerate(reasons(held))]
    return show(run_screen(answer, title, extra) if answer else step_screen(sides, title, extra))


def _budget(text: str) -> float:
    """Read --tokens."""
    from chipscale.border import inside
    from chipscale.runs.nouns import check_tokens
    from chipscale.units import parse

    with inside("--tokens"):
        return check_tokens(parse(text, "tokens"))


def _pareto(catalog: Catalog, model: str, on: str, length: int | None, batch: int | None, precision: str | None, framework: str | None,
            assume: Sequence[str] | None, away: Sequence[str], as_json: bool) -> None:  # fmt: skip
    """Print the frontier of time, memory and chips."""
    from chipscale.planning import pareto
    from chipscale.report.progress import bar
    from chipscale.report.sweeps import pareto_screen

    chip, sizes = chip_counts(on)
    with bar(f"plans of {model}", wanted=not as_json) as watch:
        sides = pareto(catalog, model, chip, sizes, length=length, batch=batch, precision=precision, framework=framework,
                       assume=assumptions(assume), offloads=away, watch=watch)  # fmt: skip
    if as_json:
        return _json(sides)
    return show(pareto_screen(sides, f"train {model} on {', '.join(f'{n:,}' for n in sorted(set(sizes)))} {chip}"))


app.command()(serve)


@app.command()
def sweep(
    chips: Annotated[str, typer.Option(metavar="CHIP,...", help="chips, parted by commas")],
    models: Annotated[str, typer.Option(metavar="MODEL,...", help="models, parted by commas")],
    sizes: Annotated[str, typer.Option(metavar="N,...", help="numbers of chips, parted by commas")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="the file of results, a line each; what stands in it is not done again")],
    length: Annotated[int | None, typer.Option(min=1, max=10**8, help="tokens of a sequence")] = None,
    batch: Annotated[int | None, typer.Option(min=1, max=10**9, help="sequences of a step, over all chips")] = None,
    precision: Annotated[str | None, typer.Option(help="bf16, fp8, ...; the chip's best if left out")] = None,
    scheduler: Annotated[str | None, typer.Option(metavar="tcp://HOST:PORT", help="a Dask scheduler; the cores of this machine if left out")] = None,
    catalog: Folder = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Find the best plan for every chip, model and size; may be stopped at any time and started again."""
    from chipscale.report.progress import bar
    from chipscale.report.sweeps import sweep_screen
    from chipscale.sweep import sweep as run
    from chipscale.sweep import tasks
    from chipscale.workers import executor

    known = _catalog(catalog)
    if not all(n.isascii() and n.isdigit() and len(n) < 9 and 1 <= int(n) <= MOST_CHIPS for n in names(sizes)):
        raise EvidenceError(f"--sizes {sizes}: write whole numbers of chips from 1 to {MOST_CHIPS:,}, parted by commas, as in 256,512,1024")
    wanted = tasks(known, names(chips), names(models), [int(n) for n in names(sizes)], length=length, batch=batch, precision=precision)
    with bar("tasks", wanted=not as_json) as watch:
        found = run(known, wanted, out, lambda: executor(scheduler), folder=catalog, watch=watch)
    ran = f", {len(wanted) - found.found} done by {found.runner}" if found.runner else ""
    typer.echo(f"{found.found} of {len(wanted)} tasks stood in {out}{ran}", err=True)
    return _json(found.results) if as_json else show(sweep_screen(found))


def _trace(catalog: Catalog, chip: str, side: Side, job: Job, out: Path, *, framework: str | None,
           layers: list[int] | None) -> None:  # fmt: skip
    from chipscale.planning import replay
    from chipscale.report.trace import chrome_trace
    from chipscale.units import show as quantity

    found = replay(catalog, chip, side, job, framework=framework, layers=layers)
    write(out, chrome_trace(found.replay, f"{job.title} on {job.chips:,} {side.chip}: {side.plan}", found.layer_bytes), "--trace")
    said = f"replayed {quantity(found.replay.seconds, 's')}, closed form {quantity(side.seconds.median, 's')}"
    typer.echo(f"wrote {out} ({side.plan}; {said}); open it at ui.perfetto.dev", err=True)


@app.command()
def chips(chip: Name = None, catalog: Folder = None, as_json: AsJson = False) -> None:
    """List chips, or show every value of one with its source."""
    from chipscale.report.chips import chip_page, chips_table

    known = _catalog(catalog)
    if as_json:
        return _json(known.chip(chip) if chip is not None else {name: known.chip(name) for name in known.chips()})
    return show(chip_page(known.chip(chip)) if chip is not None else chips_table(known))


@app.command()
def clusters(cluster: Name = None, catalog: Folder = None, as_json: AsJson = False) -> None:
    """List clusters, or show one."""
    from chipscale.report.chips import cluster_page, clusters_table

    known = _catalog(catalog)
    if as_json:
        return _json(known.cluster(cluster) if cluster is not None else {name: known.cluster(name) for name in known.clusters()})
    return show(cluster_page(known.cluster(cluster)) if cluster is not None else clusters_table(known))


@app.command()
def models(model: Name = None, catalog: Folder = None, as_json: AsJson = False) -> None:
    """List models, or show one."""
    from chipscale.report.models import belief_page, model_page, models_table

    known = _catalog(catalog)
    if model is not None:
        held = known.believed_model(model)
        one = held.hypotheses[0].value
        if len(held.hypotheses) > 1:
            return _json(held) if as_json else show(belief_page(model, held))
        return _json(one) if as_json else show(model_page(one))
    found = readable(known)
    return _json(found) if as_json else show(models_table(found, known.believed_models()))


def readable(catalog: Catalog) -> list[Model]:
    """Return the shipped models; one that is refused is named on stderr."""
    found = []
    for name in catalog.models():
        try:
            found.append(catalog.model(name))
        except EvidenceError as problem:
            typer.echo(f"chipscale: {problem}", err=True)
    return found


@app.command()
def jobs(catalog: Folder = None, as_json: AsJson = False) -> None:
    """List the jobs, fully stated."""
    known = _catalog(catalog)
    found = [known.job(name) for name in known.jobs()]
    if as_json:
        return _json(found)
    from chipscale.report.terminal import jobs_table

    return show(jobs_table(found))


def _json(value: object) -> None:
    from chipscale.report.jsonable import to_json

    say(to_json(value))


@app.command()
def cite(
    chip: Annotated[list[str] | None, typer.Argument(help="chips; those of the founding question if left out")] = None,
    catalog: Folder = None,
) -> None:
    """Print the sources of the formulas and of the facts about some chips."""
    from chipscale.report.cite import bibliography

    say(bibliography(_catalog(catalog), tuple(chip or QUESTION)))


for command in (validate, calibrate, bench, verify):
    app.command()(command)
app.command("import")(import_)
app.add_typer(results, name="results")


def main() -> None:
    """Run a command; bad input is one line on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        app()
    except EvidenceError as problem:
        sys.stderr.write(f"chipscale: {' '.join(str(problem).split())}\n")
        sys.exit(2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
