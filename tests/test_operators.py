"""Operators: costs from the shipped calibration, the reading of measured rows, validation."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chipscale.catalog import Catalog, load
from chipscale.cost.kernels.costing import Costing, Tags, costing
from chipscale.cost.kernels.gemm import GEMM, Gemm
from chipscale.cost.silicon import silicon
from chipscale.evidence import EvidenceError
from chipscale.facts.chip import Chip
from chipscale.operators.calibration import PARTS, calibrated, parts_of, read, sane, spread_of
from chipscale.operators.corpus import SHIPPED, operator_of, shipped, tables
from chipscale.operators.corpus import load as load_samples
from chipscale.operators.estimate import estimate
from chipscale.operators.fit import fit, predict
from chipscale.operators.measured import corrected
from chipscale.operators.readers import gemm as gemm_rows
from chipscale.operators.reading import read_prior
from chipscale.operators.validate import operators

HEADER = ["chip", "dtype", "m", "n", "k", "engine", "kernel", "seconds", "source", "apart"]
ROW = {"chip": "h100", "dtype": "bf16", "m": "128", "n": "4096", "k": "4096", "engine": "VLLM 0.24.0", "kernel": "torch.nn.functional.linear",
       "seconds": "1.2e-5", "source": "here", "apart": ""}  # fmt: skip


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load(None)


def chip_of(catalog: Catalog, name: str) -> Chip:
    chip = catalog.chip(name)
    assert isinstance(chip, Chip)
    return chip


def linear(catalog: Catalog, name: str = "h100") -> Costing:
    chip = chip_of(catalog, name)
    tags = Tags(precision="bf16", family="linear:bf16", kernel="vllm/torch.nn.functional.linear:bf16:bf16", arch=chip.family, chip=chip.id, engine="")
    return costing(GEMM, read(catalog, "gemm").found, tags)


def product(m: Any, n: Any, k: Any) -> Gemm:
    return Gemm(m=m, n=n, k=k, a=2.0, b=2.0, out=2.0, quantised=0.0)


SIZES = st.integers(1, 2**17).map(float)


@given(m=SIZES, n=SIZES, k=SIZES)
@settings(max_examples=150, deadline=None)
def test_one_call_equals_its_place_in_an_array_and_obeys_the_roofline(m: float, n: float, k: float) -> None:
    catalog = load(None)
    ready, numbers = linear(catalog), silicon(chip_of(catalog, "h100"), catalog, "bf16")
    alone = float(ready.seconds(product(m, n, k), numbers))
    many = ready.seconds(product(np.array([1.0, m]), np.array([1.0, n]), np.array([1.0, k])), numbers)
    assert alone == pytest.approx(float(np.asarray(many)[1]), rel=1e-12)
    assert alone >= 2.0 * m * n * k / float(np.asarray(numbers.peak)) * (1 - 1e-12)


@given(m=SIZES, n=SIZES, k=SIZES, axis=st.sampled_from(("m", "n", "k")))
@settings(max_examples=150, deadline=None)
def test_doubling_a_side_is_never_faster_by_more_than_tiles_explain(m: float, n: float, k: float, axis: str) -> None:
    catalog = load(None)
    ready, numbers = linear(catalog), silicon(chip_of(catalog, "h100"), catalog, "bf16")
    call = product(m, n, k)
    before, after = (float(ready.seconds(c, numbers)) for c in (call, replace(call, **{axis: 2.0 * getattr(call, axis)})))
    assert after >= before * 0.8


@pytest.mark.parametrize("better", ["memory_bandwidth", "peak", "cores"])
def test_a_better_chip_is_never_slower(catalog: Catalog, better: str) -> None:
    ready, numbers = linear(catalog), silicon(chip_of(catalog, "h100"), catalog, "bf16")
    m, n, k = (2.0 ** np.random.default_rng(1).uniform(0, 15, (3, 4096))).round()
    faster = replace(numbers, **{better: getattr(numbers, better) * 1.5})
    assert np.all(ready.seconds(product(m, n, k), faster) <= ready.seconds(product(m, n, k), numbers) * (1 + 1e-12))


def test_every_form_has_a_calibration_whose_predictions_stay_above_the_roofline(catalog: Catalog) -> None:
    paths = [p for p in shipped(catalog) if p.stem in ("gemm", "mla_decode", "custom_allreduce", "ascend_910c_die_profiled")]
    for form, _, table in tables(load_samples(paths, catalog), catalog).values():
        known = read(catalog, form.id)
        few = table.take(np.arange(0, len(table), 7))
        seconds = predict(form, few, known.found)
        assert np.all(np.isfinite(seconds))
        assert np.all(seconds >= np.broadcast_to(form.floor(few.call, few.silicon), (len(few),)) * (1 - 1e-12))
        assert set(known.quantiles) == {"known", "points", "engine", "chip"}


def test_the_fit_finds_planted_constants(catalog: Catalog) -> None:
    path = next(p for p in shipped(catalog) if p.stem == "gemm")
    form, _, table = tables(load_samples([path], catalog), catalog)["gemm"]
    table = table.take(np.array([i for i, t in enumerate(table.tags) if t.precision == "bf16"])[::5])
    truth = form.constants(launch=4e-6, fraction=0.6, memory=0.7, quantise=1.0, edge=80.0)
    planted = replace(table, seconds=np.asarray(form.seconds(table.call, table.silicon, truth)))
    found = fit(form, planted, read_prior(catalog, "gemm"))
    assert predict(form, planted, found) == pytest.approx(planted.seconds, rel=0.03)


def test_a_left_out_part_never_enters_its_own_fit(catalog: Catalog) -> None:
    """A cell whose times are planted ten times too long is predicted as its kind, not as itself, when its chip is left out."""
    path = next(p for p in shipped(catalog) if p.stem == "mla_decode")
    form, _, table = tables(load_samples([path], catalog), catalog)["latent_decode"]
    table = table.take(np.arange(0, len(table), 9))
    own = np.array([t.chip == "nvidia-h200-sxm" for t in table.tags])
    planted = replace(table, seconds=np.where(own, 10.0 * table.seconds, table.seconds))
    seconds = predict(form, planted.take(np.where(own)[0]), fit(form, planted.take(np.where(~own)[0]), read_prior(catalog, "latent_decode")))
    assert np.median(seconds / planted.seconds[own]) < 0.3


def test_parts_are_random_and_whole(catalog: Catalog) -> None:
    path = next(p for p in shipped(catalog) if p.stem == "gemm")
    table = tables(load_samples([path], catalog), catalog)["gemm"][2]
    assert set(parts_of(table)) == {str(i) for i in range(PARTS)}


def test_spreads_hold_four_fifths_of_their_own_misses() -> None:
    rng = np.random.default_rng(3)
    misses, seconds = rng.normal(0, 0.2, 9000), np.exp(rng.uniform(math.log(1e-6), math.log(1e-2), 9000))
    for low, high in spread_of(misses, seconds, ["a"] * 9000):
        assert low == pytest.approx(-0.256, abs=0.02)
        assert high == pytest.approx(0.256, abs=0.02)


def test_measured_neighbours_bend_a_prediction_and_a_call_never_meets_itself(catalog: Catalog) -> None:
    path = next(p for p in shipped(catalog) if p.stem == "gemm")
    form, _, table = tables(load_samples([path], catalog), catalog)["gemm"]
    table = table.take(np.array([i for i, t in enumerate(table.tags) if t.chip == "nvidia-a100-sxm-80gb" and t.precision == "bf16"]))
    half = table.seconds * 0.5
    assert np.median(corrected(form, table, half, table, half) / table.seconds) == pytest.approx(1.0, abs=0.02)
    lonely = table.take(np.array([0]))
    assert corrected(form, lonely, half[:1], lonely, half[:1])[0] == pytest.approx(half[0])


def write(path: Path, rows: list[dict[str, str]], header: list[str] | None = None) -> Path:
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, header or HEADER, extrasaction="ignore")
        out.writeheader()
        out.writerows(rows)
    return path


@pytest.mark.parametrize(("column", "value", "says"), [
    ("m", "0", "column m"), ("n", "-3", "column n"), ("k", "1e300", "column k"), ("m", "nan", "column m"), ("m", "", "column m"),
    ("seconds", "0", "column seconds"), ("seconds", "-1", "column seconds"), ("seconds", "17000", "mixes units"), ("dtype", "fp7", "column dtype"),
    ("chip", "h1000000", "unknown chip"), ("chip", "910d", "belief"),
])  # fmt: skip
def test_bad_rows_are_named(tmp_path: Path, catalog: Catalog, column: str, value: str, says: str) -> None:
    path = write(tmp_path / "gemm.csv", [ROW, {**ROW, column: value}])
    with pytest.raises(EvidenceError, match=says) as caught:
        load_samples([path], catalog)
    assert "gemm.csv" in str(caught.value)
    if column not in ("chip",):
        assert "row 2" in str(caught.value)


def test_bad_files_are_named(tmp_path: Path, catalog: Catalog) -> None:
    for name, text, says in (
        ("mine.csv", "a,b\n1,2\n", "does not say which operators"),
        ("gemm.csv", "", "holds no rows"),
        ("gemm.csv", "chip,dtype,m,n,k,engine,seconds\nh100,bf16,1,1,1,x,1e-6\n", "column kernel is missing"),
        ("gemm.csv", "chip,chip\na,b\n", "stands twice"),
        ("gemm.csv", 'chip,dtype\n"a,b\n', "malformed CSV"),
        ("gemm.csv", "chip,dtype\na\n", "1 fields under 2 columns"),
    ):
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(EvidenceError, match=says):
            load_samples([path], catalog)
    doubled = write(tmp_path / "gemm.csv", [{"row": "7", **ROW}, {"row": "7", **ROW}], ["row", *HEADER])
    with pytest.raises(EvidenceError, match="row 7 stands twice"):
        load_samples([doubled], catalog)
    with pytest.raises(EvidenceError, match="does not say"):
        operator_of(Path("x.csv"))


@given(st.dictionaries(st.sampled_from(HEADER), st.text(max_size=12), max_size=10))
@settings(max_examples=200, deadline=None)
def test_the_reader_answers_or_says_what_is_wrong(row: dict[str, str]) -> None:
    try:
        reading = gemm_rows.read({"_line": "1", **ROW, **row})
    except EvidenceError as problem:
        assert "column" in str(problem)
    else:
        assert all(0 <= float(getattr(reading.call, f.name)) < 2.0**63 for f in fields(reading.call))


def test_a_precision_that_the_chip_lacks_and_a_sample_above_its_peak_are_told_apart(tmp_path: Path, catalog: Catalog) -> None:
    big = {**ROW, "m": "8192", "n": "8192", "k": "8192"}
    path = write(tmp_path / "gemm.csv", [ROW, {**ROW, "dtype": "nvfp4"}, {**big, "seconds": "1e-4"}, {**ROW, "apart": "another path"}])
    result = operators(path, tier="calibrated", leave_out=None, calibrate_points=0, catalog=catalog)
    plain, lacking, above, apart = result.rows
    assert plain.clean
    assert plain.low_s < plain.predicted_s < plain.high_s
    assert "has no nvfp4" in lacking.reason
    assert above.labels["apart"] == "faster than the roofline"
    assert not above.clean
    assert math.isfinite(above.predicted_s)
    assert apart.labels["apart"] == "another path"
    assert result.clean.n == 1
    form, _, table = tables(load_samples([path], catalog), catalog)["gemm"]
    assert sane(form, table).tolist() == [True, False, True]


def test_tiers_widen_where_less_is_known(catalog: Catalog) -> None:
    path = next(p for p in shipped(catalog) if p.stem == "mla_prefill")
    error = {}
    for tier in ("measured", "calibrated", "prior"):
        result = operators(path, tier=tier, leave_out=None, calibrate_points=0, catalog=catalog)
        assert result.clean.answered == result.clean.n
        error[tier] = result.clean.mdape
    assert error["calibrated"] < error["prior"]
    assert error["measured"] < error["prior"]


def test_points_shown_are_not_scored(catalog: Catalog) -> None:
    path = next(p for p in shipped(catalog) if p.stem == "mla_prefill")
    all_rows = operators(path, tier="calibrated", leave_out=None, calibrate_points=0, catalog=catalog)
    left = operators(path, tier="calibrated", leave_out=None, calibrate_points=12, catalog=catalog)
    cells = len(all_rows.groups["cell"])
    assert left.clean.n == all_rows.clean.n - 12 * cells


def test_calibrated_measures_each_case(catalog: Catalog) -> None:
    path = next(p for p in shipped(catalog) if p.stem == "mla_prefill")
    form, _, table = tables(load_samples([path], catalog), catalog)["latent_prefill"]
    keep = np.array([i for i, s in enumerate(table.tags) if s.family != "other:bf16"])[::12]
    found = calibrated(form, table.take(keep), read_prior(catalog, form.id), "2026-01-01")
    assert found.scores["known"] < found.scores["chip"]
    assert found.case(table.tags[int(keep[0])]) == "known"
    assert found.case(replace(table.tags[0], chip="new")) == "chip"


def test_the_command_writes_the_contract(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from chipscale.cli import app

    path, out = write(tmp_path / "gemm.csv", [ROW, {**ROW, "m": "1024", "seconds": "3e-5"}]), tmp_path / "out.json"
    done = CliRunner().invoke(app, ["validate", "operators", str(path), "--json", str(out)])
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    assert {"n", "answered", "mape", "mdape", "bias", "coverage80", "groups", "rows"} <= set(found)
    assert [r["row"] for r in found["rows"]] == ["1", "2"]
    for r in found["rows"]:
        assert r["error"] == pytest.approx(r["predicted_s"] / r["measured_s"] - 1)
    for wrong in (["--tier", "prior", "--leave-out", "chip"], ["--leave-out", "source"], ["--calibrate-points", "3", "--tier", "prior"]):
        assert isinstance(CliRunner().invoke(app, ["validate", "operators", str(path), *wrong]).exception, EvidenceError)


def test_shipped_rows_name_their_source(catalog: Catalog) -> None:
    for path in shipped(catalog):
        with path.open() as file:
            first = next(csv.DictReader(file))
        assert first["source"], path
    assert SHIPPED.startswith("measurements")


def test_an_estimate_says_its_tier_and_interval(catalog: Catalog) -> None:
    call = product(4096.0, 4096.0, 4096.0)
    known = estimate(catalog, chip_of(catalog, "h100"), call, engine="VLLM 0.24.0", kernel="torch.nn.functional.linear:bf16")
    assert known.tier == "calibrated"
    assert known.low < known.seconds < known.high
    unseen = estimate(catalog, chip_of(catalog, "mi300x"), call)
    assert unseen.tier == "prior"
    assert math.log(unseen.high / unseen.low) > math.log(known.high / known.low)
    many = estimate(catalog, chip_of(catalog, "h100"), product(np.array([1.0, 4096.0]), 4096.0, 4096.0), kernel="torch.nn.functional.linear:bf16")
    assert np.all(np.asarray(many.low) < np.asarray(many.high))


@pytest.mark.parametrize(("call", "says"), [
    (product(-1.0, 1.0, 1.0), "Gemm.m"), (product(1.0, math.nan, 1.0), "Gemm.n"), (product(1.0, 1.0, 2.0**63), "Gemm.k"), ("gemm", "is no call"),
])  # fmt: skip
def test_impossible_calls_are_refused(catalog: Catalog, call: Any, says: str) -> None:
    with pytest.raises(EvidenceError, match=says):
        estimate(catalog, chip_of(catalog, "h100"), call)
    with pytest.raises(EvidenceError, match="has no nvfp4"):
        estimate(catalog, chip_of(catalog, "h100"), product(1.0, 1.0, 1.0), precision="nvfp4")


def test_rows_apart_are_answered_after_points_too(tmp_path: Path, catalog: Catalog) -> None:
    rows = [{**ROW, "m": str(64 * i), "seconds": str(1e-5 + 5e-6 * i), "apart": "another path" if i % 5 == 0 else ""} for i in range(1, 31)]
    result = operators(write(tmp_path / "gemm.csv", rows), tier="calibrated", leave_out=None, calibrate_points=4, catalog=catalog)
    assert result.groups["apart"]["another path"].answered == 6
    assert result.clean.n == 24 - 4
