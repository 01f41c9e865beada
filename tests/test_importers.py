"""Other tools' outputs become records: what each says, what is refused, and that nothing is read into it."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from chipscale.bench.collectives import Row, bus_factor, rows, told
from chipscale.bench.files import parsed, read, text
from chipscale.bench.record import Measure, Record
from chipscale.catalog import load
from chipscale.cli import app
from chipscale.evidence import EvidenceError
from chipscale.importers.mlperf import FOOTNOTE
from chipscale.importers.reading import IMPORTERS, imported
from chipscale.report.imported import imported_screen
from chipscale.verify import verify

HERE = Path(__file__).parent / "imports"
REAL = Path(__file__).parent / "bench" / "cpu-quick.json"
HCCL = {"operation": "all_reduce", "ranks": "128"}
KINDS = {
    "rccl_all_reduce.txt": "nccl-tests", "rccl_alltoall.txt": "nccl-tests", "nccl_two_gpus.txt": "nccl-tests", "hccl_all_reduce.txt": "hccl_test",
    "hccl_sweep.txt": "hccl_test", "hccl_128.txt": "hccl_test", "mamf.txt": "mamf-finder", "mamf_header.txt": "mamf-finder", "mamf_old.txt": "mamf-finder",
    "vllm_serve.json": "vllm-serve", "aiperf.json": "aiperf", "torchtitan.txt": "torchtitan", "torchtitan_grad_norm.txt": "torchtitan", "megatron.txt": "megatron",
    "megatron_steps.txt": "megatron", "mlperf.txt": "mlperf", "nvidia_smi_q.txt": "smi", "npu_smi.txt": "smi", "npu_smi_board.txt": "smi",
}  # fmt: skip


def of(name: str, **more: str) -> Record:
    return imported(HERE / name, told=more)


def case(record: Record, name: str) -> Measure:
    return [m for m in record.measures if m.case == name][-1]


def value(record: Record, name: str) -> float:
    found = case(record, name).summary
    assert found is not None
    return found.value


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_every_kind_is_known_by_its_content_alone(name: str, kind: str, tmp_path: Path) -> None:
    renamed = tmp_path / "some.output"
    renamed.write_bytes((HERE / name).read_bytes())
    record = imported(renamed, told=HCCL if kind == "hccl_test" else {})
    assert record.suite == f"imported: {kind}"
    assert record.versions["importer"] == kind
    assert parsed(text(record), "again") == record, "a record that was imported reloads"
    assert [i.kind for i in IMPORTERS if i.recognises((HERE / name).read_text())] == [kind], "no other tool claims it"


def test_all_fixtures_are_sourced() -> None:
    said = (HERE / "README.md").read_text()
    assert all(f"`{p.name}`" in said for p in HERE.iterdir() if p.name != "README.md")
    assert set(KINDS) == {p.name for p in HERE.iterdir()} - {"README.md"}


# --- collectives ---


def test_nccl_bandwidths_follow_from_times() -> None:
    record = of("rccl_all_reduce.txt")
    assert value(record, "all_reduce") == pytest.approx(322.36e9, rel=1e-3)
    assert value(record, "all_reduce, in place") == pytest.approx(321.85e9, rel=1e-3)
    assert case(record, "all_reduce").settings["bus_factor"] == bus_factor("all_reduce", 8)
    assert record.identity.count == 8
    assert record.identity.vendor == "AMD"
    assert {m.quantity for m in record.measures} == {"scaleup_bandwidth"}
    two = of("nccl_two_gpus.txt")
    assert (two.identity.name, two.versions["nccl"]) == ("NVIDIA A100-SXM4-80GB", "2.20.5+cuda12.4")
    assert value(two, "all_reduce") == pytest.approx(192.43e9, rel=1e-3)


def test_nccl_without_ranks_takes_the_factor_that_was_printed() -> None:
    record = of("rccl_alltoall.txt")
    assert value(record, "alltoall") == pytest.approx(268.26e9, rel=1e-3)
    assert not any(m.settings["size"] == 0 for m in record.measures)


def test_a_table_over_two_hosts_says_nothing_of_links_inside(tmp_path: Path) -> None:
    moved = (HERE / "nccl_two_gpus.txt").read_text().replace("on 3767c65d25c4 device  1", "on other device  1")
    (tmp_path / "t").write_text(moved)
    assert {m.quantity for m in imported(tmp_path / "t").measures} == {""}


@pytest.mark.parametrize(("name", "old", "new"), [("rccl_all_reduce.txt", "322.36", "422.36"), ("hccl_128.txt", "102.82543", "142.82543")])
def test_a_changed_table_is_refused(tmp_path: Path, name: str, old: str, new: str) -> None:
    (tmp_path / "t").write_text((HERE / name).read_text().replace(old, new))
    with pytest.raises(EvidenceError, match="size and time give"):
        imported(tmp_path / "t", told=HCCL)


def test_hccl_bus_bandwidth_is_computed_by_the_factor() -> None:
    record = of("hccl_128.txt", **HCCL)
    assert value(record, "all_reduce") == pytest.approx(102.82543e9 * 2 * 127 / 128, rel=1e-4)
    own = of("hccl_all_reduce.txt")
    assert own.identity.count == 16
    assert value(own, "all_reduce") == pytest.approx(2.09715e9 * 2 * 15 / 16, rel=1e-4)
    assert value(of("hccl_sweep.txt", **HCCL), "all_reduce") == pytest.approx(8192 / 764.55e-6 * 2 * 127 / 128, rel=1e-4)
    with pytest.raises(EvidenceError, match="--set operation=all_reduce --set ranks=8"):
        of("hccl_128.txt")


def table(found: list[Row], n: int) -> str:
    """Print rows as nccl-tests do."""
    lines = [f"# Collective test starting: {found[0].operation}_perf", "# nThread 1 nGpus 1"]
    lines += [f"#  Rank {i:2d} Group  0 Pid 1 on host device {i:2d} [0x00] processor" for i in range(n)]
    lines += [
        "#       size         count      type   redop    root     time   algbw   busbw #wrong",
        "#        (B)    (elements)   (us)  (GB/s)  (GB/s)",
    ]
    for r in found:
        seconds = sorted(r.seconds)[len(r.seconds) // 2]
        algorithm = r.size / seconds / 1e9
        lines.append(
            f"{r.size:12d} {r.count:12d} float {r.redop} -1 {seconds * 1e6:.2f} {algorithm:.2f} {algorithm * bus_factor(r.operation, n):.2f} {r.wrong}"
        )
    return "\n".join([*lines, "# Avg bus bandwidth    : 1", ""])


def test_what_gloo_measured_in_the_shipped_record_reads_the_same_through_the_table(tmp_path: Path) -> None:
    measured = [m for m in read(REAL).measures if m.test == "collectives"]
    assert measured
    for operation in {m.case for m in measured}:
        own = [m for m in measured if m.case == operation]
        found = [Row(operation=operation, size=int(m.settings["size"]), count=int(m.settings["count"]), redop=str(m.settings["redop"]), seconds=m.samples,
                     wrong=int(m.settings["wrong"])) for m in own]  # fmt: skip
        (tmp_path / operation).write_text(table(found, 2))
        again = imported(tmp_path / operation)
        for a, b in zip(own, again.measures, strict=True):
            assert a.summary is not None
            assert b.summary is not None
            assert b.summary.value == pytest.approx(a.summary.value, rel=0.02)


@pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed (pip install 'chipscale[bench]')")
def test_two_gloo_processes_read_the_same_through_the_table(tmp_path: Path) -> None:
    found = [r for r in rows("cpu", 2, ("all_reduce",), (65536,), 2.0) if isinstance(r, Row)]
    (tmp_path / "t").write_text(table(found, 2))
    own = next(m for r in found for m in told(r, 2, "gloo") if isinstance(m, Measure))
    assert own.summary is not None
    assert value(imported(tmp_path / "t"), "all_reduce") == pytest.approx(own.summary.value, rel=0.05)


# --- products, serving, training ---


def test_mamf_counts_the_median_and_knows_the_device() -> None:
    record = of("mamf_header.txt")
    assert (record.identity.name, record.identity.units) == ("NVIDIA H100 80GB HBM3", 132)
    assert [m.case for m in record.of("peak_bf16")] == ["bf16 achievable"]
    assert value(record, "bf16 achievable") == pytest.approx(794.5e12, rel=1e-6)
    assert record.created == "2026-08-22T10:11:12"
    held = verify(load(), record, "r")
    assert held.chip == "nvidia-h100-sxm-80gb"
    assert next(j for j in held.subjects[0].claims if j.quantity == "peak_bf16").verdict == "holds"
    assert value(of("mamf_old.txt"), "bf16 achievable") == pytest.approx(119.1e12)
    assert value(of("mamf.txt"), "bf16 max") == pytest.approx(22.6e12)


def test_vllm_latencies_are_seconds_and_lost_requests_are_seen(tmp_path: Path) -> None:
    record = of("vllm_serve.json")
    assert value(record, "ttft, median") == pytest.approx(98.94e-3, rel=1e-3)
    assert value(record, "output tokens") == pytest.approx(124.585, rel=1e-4)
    assert [c.passed for c in record.checks] == [False], "one of 200 requests failed"
    detailed = {**json.loads((HERE / "vllm_serve.json").read_text()), "ttfts": [0.1, 0.2, 0.3]}
    (tmp_path / "d.json").write_text(json.dumps(detailed))
    assert case(imported(tmp_path / "d.json"), "ttft, requests").samples == (0.1, 0.2, 0.3)


def test_aiperf_reads_each_metric_in_its_own_unit() -> None:
    record = of("aiperf.json")
    assert value(record, "ttft, p99") == pytest.approx(0.8124)
    assert case(record, "ttft, p99").unit == "s"
    assert value(record, "requests, mean") == pytest.approx(9.8947, rel=1e-4)
    assert record.versions["aiperf"].startswith("0.8")


def test_torchtitan_sets_the_first_step_apart() -> None:
    record = of("torchtitan.txt")
    assert case(record, "tokens a device").samples == (7034.0, 7022.0, 7014.0)
    assert value(record, "FLOP a device, by the tool's count") == pytest.approx(406.65e12)
    assert record.trials[0].notes[0].case == "step 1"
    other = of("torchtitan_grad_norm.txt")
    assert case(other, "tokens a device").samples == (6697.0, 6562.0)


def test_torchtitan_counts_a_step_once_and_ignores_colours(tmp_path: Path) -> None:
    lines = (HERE / "torchtitan.txt").read_text().splitlines()
    doubled = "\n".join(x for line in lines for x in (line, line.replace("[rank0]", "[rank1]").replace("step:", "\x1b[31mstep:\x1b[39m")))
    (tmp_path / "t").write_text(doubled)
    assert case(imported(tmp_path / "t"), "tokens a device").samples == (7034.0, 7022.0, 7014.0)


@given(st.lists(st.tuples(st.integers(2, 10**6), st.integers(1, 10**7), st.floats(0.01, 2000)), min_size=1, max_size=30, unique_by=lambda r: r[0]))
@settings(max_examples=40, deadline=None)
def test_lines_in_torchtitans_format_give_back_their_numbers(tmp_path_factory: pytest.TempPathFactory, found: list[tuple[int, int, float]]) -> None:
    lines = [f"[titan] 2025-06-04 08:51:58,557 - root - INFO - step: {s:2}  loss: 9.1000  grad_norm: 1.0000  memory: 30.99GiB(32.62%)  tps: {t:,}  "
             f"tflops: {f:,.2f}  mfu: 41.19%" for s, t, f in found]  # fmt: skip
    path = tmp_path_factory.mktemp("t") / "log"
    path.write_text("\n".join(lines))
    assert case(imported(path), "tokens a device").samples == tuple(float(t) for _, t, _ in sorted(found))


def test_megatron_reads_seconds_and_batch() -> None:
    record = of("megatron_steps.txt")
    assert case(record, "iteration").samples == (15.8, 15.639)
    assert case(record, "iteration").settings["global_batch_size"] == 2048
    assert value(of("megatron.txt"), "FLOP a device, by the tool's count") == pytest.approx(40.4e12)


def test_mlperf_stands_alone_with_its_footnote() -> None:
    record = of("mlperf.txt")
    assert value(record, "time to train") == pytest.approx(1279.241, abs=0.001)
    assert record.system.sw_notes == FOOTNOTE
    assert not any(m.quantity for m in record.measures), "it is held against no claim"
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(imported_screen(record))
    console.file.close()
    assert FOOTNOTE in console.export_text()


def test_smi_tells_who_it_is() -> None:
    known = of("nvidia_smi_q.txt").identity
    assert (known.name, known.count, known.driver, known.clock) == ("NVIDIA H100 80GB HBM3", 2, "565.57.01", 1980e6)
    assert known.memory_bytes == 81559 * 2**20
    assert verify(load(), of("nvidia_smi_q.txt"), "r").chip == "nvidia-h100-sxm-80gb"
    npu = of("npu_smi.txt").identity
    assert (npu.name, npu.count, npu.memory_bytes) == ("Ascend910B3", 2, 65536 * 2**20)
    assert of("npu_smi_board.txt").identity.units == 32


def test_the_soc_string_without_a_digit_is_no_proof_of_the_second_generation() -> None:
    from tests.records import ascend, record

    first = verify(load(), record(ascend("Ascend910B", 33.5, 32)), "r")
    assert first.chip == "huawei-ascend-910a"
    assert any("calls itself Ascend910B" in r for r in first.remarks)


# --- what is refused ---


@pytest.mark.parametrize("content", ["", "hello", "{}", '{"a": 1}', "[1, 2", "\x00\x01", "step: one loss: none"])
def test_foreign_text_is_refused_with_what_was_expected(tmp_path: Path, content: str) -> None:
    (tmp_path / "f").write_text(content)
    with pytest.raises(EvidenceError, match=r"no tool that is known: vllm-serve .*docs/import.md"):
        imported(tmp_path / "f")


@pytest.mark.parametrize("importer", IMPORTERS, ids=lambda i: i.kind)
def test_a_stated_kind_says_what_it_expects(tmp_path: Path, importer) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "f").write_text("nothing of the kind")
    with pytest.raises(EvidenceError, match="expected"):
        imported(tmp_path / "f", importer.kind)


@given(st.text(max_size=400))
@settings(max_examples=60, deadline=None)
def test_any_text_is_a_record_or_one_message(tmp_path_factory: pytest.TempPathFactory, content: str) -> None:
    path = tmp_path_factory.mktemp("t") / "f"
    path.write_text(content, encoding="utf-8", errors="replace")
    try:
        imported(path)
    except EvidenceError as problem:
        assert str(path) in str(problem)


@pytest.mark.parametrize("name", KINDS)
def test_a_truncated_output_is_a_record_or_one_message(tmp_path: Path, name: str) -> None:
    whole = (HERE / name).read_text()
    for cut in range(0, len(whole), max(len(whole) // 12, 1)):
        (tmp_path / "f").write_text(whole[:cut])
        try:
            imported(tmp_path / "f", told=HCCL)
        except EvidenceError as problem:
            assert "f" in str(problem)


def test_the_command_writes_a_record_that_verify_reads(tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    result = CliRunner().invoke(app, ["import", str(HERE / "mamf_header.txt"), "--out", str(out)])
    assert result.exit_code == 0
    assert read(out).identity.units == 132
    assert CliRunner().invoke(app, ["verify", str(out)]).exit_code == 0
    bad = CliRunner().invoke(app, ["import", str(HERE / "hccl_128.txt"), "--set", "colour=red"])
    assert "write operation=NAME" in str(bad.exception)
