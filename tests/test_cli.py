"""The command line: answers that are finite, and bad input that is one clear message, exit code 2 and no traceback."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from chipscale.catalog import load
from chipscale.cli import main
from chipscale.validate import SHIPPED

MIXTRAL = ("train", "Mixtral-8x7B-v0.1", "--on")
LLAMA = "Meta-Llama-3.1-8B"
CHIP = 'id = "my-chip"\nname = "Mine"\nvendor = "Me"\nfamily = "hopper"\ncluster = "dgx-h100"\n'
FACT = '[[fact]]\nquantity = "power"\nvalue = "700 W"\nsource = "mine"\n'
HYPOTHESIS = '[[hypothesis]]\nkey = "one"\ntitle = "t"\nweight = 1.0\nreason = "r"\nchip = "h100"\n'
CLUSTER = """id = "my-pod"\nname = "pod"\nchip = "any"\nnode = 8
[[tier]]\nname = "inner"\nsize = 8\nbandwidth = "300 GB/s"\nsource = "mine"\nlatency = "2 us"\ntopology = "switch"
"""
JOB = """id = "my-job"\ntitle = "t"\nphase = "train"\nmodel = "meta-llama/Meta-Llama-3.1-8B"\nchips = 64\nlength = 4096\nbatch = 128
tokens = "1T"\nprecisions = ["bf16"]
"""
FRAMEWORK = """id = "my-framework"\nname = "f"\nmatches = ["my framework"]\nsharding = "zero1"\nmaster_bytes = 12\ngradient_bytes = 4
source = "mine"\ndate = "2026"\n[since]\ntp_overlap = 2023\n[recompute]\nnone = 1.0
"""
SOURCE = '[mine]\nwhere = "my bench"\nkind = "measured"\ndate = "2026-11"\n'


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["chipscale", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        code = end.value.code
        return Result(code=0 if code is None else int(code), out=said.out, err=said.err)

    return call


def refused(result: Result, *words: str) -> None:
    """Assert exit code 2 and one message that holds all words."""
    assert result.code == 2
    assert result.out == ""
    assert "Traceback" not in result.err
    if result.err.startswith("Usage:"):
        assert len(result.err.splitlines()) <= 5
        assert "Error:" in result.err
    else:
        assert result.err.startswith("chipscale: ")
        assert len(result.err.splitlines()) == 1
    for word in words:
        assert word in result.err


def numbers(value: object) -> Iterator[float]:
    """Yield every number of a JSON value."""
    if isinstance(value, dict):
        for v in value.values():
            yield from numbers(v)
    elif isinstance(value, list):
        for v in value:
            yield from numbers(v)
    elif isinstance(value, int | float):
        yield float(value)


def parsed(text: str) -> object:
    """Read strict JSON: NaN and Infinity are no JSON."""

    def no(name: str) -> float:
        raise AssertionError(f"{name} is not JSON")

    value = json.loads(text, parse_constant=no)
    assert all(math.isfinite(n) for n in numbers(value))
    return value


# --- through the door: processes of their own


def process(*arguments: str) -> Result:
    done = subprocess.run(
        [sys.executable, "-m", "chipscale.cli", *arguments], capture_output=True, text=True, timeout=60, check=False, encoding="utf-8"
    )
    return Result(code=done.returncode, out=done.stdout, err=done.stderr)


def test_plain_chipscale_answers_the_founding_question() -> None:
    done = process()
    assert done.code == 0
    assert done.err == ""
    assert "910D" in done.out
    assert "H100" in done.out


def test_help_lists_the_commands() -> None:
    done = process("--help")
    assert done.code == 0
    for command in ("weigh", "train", "chips", "clusters", "models", "jobs", "report", "validate", "cite"):
        assert command in done.out


def test_bad_input_of_a_process_is_one_line_and_code_2() -> None:
    refused(process("chips", "nope"), "unknown chip 'nope'", "chipscale chips")


# --- names


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("chips", "nope"), ("unknown chip 'nope'", "chipscale chips lists them", "--catalog")),
        (("chips", "910x"), ("unknown chip '910x'", "did you mean")),
        (("models", "nope"), ("unknown model 'nope'", "chipscale models")),
        (("models", "Llama-3.1-405"), ("did you mean", "Llama-3.1-405B")),
        (("clusters", "nope"), ("unknown cluster 'nope'", "chipscale clusters")),
        (("weigh", "nope", "h100"), ("unknown chip 'nope'",)),
        (("weigh", "h100", "nope"), ("unknown chip 'nope'",)),
        (("weigh", "a100", "h100", "--job", "nope"), ("unknown job 'nope'", "chipscale jobs")),
        (("weigh", "910d", "h100", "--assume", "910d=nope"), ("'nope'", "quad-die")),
        (("weigh", "910d", "h100", "--assume", "910d"), ("--assume 910d", "CHIP=HYPOTHESIS")),
        (("weigh", "910d", "h100", "--assume", "910c=quad-die"), ("--assume 910c=quad-die", "not one of the chips")),
        (("weigh", "910d", "h100", "--assume", "910d=quad-die", "--assume", "910d=950-28"), ("--assume", "keep one")),
        ((*MIXTRAL, "nope:64"), ("unknown chip 'nope'",)),
        (("train", "nope", "--on", "h100:64"), ("unknown model 'nope'",)),
        ((*MIXTRAL, "h100:64", "--framework", "nope"), ("unknown framework 'nope'",)),
        (("cite", "nope"), ("unknown chip 'nope'",)),
        (("validate", "nonsense"), ("nonsense", "training")),
        (("nonsense",), ("nonsense",)),
    ],
)
def test_unknown_names(run: Run, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    refused(run(*arguments), *words)


# --- numbers


@pytest.mark.parametrize(
    "on", ["h100:0", "h100:-1", "h100", "h100:1e9", "h100:abc", "h100:", ":64", "h100:1.5", "h100:nan", "h100:99999999", "h100:²"]
)
def test_chip_counts_that_cannot_be(run: Run, on: str) -> None:
    refused(run(*MIXTRAL, on), f"--on {on}", "write")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("weigh", "a100", "h100", "--seed", "-1"), ("--seed",)),
        (("weigh", "a100", "h100", "--seed", "x"), ("--seed", "integer")),
        (("weigh", "a100", "h100", "--draws", "3"), ("--draws", "1024")),
        (("weigh", "a100", "h100", "--draws", "0"), ("--draws",)),
        (("weigh", "a100", "h100", "--match", "nonsense"), ("--match", "nonsense", "power")),
        (("--seed", "1", "jobs"), ("after the command",)),
        ((*MIXTRAL, "h100:64", "--tokens", "0T"), ("--tokens", "0T", "positive")),
        ((*MIXTRAL, "h100:64", "--tokens", "-1T"), ("--tokens", "-1T", "positive")),
        ((*MIXTRAL, "h100:64", "--tokens", "1,000,000,000T"), ("--tokens", "1000000T at most")),
        ((*MIXTRAL, "h100:64", "--tokens", "15"), ("--tokens", "unit is missing", "14.8T")),
        ((*MIXTRAL, "h100:64", "--tokens", "1T", "--pue", "0.5"), ("--pue 0.5", "from 1 to 4")),
        ((*MIXTRAL, "h100:64", "--tokens", "1T", "--pue", "nan"), ("--pue nan", "from 1 to 4")),
        ((*MIXTRAL, "h100:64", "--tokens", "1T", "--price", "-3"), ("--price -3", "dollars per chip and hour")),
        ((*MIXTRAL, "h100:64", "--tokens", "1T", "--price", "cheap"), ("--price",)),
        ((*MIXTRAL, "h100:64", "--tokens", "1T", "--mtbf", "0"), ("--mtbf 0", "hours between failures")),
        ((*MIXTRAL, "h100:64", "--tokens", "1T", "--electricity", "inf"), ("--electricity inf", "dollars per kWh")),
        ((*MIXTRAL, "h100:64", "--tokens", "1T", "--days", "0"), ("--days 0", "must be from")),
        ((*MIXTRAL, "h100:64", "--tokens", "1T", "--days", "1"), ("--days 1", "the fastest, take", "more chips")),
        ((*MIXTRAL, "h100:4", "--tokens", "1T", "--days", "1"), ("--days", "whole number of nodes")),
        ((*MIXTRAL, "h100:64", "--tokens", "1T", "--days", "9", "--plan", "tp=8"), ("--days", "--plan", "leave one out")),
        ((*MIXTRAL, "h100:64", "--price", "2"), ("--price", "--tokens 14.8T")),
        ((*MIXTRAL, "h100:64", "--tokens", ""), ("--tokens", "14.8T")),
        ((*MIXTRAL, "h100:64", "--tokens", "many"), ("many",)),
        ((*MIXTRAL, "h100:64", "--batch", "0"), ("--batch",)),
        ((*MIXTRAL, "h100:64", "--batch", "-5"), ("--batch",)),
        ((*MIXTRAL, "h100:64", "--length", "0"), ("--length",)),
        ((*MIXTRAL, "h100:64", "--top", "0"), ("--top",)),
        ((*MIXTRAL, "h100:64", "--precision", "fp99"), ("--precision fp99", "bf16")),
        ((*MIXTRAL, "h100:64", "--precision", ""), ("--precision", "bf16")),
        ((*MIXTRAL, "h100:64", "--precision", "int8"), ("--precision int8", "training", "bf16")),
        ((*MIXTRAL, "h100:64", "--precision", "mxfp8"), ("nvidia-h100-sxm-80gb", "no mxfp8", "fp8", "--precision")),
        ((*MIXTRAL, "h100:10000000"), ("dgx-h100 joins", "10,000,000", "take fewer")),
        ((*MIXTRAL, "a100:64", "--precision", "fp8"), ("nvidia-a100-sxm-80gb", "no fp8", "bf16", "--precision")),
        (("validate", "training", "--calibrate-points", "-1"), ("--calibrate-points",)),
        (("validate", "training", "--leave-out", "moon"), ("--leave-out", "source")),
    ],
)
def test_numbers_and_choices_that_cannot_be(run: Run, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    refused(run(*arguments), *words)


def test_matching_cost_needs_a_price(run: Run) -> None:
    refused(run("weigh", "910d", "h100", "--job", "train-llama-3.1-8b", "--match", "cost"), "--match cost", "price", "--catalog")


# --- plans


@pytest.mark.parametrize(
    ("model", "on", "plan", "words"),
    [
        (LLAMA, "h100:64", "tp=3", ("tp x pp x cp = 3", "64 chips")),
        (LLAMA, "h100:64", "tp=2,dp=8", ("16", "64 chips", "leave dp out")),
        (LLAMA, "h100:96", "tp=3", ("tp=3", "32 attention heads")),
        (LLAMA, "h100:64", "pp=64", ("pp=64", "32 layers")),
        (LLAMA, "h100:64", "tp=0", ("tp",)),
        (LLAMA, "h100:64", "tp=-2", ("tp='-2'", "whole number")),
        (LLAMA, "h100:64", "tp=two", ("tp='two'", "whole number")),
        (LLAMA, "h100:64", "xp=2", ("unknown degree 'xp'",)),
        (LLAMA, "h100:64", "tp=2,mb=0", ("micro_batch='0'", "from 1")),
        (LLAMA, "h100:64", "zero=9", ("zero1",)),
        (LLAMA, "h100:64", "tp=2,mb=7", ("does not divide a batch",)),
        (LLAMA, "h100:64", "ep=2", ("ep=2", "no experts")),
        (LLAMA, "h100:64", "tp=8,etp=2", ("etp=2", "no experts")),
        (LLAMA, "h100:64", "tp=2,tp=4", ("tp stands twice", "keep one")),
        (LLAMA, "h100:64", "tp=99999999999", ("tp='99999999999'", "999,999,999")),
        (LLAMA, "h100:64", "recompute=3", ("recompute='3'", "selective")),
        ("Mixtral-8x7B-v0.1", "h100:96", "ep=3", ("ep=3", "8 experts")),
        (LLAMA, "h100:64", "tp=2,recompute=most", ("recompute", "selective")),
    ],
)
def test_plans_that_cannot_be(run: Run, model: str, on: str, plan: str, words: tuple[str, ...]) -> None:
    refused(run("train", model, "--on", on, "--plan", plan), "plan", *words)


def test_a_plan_that_does_not_fit_names_the_nearest_that_does(run: Run) -> None:
    found = run("train", "Mixtral-8x7B-v0.1", "--on", "h100:64", "--plan", "tp=1,mb=1,zero=none")
    refused(found, "--plan", "more than the", "usable", "largest:", "the nearest plan that fits is ")
    named = found.err.rsplit("the nearest plan that fits is ", 1)[1].strip()
    assert run("train", "Mixtral-8x7B-v0.1", "--on", "h100:64", "--plan", named).code == 0
    near = found.err.strip().partition("the nearest plan that fits is ")[2]
    again = run(
        "train", "Mixtral-8x7B-v0.1", "--on", "h100:64", "--json", "--plan", ",".join(f"zero={p}" if "=" not in p else p for p in near.split(","))
    )
    assert again.code == 0, again.err


def test_a_plan_where_none_fits_says_so(run: Run) -> None:
    refused(run("train", "Llama-3.1-405B", "--on", "h100:64", "--plan", "tp=8"), "more than the", "no plan on these chips fits")


def test_a_model_that_no_plan_fits_says_by_how_much(run: Run) -> None:
    refused(run("train", "DeepSeek-V3", "--on", "h100:8"), "does not fit", "over the", "use more chips")


# --- files of the user


def catalog(tmp_path: Path, chip: str, source: str = SOURCE) -> Path:
    for kind, name, text in (("chips", "my-chip", chip), ("sources", "mine", source)):
        (tmp_path / kind).mkdir(exist_ok=True)
        (tmp_path / kind / f"{name}.toml").write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("chip", "words"),
    [
        (CHIP + FACT.replace("700 W", "700"), ("my-chip.toml", "fact.power", "unit is missing")),
        (CHIP + FACT.replace("700 W", "700 GB"), ("my-chip.toml", "fact.power", "unit")),
        (CHIP + FACT.replace("700 W", "-700 W"), ("my-chip.toml", "fact.power", "-700 W")),
        (CHIP + FACT.replace("700 W", "0 W"), ("my-chip.toml", "fact.power", "positive")),
        (CHIP + FACT.replace("700 W", "nan W"), ("my-chip.toml", "fact.power")),
        (CHIP + FACT.replace("700 W", "1e999 W"), ("my-chip.toml", "fact.power", "finite")),
        (CHIP + FACT.replace('source = "mine"\n', ""), ("my-chip.toml", "source", "required")),
        (CHIP + FACT.replace('"mine"', '"nowhere"'), ("my-chip.toml", "'nowhere'", "sources/")),
        (CHIP + FACT.replace('"power"', '"powr"'), ("my-chip.toml", "did you mean power")),
        (CHIP + FACT.replace("700 W", "700 PW"), ("my-chip.toml", "fact.power", "check number and unit")),
        (CHIP + FACT.replace("power", "cores").replace("700 W", "1e300"), ("my-chip.toml", "fact.cores", "check number")),
        (CHIP + FACT + HYPOTHESIS, ("my-chip.toml", "[[fact]] or [[hypothesis]]", "not both")),
        (CHIP + HYPOTHESIS.replace("1.0", "0.5") * 2, ("my-chip.toml", "hypothesis.key one", "twice")),
        (CHIP + HYPOTHESIS + FACT.replace("[[fact]]", "[[hypothesis.fact]]"), ("my-chip.toml", "hypothesis one", "keep one")),
        (CHIP + "[[fact\n", ("my-chip.toml", "malformed TOML", "line")),
        (CHIP + "x = " + "9" * 5000, ("my-chip.toml", "malformed TOML", "digits")),
        (CHIP + "x = " + "[" * 5000, ("my-chip.toml", "malformed TOML")),
        (CHIP + 'colour = "green"\n', ("my-chip.toml", "colour")),
    ],
)
def test_a_chip_file_with_a_mistake_is_named(run: Run, tmp_path: Path, chip: str, words: tuple[str, ...]) -> None:
    refused(run("chips", "my-chip", "--catalog", catalog(tmp_path, chip)), *words)


def folder(tmp_path: Path, **files: str) -> Path:
    """Write one file of each kind, named after its id, and my-chip on my-pod."""
    for kind, text in files.items():
        (tmp_path / kind).mkdir()
        (tmp_path / kind / f"my-{ {'clusters': 'pod', 'jobs': 'job', 'frameworks': 'framework'}[kind] }.toml").write_text(text, encoding="utf-8")
    return catalog(tmp_path, CHIP.replace("dgx-h100", "my-pod") + FACT)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"300 GB/s"', '"300"', ("tier.inner.bandwidth", "unit is missing", "Gb/s")),
        ('"300 GB/s"', '"300 B/s"', ("tier.inner.bandwidth", "check number and unit")),
        ('"2 us"', '"-2 us"', ("tier.inner.latency", "positive")),
        ('"2 us"', '"2"', ("tier.inner.latency", "unit is missing")),
        ('"mine"', '"nowhere"', ("field source", "'nowhere'", "sources/")),
        ("node = 8", "node = 16", ("node = 16", "outermost tier holds 8", "correct")),
        ("size = 8", "size = 0", ("tier.0.size",)),
        ('"switch"', '"star"', ("tier.0.topology", "torus")),
    ],
)
def test_a_cluster_file_with_a_mistake_is_named(run: Run, tmp_path: Path, old: str, new: str, words: tuple[str, ...]) -> None:
    refused(run("clusters", "my-pod", "--catalog", folder(tmp_path, clusters=CLUSTER.replace(old, new))), "my-pod.toml", *words)


def test_a_chip_on_an_unknown_cluster_is_named(run: Run, tmp_path: Path) -> None:
    refused(run("train", LLAMA, "--on", "my-chip:8", "--catalog", folder(tmp_path)), "my-chip.toml", "field cluster", "'my-pod'")


def test_a_cluster_that_is_too_small_is_named(run: Run, tmp_path: Path) -> None:
    refused(run("train", LLAMA, "--on", "my-chip:64", "--catalog", folder(tmp_path, clusters=CLUSTER)), "my-pod joins 8 chips, not 64", "take fewer")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('tokens = "1T"', 'tokens = "1"', ("tokens", "unit is missing")),
        ('tokens = "1T"', 'tokens = "-1T"', ("tokens", "positive")),
        ('tokens = "1T"', "", ("tokens", "15T")),
        ('"bf16"', '"fp7"', ("precisions.0", "'bf16'")),
        ("chips = 64", "chips = 0", ("chips",)),
        ("length = 4096", "length = nan", ("length",)),
        ('"train"', '"dream"', ("phase", "'train'")),
    ],
)
def test_a_job_file_with_a_mistake_is_named(run: Run, tmp_path: Path, old: str, new: str, words: tuple[str, ...]) -> None:
    given = folder(tmp_path, jobs=JOB.replace(old, new))
    refused(run("weigh", "a100", "h100", "--job", "my-job", "--catalog", given), "my-job.toml", *words)


def test_a_job_that_a_chip_has_no_precision_for_is_refused(run: Run, tmp_path: Path) -> None:
    given = folder(tmp_path, jobs=JOB.replace("bf16", "mxfp4"))
    refused(run("weigh", "a100", "h100", "--job", "my-job", "--catalog", given), "job my-job", "nvidia-a100", "mxfp4", "allow bf16")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("none = 1.0", "none = 0.5", ("recompute", "sum to 1")),
        ("none = 1.0", "none = 2.0\nfull = -1.0", ("recompute.none", "recompute.full")),
        ("none = 1.0", "none = nan", ("recompute.none",)),
        ("none = 1.0", "sometimes = 1.0", ("recompute.sometimes", "'selective'")),
        ('"zero1"', '"zero9"', ("sharding", "'zero3'")),
        ("master_bytes = 12", "master_bytes = inf", ("master_bytes",)),
        ("tp_overlap = 2023", "tp_overlap = 20", ("since.tp_overlap",)),
        ("tp_overlap = 2023", "magic = 2023", ("since.magic",)),
    ],
)
def test_a_framework_file_with_a_mistake_is_named(run: Run, tmp_path: Path, old: str, new: str, words: tuple[str, ...]) -> None:
    given = folder(tmp_path, frameworks=FRAMEWORK.replace(old, new))
    refused(run("train", LLAMA, "--on", "h100:8", "--framework", "my-framework", "--catalog", given), "my-framework.toml", *words)


def test_files_of_the_user_without_a_mistake_are_taken(run: Run, tmp_path: Path) -> None:
    given = folder(tmp_path, clusters=CLUSTER, jobs=JOB, frameworks=FRAMEWORK)
    assert run("clusters", "my-pod", "--catalog", given).code == 0
    assert run("train", LLAMA, "--on", "h100:8", "--framework", "my-framework", "--catalog", given).code == 0
    assert run("weigh", "a100", "h100", "--job", "my-job", "--catalog", given).code == 0


@pytest.mark.parametrize("command", ["chips", "clusters", "models"])
def test_an_empty_name_is_unknown(run: Run, command: str) -> None:
    refused(run(command, ""), "unknown", "''", f"chipscale {command}")


def test_malformed_toml_of_sources_is_named(run: Run, tmp_path: Path) -> None:
    refused(run("chips", "my-chip", "--catalog", catalog(tmp_path, CHIP + FACT, "[mine\n")), "mine.toml", "malformed TOML")


def test_a_missing_catalog_folder_is_named(run: Run, tmp_path: Path) -> None:
    refused(run("chips", "--catalog", tmp_path / "none"), "--catalog", "no such folder")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"model_type": ', ("JSON",)),
        ("[]", ()),
        ("", ("JSON",)),
        ('{"model_type": "frobnicator", "architectures": ["FrobnicatorForCausalLM"]}', ("robnicator",)),
        ('{"model_type": "llama", "hidden_size": 4096}', ("field",)),
        ('{"model_type": "llama", "hidden_size": -1, "num_attention_heads": 8}', ("field",)),
    ],
)
def test_a_config_that_is_not_understood_is_refused_by_name(run: Run, tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    path = tmp_path / "config.json"
    path.write_text(text, encoding="utf-8")
    refused(run("models", path), str(path), *words)
    refused(run("train", path, "--on", "h100:8"), str(path), *words)


def test_a_missing_config_is_named(run: Run, tmp_path: Path) -> None:
    refused(run("models", tmp_path / "config.json"), "config.json")


# --- files that are written


def test_report_into_a_missing_folder_writes_nothing(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "none" / "page.html"
    refused(run("report", "--out", out), "--out", str(out.parent), "make it first")
    assert list(tmp_path.iterdir()) == []


def test_report_onto_a_folder_is_refused(run: Run, tmp_path: Path) -> None:
    refused(run("report", "--out", tmp_path), "--out", "is a folder")
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_fails_leaves_the_old_page(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    out.write_text("old", encoding="utf-8")
    refused(run("report", "nope", "h100", "--out", out), "unknown chip 'nope'")
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
    assert out.read_text(encoding="utf-8") == "old"


def test_validate_into_a_missing_folder_writes_nothing(run: Run, tmp_path: Path) -> None:
    refused(run("validate", "training", "--json", tmp_path / "none" / "out.json"), "--json", "make it first")
    refused(run("validate", "training", "--write", tmp_path / "none" / "out.md"), "--write", "make it first")
    assert list(tmp_path.iterdir()) == []


# --- measured rows


def shipped() -> list[dict[str, str]]:
    with (load().folders[0] / SHIPPED).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [r for r in rows if r["complete"] == "yes" and not r["doubt"] and r["step_time_s"]][:3]


def written(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, list(rows[0]))
        out.writeheader()
        out.writerows(rows)
    return path


def changed(**values: str) -> list[dict[str, str]]:
    first, *rest = shipped()
    return [{**first, **values}, *rest]


@pytest.mark.parametrize(
    ("column", "text"),
    [("step_time_s", "nan"), ("step_time_s", "-1"), ("step_time_s", "fast"), ("step_time_s", "0"), ("n_chips", "-8"), ("n_chips", "inf"), ("n_chips", "lots"),
     ("global_batch", "nan")],
)  # fmt: skip
def test_a_number_that_is_none_is_named(run: Run, tmp_path: Path, column: str, text: str) -> None:
    file, out = written(tmp_path / "rows.csv", changed(**{column: text})), tmp_path / "out.json"
    refused(run("validate", "training", file, "--json", out), shipped()[0]["row"], f"column {column}", repr(text), "correct")
    assert not out.exists()


def test_a_missing_file_is_named(run: Run, tmp_path: Path) -> None:
    refused(run("validate", "training", tmp_path / "none.csv"), "none.csv", "cannot be read")


@pytest.mark.parametrize("column", ["chip", "n_chips", "step_time_s"])
def test_a_missing_column_is_named(run: Run, tmp_path: Path, column: str) -> None:
    rows = [{k: v for k, v in r.items() if k != column} for r in shipped()]
    refused(run("validate", "training", written(tmp_path / "rows.csv", rows)), "rows.csv", f"column {column}")


def test_a_short_line_is_named(run: Run, tmp_path: Path) -> None:
    path = written(tmp_path / "rows.csv", shipped())
    path.write_text(path.read_text(encoding="utf-8") + "G1,x,y\n", encoding="utf-8")
    refused(run("validate", "training", path), "rows.csv", "data line 4", "3 fields")


def test_a_quote_that_never_ends_is_malformed(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('chip,n_chips,step_time_s\n"h100,8,1\n', encoding="utf-8")
    refused(run("validate", "training", path), "rows.csv", "malformed CSV")


def test_an_empty_file_is_refused(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("", encoding="utf-8")
    refused(run("validate", "training", path), "rows.csv", "no rows")


def test_a_row_that_stands_twice_is_named(run: Run, tmp_path: Path) -> None:
    rows = shipped()
    refused(run("validate", "training", written(tmp_path / "rows.csv", [*rows, rows[0]])), "rows.csv", rows[0]["row"], "twice")


def test_an_unknown_precision_is_named(run: Run, tmp_path: Path) -> None:
    refused(run("validate", "training", written(tmp_path / "rows.csv", changed(precision="fp99"))), "column precision", "fp99", "bf16")


def test_rows_of_the_user_are_scored(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    found = run("validate", "training", written(tmp_path / "rows.csv", shipped()), "--json", out)
    assert found.code == 0, found.err
    assert found.out
    parsed(out.read_text(encoding="utf-8"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.json", "rows.csv"]


# --- answers


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("chips", "910c"), ("huawei-ascend-910c", "memory_bytes", "TFLOP/s", "GB")),
        (("chips",), ("huawei-ascend-910d", "nvidia-h100-sxm-80gb")),
        (("models", "DeepSeek-V3"), ("deepseek-ai/DeepSeek-V3", "671.03 B")),
        (("clusters",), ("dgx-h100",)),
        (("clusters", "dgx-h100"), ("dgx-h100",)),
        (("jobs",), ("train-deepseek-v3", "train-llama-3.1-405b", "decode-deepseek-v3")),
        (("cite",), ("Formulas",)),
        (("cite", "a100"), ("Formulas",)),
        ((*MIXTRAL, "h100:64"), ("train Mixtral-8x7B-v0.1 on 64 h100",)),
        ((*MIXTRAL, "h100:64", "--plan", "tp=2,ep=8,zero=1,recompute=full"), ("tp=2",)),
    ],
)
def test_answers(run: Run, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    found = run(*arguments)
    assert found.code == 0, found.err
    for word in words:
        assert word in found.out


@pytest.mark.parametrize("command", ["chips", "clusters", "jobs", "models"])
def test_lists_as_json(run: Run, command: str) -> None:
    found = run(command, "--json")
    assert found.code == 0
    assert parsed(found.out)


def test_train_as_json(run: Run) -> None:
    found = run(*MIXTRAL, "h100:64", "--json", "--top", "3")
    assert found.code == 0
    sides = parsed(found.out)
    assert isinstance(sides, list)
    assert len(sides) == 3
    seconds = [s["seconds"]["median"] for s in sides]
    assert seconds == sorted(seconds)
    for s in sides:
        assert 0 < s["seconds"]["low"] <= s["seconds"]["median"] <= s["seconds"]["high"]
        assert 0 < s["mfu"] < 1
        assert s["memory_bytes"] <= s["memory_capacity"]


def test_a_run_as_json(run: Run) -> None:
    found = run(*MIXTRAL, "h100:64", "--tokens", "1T", "--top", "2", "--price", "2", "--json")
    assert found.code == 0
    answer = parsed(found.out)
    assert isinstance(answer, dict)
    assert len(answer["plans"]) == len(answer["runs"]) == 2
    for r in answer["runs"]:
        assert r["days"]["low"] <= r["days"]["median"] <= r["days"]["high"]
        assert r["bill"]["rent"]["median"] == pytest.approx(2.0 * r["chip_hours"]["median"])


def test_a_deadline_finds_the_fewest_chips(run: Run) -> None:
    found = run(*MIXTRAL, "h100:1024", "--tokens", "1T", "--days", "30", "--top", "1").out
    assert "train Mixtral-8x7B-v0.1 on " in found
    assert "on 1,024" not in found


def test_the_token_budget_gives_days(run: Run) -> None:
    found = run(*MIXTRAL, "h100:64", "--tokens", "1T").out
    assert "days" in found
    for word in ("days with failures", "MWh", "checkpoints", "cost if rented", "cost if owned", "electricity"):
        assert word in found
    assert "minutes" in run(*MIXTRAL, "h100:64", "--tokens", "1B tokens").out


def weighed(run: Run, *arguments: str) -> dict[str, object]:
    found = run("weigh", *arguments, "--job", "train-llama-3.1-8b", "--json")
    assert found.code == 0, found.err
    verdict = parsed(found.out)
    assert isinstance(verdict, dict)
    return verdict


def test_weigh_as_json(run: Run) -> None:
    verdict = weighed(run, "a100", "h100")
    (job,) = verdict["jobs"]
    assert 0 < job["ratio"]["low"] <= job["ratio"]["median"] <= job["ratio"]["high"] < 1
    assert 0 <= job["p_at_least"] <= 0.2


def test_the_same_seed_gives_the_same_answer_and_another_another(run: Run) -> None:
    one, two, three = (weighed(run, "a100", "h100", "--seed", s)["jobs"] for s in ("0", "0", "7"))
    assert one == two
    assert one != three


def test_an_assumption_changes_the_answer(run: Run) -> None:
    free, quad, small = weighed(run, "910d", "h100"), *(weighed(run, "910d", "h100", "--assume", f"910d={h}") for h in ("quad-die", "950-28"))
    ratios = [v["jobs"][0]["ratio"]["median"] for v in (free, quad, small)]
    assert len(set(ratios)) == 3
    assert quad["jobs"][0]["a"]["hypothesis"] == "quad-die"
    assert ratios[1] > ratios[2]


def test_a_chip_of_the_user_is_weighed(run: Run, tmp_path: Path) -> None:
    values = {
        "peak_bf16": "989.4 TFLOP/s",
        "memory_bytes": "80 GB",
        "memory_bandwidth": "3.35 TB/s",
        "scaleup_bandwidth": "450 GB/s",
        "power": "700 W",
    }
    facts = "".join(f'[[fact]]\nquantity = "{q}"\nvalue = "{v}"\nsource = "mine"\nsense = "dense"\n' for q, v in values.items())
    verdict = weighed(run, "my-chip", "a100", "--catalog", str(catalog(tmp_path, CHIP + facts)))
    assert verdict["jobs"][0]["ratio"]["median"] > 1


def test_matched_power_judges_watts_and_counts_chips(run: Run) -> None:
    (chips,), (watts,) = (weighed(run, "a100", "h100", "--match", m)["jobs"] for m in ("chips", "power"))
    assert watts["a_per_1000_b"] == chips["a_per_1000_b"]
    assert watts["ratio"]["median"] > 1.2 * chips["ratio"]["median"]  # 400 W against 700 W
    assert "watt for watt" in str(weighed(run, "a100", "h100", "--match", "power")["headline"])


def test_a_price_that_is_missing_is_named_with_its_chip(run: Run) -> None:
    refused(run("weigh", "h100", "a100", "--job", "train-llama-3.1-8b", "--match", "cost"), "--match cost", "price of nvidia-a100-sxm-80gb is")


def test_train_names_the_hypothesis_of_each_plan(run: Run) -> None:
    found = run("train", LLAMA, "--on", "910d:64", "--top", "1")
    assert found.code == 0
    assert "taken as" in found.out
    heads = [line.split()[0] for line in found.out.partition("other plans")[2].splitlines() if "dp=" in line]
    assert sorted(heads) == ["950-28", "950-36", "press-2pf", "quad-die"]  # the likeliest, 950-32, stands above
    assert "950-32" in found.out


def test_a_frontier_is_printed_and_counted(run: Run) -> None:
    screen, data = run("train", LLAMA, "--on", "h100:8, 16", "--pareto"), run("train", LLAMA, "--on", "h100:8, 16", "--pareto", "--json")
    assert screen.code == data.code == 0
    sides = json.loads(data.out)
    assert f"{len(sides)} plans that no other beats" in screen.out
    assert {s["chips"] for s in sides} == {8, 16}
    points = [(s["seconds"]["median"], s["memory_bytes"], s["chips"]) for s in sides]
    assert all(math.isfinite(x) for p in points for x in p)
    assert not [p for p in points if any(q != p and all(a <= b for a, b in zip(q, p, strict=True)) for q in points)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--plan", "tp=8"), "--plan tp=8: does not go with --pareto, which compares all plans; leave one of them out"),
        (("--tokens", "1T"), "--tokens 1T: does not go with --pareto"),
        (("--trace", "t.json"), "--trace t.json: does not go with --pareto"),
        (("--stage-layers", "3,4"), "--stage-layers 3,4: does not go with --pareto"),
        (("--offload", "weights"), "--offload weights: 'weights' is not one of none, optimizer, activations, both"),
        (("--precision", "fp64"), "--precision fp64: training is planned in bf16"),
    ],
)
def test_what_a_frontier_cannot_take(run: Run, options: tuple[str, ...], words: str) -> None:
    refused(run("train", LLAMA, "--on", "h100:8", "--pareto", *options), words)


@pytest.mark.parametrize(
    ("on", "words"),
    [
        ("h100:1,024", "is this one number or several? Write h100:1024, or 'h100:1, 024' with blanks"),
        ("h100:8,x", "'x' is not a number of chips"),
        ("h100:8,0", "0 chips cannot be"),
        ("h100", "write CHIP:N"),
    ],
)
def test_sizes_of_a_frontier_are_whole_numbers(run: Run, on: str, words: str) -> None:
    refused(run("train", LLAMA, "--on", on, "--pareto"), words)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"--sizes": "8,x"}, "--sizes 8,x: write whole numbers of chips from 1 to 10,000,000, parted by commas"),
        ({"--sizes": "0"}, "--sizes 0: write whole numbers of chips"),
        ({"--chips": "h1000"}, "unknown chip 'h1000'"),
        ({"--models": "Lama"}, "unknown model 'Lama'"),
        ({"--chips": ","}, "--chips: names nothing; write one or several"),
        ({"--models": ","}, "--models: names nothing; write one or several"),
        ({"--sizes": ","}, "--sizes: names nothing; write one or several"),
        ({"--precision": "fp64"}, "--precision fp64: training is planned in"),
        ({"--out": "/no/such/folder/r"}, "/no/such/folder"),
    ],
)
def test_what_a_sweep_cannot_take(run: Run, tmp_path: Path, changed: dict[str, str], words: str) -> None:
    options = {"--chips": "h100", "--models": LLAMA, "--sizes": "8", "--out": str(tmp_path / "r"), **changed}
    refused(run("sweep", *(part for pair in options.items() for part in pair)), words)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("missing", ["--chips", "--models", "--sizes", "--out"])
def test_a_sweep_says_what_it_lacks(run: Run, tmp_path: Path, missing: str) -> None:
    options = {"--chips": "h100", "--models": LLAMA, "--sizes": "8", "--out": str(tmp_path / "r")}
    found = run("sweep", *(part for name, value in options.items() if name != missing for part in (name, value)))
    assert found.code == 2
    assert missing in found.err


def test_offload_is_searched_or_stated_but_not_both(run: Run) -> None:
    found = run("train", "Meta-Llama-3.1-70B", "--on", "h100:32", "--offload", "optimizer", "--precision", "bf16", "--json")
    assert found.code == 0
    assert "offload=optimizer" in json.loads(found.out)[0]["plan"]
    refused(
        run("train", LLAMA, "--on", "h100:8", "--offload", "both", "--plan", "tp=8"), "--offload both: is for the search; with --plan write it there"
    )
    refused(
        run("train", LLAMA, "--on", "910b2:8", "--offload", "both"), "--offload copies over the link to the host, and nothing is known of that of"
    )
