"""chipscale serve: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chipscale.evidence import EvidenceError
from chipscale.options import assumptions, chip_count, names

Assume = Annotated[list[str] | None, typer.Option(metavar="CHIP=HYPOTHESIS", help="take one hypothesis of a chip as true; may be repeated")]


def serve(
    model: Annotated[str, typer.Argument(help="a model (chipscale models), or the path of a config.json")],
    on: Annotated[str, typer.Option(metavar="CHIP:N", help="the chip and how many, as in h100:64")],
    engine: Annotated[
        str, typer.Option(help="the serving engine, a file of data/engines: vllm, sglang, trtllm; a chip of another house runs its port")
    ] = "vllm",
    input: Annotated[int, typer.Option(help="mean tokens of a prompt")] = 1024,
    output: Annotated[int, typer.Option(help="mean tokens of an answer")] = 1024,
    concurrency: Annotated[int | None, typer.Option(metavar="N", help="requests under way at once; the most within the limits if left out")] = None,
    rate: Annotated[float | None, typer.Option(metavar="N", help="requests a second that come by themselves")] = None,
    burst: Annotated[float, typer.Option(help="with --rate: variation of the gaps; 1 is Poisson, above 1 bursts, 0 a clock")] = 1.0,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE", help="recorded requests: arrival_s, input_tokens, output_tokens as CSV or JSON lines")
    ] = None,
    slo_ttft: Annotated[
        str | None, typer.Option(metavar="2s", help="most time to the first token (5 s where neither limits nor load are stated)")
    ] = None,
    slo_tpot: Annotated[
        str | None, typer.Option(metavar="50ms", help="most time a token after it (50 ms where neither limits nor load are stated)")
    ] = None,
    slo_at: Annotated[str, typer.Option(metavar="mean", help="what the limits are of: mean, p50, p90, p95, p99 of requests")] = "mean",
    precision: Annotated[str | None, typer.Option(metavar="NAME,...", help="formats of weights; 16 bit and 8 bit of the chip if left out")] = None,
    kv: Annotated[str, typer.Option(help="the cache: auto (16 bit), bf16, fp8 or int8")] = "auto",
    plan: Annotated[str | None, typer.Option(metavar="'tp8 dp4 ep32 fp8'", help="evaluate this deployment; the best is sought if left out")] = None,
    disaggregated: Annotated[str, typer.Option(help="auto: also pools apart for prompts and decodes; off: not")] = "auto",
    drafts: Annotated[int, typer.Option(help="tokens guessed ahead in each step (speculation, MTP)")] = 0,
    accepted: Annotated[float | None, typer.Option(help="how many drafts are right in each step; none and all are shown if left out")] = None,
    prefix_hit: Annotated[float, typer.Option(help="share of each prompt that the prefix cache holds")] = 0.0,
    price: Annotated[float | None, typer.Option(help="dollars per chip and hour")] = None,
    electricity: Annotated[float | None, typer.Option(help="dollars per kWh")] = None,
    watts: Annotated[float | None, typer.Option(help="watts of a chip and all around it; from chip and site if left out")] = None,
    versus: Annotated[str | None, typer.Option(metavar="CHIP:N", help="how many of the chips serve what N of these serve")] = None,
    pareto: Annotated[bool, typer.Option("--pareto", help="all of the front of tokens per chip against tokens per user")] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="seed of the load")] = 0,
    assume: Assume = None,
    catalog: Annotated[
        Path | None, typer.Option("--catalog", metavar="DIR", help="a folder of your own chips, clusters, models, jobs, sources")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Find the best deployment to serve MODEL, and say what users feel, what it delivers and what it costs."""
    from chipscale.catalog import load
    from chipscale.console import say, show
    from chipscale.provision import Wish
    from chipscale.provision import serve as find
    from chipscale.provision import versus as against
    from chipscale.report.jsonable import to_json
    from chipscale.report.serving import front_screen, serving_screen, versus_screen

    chip, chips = chip_count(on)
    wish = Wish(input=input, output=output, engine=engine, concurrency=concurrency, rate=rate, burst=burst, trace=trace, ttft=seconds("--slo-ttft", slo_ttft),
                tpot=seconds("--slo-tpot", slo_tpot), statistic=slo_at, formats=tuple(names(precision or "")), kv=kv_bytes(kv), plan=plan, split=disaggregated,
                drafts=drafts, accepted=accepted, prefix=prefix_hit, price=price, electricity=electricity, watts=watts, seed=seed)  # fmt: skip
    known, taken = load(catalog), assumptions(assume)
    if versus is not None:
        other, count = chip_count(versus, "--versus")
        verdict = against(known, model, chip, chips, other, wish, assume=taken)
        return say(to_json(verdict)) if as_json else show(versus_screen(verdict, count))
    answers = find(known, model, chip, chips, wish, taken)
    if as_json:
        return say(to_json(answers))
    return show(front_screen(answers) if pareto else serving_screen(answers))


def seconds(option: str, text: str | None) -> float | None:
    """Read a time, as in 50ms or 2s; a bare number is seconds."""
    from chipscale.border import inside
    from chipscale.units import parse

    if text is None:
        return None
    with inside(option):
        return parse(text if not text.strip().replace(".", "", 1).isdigit() else f"{text} s", "s")


def kv_bytes(name: str) -> float | None:
    """Read --kv: bytes an element of the cache."""
    widths = {"auto": None, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0}
    if name not in widths:
        raise EvidenceError(f"--kv {name}: it is one of {', '.join(widths)}")
    return widths[name]
