"""Records that reload and show tampering, statistics that hold, kernels planted slow or wrong, devices that hang or lack memory."""

from __future__ import annotations

import copy
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from chipscale.bench.collectives import bus_factor, rows, told
from chipscale.bench.device import NO_TORCH, Device, HostWatch, opened, out_of_memory
from chipscale.bench.files import parsed, read, seal, sealed, text
from chipscale.bench.machine import identity
from chipscale.bench.physics import bounds
from chipscale.bench.record import Check, Measure, Note, Record
from chipscale.bench.runner import Opening, run
from chipscale.bench.settings import Settings
from chipscale.bench.statistics import interval, quantile, stable
from chipscale.bench.suite import SUITES
from chipscale.bench.suite import parsed as suite
from chipscale.bench.timing import Bench, Timed, flagged, measure, shrinking, timed
from chipscale.catalog import load
from chipscale.evidence import EvidenceError
from chipscale.facts.chip import Chip
from chipscale.report.bench import bench_screen

HERE = Path(__file__).parent / "bench"
REAL = HERE / "cpu-quick.json"
HOST = Device(kind="cpu", name="cpu", count=1, watch=HostWatch())
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed (pip install 'chipscale[bench]')")


def content() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(REAL.read_text())
    return found


def resealed(changed: dict[str, Any]) -> str:
    return json.dumps({**changed, "sha256": seal(changed)})


def screen(record: Record) -> str:
    console = Console(width=160, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(bench_screen(record))
    console.file.close()
    return console.export_text()


# records


def test_a_record_of_a_real_run_reloads() -> None:
    record = read(REAL)
    assert record.complete
    assert [t.name for t in record.trials] == ["matmul", "memory", "layers", "collectives", "block", "arithmetic", "learning"]
    assert parsed(text(record), "again") == record
    assert sealed(record).sha256 == record.sha256
    assert {m.case for m in record.of("peak_fp32")} >= {"fp32 achievable"}


def test_the_system_is_described_in_mlperfs_words() -> None:
    told_ = content()["system"]
    for field in (
        "system_name",
        "number_of_nodes",
        "host_processor_model_name",
        "host_memory_capacity",
        "accelerators_per_node",
        "accelerator_on-chip_memories",
        "framework",
    ):
        assert field in told_


def changed_sample(c: dict[str, Any]) -> None:
    c["trials"][0]["measures"][0]["samples"][0] /= 2


def changed_summary(c: dict[str, Any]) -> None:
    c["trials"][0]["measures"][0]["summary"]["value"] *= 2


def changed_verdict(c: dict[str, Any]) -> None:
    failed = c["trials"][5]["checks"][0]
    failed["value"] = failed["limit"] + 1.0


def above_physics(c: dict[str, Any]) -> None:
    m = c["trials"][0]["measures"][0]
    m["samples"][0] = m["work"] / (2 * m["bound"])


def no_time(c: dict[str, Any]) -> None:
    c["trials"][0]["measures"][0]["samples"][0] = 0.0


def unknown_field(c: dict[str, Any]) -> None:
    c["identity"]["colour"] = "green"


def no_summary(c: dict[str, Any]) -> None:
    del c["trials"][0]["measures"][0]["summary"]


def newer(c: dict[str, Any]) -> None:
    c["schema_version"] = 2


def older(c: dict[str, Any]) -> None:
    c["schema_version"] = 0


def of_another_tool(c: dict[str, Any]) -> None:
    c["format"] = "other"


def test_a_changed_record_is_detected() -> None:
    changed = content()
    changed_sample(changed)
    with pytest.raises(EvidenceError, match=r"field sha256: says .* was changed"):
        parsed(json.dumps(changed), "r.json")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (changed_sample, r"trials.0.measures.0.summary: does not follow"),
        (changed_summary, r"trials.0.measures.0.summary: does not follow"),
        (changed_verdict, r"trials.5.checks.0.passed: does not follow"),
        (above_physics, r"lies above the bound"),
        (no_time, r"finite and positive"),
        (unknown_field, r"identity.colour"),
        (no_summary, r"summary: does not follow"),
        (newer, r"schema_version: is 2.*newer chipscale"),
        (older, r"schema_version: is 0.*measure again"),
        (of_another_tool, r"field format"),
    ],
)
def test_a_resealed_forgery_is_refused_with_its_field(change: Callable[[dict[str, Any]], None], why: str) -> None:
    changed = content()
    change(changed)
    with pytest.raises(EvidenceError, match=why) as refused:
        parsed(resealed(changed), "r.json")
    assert str(refused.value).startswith("r.json: ")


@pytest.mark.parametrize("bad", ["", "[]", "{}", "null", '{"format": "chipscale-bench"}', "not json", '{"format": NaN}', "[" * 100_000])
def test_foreign_text_is_refused(bad: str) -> None:
    with pytest.raises(EvidenceError, match=r"r\.json"):
        parsed(bad, "r.json")


def test_a_truncated_or_missing_file_is_refused(tmp_path: Path) -> None:
    (cut := tmp_path / "cut.json").write_text(REAL.read_text()[:5000])
    with pytest.raises(EvidenceError, match="cut short"):
        read(cut)
    with pytest.raises(EvidenceError, match="cannot be read"):
        read(tmp_path / "none.json")
    (binary := tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EvidenceError, match="cannot be read"):
        read(binary)


def spots(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    return [path, *(p for key, v in inner for p in spots(v, (*path, key)))]


SPOTS = [p for p in spots(content()) if p and p[0] != "sha256"]


@settings(max_examples=150, deadline=None)
@given(spot=st.sampled_from(SPOTS), value=st.sampled_from([None, True, -1, 0, 1e308, "x", [], {}, [1], {"a": 1}]))
def test_any_change_of_any_field_is_one_message_or_harmless(spot: tuple[Any, ...], value: Any) -> None:
    changed = copy.deepcopy(content())
    at = changed
    for key in spot[:-1]:
        at = at[key]
    at[spot[-1]] = value
    try:
        parsed(resealed(changed), "r.json")
    except EvidenceError as problem:
        assert str(problem).startswith("r.json: ")


# statistics


def test_the_interval_of_a_median_covers_it() -> None:
    draw = random.Random(0)
    for n in (6, 11, 30, 200):
        hits = 0
        for _ in range(400):
            low, high = interval(sorted(draw.lognormvariate(0, 1) for _ in range(n)))
            hits += low <= 1.0 <= high
        assert hits / 400 > 0.93


@given(st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=60))
def test_a_median_lies_in_its_interval(samples: list[float]) -> None:
    ordered = sorted(samples)
    low, high = interval(ordered)
    assert ordered[0] <= low <= quantile(ordered, 0.5) <= high <= ordered[-1]


def test_sampling_stops_when_stable_and_when_the_time_is_over() -> None:
    assert stable([1.0] * 10, 0.01, 10)
    steady = timed([lambda: time.sleep(0.002)], HOST, 20.0, tolerance=0.2)
    assert steady.stop == "stable"
    draw = random.Random(1)
    start = time.perf_counter()
    wild = timed([lambda: time.sleep(0.02 * draw.random() ** 4)], HOST, 0.5, tolerance=1e-6)
    assert wild.stop == "budget"
    assert time.perf_counter() - start < 2.0


def test_samples_above_the_bound_are_kept_apart() -> None:
    found = measure(
        "t", "c", "FLOP/s", Timed(samples=(1.0, 1.0, 0.1), calls=1, stop="budget"), work=10.0, settings={}, bound=20.0, bound_source="claim"
    )
    assert found.samples == (1.0, 1.0)
    assert found.flagged == (0.1,)
    assert found.summary is not None
    assert found.summary.value == 10.0
    (note,) = flagged(found)
    assert isinstance(note, Note)
    assert note.kind == "above-physics"
    all_above = measure("t", "c", "FLOP/s", Timed(samples=(0.1,), calls=1, stop="budget"), work=10.0, settings={}, bound=20.0, bound_source="claim")
    assert all_above.summary is None


def test_claims_of_a_chip_bound_the_samples() -> None:
    chip = load().chip("h100")
    assert isinstance(chip, Chip)
    found = bounds(read(REAL).identity, chip)
    assert found.peaks["bf16"] == chip.value("peak_bf16")
    assert found.memory == chip.value("memory_bandwidth")
    own = bounds(read(REAL).identity)
    assert own.peaks["fp32"] > max(v for m in read(REAL).of("peak_fp32") for v in m.values())


# memory that does not suffice


def test_what_does_not_fit_is_halved_and_said() -> None:
    def attempt(size: int) -> int:
        if size > 100:
            raise MemoryError("CUDA out of memory")
        return size

    made, notes = shrinking(attempt, 1000, 10, "case", HOST)
    assert made == 62
    assert [n.kind for n in notes] == ["out-of-memory"] * 4
    none, notes = shrinking(attempt, 1000, 500, "case", HOST)
    assert none is None
    assert "not measured" in notes[-1].text


def test_other_errors_are_not_taken_for_memory() -> None:
    def attempt(_size: int) -> int:
        raise RuntimeError("illegal instruction")

    with pytest.raises(RuntimeError, match="illegal"):
        shrinking(attempt, 10, 1, "case", HOST)


@needs_torch
def test_pytorchs_own_refusal_is_understood() -> None:
    import torch

    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60)
    assert out_of_memory(refused.value)


# suites


def test_suites_are_read_and_bounded() -> None:
    for name in SUITES:
        found = suite(load().text(f"bench/{name}.toml"), name)
        assert found.name == name
        assert {t.name for t in found.test} == {"matmul", "memory", "layers", "collectives", "block", "arithmetic", "learning"}
    assert suite(load().text("bench/quick.toml"), "quick").seconds("cpu") < 150


def test_a_bad_suite_is_refused() -> None:
    with pytest.raises(EvidenceError, match="malformed TOML"):
        suite("name =", "x.toml")
    with pytest.raises(EvidenceError, match=r"x\.toml: field patience"):
        suite('name = "x"\ntest = []', "x.toml")
    with pytest.raises(EvidenceError, match="--only nothing: no such test"):
        suite(load().text("bench/quick.toml"), "quick").only(["nothing"])


@pytest.mark.parametrize(
    ("values", "why"), [({}, "is missing"), ({"size": "x"}, "positive number"), ({"size": -1}, "positive"), ({"size": 1.5}, "whole")]
)
def test_a_bad_setting_names_its_field(values: dict[str, Any], why: str) -> None:
    with pytest.raises(EvidenceError, match=f"test t: field size: .*{why}"):
        Settings(where="test t", values=values).integer("size")


# runs that go wrong


def planted(*names: str) -> str:
    entry = "budget = 0.5\nsettings = { size = 7 }"
    return 'name = "planted"\npatience = 1.5\n' + "".join(
        f'[[test]]\nname = "{n}"\nrun = "planted:{n}"\ntitle = "{n}"\n[test.cpu]\n{entry}\n' for n in names
    )


@needs_torch
def test_a_test_that_hangs_dies_or_fails_takes_nothing_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]))
    kept: list[Record] = []
    record = run(suite(planted("hangs", "dies", "fails", "fine"), "x"), Opening(kind="cpu"), ["test"], lambda _title, _share: None, kept.append)
    assert [(t.name, t.outcome) for t in record.trials] == [("hangs", "timeout"), ("dies", "failed"), ("fails", "failed"), ("fine", "complete")]
    assert [m.case for m in record.measures] == ["before it hangs", "before it dies", "before it fails", "size 7"]
    assert "exit code 3" in record.trials[1].notes[0].text
    assert "the device said no" in record.trials[2].notes[0].text
    assert [len(r.trials) for r in kept] == [1, 2, 3, 4]
    assert not kept[0].complete
    assert parsed(text(kept[0]), "partial") == kept[0]
    assert "it hung and was ended" in screen(record)


@needs_torch
def test_an_interrupt_keeps_what_was_measured(tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    command = [sys.executable, "-m", "chipscale.cli", "bench", "--device", "cpu", "--only", "arithmetic", "--only", "learning", "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        if out.exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    record = read(out)
    assert record.trials[0].outcome == "complete"
    assert not record.complete
    assert "Traceback" not in err


def test_a_missing_device_is_one_message(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from chipscale.cli import main

    if find_spec("torch") is not None:
        import torch

        if torch.cuda.is_available():
            pytest.skip("a GPU is here")
    monkeypatch.setattr(sys, "argv", ["chipscale", "bench", "--device", "cuda"])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert (NO_TORCH if find_spec("torch") is None else "--device cuda: PyTorch") in said


@needs_torch
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--only", "x"), "--only x: no such test in suite quick"),
        (("--against", "910d"), "--against 910d: is a belief over 5 hypotheses"),
        (("--against", "nothing"), "unknown chip 'nothing'"),
        (("--out", "/no/such/folder/r.json"), "the folder /no/such/folder does not exist"),
    ],
)
def test_bad_options_are_one_message(
    arguments: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from chipscale.cli import main

    monkeypatch.setattr(sys, "argv", ["chipscale", "bench", "--device", "cpu", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert why in capsys.readouterr().err


def test_the_core_needs_no_torch() -> None:
    code = "import sys, chipscale, chipscale.cli, chipscale.bench.runner, chipscale.bench.files; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_screen_shows_every_test_and_what_to_know() -> None:
    shown = screen(read(REAL))
    for part in ("matrix products", "transformer blocks", "busbw", "checks passed", "held for 2 s", "1/16 of the model's"):
        assert part in shown
    record = read(REAL)
    wrong = Check(test="arithmetic", case="planted", value=2.0, limit=1.0, unit="times", settings={})
    broken = replace(record, trials=(replace(record.trials[5], checks=(wrong,)),))
    assert "0 of 1 checks passed" in screen(broken)
    assert "failed  arithmetic, planted: 2, at most 1 times" in screen(broken)


def test_a_claim_is_shown_as_a_share_and_fits_the_screen() -> None:
    record = read(REAL)
    claimed = tuple(replace(m, bound=2 * m.summary.value, bound_source="claimed of h100") for m in record.trials[0].measures if m.summary)
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(bench_screen(replace(record, trials=(replace(record.trials[0], measures=claimed),))))
    console.file.close()
    shown = console.export_text()
    assert "50 %" in shown
    assert "…" not in shown


# planted kernels


@pytest.fixture
def bench() -> Bench:
    pytest.importorskip("torch").set_num_threads(1)
    device = opened("cpu")
    known = identity(device)
    return Bench(device=device, cache_bytes=known.cache_bytes or 2**23, memory_bytes=known.memory_bytes, bounds=bounds(known), budget=2.0)


def test_a_slow_product_is_caught(bench: Bench) -> None:
    from chipscale.bench.matmul import compared, honest, kernels, made

    plain = kernels("cpu")["fp32"]
    assert plain.other is not None

    def thrice(a: Any, b: Any) -> Any:
        plain.call(a, b)
        plain.call(a, b)
        return plain.call(a, b)

    slow = compared(bench, replace(plain, call=thrice), plain.call, (256, 256, 256), 0.5)
    assert not slow.passed
    assert slow.value > 2
    assert honest(bench, "fp32", made(bench, plain, (256, 256, 256))).passed


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_a_wrong_product_is_caught(bench: Bench, precision: str) -> None:
    from chipscale.bench.arithmetic import product
    from chipscale.bench.matmul import kernels

    plain = kernels(bench.device.name)[precision]
    right = [c for c in product(plain, 64) if isinstance(c, Check)]
    assert right
    assert all(c.passed for c in right)

    def off(a: Any, b: Any) -> Any:
        out = plain.call(a, b).clone()
        out[5, 7] += int(out.abs().max()) + 1
        return out

    assert not all(c.passed for c in product(replace(plain, call=off), 64) if isinstance(c, Check))


def test_nan_out_of_a_product_is_caught(bench: Bench) -> None:
    from chipscale.bench.arithmetic import product
    from chipscale.bench.matmul import kernels

    plain = kernels(bench.device.name)["fp32"]
    found = [c for c in product(replace(plain, call=lambda a, b: plain.call(a, b) * math.nan), 64) if isinstance(c, Check)]
    assert not found[0].passed
    assert math.isfinite(found[0].value)


def test_a_wrong_copy_is_caught(bench: Bench) -> None:
    from chipscale.bench.memory import kernels, stream

    copy_ = kernels()["copy"]
    assert all(c.passed for c in stream(bench, copy_, 2**16, 0.1) if isinstance(c, Check))
    half = replace(copy_, call=lambda a, _b, c: c[: len(c) // 2].copy_(a[: len(a) // 2]) is not None and c)
    assert not all(c.passed for c in stream(bench, half, 2**16, 0.1) if isinstance(c, Check))


def test_a_product_that_forgets_a_weight_learns_less(bench: Bench) -> None:
    import torch
    from torch.nn.functional import linear

    from chipscale.bench.learning import compared

    good = [e for e in compared(bench.device.name, torch.bfloat16, 40, 30.0, linear) if isinstance(e, Check)]
    assert good[0].passed
    bad = [e for e in compared(bench.device.name, torch.bfloat16, 40, 30.0, lambda x, w: linear(x, 0.25 * w)) if isinstance(e, Check)]
    assert not bad[0].passed


def test_every_kernel_gives_one_measure_of_what_it_says(bench: Bench) -> None:
    from chipscale.bench.matmul import kernels, rates

    found = list(rates(bench, kernels("cpu")["fp32"], [(64, 64, 64), (128, 128, 128)], 1.0, idle=0.01))
    achievable, sustained = (m for m in found if isinstance(m, Measure))
    assert achievable.work == 2 * 128**3 or achievable.work == 2 * 64**3
    assert achievable.quantity == "peak_fp32"
    assert sustained.statistic == "highest"
    assert sum(sustained.samples) > 0


# collectives


def test_bus_factors_are_those_of_nccl_tests() -> None:
    assert bus_factor("all_reduce", 8) == 1.75
    assert bus_factor("reduce_scatter", 8) == bus_factor("alltoall", 8) == 0.875
    assert bus_factor("broadcast", 8) == bus_factor("reduce", 8) == bus_factor("sendrecv", 8) == 1


@needs_torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("n", [2, 3])
def test_an_all_reduce_of_processes_has_the_right_bus_bandwidth(n: int) -> None:
    (row,) = rows("cpu", n, ("all_reduce",), (49152,), 1.0)
    assert not isinstance(row, Note)
    assert (row.size, row.count, row.redop, row.wrong) == (49152, 12288, "sum", 0)
    found, right = told(row, n, "gloo")
    assert isinstance(found, Measure)
    assert isinstance(right, Check)
    assert right.passed
    assert found.settings["bus_factor"] == 2 * (n - 1) / n
    assert found.summary is not None
    assert found.summary.value == pytest.approx(2 * (n - 1) / n * row.size / quantile(sorted(row.seconds), 0.5), rel=0.05)


# blocks


@needs_torch
def test_blocks_have_the_parameters_of_their_models() -> None:
    from chipscale.bench.transformer import layer_of, shapes

    catalog = load()
    llama = layer_of(catalog.model("meta-llama/Meta-Llama-3.1-8B"), 1, 1)
    assert sum(math.prod(s) for s in shapes(llama).values()) == 218_112_000
    deepseek = layer_of(catalog.model("deepseek-ai/DeepSeek-V3"), 1, 256)
    counted = sum(math.prod(s) for s in shapes(deepseek).values())
    assert counted == pytest.approx(11.5e9, rel=0.01)


@needs_torch
def test_a_block_sees_no_later_token() -> None:
    import torch
    from torch.nn.functional import linear

    from chipscale.bench.transformer import forward, layer_of, parameters

    for name in ("meta-llama/Meta-Llama-3.1-8B", "deepseek-ai/DeepSeek-V3"):
        layer = layer_of(load().model(name), 16, 4)
        weights = parameters(layer, "cpu", torch.float32)
        x = torch.randn(1, 8, layer.d_model)
        later = x.clone()
        later[:, 5:] += 1.0
        with torch.no_grad():
            one, two = forward(layer, x, weights, linear), forward(layer, later, weights, linear)
        assert torch.allclose(one[:, :5], two[:, :5], atol=1e-5)
        assert not torch.allclose(one[:, 5:], two[:, 5:], atol=1e-2)


def test_a_block_of_another_kind_is_refused() -> None:
    from chipscale.bench.transformer import layer_of

    with pytest.raises(EvidenceError, match="cannot be run here"):
        layer_of(load().model("deepseek-ai/DeepSeek-V4-Flash"), 1, 8)


# a real accelerator


@needs_torch
def test_a_gpu_gives_a_full_record(tmp_path: Path) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no GPU is here")
    out = tmp_path / "r.json"
    command = [sys.executable, "-m", "chipscale.cli", "bench", "--device", "cuda", "--only", "memory", "--only", "arithmetic", "--out", str(out)]
    subprocess.run(command, check=True, timeout=300)
    record = read(out)
    assert [t.outcome for t in record.trials] == ["complete", "complete"]
    assert record.of("memory_bandwidth")
    assert all(c.passed for c in record.checks)
