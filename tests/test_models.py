"""Models: counts against what their authors publish, refusals by name and field, and anything else answered politely."""

from __future__ import annotations

import csv
import json
import math
from contextlib import suppress
from importlib import resources
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from chipscale.catalog import load
from chipscale.evidence import EvidenceError
from chipscale.facts.config_json import read_config, read_file
from chipscale.facts.model import Attention, Experts, LatentAttention, LinearAttention, Model
from chipscale.facts.model_families import gpt
from chipscale.facts.model_rows import from_row
from chipscale.facts.parameters import feed_parameters, mixer_parameters, parameters
from chipscale.report.models import model_page, models_table

CATALOG = load()
DATA = Path(str(resources.files("chipscale") / "data"))
CONFIGS: dict[str, dict[str, Any]] = {p.stem: json.loads(p.read_text(encoding="utf-8")) for p in sorted((DATA / "models").glob("*.json"))}
LLAMA = CONFIGS["meta-llama--Meta-Llama-3.1-8B"]
DEEPSEEK = CONFIGS["deepseek-ai--DeepSeek-V3"]


@pytest.mark.parametrize(
    ("model", "billions", "within"),
    [
        ("DeepSeek-V3", 671.0, 0.01),
        ("DeepSeek-R1", 671.0, 0.01),
        ("DeepSeek-V4-Flash", 284.0, 0.002),
        ("DeepSeek-V4-Pro", 1600.0, 0.02),
        ("Llama-3.1-405B", 405.9, 0.01),
        ("Meta-Llama-3.1-70B", 70.6, 0.01),
        ("Meta-Llama-3.1-8B", 8.03, 0.01),
        ("Mixtral-8x7B-v0.1", 46.7, 0.01),
        ("Qwen3-32B", 32.8, 0.01),
        ("Qwen3-30B-A3B-FP8", 30.5, 0.01),
        ("Qwen3-235B-A22B", 235.1, 0.01),
        ("Qwen3-0.6B", 0.6, 0.01),
        ("gpt-oss-120b", 116.8, 0.01),
        ("gpt-3-175b", 175.0, 0.01),
        ("Kimi-K2.5", 1030.0, 0.02),
        ("GLM-5", 744.0, 0.02),
        ("MiniMax-M2.5", 229.0, 0.02),
        ("Qwen3.5-397B-A17B", 397.0, 0.02),
        ("Llama-4-Scout-17B-16E-Instruct", 109.0, 0.02),
    ],
)
def test_total_parameters_are_as_published(model: str, billions: float, within: float) -> None:
    assert parameters(CATALOG.model(model)).total / 1e9 == pytest.approx(billions, rel=within)


@pytest.mark.parametrize(
    ("model", "billions", "embedding", "within"),
    [
        ("Qwen3-30B-A3B-FP8", 3.3, True, 0.02),
        ("Qwen3-235B-A22B", 22.0, True, 0.01),
        ("Mixtral-8x7B-v0.1", 12.9, True, 0.01),
        ("Llama-4-Scout-17B-16E-Instruct", 17.0, True, 0.02),
        ("Qwen3.5-397B-A17B", 17.0, True, 0.03),
        ("DeepSeek-V3", 36.6, False, 0.01),
        ("DeepSeek-V4-Flash", 13.0, False, 0.03),
        ("DeepSeek-V4-Pro", 49.0, False, 0.01),
        ("gpt-oss-120b", 5.13, False, 0.01),
        ("Kimi-K2.5", 32.0, False, 0.02),
        ("GLM-5", 40.0, False, 0.03),
        ("MiniMax-M2.5", 10.0, False, 0.05),
    ],
)
def test_active_parameters_are_as_published_each_card_by_its_own_definition(model: str, billions: float, embedding: bool, within: float) -> None:
    count = parameters(CATALOG.model(model))
    assert (count.active if embedding else count.active_without_embedding) / 1e9 == pytest.approx(billions, rel=within)


def test_mtp_and_vision_stand_apart() -> None:
    v3, kimi = parameters(CATALOG.model("DeepSeek-V3")), parameters(CATALOG.model("Kimi-K2.5"))
    assert v3.mtp / 1e9 == pytest.approx(11.5, rel=0.01)
    assert kimi.vision / 1e6 == pytest.approx(417 + 54.4, rel=0.01)  # the tower and its merger
    assert any("vision" in note for note in CATALOG.model("Llama-4-Scout-17B-16E-Instruct").notes)


@pytest.mark.parametrize("id", CATALOG.models())
def test_the_parts_sum_to_the_whole(id: str) -> None:
    model = CATALOG.model(id)
    c = parameters(model)
    parts = (c.embedding, c.head, c.attention, c.dense_mlp, c.experts_routed, c.experts_shared, c.router, c.norms, c.connections)
    assert c.total == sum(parts)
    assert min(parts) >= 0
    assert 0 < c.active_without_embedding <= c.active <= c.total
    blocks = sum(b.repeat * (mixer_parameters(b.mixer, model.d_model) + feed_parameters(b.feed, model.d_model)[0]) for b in model.blocks)
    assert c.total == blocks + c.embedding + c.head + c.norms + c.connections


def kinds(id: str, kind: type) -> int:
    return sum(b.repeat for b in CATALOG.model(id).blocks if isinstance(b.mixer, kind))


def test_layers_are_of_the_published_kinds() -> None:
    assert (kinds("Qwen3.5-397B-A17B", LinearAttention), kinds("Qwen3.5-397B-A17B", Attention)) == (45, 15)
    assert kinds("DeepSeek-V3", LatentAttention) == 61
    oss = [b.mixer for b in CATALOG.model("gpt-oss-120b").blocks]
    assert [m.reach for m in oss[:2] if isinstance(m, Attention)] == [128, None]
    assert all(isinstance(m, Attention) and m.sinks and m.qkv_bias for m in oss)
    scout = CATALOG.model("Llama-4-Scout-17B-16E-Instruct")
    assert sum(b.repeat for b in scout.blocks if isinstance(b.mixer, Attention) and b.mixer.chunked) == 36
    for name, keeps in (("DeepSeek-V3.2", 2048), ("GLM-5", 2048)):
        mixer = CATALOG.model(name).blocks[0].mixer
        assert isinstance(mixer, LatentAttention)
        assert mixer.indexer is not None
        assert mixer.indexer.top_k == keeps
    dense = [b.repeat for b in CATALOG.model("DeepSeek-V3").blocks if not isinstance(b.feed, Experts)]
    assert dense == [3]


def test_a_wide_norm_counts_all_heads() -> None:
    narrow = Attention(heads=48, kv_heads=8, head_dim=128, v_head_dim=128, qk_norm=True)
    mixer = CATALOG.model("MiniMax-M2.5").blocks[0].mixer
    assert mixer_parameters(mixer, 3072) - mixer_parameters(narrow, 3072) == (48 + 8) * 128 - 2 * 128


def test_an_architecture_not_modelled_is_refused_by_name() -> None:
    with pytest.raises(EvidenceError, match="'jamba' is not understood"):
        read_config({"model_type": "jamba"}, id="jamba")


@pytest.mark.parametrize(
    ("base", "change", "says"),
    [
        (LLAMA, {"surprise_rank": 4}, "surprise_rank"),
        (LLAMA, {"cla_share_factor": 2}, "cla_share_factor"),
        (LLAMA, {"pruned_heads": {"1": [2]}}, "pruned_heads"),
        (LLAMA, {"sliding_window": 4096}, "sliding_window"),
        (LLAMA, {"hidden_size": 4097}, "hidden_size"),
        (LLAMA, {"num_key_value_heads": 5}, "32 query heads do not divide over 5"),
        (LLAMA, {"num_hidden_layers": 10**8}, "num_hidden_layers"),
        (LLAMA, {"layer_types": ["full_attention"]}, "layer_types"),
        (DEEPSEEK, {"attention_bias": True}, "attention_bias"),
        (DEEPSEEK, {"num_key_value_heads": 8}, "num_key_value_heads"),
        (DEEPSEEK, {"qk_head_dim": 100}, "qk_head_dim"),
        (DEEPSEEK, {"moe_layer_freq": 2}, "moe_layer_freq"),
        (DEEPSEEK, {"num_experts_per_tok": 300}, "top-k 300"),
        (DEEPSEEK, {"first_k_dense_replace": 62}, "first_k_dense_replace"),
        (CONFIGS["MiniMaxAI--MiniMax-M2.5"], {"attn_type_list": [0] * 62}, "attn_type_list"),
        (CONFIGS["openai--gpt-oss-120b"], {"experts_per_token": 8}, "experts_per_token"),
    ],
)
def test_a_field_that_would_change_shapes_is_refused(base: dict[str, Any], change: dict[str, Any], says: str) -> None:
    with pytest.raises(EvidenceError, match=says):
        read_config({**base, **change}, id="changed")


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, True, "8", 4096.0, 10**10, [8], {}])
@pytest.mark.parametrize("name", ["hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size", "vocab_size"])
def test_a_bad_number_is_refused_with_file_field_and_remedy(name: str, value: object) -> None:
    with pytest.raises(EvidenceError, match=rf"here\.json: field {name} is .*; it must be .*correct it"):
        read_config({**LLAMA, name: value}, id="bad", where="here.json")


@pytest.mark.parametrize("name", ["hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size", "vocab_size", "model_type"])
def test_a_missing_field_is_refused(name: str) -> None:
    with pytest.raises(EvidenceError, match=name):
        read_config({k: v for k, v in LLAMA.items() if k != name}, id="bad")


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"model_type": NaN}', "1" * 5000, "[" * 100_000])
def test_a_malformed_file_is_refused_by_its_path(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(EvidenceError, match=r"bad\.json"):
        read_file(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def answered(config: Any) -> None:
    """Read a config: refused with its file, or a model that can be counted."""
    refused = ""
    try:
        model = read_config(config, id="any", where="any.json")
    except EvidenceError as problem:
        refused = str(problem)
    assert not refused or refused.startswith("any.json")
    if not refused:
        count = parameters(model)
        assert model.layers > 0
        assert 0 < count.active <= count.total


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_a_changed_config_is_read_or_refused(data: st.DataObject) -> None:
    config = json.loads(json.dumps(CONFIGS[data.draw(st.sampled_from(sorted(CONFIGS)))]))
    parts = [config, *(config[k] for k in ("text_config", "vision_config") if k in config)]
    for _ in range(data.draw(st.integers(1, 3))):
        part = data.draw(st.sampled_from(parts))
        name = data.draw(st.sampled_from(sorted(part)) | st.text(max_size=12)) if part else "x"
        if data.draw(st.booleans()):
            part.pop(name, None)
        else:
            part[name] = data.draw(JSON)
    answered(config)


@settings(deadline=None, max_examples=200)
@given(config=JSON | st.dictionaries(st.sampled_from(["model_type", "text_config", "hidden_size", "architectures"]), JSON))
def test_any_json_is_read_or_refused(config: Any) -> None:
    answered(config)


def test_a_gpt_by_dimensions() -> None:
    model = gpt(96, 12288, 96, 51200)
    assert parameters(model).total / 1e9 == pytest.approx(175, rel=0.01)
    assert model.layers == 96


def rows() -> list[dict[str, str]]:
    with (DATA / "measurements" / "training.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_complete_row_has_a_model() -> None:
    complete = [r for r in rows() if r["complete"] == "yes"]
    assert len(complete) == 555
    for row in complete:
        model, assumed = from_row(row)
        assert model.layers == int(row["n_layers"])
        assert all(isinstance(text, str) and text for text in assumed)


def test_a_row_without_dimensions_is_refused_by_column() -> None:
    row = next(r for r in rows() if r["complete"] == "yes")
    for column in ("n_layers", "d_model", "n_heads"):
        with pytest.raises(EvidenceError, match=column):
            from_row({**row, column: ""})
    with pytest.raises(EvidenceError, match="n_layers"):
        from_row({**row, "n_layers": "many"})


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_a_changed_row_is_read_or_refused(data: st.DataObject) -> None:
    row = dict(data.draw(st.sampled_from([r for r in rows() if r["complete"] == "yes"][::25])))
    columns = ("n_kv_heads", "d_head", "vocab", "d_ff", "mla", "n_params_b")
    row[data.draw(st.sampled_from(columns))] = data.draw(st.sampled_from(["", "nan", "-1", "x", "8", "1e12"]))
    with suppress(EvidenceError):
        model, _ = from_row(row)
        assert isinstance(model, Model)
        assert parameters(model).total > 0


def test_pages_show_active_mtp_and_vision() -> None:
    console = Console(width=200, record=True, file=StringIO())
    found = [CATALOG.model(id) for id in CATALOG.models()]
    console.print(models_table(found))
    for model in found:
        console.print(model_page(model))
    text = console.export_text()
    for part in ("671.03 B", "latent attention", "linear attention", "MTP", "vision tower", "chunks of 8,192"):
        assert part in text
