"""The screens, the page and the JSON: complete, within their width, harmless."""

from __future__ import annotations

import contextlib
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from chipscale.cli import write
from chipscale.evidence import Belief, EvidenceError, Fact, Hypothesis, Kind, Source
from chipscale.facts.chip import Chip
from chipscale.facts.job import Job
from chipscale.options import assumptions, chip_count
from chipscale.report.accuracy import contract, markdown, screen, worst_first, worst_rows
from chipscale.report.bars import bar, scale_of
from chipscale.report.jsonable import to_json
from chipscale.report.page import Roofline, page, rooflines_of
from chipscale.report.terminal import jobs_table, step_screen, verdict_details, verdict_screen
from chipscale.report.words import counts, percent, ratio, short, span
from chipscale.scores import Score, ScoredRow, Validation
from chipscale.verdict.nouns import HypothesisShare, Interval, JobVerdict, Sensitivity, Side, Verdict

NAN = float("nan")
H100, D910 = "nvidia-h100-sxm-80gb", "huawei-ascend-910d"
TRAIN_PARTS = ("gemm", "experts", "attention", "elementwise", "head", "recompute", "tp", "ep", "pp", "bubble", "dp", "optimizer", "fixed")


def around(median: float, factor: float) -> Interval:
    return Interval(median=median, low=median / factor, high=median * factor)


def side(chip: str, seconds: float, precision: str, weights: tuple[float, ...], hypothesis: str = "") -> Side:
    total = sum(weights)
    parts = tuple((name, seconds * w / total) for name, w in zip(TRAIN_PARTS, weights, strict=False))
    plan = "tp=8,pp=16,ep=64,dp=16,mb=1,zero1,recompute=selective"
    return Side(chip=chip, cluster="dgx-h100" if chip == H100 else "atlas-950-superpod", hypothesis=hypothesis, plan=plan,
                precision=precision, seconds=around(seconds, 1.15), rate=around(15360 * 4096 / 2048 / seconds, 1.15), mfu=0.31,
                memory_bytes=61e9, memory_capacity=80e9, parts=parts, fits=1.0 if hypothesis == "known" else 0.97)  # fmt: skip


def job_verdict(job: Job, median: float, factor: float, seconds: float, precisions: tuple[str, str]) -> JobVerdict:
    r = around(median, factor)
    weights = (30.0, 22.0, 9.0, 6.0, 2.0, 5.0, 8.0, 11.0, 1.0, 7.0, 3.0, 1.0, 0.5)
    return JobVerdict(
        job=job, ratio=r, p_at_least=0.06 if median < 0.6 else 0.41, a=side(D910, seconds / median, precisions[0], weights[::-1], "950-32"),
        b=side(H100, seconds, precisions[1], weights, "known"), a_per_1000_b=Interval(median=1000 / median, low=1000 / r.high, high=1000 / r.low),
        power_ratio=around(1.4 / median / 2, 1.3), cost_ratio=None, call="less" if median < 0.6 else "too close to call",
        contributions=(("compute", 0.61), ("memory", 0.97), ("fabric", 1.02), ("capacity", 1.0), ("precision", 0.88)),
        sensitivities=(Sensitivity(fact=f"{D910}:peak", test="bf16 matmul on one card", share=0.7, narrows=0.61),
                       Sensitivity(fact=f"belief:{D910}", test="HBM copy", share=0.2, narrows=0.14)),
        by_hypothesis=(("950-32", around(median, 1.2)), ("quad-die", around(median * 1.8, 1.4))), histogram=((0.4, 0.5), (0.6, 0.5)),
    )  # fmt: skip


def jobs() -> tuple[JobVerdict, ...]:
    v3, big = "deepseek-ai/DeepSeek-V3", "meta-llama/Llama-3.1-405B"
    pre = ("bf16", "fp8")
    return (
        job_verdict(Job(id="train-deepseek-v3", title="train DeepSeek-V3", phase="train", model=v3, chips=2048, length=4096, batch=15360,
                        tokens=14.8e12), 0.51, 1.6, 9.4, pre),
        job_verdict(Job(id="train-llama-3.1-405b", title="train Llama 3.1 405B", phase="train", model=big, chips=8192, length=8192,
                        batch=2048, tokens=15.6e12), 0.44, 1.55, 12.1, ("bf16", "bf16")),
        job_verdict(Job(id="train-llama-3.1-8b", title="train Llama 3.1 8B", phase="train", model=big, chips=64, length=8192, batch=128,
                        tokens=15e12), 0.47, 1.5, 2.1, ("bf16", "bf16")),
        job_verdict(Job(id="prefill-deepseek-v3", title="prefill DeepSeek-V3, 4,096 tokens", phase="prefill", model=v3, chips=32, length=4096,
                        batch=32), 0.58, 1.7, 0.31, ("mxfp8", "fp8")),
        job_verdict(Job(id="decode-deepseek-v3", title="decode DeepSeek-V3, 32 a chip", phase="decode", model=v3, chips=32, length=4096,
                        batch=1024), 0.93, 1.8, 0.021, ("mxfp8", "fp8")),
    )  # fmt: skip


def verdict() -> Verdict:
    """Return a verdict made by hand: invented values in the shape of the founding question."""
    shares = (
        HypothesisShare(key="950-28", title="an Ascend 950 of 28 subsystems under an older name", weight=0.2, reason="a lower bin"),
        HypothesisShare(key="950-32", title="an Ascend 950 of 32 subsystems under an older name", weight=0.5, reason="the SuperPoD figure"),
        HypothesisShare(key="quad-die", title="four dies of the 910B class in one package", weight=0.2, reason="a packaging patent"),
        HypothesisShare(key="press-2pf", title="the chip of the press tables", weight=0.1, reason="figures without a source"),
    )
    return Verdict(
        question="Can the Ascend 910D replace the H100?", a="Ascend 910D", b="H100 SXM5 80GB", match="chips", jobs=jobs(), seed=0, draws=1024,
        headline="Not one for one. Likely 1.5 to 3 of them, if it is what the evidence suggests.",
        hypotheses=((D910, shares),),
        evidence=((D910, (("vendor-talk", 12), ("press", 9), ("rumour", 2))), (H100, (("measured", 26), ("datasheet", 14)))),
        settle=(Sensitivity(fact=f"{D910}:peak", test="bf16 matmul on one card", share=0.7, narrows=0.61),
                Sensitivity(fact=f"belief:{D910}", test="HBM copy", share=0.2, narrows=0.14)),
        wrongness=("training, unseen Ascend chips: 12 % (n = 139)", "training, unseen NVIDIA chips: 9 % (n = 395)"),
    )  # fmt: skip


SOURCE = Source(key="white-paper", where="https://example.org/950.pdf, table 2", kind=Kind.VENDOR_TALK, date="2025-09")


def fact(quantity: str, value: float, unit: str, source: Source = SOURCE, rejected: str = "", sense: str = "") -> Fact:
    return Fact(quantity=quantity, value=value, low=value * 0.9, high=value * 1.1, unit=unit, source=source, rejected=rejected, sense=sense)


def chip(id: str, name: str, scale: float = 1.0) -> Chip:
    press = Source(key="press", where="<b>a newspaper</b>", kind=Kind.PRESS, date="2025")
    facts = {
        "peak_bf16": (fact("peak_bf16", 989.4e12 * scale, "FLOP/s", sense="dense"),
                      fact("peak_bf16", 1979e12 * scale, "FLOP/s", press, "the sparse figure", "sparse")),
        "peak_fp8": (fact("peak_fp8", 1979e12 * scale, "FLOP/s", sense="dense"), fact("peak_fp8", 1600e12 * scale, "FLOP/s", press)),
        "memory_bandwidth": (fact("memory_bandwidth", 3.35e12 * scale, "B/s"),),
        "memory_bytes": (fact("memory_bytes", 80e9, "B"),),
        "power": (fact("power", 700, "W"),),
    }  # fmt: skip
    return Chip(id=id, name=name, vendor="V", family="f", facts=facts)


def belief() -> Belief[Chip]:
    one, two = chip(f"{D910}=950-32", "Ascend 910D (950-32)", 0.44), chip(f"{D910}=quad-die", "Ascend 910D (quad-die)", 1.2)
    return Belief(hypotheses=(Hypothesis(key="950-32", title="an Ascend 950", weight=0.7, reason="the figure", value=one),
                              Hypothesis(key="quad-die", title="four dies", weight=0.3, reason="a patent", value=two)))  # fmt: skip


def printed(screen: RenderableType, width: int) -> str:
    console = Console(width=width, no_color=True, highlight=False)
    with console.capture() as caught:
        console.print(screen)
    return caught.get()


def whole_page() -> str:
    known = belief()
    lines = [*rooflines_of("910D", known, ("bf16", "fp8")), *rooflines_of("H100", chip(H100, "H100"), ("bf16", "fp8", "nvfp4"))]
    return page(verdict(), known, chip(H100, "H100 SXM"), lines, "0.1.0", "2026-11-24")


class Tags(HTMLParser):
    """Every tag with its attributes, and the stack of open ones."""

    VOID = frozenset({"meta", "br", "path", "rect", "line", "use"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.mark.parametrize("width", [80, 100, 120])
def test_first_screen_fits_and_says_it_all(width: int) -> None:
    text = printed(verdict_screen(verdict()), width)
    assert max(map(len, text.splitlines())) <= width
    flat = " ".join(text.split())
    assert "Can the Ascend 910D replace the H100?" in flat
    assert "Not one for one." in flat
    for j in verdict().jobs:
        for figure in (ratio(j.ratio.median), span(j.ratio), percent(j.p_at_least), counts(j.a_per_1000_b).split(" ")[0]):
            assert figure in flat
    for words in (
        "910D BF16 against H100 FP8",
        "power per",
        "no measured fact",
        "26 measured",
        "50 %",
        "bf16 matmul on one card",
        "61 %",
        "n = 139",
    ):
        assert words in flat


@pytest.mark.parametrize("width", [100, 120])
def test_intervals_of_counts_are_shown_where_there_is_room(width: int) -> None:
    text = printed(verdict_screen(verdict()), width)
    assert all(counts(j.a_per_1000_b) in text for j in verdict().jobs)
    assert "910Ds for 1,000 H100s" in text


def test_screen_needs_no_colour_and_draws_parity() -> None:
    text = printed(verdict_screen(verdict()), 120)
    assert "\x1b" not in text
    rows = [line for line in text.splitlines() if "●" in line]
    assert len(rows) == 5
    assert all("│" in r or "┿" in r for r in rows)


@pytest.mark.parametrize("width", [80, 120])
def test_details_and_step_fit(width: int) -> None:
    v = verdict()
    details = printed(verdict_details(v), width)
    step = printed(step_screen((v.jobs[0].b, v.jobs[0].a), "train X on 2,048 H100", (("days", "12.3"),)), width)
    jobs = printed(jobs_table([j.job for j in v.jobs]), width)
    assert max(len(line) for text in (details, step, jobs) for line in text.splitlines()) <= width
    for words in ("tp=8", "61 GB", "compute 0.61", "quad-die", "70 % of the variance", "a packaging patent"):
        assert words in " ".join(details.split())
    assert "12.3" in step
    assert "matrix multiplies" in step


def test_a_verdict_without_answers_is_still_shown() -> None:
    v = verdict()
    unknown = Interval(median=NAN, low=NAN, high=NAN)
    blank = replace(v.jobs[0], ratio=unknown, a_per_1000_b=unknown, power_ratio=unknown, p_at_least=NAN, by_hypothesis=(), contributions=())
    bare = replace(v, jobs=(blank,), hypotheses=(), settle=(), wrongness=())
    assert "no answer" in printed(verdict_screen(bare), 100)
    assert "<h1>" in page(bare, belief(), chip(H100, "H100"), (), "0", "2026")
    json.loads(to_json(bare))


def test_markup_in_names_is_printed_as_it_is() -> None:
    v = verdict()
    odd = replace(v, headline="[bold]loud[/bold]", jobs=(replace(v.jobs[0], job=replace(v.jobs[0].job, title="[red]x[/red]")),))
    text = printed(verdict_screen(odd), 120)
    assert "[bold]loud[/bold]" in text
    assert "[red]x[/red]" in text


@given(
    st.floats(1e-3, 1e3),
    st.floats(1.0, 50.0),
    st.integers(10, 60),
)
def test_bars_keep_their_width(median: float, factor: float, width: int) -> None:
    interval = Interval(median=median, low=median / factor, high=median * factor)
    assert len(bar(interval, scale_of([interval], width)).plain) == width


def test_page_is_well_formed_and_fetches_nothing() -> None:
    text = whole_page()
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    names = {tag for tag, _ in tags.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "audio", "video", "base", "form"}
    for tag, attributes in tags.tags:
        assert "src" not in attributes
        assert tag == "a" or "href" not in attributes
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"@import|url\(\s*['\"]?http", text)
    assert "default-src 'none'" in text


def test_page_says_it_all() -> None:
    text = whole_page()
    for words in (
        "Not one for one.",
        "0.51",
        "0.32 – 0.82",
        "one for one",
        "Rooflines:",
        "matrix multiplies",
        "a packaging patent",
        "61 %",
    ):
        assert words in text
    for words in (
        "the sparse figure",
        "also stated",
        "vendor-talk",
        "white",
        "2025-09",
        "seed 0",
        "1,024",
        "0.1.0",
        "2026-11-24",
        "n = 139",
    ):
        assert words in text
    assert text.count("<svg") == 6
    assert 'scope="col"' in text
    assert 'aria-label="Ratio 910D to H100' in text


def test_ids_inside_the_drawings_are_unique() -> None:
    ids = re.findall(r'\bid="([^"]+)"', whole_page())
    assert len(ids) == len(set(ids))


def test_page_escapes_what_it_prints() -> None:
    evil = '<script>alert(1)</script>" onload="x'
    v = verdict()
    side = replace(v.jobs[0].a, chip=evil, cluster=evil, plan=evil, parts=((evil, 1.0),), hypothesis=evil)
    job = replace(v.jobs[0], job=replace(v.jobs[0].job, title=evil, id=evil), a=side, call=evil, contributions=((evil, 1.0),))
    shares = tuple((evil, tuple(replace(s, key=evil, title=evil, reason=evil) for s in hs)) for _, hs in v.hypotheses)
    settle = tuple(replace(s, test=evil, fact=evil) for s in v.settle)
    bad = replace(v, question=evil, headline=evil, a=evil, b=evil, jobs=(job,), hypotheses=shares, settle=settle, wrongness=(evil,))
    lines = (Roofline(chip=evil, precision=evil, peak=1e15, bandwidth=3e12),)
    text = page(bad, replace(chip(D910, evil), facts={evil: chip(D910, evil).facts["power"]}), belief(), lines, evil, evil)
    tags = Tags()
    tags.feed(text)
    assert "script" not in {tag for tag, _ in tags.tags}
    assert not any("onload" in attributes for _, attributes in tags.tags)


def test_json_is_finite_and_complete() -> None:
    v = replace(verdict(), jobs=(replace(verdict().jobs[0], p_at_least=NAN),))
    found = json.loads(to_json(v), parse_constant=lambda name: pytest.fail(name))
    assert found["jobs"][0]["p_at_least"] is None
    assert found["jobs"][0]["ratio"]["median"] == 0.51
    assert list(found) == [
        "question",
        "headline",
        "a",
        "b",
        "match",
        "jobs",
        "hypotheses",
        "evidence",
        "settle",
        "wrongness",
        "seed",
        "draws",
    ]
    assert json.loads(to_json({"k": Kind.PRESS, "inf": math.inf})) == {"k": "press", "inf": None}
    assert json.loads(to_json(chip(H100, "H100")))["facts"]["power"][0]["source"]["kind"] == "vendor-talk"


def score(mape: float, n: int = 40) -> Score:
    return Score(n=n, answered=n, mape=mape, mdape=mape * 0.8, bias=-0.02, coverage80=0.81)


def validation() -> Validation:
    rows = tuple(
        ScoredRow(row=f"row-{i}", measured_s=10.0, predicted_s=10.0 * (1 + e), low_s=8.0, high_s=12.0, error=e, labels={"chip": "h100"},
                  assumed=("recompute: none 60 %, full 40 %",)) for i, e in enumerate((0.5, -0.4, 0.02, *(0.01 * k for k in range(12))))
    )  # fmt: skip
    lost = ScoredRow(row="row|lost", measured_s=1.0, predicted_s=NAN, low_s=NAN, high_s=NAN, error=NAN, labels={}, reason="no <layers>")
    chips = {"h100": score(0.08), "910c": score(0.2, 5), "none": score(NAN, 0)}
    return Validation(
        title="training rows", overall=score(0.1), clean=score(0.09), rows=(*rows, lost), notes=("MLPerf rows are unverified",),
        groups={"precision": {"bf16": score(0.1)}, "chip": chips, "own": {"x": score(0.1)}},
    )  # fmt: skip


@pytest.mark.parametrize("width", [100, 120])
def test_accuracy_screen(width: int) -> None:
    text = printed(screen(validation()), width)
    assert max(map(len, text.splitlines())) <= width
    flat = " ".join(text.split())
    for words in (
        "10.0 %",
        "the 10 worst rows",
        "+50.0 %",
        "-40.0 %",
        "recompute: none 60 %",
        "no <layers>",
        "MLPerf rows are unverified",
        "–",
    ):
        assert words in flat
    assert flat.index("910c") < flat.index("h100") < flat.index("by precision")


def test_accuracy_markdown_and_contract() -> None:
    result = validation()
    text = markdown(result)
    assert text.startswith("## training rows\n")
    assert "910c (few rows)" in text
    assert "row\\|lost" in text
    assert text.index("910c") < text.index("| h100")
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)
    found = json.loads(to_json(contract(result)))
    assert {"n", "answered", "mape", "mdape", "bias", "coverage80", "groups", "rows"} <= set(found)
    assert {"row", "measured_s", "predicted_s", "low_s", "high_s", "error"} <= set(found["rows"][0])
    assert found["rows"][-1]["error"] is None
    assert [name for name, _ in worst_first(result.groups["chip"])] == ["none", "910c", "h100"]
    assert [r.row for r in worst_rows(result)][:2] == ["row-1", "row-0"]


@pytest.mark.parametrize("text", ["h100", "h100:", ":8", *(f"h100:{n}" for n in ("0", "-1", "1.5", "1e3", "99999999999", "nan", "٣", "²"))])
def test_bad_chip_counts(text: str) -> None:
    with pytest.raises(EvidenceError, match="--on"):
        chip_count(text)


@settings(max_examples=200)
@given(st.text(max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (chip_count, lambda t: assumptions([t])):
        with contextlib.suppress(EvidenceError):
            read(text)


def test_contradicting_assumptions() -> None:
    assert assumptions(None) == {}
    with pytest.raises(EvidenceError, match="keep one"):
        assumptions(["910d=a", "910d=b"])


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write(tmp_path / "a.html", "x")
    assert (tmp_path / "a.html").read_text() == "x"
    for bad in (tmp_path / "none" / "a.html", tmp_path):
        with pytest.raises(EvidenceError, match="--out"):
            write(bad, "y")
    with pytest.raises(UnicodeEncodeError):
        write(tmp_path / "a.html", "\ud800")
    assert [p.name for p in tmp_path.iterdir()] == ["a.html"]
    assert (tmp_path / "a.html").read_text() == "x"


def test_short_names_of_one_family_stay_apart() -> None:
    assert short("nvidia-h100-sxm-80gb") == short("nvidia-h100-96gb-500w") == "H100"
    text = printed(verdict_screen(replace(verdict(), a="H100 SXM5 80GB", b="H100 96GB")), 120)
    assert "H100 SXM5 80GB / H100 96GB" in text
