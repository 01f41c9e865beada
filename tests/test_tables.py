"""Measured tables of an optional package: its layout, its units, what is refused, what the measured tier makes of them."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from chipscale.catalog import Catalog, load
from chipscale.evidence import EvidenceError
from chipscale.facts.chip import Chip
from chipscale.operators.calibration import usable
from chipscale.operators.corpus import held_out, shipped
from chipscale.operators.corpus import load as load_samples
from chipscale.operators.tables import NEAR, Tables, at, installed
from chipscale.operators.validate import NO_TABLES, operators

needs_reader = pytest.mark.skipif(util.find_spec("polars") is None, reason="polars is not installed; chipscale[tables] brings it")
needs_package = pytest.mark.skipif(
    util.find_spec("polars") is None or util.find_spec("aiconfigurator_core") is None,
    reason="aiconfigurator-core is not installed; chipscale[tables] brings it",
)
ENGINE = {"framework": "VLLM", "version": "0.24.0", "device": "a board", "op_name": "an operator"}
PRODUCT = {**ENGINE, "gemm_dtype": "bfloat16", "m": 128, "n": 4096, "k": 4096, "kernel_source": "torch.nn.functional.linear", "latency": 0.012}
PROMPT = {**ENGINE, "attn_dtype": "bfloat16", "kv_cache_dtype": "fp8", "batch_size": 1, "isl": 512, "step": 0, "num_heads": 32, "num_key_value_heads": 8,
          "head_dim": 128, "kernel_source": "fa3", "beam_width": 1, "window_size": 0, "latency": 0.05}  # fmt: skip
REDUCE = {"nccl_dtype": "half", "num_gpus": 8, "message_size": 1024, "kernel_source": "NCCL", "op_name": "all_reduce", "latency": 0.02}
EXCHANGE = {**ENGINE, "comm_backend": "deepep_ll", "phase": "dispatch", "comm_dtype": "fp8", "ep_size": 8, "node_num": 1, "hidden_size": 7168, "topk": 8,
            "num_experts": 256, "num_tokens": 64, "latency": 80.0}  # fmt: skip
Write = Callable[[str, Sequence[Mapping[str, Any]]], Path]


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load(None)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write rows as a table in the package's layout."""

    def written(place: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        import polars as pl

        path = tmp_path / place
        path.parent.mkdir(parents=True)
        pl.DataFrame([dict(r) for r in rows], strict=False).write_parquet(path)
        return path

    return written


@pytest.fixture
def tables(tmp_path: Path, catalog: Catalog) -> Tables:
    return at(tmp_path, "test tables 1.0", catalog)


def only(tables: Tables, operator: str, chip: str, engine: str) -> dict[str, Any]:
    """Return the one row that a table has."""
    frame = tables.rows(operator, chip, engine)
    assert frame is not None
    assert len(frame) == 1
    return dict(frame.row(0, named=True))


GEMM = "h100_sxm/gemm/vllm/0.24.0/gemm_perf.parquet"
H100 = ("gemm", "nvidia-h100-sxm-80gb", "VLLM 0.24.0")


# with or without the package


def test_without_tables_the_measured_tier_uses_shipped_rows_and_says_so(catalog: Catalog, tmp_path: Path) -> None:
    file = scored_file(tmp_path)
    found = operators(file, tier="measured", leave_out=None, calibrate_points=0, catalog=catalog)
    assert found.clean.answered == 1
    assert NO_TABLES in found.notes
    assert NO_TABLES not in operators(file, tier="calibrated", leave_out=None, calibrate_points=0, catalog=catalog).notes


def test_installed_finds_the_package_or_says_none(catalog: Catalog) -> None:
    there = util.find_spec("aiconfigurator_core") is not None and util.find_spec("polars") is not None
    assert (installed(catalog) is not None) == there


def test_every_system_is_a_chip_of_the_catalogue(tables: Tables, catalog: Catalog) -> None:
    for chip in tables.chips.values():
        found = catalog.chip(chip)
        assert isinstance(found, Chip)
        assert found.id == chip


@pytest.mark.parametrize("rows", ["operators", "training"])
def test_held_out_chips_exist_have_a_reason_and_no_shipped_measurement(rows: str, catalog: Catalog) -> None:
    held = held_out(catalog, rows)
    assert {"nvidia-b300", "nvidia-gb300", "amd-mi355x", "google-tpu-v6e"} <= set(held)
    assert all(held.values())
    assert {catalog.chip(c).id for c in held if isinstance(catalog.chip(c), Chip)} == set(held)
    folder = shipped(catalog)[0].parent
    for path in [folder.parent / "training.csv"] if rows == "training" else shipped(catalog):
        with path.open(encoding="utf-8") as lines:
            assert not {r["chip"] for r in csv.DictReader(lines)} & set(held)


def test_a_held_out_chip_never_enters_a_fit(catalog: Catalog, tmp_path: Path) -> None:
    samples = load_samples([scored_file(tmp_path, chip="b300"), scored_file(tmp_path, chip="h100")], catalog)
    assert [s.reading is not None for s in samples] == [True, True]
    assert [s.row["chip"] for s in usable(samples, catalog)] == ["h100"]


def scored_file(folder: Path, chip: str = "h100", m: int = 128, seconds: float = 1.2e-5) -> Path:
    """Write one measured product."""
    path = folder / f"gemm_{chip}.csv"
    header = "chip,dtype,m,n,k,engine,kernel,seconds"
    path.write_text(f"{header}\n{chip},bf16,{m},4096,4096,VLLM 0.24.0,torch.nn.functional.linear,{seconds}\n", encoding="utf-8")
    return path


# the reader


@needs_reader
def test_a_table_reads_in_the_words_of_the_shipped_rows(tables: Tables, write: Write) -> None:
    write(GEMM, [PRODUCT, {**PRODUCT, "version": "0.19.0", "latency": 0.5}])
    row = only(tables, *H100)
    assert row == {"dtype": "bf16", "m": 128, "n": 4096, "k": 4096, "kernel": "torch.nn.functional.linear", "engine": "VLLM 0.24.0",
                   "seconds": pytest.approx(1.2e-5), "source": GEMM, "_line": 1}  # fmt: skip
    assert [(t.operator, t.chip) for t in tables.listed()] == [("gemm", "nvidia-h100-sxm-80gb")]
    assert tables.rows("gemm", "nvidia-h100-sxm-80gb", "SGLang 0.5.14") is None
    assert tables.rows("moe", "nvidia-h100-sxm-80gb", "VLLM 0.24.0") is None
    assert tables.rows("gemm", "nvidia-a100-sxm-80gb", "VLLM 0.24.0") is None


@needs_reader
def test_latency_is_milliseconds_but_microseconds_for_the_exchange(tables: Tables, write: Write) -> None:
    write("h200_sxm/comm/vllm/0.24.0/moe_a2a_perf.parquet", [EXCHANGE])
    write(GEMM, [PRODUCT])
    assert only(tables, "expert_alltoall", "nvidia-h200-sxm", "VLLM 0.24.0")["seconds"] == pytest.approx(80e-6)
    assert only(tables, *H100)["seconds"] == pytest.approx(12e-6)


@needs_reader
@pytest.mark.parametrize(("format", "ours", "size"), [("half", "fp16", 2048), ("int8", "int8", 1024)])
def test_elements_become_bytes_and_the_folder_names_the_version(format: str, ours: str, size: int, tables: Tables, write: Write) -> None:
    write("h100_sxm/comm/nccl/2.27.3/nccl_perf.parquet", [{**REDUCE, "nccl_dtype": format, "version": "2.29.2"}])
    row = only(tables, "collective", "nvidia-h100-sxm-80gb", "nccl 2.27.3")
    assert (row["bytes"], row["dtype"], row["chips"], row["collective"]) == (size, ours, 8, "all_reduce")


@needs_reader
def test_sliding_windows_are_calls_of_their_own_and_tables_without_that_column_have_none(tables: Tables, write: Write, catalog: Catalog) -> None:
    write("h100_sxm/attention/vllm/0.24.0/context_attention_perf.parquet", [PROMPT, {**PROMPT, "window_size": 128, "latency": 0.01}])
    frame = tables.rows("attention_prefill", "nvidia-h100-sxm-80gb", "VLLM 0.24.0")
    assert frame is not None
    assert sorted(frame.select("window", "seconds").rows()) == [(0, pytest.approx(5e-5)), (128, pytest.approx(1e-5))]
    asked = {"dtype": "bf16", "kv_dtype": "fp8", "batch_size": "1", "new_tokens": "512", "past_tokens": "0", "num_heads": "32", "num_kv_heads": "8",
             "head_dim": "128", "kernel": "fa3"}  # fmt: skip
    for row in (asked, {**asked, "window": ""}, {**asked, "window": "128"}):
        near = tables.samples("attention_prefill", "nvidia-h100-sxm-80gb", "VLLM 0.24.0", [row], catalog)
        assert sorted(s.reading.call.window for s in near if s.reading) == [128.0, math.inf]
    old = "h100_sxm/attention/vllm/0.23.0/context_attention_perf.parquet"
    write(old, [{k: v for k, v in PROMPT.items() if k != "window_size"} | {"isl": 1024}])
    frame = tables.rows("attention_prefill", "nvidia-h100-sxm-80gb", "VLLM 0.24.0")
    assert frame is not None
    assert sorted(frame["window"].to_list()) == [0, 0, 128]


@needs_reader
def test_a_call_with_a_window_is_bent_by_calls_with_that_window_alone(tables: Tables, write: Write, catalog: Catalog, tmp_path: Path) -> None:
    windowed = [{**PROMPT, "isl": n, "window_size": 128, "latency": 0.09} for n in (500, 520)]
    write("h100_sxm/attention/vllm/0.24.0/context_attention_perf.parquet", [*windowed, *({**PROMPT, "isl": n, "latency": 9.0} for n in (500, 520))])
    file = tmp_path / "attention_prefill.csv"
    header = "chip,dtype,kv_dtype,batch_size,new_tokens,past_tokens,num_heads,num_kv_heads,head_dim,window,engine,kernel,seconds"
    file.write_text(
        f"{header}\nh100,bf16,fp8,1,512,0,32,8,128,128,VLLM 0.24.0,fa3,9e-5\nh100,bf16,fp8,1,512,0,32,8,128,,VLLM 0.24.0,fa3,9e-3\n", encoding="utf-8"
    )
    found = operators(file, tier="measured", leave_out=None, calibrate_points=0, catalog=catalog, measured=tables)
    assert [r.predicted_s for r in found.rows] == [pytest.approx(9e-5, rel=0.1), pytest.approx(9e-3, rel=0.1)]


@needs_reader
def test_a_step_of_decoding_reads_the_tokens_before_it_and_its_own(tables: Tables, write: Write) -> None:
    write("h100_sxm/attention/vllm/0.24.0/generation_attention_perf.parquet", [{**PROMPT, "isl": 1, "step": 1023}])
    assert only(tables, "attention_decode", "nvidia-h100-sxm-80gb", "VLLM 0.24.0")["kv_tokens"] == 1024


@needs_reader
def test_of_repeated_runs_the_fastest_counts_even_across_files(tables: Tables, write: Write) -> None:
    write(GEMM, [{**PRODUCT, "latency": 0.013}, PRODUCT])
    write("h100_sxm/gemm/vllm/0.25.0/gemm_perf.parquet", [{**PRODUCT, "latency": 0.014}])
    row = only(tables, *H100)
    assert (row["seconds"], row["_line"], row["source"]) == (pytest.approx(1.2e-5), 2, GEMM)


# bad tables


@needs_reader
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{k: v for k, v in PRODUCT.items() if k != "k"}], "column k is missing"),
        ([{k: v for k, v in PRODUCT.items() if k != "version"}], "column version is missing"),
        ([PRODUCT, {**PRODUCT, "m": 256, "latency": -0.01}], "row 2, column latency: -0.01"),
        ([PRODUCT, {**PRODUCT, "m": 256, "latency": 0.0}], "row 2, column latency: 0"),
        ([PRODUCT, {**PRODUCT, "m": 256, "latency": 2e7}], "row 2, column latency: 2e.07 would be 20000 s"),
        ([PRODUCT, {**PRODUCT, "m": 256, "latency": math.nan}], "row 2, column latency: nan"),
        ([PRODUCT, {**PRODUCT, "m": 256, "latency": None}], "row 2, column latency: None"),
        ([PRODUCT, {**PRODUCT, "m": -256}], "row 2, column m: -256"),
        ([{**PRODUCT, "latency": "soon"}], "column latency holds String"),
        ([PRODUCT, {**PRODUCT, "latency": 12.0}], "row 1 holds the same call as row 2"),
    ],
)
def test_a_bad_table_is_named_with_its_row(rows: list[dict[str, Any]], message: str, tables: Tables, write: Write) -> None:
    path = write(GEMM, rows)
    with pytest.raises(EvidenceError, match=message) as problem:
        tables.rows(*H100)
    assert str(path) in str(problem.value)


@needs_reader
def test_a_file_that_is_no_table_is_named(tables: Tables, tmp_path: Path) -> None:
    (tmp_path / GEMM).parent.mkdir(parents=True)
    (tmp_path / GEMM).write_text("no table", encoding="utf-8")
    with pytest.raises(EvidenceError, match=r"gemm_perf.parquet: cannot be read"):
        tables.rows(*H100)


@needs_reader
def test_an_unknown_width_is_an_error(tables: Tables, write: Write) -> None:
    write("h100_sxm/comm/nccl/2.27.3/nccl_perf.parquet", [{**REDUCE, "nccl_dtype": "posit"}])
    with pytest.raises(EvidenceError, match="row 1: the width of 'posit' is unknown"):
        tables.rows("collective", "nvidia-h100-sxm-80gb", "nccl 2.27.3")


# the measured tier


@needs_reader
@pytest.mark.parametrize("chip", ["nvidia-b300", "nvidia-gb300"])
def test_tables_of_held_out_chips_are_refused(chip: str, tables: Tables, write: Write) -> None:
    write(f"{chip.removeprefix('nvidia-')}{'_sxm' if chip == 'nvidia-b300' else ''}/gemm/vllm/0.24.0/gemm_perf.parquet", [PRODUCT])
    with pytest.raises(EvidenceError, match=f"{chip}: its measured tables are held out"):
        tables.rows("gemm", chip, "VLLM 0.24.0")


@needs_reader
def test_a_held_out_chip_is_answered_without_its_table(tables: Tables, write: Write, catalog: Catalog, tmp_path: Path) -> None:
    write("b300_sxm/gemm/vllm/0.24.0/gemm_perf.parquet", [{**PRODUCT, "m": m, "latency": 0.1} for m in (64, 128, 256)])
    file = scored_file(tmp_path, chip="b300")
    asked = {"leave_out": None, "calibrate_points": 0, "catalog": catalog}
    with_table = operators(file, tier="measured", measured=tables, **asked)  # type: ignore[arg-type]
    without = operators(file, tier="calibrated", **asked)  # type: ignore[arg-type]
    assert with_table.rows[0].predicted_s == without.rows[0].predicted_s
    assert any("nvidia-b300: measured tables are held out" in n for n in with_table.notes)


@needs_reader
def test_a_call_meets_its_neighbours_and_never_itself(tables: Tables, write: Write, catalog: Catalog, tmp_path: Path) -> None:
    neighbours = [{**PRODUCT, "m": m, "latency": 0.0303} for m in (120, 136)]
    write(GEMM, [*neighbours, {**PRODUCT, "latency": 0.06}])
    found = operators(scored_file(tmp_path), tier="measured", leave_out=None, calibrate_points=0, catalog=catalog, measured=tables)
    assert found.rows[0].predicted_s == pytest.approx(3.03e-5, rel=0.05)
    assert f"measured tables of test tables 1.0, gemm: {GEMM}" in found.notes


@needs_reader
def test_only_rows_near_a_call_become_samples(tables: Tables, write: Write, catalog: Catalog) -> None:
    write(GEMM, [{**PRODUCT, "m": m} for m in range(1, 500)])
    row = {"dtype": "bf16", "m": "128", "n": "4096", "k": "4096", "kernel": "torch.nn.functional.linear"}
    near = tables.samples(*H100, [row], catalog)
    assert sorted(int(s.row["m"]) for s in near) == list(range(125, 125 + NEAR))
    assert tables.samples(*H100, [{**row, "dtype": "fp8"}], catalog) == []


@needs_package
def test_the_shipped_rows_are_a_sample_of_the_package(catalog: Catalog) -> None:
    tables = installed(catalog)
    assert tables is not None
    assert len(tables.listed()) > 100
    for path in shipped(catalog):
        with path.open(encoding="utf-8") as lines:
            firsts = {r["source"]: r for r in csv.DictReader(lines) if r["source"].endswith(".parquet")}
        for row in list(firsts.values())[:2]:
            near = tables.samples(path.stem, row["chip"], row["engine"], [row], catalog)
            same = [
                s
                for s in near
                if all(row[c] == s.row[c] or float(row[c]) == float(s.row[c]) for c in s.row if c in row and c not in ("seconds", "source", "apart"))
                and s.row.get("window", "0") == "0"
            ]
            assert len(same) == 1, row
            assert 0.2 < same[0].seconds / float(row["seconds"]) < 1.001, row
