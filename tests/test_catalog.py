"""The catalogue: values as published, conflicts kept, bad files refused with file, field and remedy."""

from __future__ import annotations

from contextlib import suppress
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from chipscale.catalog import load
from chipscale.evidence import Belief, EvidenceError
from chipscale.facts.chip import Chip
from chipscale.report.chips import chip_page, chips_table, cluster_page, clusters_table
from chipscale.verdict.weighing import FOUNDING

CATALOG = load()
CHIP = 'id = "my-chip"\nname = "Mine"\nvendor = "Me"\nfamily = "hopper"\ncluster = "dgx-h100"\n'
FACT = '[[fact]]\nquantity = "power"\nvalue = "700 W"\nsource = "mine"\n'
HYPOTHESIS = '[[hypothesis]]\nkey = "a"\ntitle = "A"\nweight = 1.0\nreason = "why not"\nchip = "my-chip"\n'
SOURCE = '[mine]\nwhere = "my bench"\nkind = "measured"\ndate = "2026-11"\n'


def plain(name: str) -> Chip:
    found = CATALOG.chip(name)
    assert isinstance(found, Chip)
    return found


def folder(tmp_path: Path, chip: str, source: str = SOURCE, name: str = "my-chip") -> Path:
    for kind, file, text in (("chips", name, chip), ("sources", "mine", source)):
        (tmp_path / kind).mkdir(exist_ok=True)
        (tmp_path / kind / f"{file}.toml").write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("chip", "quantity", "value"),
    [
        ("nvidia-h100-sxm-80gb", "peak_bf16", 989.4e12),
        ("nvidia-h100-sxm-80gb", "peak_fp8", 1979e12),
        ("nvidia-h100-sxm-80gb", "memory_bandwidth", 3.35e12),
        ("nvidia-h100-sxm-80gb", "scaleup_bandwidth", 450e9),
        ("nvidia-a100-sxm-80gb", "peak_bf16", 312e12),
        ("nvidia-b200", "peak_bf16", 2250e12),
        ("nvidia-gb200", "peak_bf16", 2500e12),
        ("amd-mi300x", "memory_bytes", 192e9),
        ("huawei-ascend-910c", "peak_bf16", 707.8e12),
        ("huawei-ascend-910c", "peak_fp16", 752e12),
        ("huawei-ascend-910b2", "peak_bf16", 353.9e12),
        ("huawei-ascend-910b2", "peak_fp16", 376e12),
        ("huawei-ascend-910b3", "peak_bf16", 294.9e12),
        ("huawei-ascend-910b3", "peak_fp16", 313e12),
    ],
)
def test_values_are_as_published(chip: str, quantity: str, value: float) -> None:
    assert plain(chip).value(quantity) == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize(
    ("chip", "has", "lacks"),
    [
        ("nvidia-a100-sxm-80gb", {"bf16", "fp16", "int8"}, {"fp8", "mxfp8", "nvfp4"}),
        ("nvidia-h100-sxm-80gb", {"bf16", "fp8"}, {"mxfp8", "nvfp4"}),
        ("nvidia-b200", {"fp8", "mxfp8", "nvfp4"}, {"mxfp4"}),
        ("huawei-ascend-910c", {"bf16", "fp16", "int8"}, {"fp8", "mxfp8"}),
        ("huawei-ascend-950dt", {"fp8", "mxfp8", "mxfp4"}, {"nvfp4"}),
        ("cambricon-mlu590", set(), {"bf16"}),
        ("nvidia-v100-sxm-32gb", {"fp16"}, {"bf16", "fp8"}),
    ],
)
def test_a_missing_precision_is_missing(chip: str, has: set[str], lacks: set[str]) -> None:
    found = set(plain(chip).precisions)
    assert has <= found
    assert not lacks & found


def test_every_chip_and_cluster_loads_and_fits_together() -> None:
    for name in CATALOG.chips():
        found = CATALOG.chip(name)
        for chip in [h.value for h in found.hypotheses] if isinstance(found, Belief) else [found]:
            assert CATALOG.cluster_for(chip).size >= CATALOG.cluster_for(chip).node
            for facts in chip.facts.values():
                assert all(f.low <= f.value <= f.high and f.source.where for f in facts)


def test_the_910d_is_weighted_hypotheses_and_never_an_average() -> None:
    found = CATALOG.chip("910D")
    assert isinstance(found, Belief)
    weights = {h.key: h.weight for h in found.hypotheses}
    assert sum(weights.values()) == pytest.approx(1)
    assert sum(w for key, w in weights.items() if key.startswith("950-")) == pytest.approx(0.7)
    assert weights["quad-die"] == pytest.approx(0.2)
    assert all(h.reason and h.value.precisions for h in found.hypotheses)
    assert len({h.value.value("peak_fp16") for h in found.hypotheses}) == len(found.hypotheses)
    assert [h.weight for h in found.pinned("quad-die").hypotheses] == [1.0]


def test_the_910b_of_unknown_grade_is_a_belief_over_two_grades() -> None:
    found = CATALOG.chip("huawei-ascend-910b")
    assert isinstance(found, Belief)
    assert {h.value.id for h in found.hypotheses} == {"huawei-ascend-910b2", "huawei-ascend-910b3"}


def test_conflicts_stay_visible_and_credible_ones_widen() -> None:
    facts = plain("huawei-ascend-910c").facts["peak_bf16"]
    assert len(facts) > 1
    assert facts[0].high >= max(f.value for f in facts if not f.rejected)


def test_known_errors_stay_visible_and_widen_nothing() -> None:
    facts = plain("nvidia-h100-sxm-80gb").facts["peak_bf16"]
    wrong = [f for f in facts if f.rejected]
    assert any(f.value > 1.9e15 for f in wrong)
    assert facts[0].high < 1.1e15


def test_aliases_ignore_case() -> None:
    assert plain("h100").id == plain("H100").id == "nvidia-h100-sxm-80gb"


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(EvidenceError, match=r"did you mean.*nvidia-h100"):
        CATALOG.chip("nvidia-h100-sxm-80g")
    with pytest.raises(EvidenceError, match=r"did you mean.*dgx-h100"):
        CATALOG.cluster("dgx-h10")


def test_founding_jobs_are_complete() -> None:
    assert set(FOUNDING) <= set(CATALOG.jobs())
    for name in CATALOG.jobs():
        job = CATALOG.job(name)
        assert job.source
        assert CATALOG.model(job.model).layers > 0


@pytest.mark.parametrize(
    ("stated", "known"),
    [
        ("NeMo (Megatron-Core)", "megatron"),
        ("MindSpeed-LLM (formerly ModelLink) on MindSpeed/Megatron, PyTorch torch_npu", "mindspeed"),
        ("MaxText (JAX)", "maxtext"),
        ("Megatron-DeepSpeed", "deepspeed"),
        ("something else", "unknown"),
    ],
)
def test_a_framework_is_recognised_by_its_name(stated: str, known: str) -> None:
    assert CATALOG.framework_matching(stated).id == known


def test_a_chip_of_ones_own_is_found(tmp_path: Path) -> None:
    found = load(folder(tmp_path, CHIP + FACT)).chip("my-chip")
    assert isinstance(found, Chip)
    assert found.value("power") == 700.0
    assert found.fact("power").low < 700.0 < found.fact("power").high


@pytest.mark.parametrize(
    ("chip", "says"),
    [
        (CHIP + FACT.replace("700 W", "700"), "unit"),
        (CHIP + FACT.replace("700 W", "-700 W"), "power"),
        (CHIP + FACT.replace("700 W", "nan W"), "power"),
        (CHIP + FACT.replace('source = "mine"\n', ""), "source"),
        (CHIP + FACT.replace('"mine"', '"nobody"'), "nobody"),
        (CHIP + FACT + "surprise = 1\n", "surprise"),
        (CHIP.replace('name = "Mine"\n', "") + FACT, "name"),
        (CHIP.replace('"my-chip"', '"other"') + FACT, "id"),
        (CHIP + FACT + "= broken", "line"),
        (CHIP + 2 * (FACT + "chosen = true\n"), "two facts are chosen"),
        (CHIP + FACT.replace('"power"', '"pwer"'), "did you mean power"),
        (CHIP + HYPOTHESIS, "itself"),
        (CHIP + HYPOTHESIS.replace("my-chip", "910d"), "itself a belief"),
        (CHIP + HYPOTHESIS.replace("my-chip", "h100").replace("1.0", "0.5"), "weights"),
        (CHIP + 'aliases = [\n"mine",\n"H100",\n]\n', "nvidia-h100-sxm-80gb.toml"),
    ],
    ids=[
        "no-unit",
        "negative",
        "nan",
        "no-source",
        "unknown-source",
        "unknown-field",
        "missing-field",
        "other-id",
        "malformed",
        "two-chosen",
        "mistyped",
        "own-name",
        "belief-in-belief",
        "weights",
        "alias-taken",
    ],
)
def test_a_bad_chip_file_is_refused_by_file_and_field(tmp_path: Path, chip: str, says: str) -> None:
    with pytest.raises(EvidenceError, match=says) as problem:
        load(folder(tmp_path, chip)).chip("my-chip")
    assert "my-chip.toml" in str(problem.value)


def test_hypotheses_in_a_ring_are_refused(tmp_path: Path) -> None:
    folder(tmp_path, CHIP + HYPOTHESIS.replace("my-chip", "b"))
    folder(tmp_path, CHIP.replace("my-chip", "b") + HYPOTHESIS, name="b")
    with pytest.raises(EvidenceError, match="itself a belief"):
        load(tmp_path).chip("my-chip")


def test_an_alias_over_several_lines_is_found(tmp_path: Path) -> None:
    assert load(folder(tmp_path, CHIP + 'aliases = [\n  "mine-a",  # the first\n  "mine-b",\n]\n' + FACT)).aliases()["mine-b"] == "my-chip"


def test_one_source_in_two_files_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, CHIP + FACT)
    (tmp_path / "sources" / "other.toml").write_text(SOURCE, encoding="utf-8")
    with pytest.raises(EvidenceError, match="also in"):
        load(tmp_path).chip("my-chip")


def test_a_quantity_whose_facts_are_all_rejected_is_not_known() -> None:
    assert not plain("cambricon-mlu590").has("peak_fp8")
    with pytest.raises(EvidenceError, match="every fact is rejected"):
        plain("cambricon-mlu590").fact("peak_fp8")


@pytest.mark.parametrize(("old", "new", "says"), [('"dgx-h100"', '"dgx-h101"', "field id"), ('"2 us"', '"2"', "tier.inner.latency")])
def test_a_bad_cluster_file_is_refused_by_file_and_field(tmp_path: Path, old: str, new: str, says: str) -> None:
    (tmp_path / "clusters").mkdir()
    text = CATALOG.files("clusters")["dgx-h100"].read_text(encoding="utf-8")
    (tmp_path / "clusters" / "dgx-h100.toml").write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(EvidenceError, match=says) as problem:
        load(tmp_path).cluster("dgx-h100")
    assert "dgx-h100.toml" in str(problem.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="no such folder"):
        load(tmp_path / "nowhere")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(text=st.text(st.characters(exclude_categories=("Cs",))))
def test_any_text_in_a_chip_file_is_refused_politely(tmp_path: Path, text: str) -> None:
    with pytest.raises(EvidenceError):
        load(folder(tmp_path, text)).chip("my-chip")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(text=st.text(st.characters(exclude_categories=("Cs",))))
def test_any_text_behind_a_good_head_is_read_or_refused(tmp_path: Path, text: str) -> None:
    with suppress(EvidenceError):
        load(folder(tmp_path, CHIP + FACT + text)).chip("my-chip")


def test_pages_show_rejected_facts_and_hypotheses() -> None:
    console = Console(width=240, record=True, file=StringIO())
    for page in (chips_table(CATALOG), clusters_table(CATALOG), chip_page(CATALOG.chip("h100")), chip_page(CATALOG.chip("910d")),
                 cluster_page(CATALOG.cluster("dgx-h100"))):  # fmt: skip
        console.print(page)
    text = console.export_text()
    for part in ("rejected:", "quad-die", "weight 20%", "989.4 TFLOP/s", "nvidia-gb300", "450 GB/s"):
        assert part in text
