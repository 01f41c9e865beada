"""CUDA graphs: what a row states, else its framework's default in its year; what they spare is the host's time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from chipscale.catalog import load
from chipscale.planning import train
from chipscale.rows import flags

TEXT = load().text("frameworks/megatron.toml").replace('id = "megatron"', 'id = "captured"')


@pytest.mark.parametrize(
    ("stated", "flag"),
    [
        ("full_cuda_graph", "full_graph"),
        ("cuda_graph=full_iteration:", "full_graph"),
        ("cuda_graph=transformer_engine:attn", "part_graph"),
        ("TE cuda graph attn+moe_router", "part_graph"),
        ("use_dist_optimizer", ""),
    ],
)
def test_a_stated_graph_is_used(stated: str, flag: str) -> None:
    found = flags({"_line": "1", "overlap_as_stated": stated}, load().framework("megatron"))
    assert {f for f in found if f in ("full_graph", "part_graph")} == ({flag} if flag else set())


def test_a_silent_row_takes_the_default_of_its_year() -> None:
    framework = replace(load().framework("megatron"), cuda_graph="full", since=(("cuda_graph", 2025),))
    for year, captured in (("2024", False), ("2025", True), ("", True)):
        assert ("full_graph" in flags({"_line": "1", "year": year}, framework)) == captured
    assert "part_graph" in flags({"_line": "1", "year": "2026", "overlap_as_stated": "cuda_graph=te"}, framework)


def test_a_framework_that_captures_spares_the_host(tmp_path: Path) -> None:
    (tmp_path / "frameworks").mkdir()
    (tmp_path / "frameworks" / "captured.toml").write_text('cuda_graph = "full"\n' + TEXT)
    catalog, plan = load(tmp_path), "tp=8,mb=1"
    (usual,), (captured,) = (
        train(catalog, "Meta-Llama-3.1-8B", "h100", 8, plan=plan, precision="bf16", framework=f) for f in ("megatron", "captured")
    )
    before, after = (dict(s.parts)["host"] for s in (usual, captured))
    assert after < 0.5 * before
