"""Measured serving points: how rows are understood, and how bad ones are refused."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

import chipscale
from chipscale.evidence import EvidenceError
from chipscale.serving import requests, rows
from chipscale.serving.rows import Point, Unread, formats_of, load, model_named

CATALOG = chipscale.load()
SHIPPED = Path(rows.__file__).parents[1] / "data" / "measurements" / "serving"
GOOD = {"row": "1", "backend": "vllm", "backend_version": "0.19.0", "model_path": "meta-llama/Llama-3.1-70B", "chip": "nvidia-b200", "precision": "fp8", "mode": "agg",
        "isl": "1024", "osl": "1024", "gemm_quant_mode": "fp8", "moe_quant_mode": "fp8", "tp_size": "4", "pp_size": "1.0", "attention_dp_size": "1", "moe_tp_size": "1",
        "moe_ep_size": "1", "measured_ttft_ms": "100", "measured_tpot_ms": "10", "concurrency": "16", "harness": "inferencex", "doubt": "", "family": "Llama-3.1-70B"}  # fmt: skip


def write(path: Path, *lines: dict[str, str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.DictWriter(file, fieldnames=list(lines[0]))
        out.writeheader()
        out.writerows(lines)
    return path


def test_every_shipped_point_is_understood() -> None:
    found = load(SHIPPED / "points.csv", CATALOG)
    assert len(found) == 2829
    assert all(isinstance(p, Point) for p in found)
    assert sum(p.clean for p in found) == 2181


def test_checkpoints_are_models() -> None:
    assert model_named(CATALOG, "Qwen/Qwen3-235B-A22B-FP8").id == "Qwen/Qwen3-235B-A22B"
    assert model_named(CATALOG, "meta-llama/Llama-3.1-8B-Instruct").id == "meta-llama/Meta-Llama-3.1-8B"
    assert model_named(CATALOG, "nvidia/Qwen3-32B-NVFP4").id == "Qwen/Qwen3-32B"
    assert model_named(CATALOG, "nvidia/DeepSeek-R1-0528-FP4-v2").id == "deepseek-ai/DeepSeek-R1"
    assert model_named(CATALOG, "deepseek-ai/DeepSeek-V3").id == "deepseek-ai/DeepSeek-V3"
    assert model_named(CATALOG, "Qwen/Qwen3-30B-A3B-Instruct-2507").id == "Qwen/Qwen3-30B-A3B-FP8"
    with pytest.raises(EvidenceError, match="unknown model"):
        model_named(CATALOG, "nobody/No-Such-Model-7B")


def test_a_checkpoint_keeps_its_own_formats() -> None:
    oss, deepseek, llama = (CATALOG.model(n) for n in ("gpt-oss-120b", "DeepSeek-V3", "Meta-Llama-3.1-70B"))
    b200, h100 = CATALOG.chip("nvidia-b200"), CATALOG.chip("nvidia-h100-sxm-80gb")
    assert [f.id for f in formats_of("nvfp4", "nvfp4", "fp4", oss, b200)] == ["bf16", "w4a8_mxfp4_mxfp8"]
    assert [f.id for f in formats_of("nvfp4", "nvfp4", "fp4", oss, h100)] == ["bf16", "w4a16_mxfp4"]  # no 4-bit engine: weights are widened
    assert [f.id for f in formats_of("fp8", "fp8", "fp8", deepseek, h100)] == ["fp8_block", "fp8_block"]
    assert [f.id for f in formats_of("fp8", "fp8", "fp8", llama, h100)] == ["fp8", "fp8"]
    assert [f.id for f in formats_of("", "", "", llama, h100)] == ["bf16", "bf16"]


def test_experts_on_more_ranks_than_attention_tell_of_further_groups(tmp_path: Path) -> None:
    row = {**GOOD, "model_path": "Qwen/Qwen3-235B-A22B-FP8", "tp_size": "1", "moe_tp_size": "4"}
    (point,) = load(write(tmp_path / "a.csv", row), CATALOG)
    assert isinstance(point, Point)
    assert (point.on.tp, point.on.dp, point.on.chips) == (1, 4, 4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"concurrency": "-3"}, "column concurrency: '-3' is not a count"),
        ({"concurrency": ""}, "column concurrency: is blank"),
        ({"isl": "many"}, "column isl: 'many' is not a count"),
        ({"measured_tpot_ms": "0"}, "column measured_tpot_ms: '0' is not milliseconds above 0"),
        ({"tp_size": "1.5"}, "column tp_size: 1.5 is not a whole number"),
    ],
)
def test_a_broken_field_is_refused_by_file_row_and_column(tmp_path: Path, change: dict[str, str], said: str) -> None:
    path = write(tmp_path / "bad.csv", {**GOOD, **change})
    with pytest.raises(EvidenceError, match=said) as problem:
        load(path, CATALOG)
    assert "bad.csv" in str(problem.value)
    assert "row 1" in str(problem.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"backend": "abacus"}, "engine 'abacus' is unknown"),
        ({"model_path": "nobody/nothing"}, "unknown model"),
        ({"chip": "nvidia-x999"}, "unknown chip"),
        ({"gemm_quant_mode": "fp3"}, "number format 'fp3' is unknown"),
        ({"chip": "huawei-ascend-910d"}, "is a belief"),
        ({"chip": "nvidia-a100-sxm-80gb"}, "no fp8"),
    ],
)
def test_a_row_that_cannot_be_predicted_keeps_its_reason(tmp_path: Path, change: dict[str, str], said: str) -> None:
    (found,) = load(write(tmp_path / "a.csv", {**GOOD, **change}), CATALOG)
    assert isinstance(found, Unread)
    assert said in found.reason
    assert found.ttft == pytest.approx(0.1)


def test_a_key_stands_once(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="row 1 stands twice"):
        load(write(tmp_path / "a.csv", GOOD, GOOD), CATALOG)


def test_rows_that_say_so_leave_their_first_token_out(tmp_path: Path) -> None:
    (point,) = load(write(tmp_path / "a.csv", {**GOOD, "doubt": "cold start or full decode slot: leave TTFT out"}), CATALOG)
    assert math.isnan(point.ttft)
    assert not point.clean


def test_recorded_requests_count_how_many_ran_at_once() -> None:
    found = {r.model.id: r for r in requests.load(SHIPPED / "requests_vllm.csv", CATALOG)}
    assert [len(r.keys) for r in found.values()] == [300, 300, 300]
    assert found["Qwen/Qwen3-30B-A3B-FP8"].sequences >= 250  # stated 128; its own timestamps show more
    assert found["Qwen/Qwen3-32B"].on.tp == 2
