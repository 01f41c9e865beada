"""Published serving figures: what is read of a row, what is answered, what steps on Ascend cost, and what the network factor is worth."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chipscale.catalog import Catalog, load
from chipscale.evidence import Belief, EvidenceError
from chipscale.facts.chip import Chip
from chipscale.facts.model import Experts
from chipscale.facts.parameters import parameters
from chipscale.operators.fabric import brings_sums
from chipscale.scores import ScoredRow, Validation
from chipscale.serving import network, published, published_rows
from chipscale.serving.calibration import constants
from chipscale.serving.deployment import FORMATS, Deployment, runnable
from chipscale.serving.parts import Bench, parts
from chipscale.serving.room import room
from chipscale.serving.single import decode_step, drafting, prefill_step, spare

CLOUDMATRIX = "Serving Large Language Models on Huawei CloudMatrix384"
STEPS = "Ascend/msmodeling model regression cases (baseline_time_s)"
HEAD = ("row_id,source_title,chip,n_devices,device_basis,framework,model,weight_precision,phase,input_len,output_len,concurrency,batch_per_device,tp,dp,ep,spec_decode,spec_acceptance,"
        "latency_ms,decode_tokens_per_s_per_device,reliability,notes")  # fmt: skip
STEP = "R1,a source,Ascend 910C (A3 752T grade),16,die,vllm-ascend,Kimi-K2.5,w4a8_dynamic,decode step,4250,,64,,4,4,16,MTP 3,,61.2,,B: vendor,"


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load()


@pytest.fixture(scope="module")
def shipped(catalog: Catalog) -> Validation:
    return published.validated(None, catalog)


def errors(rows: tuple[ScoredRow, ...], source: str) -> list[float]:
    return [abs(r.error) for r in rows if r.clean and not r.reason and r.labels["source"] == source]


def on_file(folder: Path, *lines: str) -> Path:
    path = folder / "rows.csv"
    path.write_text("\n".join((HEAD, *lines)) + "\n", encoding="utf-8")
    return path


def test_targets_hold_fitted_and_left_out(catalog: Catalog, shipped: Validation) -> None:
    left = published.validated(None, catalog, "source")
    assert len(errors(shipped.rows, CLOUDMATRIX)) == 8
    assert len(errors(shipped.rows, STEPS)) >= 12
    for rows in (shipped.rows, left.rows):
        assert np.median(errors(rows, CLOUDMATRIX)) <= 0.12
        assert np.median(errors(rows, STEPS)) <= 0.15
    assert 0.6 <= shipped.clean.coverage80 <= 0.95


def test_every_row_is_answered_or_says_why_not(shipped: Validation) -> None:
    for r in shipped.rows:
        assert bool(r.reason) == math.isnan(r.predicted_s)
        if not r.reason:
            assert r.low_s < r.predicted_s < r.high_s
            assert r.labels["unit"] in ("s", "tokens/s")
    assert not any(r.clean for r in shipped.rows if r.labels["phase"] == "end_to_end")


def test_the_factor_is_the_fit_of_the_shipped_rows(catalog: Catalog) -> None:
    found = published.misses(published_rows.load(catalog.folders[0] / published.SHIPPED, catalog), catalog)
    known = network.read(catalog)
    assert set(found.by_source) == {CLOUDMATRIX, STEPS}
    assert math.exp(found.factor()) == pytest.approx(known.factor, rel=1e-3)
    assert math.exp(found.factor(without=STEPS)) == pytest.approx(known.without[STEPS], rel=1e-3)
    assert known.prior[1] - known.prior[0] > known.calibrated[1] - known.calibrated[0]


def test_a_row_is_read_as_stated(catalog: Catalog, tmp_path: Path) -> None:
    (row,) = published_rows.load(on_file(tmp_path, STEP), catalog)
    it = row.setting
    assert it is not None
    assert (it.on.tp, it.on.dp, it.on.moe_ep, it.on.dense.id, it.on.experts.id) == (4, 4, 16, "int8", "w4a8")
    assert (it.load.sequences, it.load.drafts, row.measured) == (64.0, 3, pytest.approx(0.0612))
    assert it.silicon[0].share == 0.5
    assert it.silicon[0].changed["peak"] == pytest.approx(0.5)
    (slow,) = published_rows.load(on_file(tmp_path, STEP.replace("752T", "560T")), catalog)
    assert slow.setting is not None
    assert slow.setting.silicon[0].changed["peak"] == pytest.approx(0.5 * 560 / 752)
    assert slow.setting.silicon[0].changed["memory_bandwidth"] == 0.5
    (graded,) = published_rows.load(on_file(tmp_path, STEP.replace("910C (A3 752T", "910B (A2 313T")), catalog)
    assert graded.setting is not None
    assert [s.chip.id for s in graded.setting.silicon] == ["huawei-ascend-910b3"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("Ascend 910C", "Ascend 310P", "not in the catalogue"),
        ("vllm-ascend", "somebody's engine", "engine"),
        ("Kimi-K2.5", "Nobody-9B", "unknown model"),
        ("w4a8_dynamic", "w3a3", "number format 'w3a3' is unknown"),
        (",16,die", ",16,", "package or a die"),
        (",4,4,16,", ",4,8,16,", "contradicts itself"),
        (",4250,,64,", ",4250,,,", "load not stated"),
        ("decode step", "ablation", "no model of this kind of figure"),
        ("MTP 3", "suffix", "how many drafts"),
        ("vendor,", "vendor,one image per query", "images"),
    ],
)  # fmt: skip
def test_what_cannot_be_predicted_says_why(catalog: Catalog, tmp_path: Path, old: str, new: str, said: str) -> None:
    (row,) = published.validated(on_file(tmp_path, STEP.replace(old, new, 1)), catalog).rows
    assert said in row.reason
    assert math.isnan(row.predicted_s)


@pytest.mark.parametrize(
    ("old", "new", "said"), [("61.2", "fast", "latency_ms"), (",64,,", ",-1,,", "concurrency"), (",4,4,16,", ",4.5,4,16,", "tp")]
)
def test_broken_numbers_name_row_and_column(catalog: Catalog, tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(EvidenceError, match=said):
        published.validated(on_file(tmp_path, STEP.replace(old, new, 1)), catalog)


def test_files_are_checked(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="row R1 stands twice"):
        published.validated(on_file(tmp_path, STEP, STEP), catalog)
    with pytest.raises(EvidenceError, match="leave-out cell"):
        published.validated(None, catalog, "cell")
    path = tmp_path / "short.csv"
    path.write_text("row_id,chip\nA,910c\n", encoding="utf-8")
    with pytest.raises(EvidenceError, match="is missing"):
        published.validated(path, catalog)


def test_tokens_a_second_count_accepted_drafts(catalog: Catalog, tmp_path: Path) -> None:
    line = "R1,s,Ascend 910C,160,dual-die package (NPU),CloudMatrix-Infer,DeepSeek-R1,int8,decode,4096,,,96,,320,320,MTP 1 token,{},,1943,A: paper,"
    half, all_right = (published.validated(on_file(tmp_path, line.format(share)), catalog).rows[0] for share in ("0.50", "1.00"))
    assert all_right.predicted_s / half.predicted_s == pytest.approx(2.0 / 1.5)
    unknown = published.validated(on_file(tmp_path, line.format("")), catalog).rows[0]
    assert "how many drafts are accepted" in unknown.reason


def kimi(catalog: Catalog, die: float = 0.5) -> tuple[Bench, Deployment]:
    bench = Bench(
        catalog=catalog, chip=some(catalog, "910c"), engine=catalog.engine("vllm-ascend"), changed=dict.fromkeys(published_rows.SHARED, die)
    )
    return bench, Deployment(tp=4, dp=4, moe_ep=16, dense=FORMATS["int8"], experts=FORMATS["w4a8"])


def some(catalog: Catalog, name: str) -> Chip:
    chip = catalog.chip(name)
    assert not isinstance(chip, Belief)
    return chip


def test_steps_grow_with_what_they_do(catalog: Catalog) -> None:
    (bench, on), model = kimi(catalog), catalog.model("Kimi-K2.5")
    assert bench.engine
    k = constants(catalog, engine=bench.engine, chip=bench.chip, model=model, deployment=on)
    plain = decode_step(bench, model, on, k, sequences=64.0, past=4096.0)
    assert decode_step(bench, model, on, k, sequences=128.0, past=4096.0).seconds > plain.seconds
    assert decode_step(bench, model, on, k, sequences=64.0, past=8192.0).attention > plain.attention
    drafted = decode_step(bench, model, on, k, sequences=64.0, past=4096.0, drafts=3).seconds
    assert plain.seconds < drafted < 4.0 * plain.seconds
    assert (
        prefill_step(bench, model, on, k, prompts=8.0, length=2048.0).seconds > prefill_step(bench, model, on, k, prompts=4.0, length=2048.0).seconds
    )
    whole = decode_step(kimi(catalog, 1.0)[0], model, on, k, sequences=64.0, past=4096.0)
    assert whole.seconds < plain.seconds


def test_a_factor_multiplies_all_and_pipelines_hide_links(catalog: Catalog) -> None:
    (bench, on), model = kimi(catalog), catalog.model("Kimi-K2.5")
    assert bench.engine
    k = constants(catalog, engine=bench.engine, chip=bench.chip, model=model, deployment=on)
    one, two = (decode_step(bench, model, on, replace(k, scale=s), sequences=64.0, past=4096.0).seconds for s in (1.0, 2.0))
    assert two == pytest.approx(2.0 * one)
    hidden = replace(bench, engine=replace(bench.engine, pipelined=True))
    step, shown = (decode_step(b, model, on, k, sequences=64.0, past=4096.0) for b in (hidden, bench))
    assert step.links == 0.0
    assert step.seconds == pytest.approx(shown.seconds - shown.links)


def test_spare_ranks_take_the_shared_expert(catalog: Catalog) -> None:
    model, int8 = catalog.model("DeepSeek-R1"), FORMATS["int8"]
    feeds = [b.feed for b in spare(model, Deployment(tp=1, dp=320, moe_ep=320, dense=int8, experts=int8)).blocks if isinstance(b.feed, Experts)]
    assert [(f.count, f.top_k, f.shared_d_ff) for f in feeds] == [(320, 9, 0)]
    assert spare(model, Deployment(tp=1, dp=32, moe_ep=32, dense=int8, experts=int8)) == model
    assert drafting(model, 1).layers == model.layers + 1


def test_sums_are_the_library_s_where_engines_bring_none(catalog: Catalog) -> None:
    assert brings_sums(catalog, "hopper")
    assert not brings_sums(catalog, "davinci-a3")
    bench, _ = kimi(catalog)
    assert float(bench.summed(4.0, 1e6)) == pytest.approx(float(bench.collective("all_reduce", 4.0, 1e6)))


def test_an_engine_runs_as_its_port(catalog: Catalog) -> None:
    assert catalog.engine_on("vllm", some(catalog, "910c")).id == "vllm-ascend"
    assert catalog.engine_on("vllm", some(catalog, "h100")).id == "vllm"
    assert catalog.engine_on("sglang", some(catalog, "910c")).id == "sglang"


@pytest.mark.parametrize(("name", "billions"), [("GLM-4.7", 352.8), ("Qwen3-8B", 8.19), ("Qwen3.5-27B", 26.9), ("Qwen3.5-35B-A3B", 34.7),
                                                ("MiniMax-M2.7", 228.7), ("DeepSeek-V3.1", 671.0)])  # fmt: skip
def test_models_count_as_published(catalog: Catalog, name: str, billions: float) -> None:
    assert parameters(catalog.model(name)).total / 1e9 == pytest.approx(billions, rel=0.002)


def test_each_family_of_chips_serves_or_says_why_not(catalog: Catalog) -> None:
    models = {"DeepSeek-V3": (8, 4, 32), "Meta-Llama-3.1-70B": (8, 1, 1)}
    seen: set[str] = set()
    for name in catalog.chips():
        found = catalog.chip(name)
        for chip in [h.value for h in found.hypotheses] if isinstance(found, Belief) else [found]:
            if chip.family in seen:
                continue
            seen.add(chip.family)
            for model, (tp, dp, ep) in models.items():
                for format in ("bf16", "int8", "fp8"):
                    _served(catalog, chip, model, tp, dp, ep, format)
    assert len(seen) >= 15


def _served(catalog: Catalog, chip: Chip, model: str, tp: int, dp: int, ep: int, format: str) -> None:
    """Cost a model on a chip; one clear message is an answer too."""
    try:
        fine = runnable(FORMATS[format], chip)
        on = Deployment(tp=tp, dp=dp, moe_ep=ep, dense=fine, experts=fine)
        cost = parts(Bench(catalog=catalog, chip=chip, engine=catalog.engine("vllm")), catalog.model(model), on, 1024.0, 1536.0)
        assert all(
            np.all(np.isfinite(x)) and np.all(np.asarray(x) >= 0)
            for x in (cost.products, cost.experts, cost.links, cost.head, cost.settle, cost.reach)
        )
        assert room(catalog.model(model), on, chip, seen=1536.0).tokens > 0
    except EvidenceError as problem:
        assert chip.id in str(problem)
