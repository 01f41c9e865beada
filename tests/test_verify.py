"""Claims held against records, who a device is, what is believed afterwards, and which test tells most."""

from __future__ import annotations

import itertools
import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from tests.records import REAL, ascend, h100, measure, record
from typer.testing import CliRunner

from chipscale.bench.files import read, seal, text
from chipscale.bench.record import Record
from chipscale.catalog import load
from chipscale.cli import app
from chipscale.evidence import Belief, EvidenceError, Kind
from chipscale.facts.chip import Chip
from chipscale.report.verify import plan_screen, verify_screen
from chipscale.verdict import weigh
from chipscale.verdict.experiments import kinds as kinds_of
from chipscale.verdict.experiments import narrowed, observations, plan
from chipscale.verdict.weighing import arena_of, matched, opened
from chipscale.verify import informed, verify
from chipscale.verify.belief import posterior, sharpened
from chipscale.verify.judging import judge
from chipscale.verify.nouns import Judged, Measurement, Verification
from chipscale.verify.usual import read as shares_of
from chipscale.verify.usual import tail

CATALOG = load()
SHARES = shares_of(CATALOG)
H100 = "nvidia-h100-sxm-80gb"
A910D = "huawei-ascend-910d"
GOOD = record(h100(), measure("peak_bf16", 780e12), measure("memory_bandwidth", 3.0e12), measure("scaleup_bandwidth", 335e9))


def claims(v: Verification) -> dict[str, Judged]:
    return {j.quantity: j for j in v.subjects[0].claims}


def belief() -> Belief[Chip]:
    found = CATALOG.chip(A910D)
    assert isinstance(found, Belief)
    return found


def of(quantity: str, value: float) -> Measurement:
    return Measurement(quantity=quantity, value=value, low=value * 0.999, high=value * 1.001, n=5, unit="FLOP/s", what="simulated")


# --- claims ---


def test_a_usual_h100_holds_its_claims_and_says_why() -> None:
    v = verify(CATALOG, GOOD, "r.json")
    assert v.chip == H100
    assert not v.stated
    found = claims(v)
    assert {q: found[q].verdict for q in ("peak_bf16", "memory_bandwidth", "memory_bytes", "scaleup_bandwidth")} == dict.fromkeys(
        ("peak_bf16", "memory_bandwidth", "memory_bytes", "scaleup_bandwidth"), "holds"
    )
    assert found["peak_bf16"].share == pytest.approx(780 / 989.4, rel=1e-3)
    assert found["peak_fp8"].verdict == "not testable here"
    assert found["peak_fp8"].reason
    usual = found["peak_bf16"].usual
    assert usual is not None
    assert H100 not in {s.chip for s in usual.shares}, "a chip is no other chip"


def test_the_usual_shares_are_those_of_the_sources() -> None:
    by = {(s.quantity, s.chip): s.share for s in SHARES.all}
    assert by["peak_bf16", "amd-mi300x"] == pytest.approx(0.511, abs=0.002)
    assert by["peak_bf16", H100] == pytest.approx(0.803, abs=0.002)
    assert by["peak_bf16", "Gaudi 2"] == pytest.approx(0.969, abs=0.002)
    assert not {"nvidia-b300", "nvidia-gb300", "amd-mi355x"} & {s.chip for s in SHARES.all}, "measurements kept for tests enter no fit"


@pytest.mark.parametrize(("rate", "word"), [(900e12, "holds"), (700e12, "holds"), (450e12, "plausible"), (280e12, "contradicted")])
def test_the_lower_the_share_the_worse_the_word(rate: float, word: str) -> None:
    assert claims(verify(CATALOG, record(h100(), measure("peak_bf16", rate)), "r"))["peak_bf16"].verdict == word


def test_beyond_the_claim_is_flagged_and_never_holds() -> None:
    j = claims(verify(CATALOG, record(h100(), measure("peak_bf16", 1280e12)), "r"))["peak_bf16"]
    assert (j.above, j.verdict) == (True, "not testable here")
    assert "beyond" in j.reason


def test_an_all_reduce_beyond_the_links_is_no_wonder() -> None:
    only = claims(verify(CATALOG, record(h100(), measure("scaleup_bandwidth", 480e9, "all_reduce")), "r"))["scaleup_bandwidth"]
    assert "switch" in only.reason
    both = record(h100(), measure("scaleup_bandwidth", 480e9, "all_reduce"), measure("scaleup_bandwidth", 335e9))
    assert claims(verify(CATALOG, both, "r"))["scaleup_bandwidth"].verdict == "holds"


@given(st.floats(0.05, 0.99), st.floats(0.05, 0.99))
@settings(max_examples=60, deadline=None)
def test_a_higher_share_is_never_less_likely(a: float, b: float) -> None:
    usual = SHARES.usual("peak_bf16")
    assert usual is not None
    low, high = sorted((a, b))
    assert tail(low, usual) <= tail(high, usual) + 1e-12


def test_a_processor_works_and_nothing_of_it_is_testable() -> None:
    v = verify(CATALOG, read(REAL), str(REAL))
    assert (v.chip, v.subjects) == ("", ())
    assert "processor" in v.remarks[0]
    assert v.results
    stated = verify(CATALOG, read(REAL), str(REAL), "h100")
    assert {j.verdict for j in stated.subjects[0].claims} == {"not testable here"}
    assert "AMD EPYC" in stated.subjects[0].claims[0].reason


# --- who it is ---


def test_properties_beat_the_name() -> None:
    v = verify(CATALOG, record(h100("NVIDIA B200"), measure("memory_bandwidth", 3.0e12)), "r")
    assert v.chip == H100
    assert any("calls itself NVIDIA B200" in r for r in v.remarks)


def test_a_name_alone_is_no_proof() -> None:
    bare = replace(h100(), memory_bytes=0, units=0, memory_clock=None, memory_bus_bits=None)
    v = verify(CATALOG, record(bare, measure("peak_bf16", 780e12)), "r")
    assert v.chip == ""
    assert f"--against {H100}" in v.remarks[0]


def test_another_chip_than_stated_is_said_and_judges_nothing() -> None:
    v = verify(CATALOG, GOOD, "r", "910d")
    assert any("is no huawei-ascend-910d but nvidia-h100-sxm-80gb" in r for r in v.remarks)
    assert {j.verdict for s in v.subjects for j in s.claims} == {"not testable here"}
    assert all(s.before == s.after for s in v.subjects)


def test_a_die_that_shows_as_a_device_is_held_against_its_part() -> None:
    chip = CATALOG.chip("huawei-ascend-910c")
    assert isinstance(chip, Chip)
    die = ascend("Ascend910C", chip.value("memory_bytes") / 2 / 1e9 * 1.03, round(chip.value("cores") / 2))
    v = verify(CATALOG, record(die, measure("peak_fp16", chip.value("peak_fp16") / 2 * 0.8)), "r", "910c")
    assert v.subjects[0].match.devices == 2
    assert claims(v)["peak_fp16"].share == pytest.approx(0.8, rel=1e-3)
    assert any("one of 2 dies" in r for r in v.remarks)


def test_an_unknown_chip_is_one_clear_message() -> None:
    with pytest.raises(EvidenceError, match="unknown chip 'h1000'"):
        verify(CATALOG, GOOD, "r", "h1000")


# --- what is believed ---


def test_hypotheses_with_the_same_claim_keep_their_order() -> None:
    held = belief().hypotheses
    alike = [i for i, h in enumerate(held) if h.value.value("memory_bytes") == 144e9]
    only = record(ascend("Ascend910D", 148.0, 0))
    after = posterior(SHARES, [only], [(h.weight, 1, h.value) for h in held])
    assert sorted(alike, key=lambda i: held[i].weight) == sorted(alike, key=lambda i: after[i])
    assert sum(after) == pytest.approx(1.0)


@pytest.mark.parametrize("key", ["950-28", "950-32", "950-36", "quad-die"])
def test_the_usual_share_of_a_hypothesis_never_lowers_it(key: str) -> None:
    held = belief().hypotheses
    i = next(i for i, h in enumerate(held) if h.key == key)
    usual = SHARES.usual("peak_bf16")
    assert usual is not None
    reached = record(ascend("Ascend910D", 0, 0), measure("peak_bf16", held[i].value.value("peak_bf16") * usual.median))
    after = posterior(SHARES, [reached], [(h.weight, 1, h.value) for h in held])
    assert after[i] > held[i].weight


def test_no_chip_beats_its_own_peak() -> None:
    held = belief().hypotheses
    fast = record(ascend("Ascend910D", 0, 0), measure("peak_bf16", 700e12))
    after = dict(zip([h.key for h in held], posterior(SHARES, [fast], [(h.weight, 1, h.value) for h in held]), strict=True))
    beaten = ("950-28", "950-32", "950-36")
    assert all(after[h.key] < h.weight / 20 for h in held if h.key in beaten)


@given(st.floats(0.55, 0.999), st.lists(st.floats(0.3, 1.0), min_size=0, max_size=4))
@settings(max_examples=40, deadline=None)
def test_more_measurements_never_widen_a_range(top: float, others: list[float]) -> None:
    claim = belief().hypotheses[1].value.fact("peak_bf16")
    rates = [top * claim.value, *(x * top * claim.value for x in others)]
    records = [record(ascend("Ascend910D", 0, 0), measure("peak_bf16", r), created=f"2026-11-25T10:00:0{i}+00:00") for i, r in enumerate(rates)]
    widths = [math.log(claim.high / claim.low)]
    for n in range(1, len(records) + 1):
        found = informed(CATALOG, SHARES, {A910D: [("r", r, 1) for r in records[:n]]}).catalog.chip(A910D)
        assert isinstance(found, Belief)
        fact = found.hypotheses[1].value.fact("peak_bf16")
        widths.append(math.log(fact.high / fact.low))
        assert claim.low <= fact.low <= fact.value <= fact.high <= claim.high
    assert all(b <= a + 1e-9 for a, b in itertools.pairwise(widths))


def test_a_contradicted_datasheet_gives_way_to_the_measurement() -> None:
    chip = informed(CATALOG, SHARES, {H100: [("r", record(h100(), measure("peak_bf16", 280e12)), 1)]}).catalog.chip(H100)
    assert isinstance(chip, Chip)
    fact = chip.fact("peak_bf16")
    assert fact.source.kind is Kind.MEASURED
    assert fact.high < 600e12
    assert all(f.rejected for f in chip.facts["peak_bf16"][1:])


def test_measured_beats_datasheet_beats_rumour_in_how_far_a_claim_moves() -> None:
    claim = CATALOG.chip(H100)
    assert isinstance(claim, Chip)
    fact, usual, seen = claim.fact("peak_bf16"), SHARES.usual("peak_bf16", H100), of("peak_bf16", 600e12)
    rumour = replace(fact, low=fact.value / 1.5, high=fact.value * 1.5)
    source = replace(fact.source, kind=Kind.MEASURED)
    moved = [abs(math.log(sharpened(f, 1, seen, usual, source).value / fact.value)) for f in (fact, rumour)]
    assert moved[0] < 0.01 < moved[1]
    assert sharpened(fact, 1, seen, usual, source).source.kind is Kind.MEASURED


def test_believing_leaves_the_catalogue_as_it_was() -> None:
    before = CATALOG.chip(H100)
    heard = informed(CATALOG, SHARES, {H100: [("r", GOOD, 1)]})
    assert CATALOG.chip(H100) == before
    assert heard.catalog.chip(H100) != before
    assert CATALOG.chip(A910D) == heard.catalog.chip(A910D)


def test_a_record_of_the_believed_chip_narrows_its_verdict() -> None:
    seen = record(ascend("Ascend910D", 148.0, 32), measure("peak_bf16", 340e12), measure("memory_bandwidth", 3.3e12))
    heard = informed(CATALOG, SHARES, {A910D: [("r", seen, 1)]})
    job = ("train-llama-3.1-8b",)
    before, after = (weigh(c, "910d", "h100", job).jobs[0].ratio for c in (CATALOG, heard.catalog))
    assert math.log(after.high / after.low) < 0.8 * math.log(before.high / before.low)
    weights = {key: (old, new) for key, _, old, new in heard.updates[0].weights}
    assert weights["950-32"][1] > 0.9 > weights["950-32"][0]


def test_measured_links_move_the_cluster_of_that_chip_alone() -> None:
    slow = record(h100(), measure("peak_bf16", 780e12), measure("scaleup_bandwidth", 120e9))
    heard = informed(CATALOG, SHARES, {H100: [("r", slow, 1)]}).catalog
    chip, other = heard.chip(H100), heard.chip("nvidia-h800")
    assert isinstance(chip, Chip)
    assert isinstance(other, Chip)
    before, after = CATALOG.cluster("dgx-h100").tiers, heard.cluster_for(chip).tiers
    assert after[0].bandwidth.value < 0.5 * before[0].bandwidth.value
    assert after[1:] == before[1:]
    assert heard.cluster("dgx-h100").tiers == before
    assert heard.cluster_for(other) == CATALOG.cluster_for(other)


def test_a_fact_that_nobody_measured_elsewhere_is_only_bounded() -> None:
    claim = belief().hypotheses[0].value.fact("peak_bf16")
    assert judge(claim, 1, of("peak_bf16", 100e12), None).verdict == "plausible"
    assert sharpened(claim, 1, of("peak_bf16", 100e12), None, claim.source) is claim


# --- which test tells most ---

JOBS = ("train-llama-3.1-8b", "decode-deepseek-v3")


@pytest.fixture(scope="module")
def planned():  # type: ignore[no-untyped-def]
    return plan(CATALOG, "910d", "h100", JOBS)


def test_the_first_test_of_a_plan_really_narrows_more_than_the_last(planned) -> None:  # type: ignore[no-untyped-def]
    """Play each test: a draw is the truth, its result is seen with the test's error, and the draws are weighed by how well they explain it."""
    o = opened(CATALOG, "910d", "h100", JOBS, tests=True)
    known = kinds_of(CATALOG)
    ra, rb = ([arena_of(j).run(o.world, c, j) for j in o.jobs] for c in (o.a, o.b))
    ratios = [np.log(matched(o.a, o.b, x, y, "chips").judged) for x, y in zip(ra, rb, strict=True)]
    sides = ((o.a, [r.seconds for r in ra]), (o.b, [r.seconds for r in rb]))
    seen = {c: (y, known[k].spread) for side, seconds in sides for c, k, y in observations(o.world, side, seconds, JOBS, known) if k != "belief"}
    listed = [t.key for t in planned.tests if t.key in seen]

    def played(column: str) -> float:
        y, s = seen[column]
        kernel = max(s, 0.02)
        widths = []
        for truth in range(0, len(y), 16):
            w = np.exp(-0.5 * ((y - y[truth]) / kernel) ** 2)
            for ratio in ratios:
                order = np.argsort(ratio)
                cumulated = np.cumsum(w[order]) / w.sum()
                widths.append(ratio[order][np.searchsorted(cumulated, 0.9)] - ratio[order][np.searchsorted(cumulated, 0.1)])
        return float(np.mean(widths))

    assert played(listed[0]) < 0.95 * played(listed[-1])


def test_a_plan_ranks_by_what_it_narrows_and_knows_its_minutes(planned) -> None:  # type: ignore[no-untyped-def]
    shares = [t.narrows for t in planned.tests]
    assert shares == sorted(shares, reverse=True)
    by = {t.key: t for t in planned.tests}
    assert by[f"{A910D}:peak"].minutes == pytest.approx(75 / 60)
    assert by[f"{A910D}:peak"].narrows > 0.1
    assert by[f"{A910D}:peak"].narrows > by.get(f"{H100}:peak", by[f"{A910D}:peak"]).narrows / 2
    assert by[f"error:{A910D}:{JOBS[0]}"].per_minute is None


def test_noise_narrows_nothing_and_the_answer_itself_all() -> None:
    rng = np.random.default_rng(3)
    ratio = rng.standard_normal(2048)
    assert narrowed(ratio, rng.standard_normal(2048)) < 0.02
    assert narrowed(ratio, ratio) > 0.85


def test_screens_show_what_they_must(planned) -> None:  # type: ignore[no-untyped-def]
    console = Console(width=150, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(verify_screen(verify(CATALOG, GOOD, "r.json")))
    console.print(plan_screen(planned))
    console.file.close()
    shown = console.export_text()
    for word in ("bf16 products", "79 %", "holds", "not testable here", "narrows", "16-bit matmul on one card, 910D"):
        assert word in shown


# --- the command line ---


def cli(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.stdout, str(result.exception or "")


def saved(tmp_path: Path, r: Record, name: str = "r.json") -> str:
    path = tmp_path / name
    path.write_text(text(r))
    return str(path)


def test_verify_prints_json(tmp_path: Path) -> None:
    code, out, _ = cli("verify", saved(tmp_path, GOOD), "--json")
    told = json.loads(out)
    assert code == 0
    assert told["chip"] == H100
    assert told["subjects"][0]["claims"][0]["verdict"]


def test_weigh_with_a_record_tells_before_and_after(tmp_path: Path) -> None:
    seen = record(ascend("Ascend910D", 148.0, 32), measure("peak_bf16", 340e12))
    path = saved(tmp_path, seen)
    code, out, _ = cli("weigh", "910d", "h100", "--job", JOBS[0], "--with", path, "--json")
    told = json.loads(out)
    assert code == 0
    assert told["updates"][0]["weights"]
    width = [j["ratio"]["high"] / j["ratio"]["low"] for when in ("before", "after") for j in told[when]["jobs"]]
    assert width[1] < width[0]
    code, out, _ = cli("weigh", "910d", "h100", "--job", JOBS[0], "--with", f"910d={path}")
    assert code == 0
    assert "before" in out
    assert "950-32" in out


def tampered(tmp_path: Path) -> str:
    content = json.loads(text(GOOD))
    content["trials"][0]["measures"][0]["samples"][0] *= 0.5
    path = tmp_path / "tampered.json"
    path.write_text(json.dumps(content))
    return str(path)


def of_version(tmp_path: Path, version: int) -> str:
    content = {**json.loads(text(GOOD)), "schema_version": version}
    path = tmp_path / f"v{version}.json"
    path.write_text(json.dumps({**content, "sha256": seal(content)}))
    return str(path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: _cut(p), ("cut.json", "no whole JSON")),
        (lambda p: _foreign(p), ("foreign.json", "field format")),
        (tampered, ("tampered.json", "sha256", "original file")),
        (lambda p: of_version(p, 7), ("v7.json", "schema_version", "newer chipscale")),
        (lambda p: of_version(p, 0), ("v0.json", "schema_version", "measure again")),
    ],
)
def test_bad_records_are_one_clear_message(tmp_path: Path, make, words: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    path = make(tmp_path)
    for command in (("verify", path), ("weigh", "910d", "h100", "--with", path)):
        code, _, problem = cli(*command)
        assert code != 0
        assert all(w in problem for w in words), problem


def _cut(folder: Path) -> str:
    path = folder / "cut.json"
    path.write_text(text(GOOD)[:500])
    return str(path)


def _foreign(folder: Path) -> str:
    path = folder / "foreign.json"
    path.write_text('{"ttft": 12}')
    return str(path)


def test_weigh_refuses_what_it_cannot_believe(tmp_path: Path) -> None:
    fast = saved(tmp_path, record(h100(), measure("peak_bf16", 1280e12)), "fast.json")
    for words, said in (
        (("--with", fast), ("fast.json", "peak_bf16", "beyond", "correct the record")),
        (("--with", f"910d={saved(tmp_path, GOOD)}"), ("is no huawei-ascend-910d",)),
        (("--with", str(REAL)), ("processor", "state the chip")),
    ):
        code, _, problem = cli("weigh", "910d", "h100", *words)
        assert code != 0
        assert all(w in problem for w in said), problem
    code, _, problem = cli("weigh", "910d", "a100", "--with", saved(tmp_path, GOOD))
    assert code != 0
    assert "not weighed here" in problem
