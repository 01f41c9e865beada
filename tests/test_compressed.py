"""Compressed attention and hyper-connections of DeepSeek-V4: counted again slowly, held against published figures, refused where unclear."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chipscale.catalog import load
from chipscale.evidence import EvidenceError
from chipscale.facts.config_json import read_config
from chipscale.facts.model import Block, CompressedAttention, Experts, Indexer
from chipscale.facts.parameters import collapse_parameters, connection_parameters, mixer_parameters, parameters
from chipscale.graph import Shard, build, cache_width, mixer_works
from chipscale.memory import holds
from chipscale.ops.attention import mean_entries
from chipscale.ops.work import Work

CATALOG = load()
CONFIG: dict[str, Any] = json.loads(
    (Path(str(resources.files("chipscale") / "data")) / "models" / "deepseek-ai--DeepSeek-V4-Flash.json").read_text(encoding="utf-8")
)
FLASH = CATALOG.model("DeepSeek-V4-Flash")
PRO = CATALOG.model("DeepSeek-V4-Pro")


def small(ratio: int, top_k: int | None) -> CompressedAttention:
    indexer = None if top_k is None else Indexer(heads=3, head_dim=8, top_k=top_k)
    return CompressedAttention(heads=4, head_dim=16, rope_dim=4, q_rank=6, window=5, out_groups=2, out_rank=7, ratio=ratio, indexer=indexer)


def seen(m: CompressedAttention, position: int) -> tuple[int, int, int]:
    """Count what the query at a position (from 0) meets: tokens of the window, entries it may see, entries that it keeps."""
    window = sum(1 for j in range(position + 1) if position - j < m.window)
    complete = sum(1 for e in range(position + 1) if m.ratio and (e + 1) * m.ratio <= position + 1)
    return window, complete, min(complete, m.indexer.top_k) if m.indexer else complete


def slow_flop(m: CompressedAttention, d: int, positions: list[int]) -> int:
    """Count forward FLOP query by query, product by product, as the reference model runs them."""
    total = 0
    for p in positions:
        window, complete, kept = seen(m, p)
        total += 2 * d * m.q_rank + 2 * m.q_rank * m.heads * m.head_dim + 2 * d * m.head_dim  # query down, up; key that is also value
        for _ in range(m.heads):
            total += 2 * (window + kept) * m.head_dim * 2  # scores, weighted sum
        for _ in range(m.out_groups):
            total += 2 * (m.heads * m.head_dim // m.out_groups) * m.out_rank
        total += 2 * m.out_groups * m.out_rank * d
        if m.ratio:
            total += 2 * (2 * d * m.overlap * m.head_dim)  # value and gate of the compressor
        if m.indexer:
            i = m.indexer
            total += (
                2 * (2 * d * m.overlap * i.head_dim) + 2 * m.q_rank * i.heads * i.head_dim + 2 * d * i.heads + 2 * complete * i.heads * i.head_dim
            )
    return total


def flop(works: list[Work]) -> float:
    return sum(float(np.asarray(w.flop)) * w.calls for w in works)


KINDS = st.sampled_from([(0, None), (3, 2), (4, 1), (4, 100), (7, None), (128, None)])


@settings(deadline=None, max_examples=80)
@given(kind=KINDS, length=st.integers(1, 70), d=st.integers(1, 40))
def test_flop_of_a_prompt_are_those_of_a_slow_count(kind: tuple[int, int | None], length: int, d: int) -> None:
    m = small(*kind)
    found = mixer_works(m, float(d), Shard(length=float(length), tokens=float(length), train=False), 1.0)
    assert flop(found) == pytest.approx(slow_flop(m, d, list(range(length))), rel=1e-12)


@settings(deadline=None, max_examples=80)
@given(kind=KINDS, length=st.integers(1, 400), d=st.integers(1, 40))
def test_flop_of_decoding_are_those_of_a_slow_count(kind: tuple[int, int | None], length: int, d: int) -> None:
    m = small(*kind)
    found = mixer_works(m, float(d), Shard(length=float(length), tokens=1.0, train=False, decode=True), 1.0)
    assert flop(found) == pytest.approx(slow_flop(m, d, [length - 1]), rel=1e-12)


@given(length=st.integers(1, 3000), ratio=st.integers(1, 200), most=st.integers(1, 50) | st.just(10**9))
def test_mean_entries_are_those_of_a_loop(length: int, ratio: int, most: int) -> None:
    slow = sum(min((p + 1) // ratio, most) for p in range(length)) / length
    assert float(mean_entries(float(length), float(ratio), float(most))) == pytest.approx(slow, rel=1e-12)


@pytest.mark.parametrize("kind", [(0, None), (4, 8), (128, None)])
def test_training_costs_three_forwards_and_the_core_three_and_a_half(kind: tuple[int, int | None]) -> None:
    shard = {"length": 256.0, "tokens": 256.0}
    forward, both = (mixer_works(small(*kind), 32.0, Shard(**shard, train=t), 1.0) for t in (False, True))
    core = flop([w for w in forward if w.name == "attention"])
    assert flop(both) == pytest.approx(3.0 * (flop(forward) - core) + 3.5 * core)


@pytest.mark.parametrize("tp", [2.0, 4.0])
@pytest.mark.parametrize("kind", [(0, None), (4, 8), (128, None)])
def test_heads_split_over_tensor_parallel_ranks_and_the_rest_does_not(kind: tuple[int, int | None], tp: float) -> None:
    whole, part = ({w.name: w for w in mixer_works(small(*kind), 32.0, Shard(length=256.0, tokens=256.0, tp=t, train=False), 1.0)} for t in (1.0, tp))
    for name, work in whole.items():
        split = tp if name in ("q up", "attention", "output down", "output up") else 1.0
        assert float(part[name].flop) == pytest.approx(float(work.flop) / split), name


def reference_parameters(m: CompressedAttention, d: int) -> int:
    """Add up the shapes of the reference's modules one by one."""
    shapes: list[tuple[int, ...]] = [(d, m.q_rank), (m.q_rank,), (m.q_rank, m.heads * m.head_dim), (d, m.head_dim), (m.head_dim,), (m.heads,)]
    shapes += [(m.heads * m.head_dim // m.out_groups, m.out_rank)] * m.out_groups + [(m.out_groups * m.out_rank, d)]
    inner = [m.head_dim] if m.ratio else []
    if m.indexer:
        inner.append(m.indexer.head_dim)
        shapes += [(m.q_rank, m.indexer.heads * m.indexer.head_dim), (d, m.indexer.heads)]
    for width in inner:
        series = 2 if m.indexer else 1
        shapes += [(d, series * width), (d, series * width), (m.ratio, series * width), (width,)]
    return sum(int(np.prod(s)) for s in shapes)


@pytest.mark.parametrize("kind", [(0, None), (4, 8), (128, None)])
def test_parameters_are_the_shapes_of_the_reference(kind: tuple[int, int | None]) -> None:
    assert mixer_parameters(small(*kind), 32) == reference_parameters(small(*kind), 32)


def test_hyper_connections_count_two_a_layer_and_one_collapse() -> None:
    found = parameters(FLASH).connections
    assert found == 43 * 2 * connection_parameters(4, 4096) + collapse_parameters(4, 4096)
    assert connection_parameters(4, 4096) == 24 * 16384 + 24 + 3


def test_layers_follow_the_list_of_ratios() -> None:
    layers = [b.mixer.ratio for b in FLASH.blocks for _ in range(b.repeat) if isinstance(b.mixer, CompressedAttention)]
    assert layers == CONFIG["compress_ratios"][:43]
    assert {b.mixer.indexer is not None for b in FLASH.blocks if isinstance(b.mixer, CompressedAttention) and b.mixer.ratio == 4} == {True}
    assert isinstance(FLASH.mtp_block.mixer, CompressedAttention)
    assert (FLASH.mtp_block.mixer.ratio, FLASH.mtp_block.repeat) == (0, 1)
    hashed = [b.feed.router_bias for b in FLASH.blocks for _ in range(b.repeat) if isinstance(b.feed, Experts)]
    assert hashed == [False] * 3 + [True] * 40


def test_training_flop_are_those_that_nvidia_publishes() -> None:
    """706 TFLOP/s at 7,776 tokens/s a GPU (Megatron-Bridge performance summary, 26.08, 4,096 tokens) are 90.8 GFLOP a token."""
    graph = build(FLASH, Shard(length=4096.0, tokens=4096.0))
    counted = [w for w in graph.works if w.form != "memory"]
    assert flop(counted) / 4096 / 1e9 == pytest.approx(706e12 / 7776 / 1e9, rel=0.01)


def test_the_cache_is_as_published() -> None:
    """DeepSeek-V4-Pro keeps 9.62 GiB a sequence of a million tokens in 16 bit, a ninth of V3.2 with its index (vLLM on DeepSeek-V4)."""
    long = 2.0**20
    width = build(PRO, Shard(length=long, tokens=1.0, train=False, decode=True)).kv_width
    assert float(np.asarray(width)) * 2 * long / 2**30 == pytest.approx(9.62, abs=0.01)


def test_a_short_sequence_fills_no_window() -> None:
    m = small(0, None)
    assert float(np.asarray(cache_width(m, 3.0))) == m.head_dim
    assert float(np.asarray(cache_width(m, 50.0))) == pytest.approx(m.head_dim * m.window / 50)


def test_streams_are_kept_for_the_backward_pass() -> None:
    one, four = (holds(read_config({**CONFIG, "hc_mult": n}, id="x")) for n in (1, 4))
    assert four.body.whole[0] - one.body.whole[0] == pytest.approx(
        2 * 2 * 5 * 4096, rel=1e-12
    )  # two sublayers of four streams and one output, 2 bytes each
    assert (one.carried, four.carried) == (4096.0, 4 * 4096.0)


def test_one_stream_is_a_plain_residual() -> None:
    model = read_config({**CONFIG, "hc_mult": 1}, id="x")
    assert parameters(model).connections == 0
    assert not [w for w in build(model, Shard(length=64.0, tokens=64.0)).works if "hyper" in w.name or "collapse" in w.name]
    assert all(isinstance(b, Block) and b.streams == 1 for b in model.blocks)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"compress_ratios": [0, 4, 128]}, ("compress_ratios", "lists 3 layers", "num_hidden_layers says 43", "make them equal")),
        ({"compress_ratios": [0] * 43 + [8]}, ("compress_ratios holds 8", "0 (window only), 4 (sparse) and 128 (heavy)")),
        ({"compress_ratios": None}, ("compress_ratios", "lists 0 layers")),
        ({"compress_ratios": "all"}, ("compress_ratios", "list of whole numbers")),
        ({"num_hash_layers": 44}, ("num_hash_layers is 44", "only 43 layers")),
        ({"num_key_value_heads": 8}, ("num_key_value_heads is 8", "only 1 is understood")),
        ({"o_groups": 7}, ("64 heads do not divide over 7 output groups",)),
        ({"qk_rope_head_dim": 1024}, ("qk_rope_head_dim is 1024", "head_dim = 512")),
        ({"hc_mult": 0}, ("hc_mult is 0", "whole number from 1")),
        ({"topk_method": "greedy"}, ("topk_method", "noaux_tc")),
        ({"num_experts_per_tok": 300}, ("top-k 300",)),
    ],
)
def test_what_is_unclear_is_refused_with_file_field_and_remedy(change: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(EvidenceError) as refused:
        read_config({**CONFIG, **change}, id="v4", where="v4.json")
    assert str(refused.value).startswith("v4.json: ")
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize("name", ["compress_ratios", "sliding_window", "q_lora_rank", "o_groups", "o_lora_rank", "index_topk", "hc_mult", "num_hash_layers",
                                  "head_dim", "qk_rope_head_dim", "moe_intermediate_size"])  # fmt: skip
def test_a_missing_field_is_named(name: str) -> None:
    with pytest.raises(EvidenceError, match=rf"v4\.json: field {name} is missing.*add it"):
        read_config({k: v for k, v in CONFIG.items() if k != name}, id="v4", where="v4.json")
