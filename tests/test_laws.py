"""Laws that hold for every plan, chip and job."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chipscale.catalog import load
from chipscale.cost.calibration import constants, read_calibration
from chipscale.cost.hardware import Hardware, hardware
from chipscale.evidence import Belief
from chipscale.facts.job import Job
from chipscale.facts.parameters import parameters
from chipscale.graph import Shard, build
from chipscale.plan import Plan, degrees, table
from chipscale.search import Evaluator, Problem, evaluator, space
from chipscale.simulators.closed_form import shard_parameters
from chipscale.verdict import weigh
from chipscale.verdict.world import context

MODELS = ("meta-llama/Meta-Llama-3.1-8B", "deepseek-ai/DeepSeek-V3", "Qwen/Qwen3.5-397B-A17B", "openai/gpt-oss-120b")
CHIPS = ("nvidia-h100-sxm-80gb", "huawei-ascend-910b2", "google-tpu-v5p", "amd-mi300x")


@cache
def prepared(model: str, chip_id: str) -> Evaluator:
    catalog = load()
    chip = catalog.chip(chip_id)
    assert not isinstance(chip, Belief)
    job = Job(id="j", title="j", phase="train", model=model, chips=64, length=4096, batch=512, tokens=1.0)
    k = constants(read_calibration(catalog).coefficients(), context(catalog, chip, job, "bf16"))
    problem = Problem(model=catalog.model(model), length=4096.0, batch=512.0, precision="bf16")
    return evaluator(problem, hardware(chip, catalog.cluster_for(chip), "bf16"), k)


@cache
def plans(model: str) -> list[Plan]:
    t = space(load().model(model), 64, 512, 16)
    return [t.row(int(i)) for i in np.linspace(0, len(t) - 1, 400)]


def seconds(e: Evaluator, plan: Plan, hw: Hardware | None = None) -> float:
    return float(np.asarray(replace(e, hardware=hw or e.hardware).step(degrees(plan)).seconds))


cases = st.tuples(st.sampled_from(MODELS), st.sampled_from(CHIPS), st.integers(0, 399))


@settings(max_examples=80, deadline=None)
@given(cases, st.sampled_from(["peak", "peak16", "memory_bandwidth", "inner_bandwidth", "outer_bandwidth"]), st.floats(1.0, 10.0))
def test_a_better_chip_is_never_slower(case: tuple[str, str, int], field: str, factor: float) -> None:
    model, chip, i = case
    e, plan = prepared(model, chip), plans(model)[i]
    better = replace(e.hardware, **{field: getattr(e.hardware, field) * factor})
    assert seconds(e, plan, better) <= seconds(e, plan) * (1 + 1e-12)


@settings(max_examples=60, deadline=None)
@given(cases)
def test_parts_are_positive_and_sum_to_the_step(case: tuple[str, str, int]) -> None:
    model, chip, i = case
    step = prepared(model, chip).step(degrees(plans(model)[i]))
    parts = [float(np.asarray(p)) for p in step.parts]
    assert min(parts) >= 0.0
    assert max(parts) <= float(np.asarray(step.seconds)) <= sum(parts) * (1 + 1e-12)


@settings(max_examples=60, deadline=None)
@given(cases)
def test_utilisation_is_at_most_one(case: tuple[str, str, int]) -> None:
    model, chip, i = case
    e = prepared(model, chip)
    count = parameters(e.problem.model)
    flop = 6.0 * count.active_without_embedding * 512 * 4096
    assert flop / (seconds(e, plans(model)[i]) * 64 * float(e.hardware.peak)) <= 1.0


@pytest.mark.parametrize("model", MODELS)
def test_a_row_of_a_table_is_the_plan_alone(model: str) -> None:
    e, some = prepared(model, CHIPS[0]), plans(model)[::7]
    found = e.evaluate(table(some))
    for i, plan in enumerate(some):
        assert found.seconds[i] == pytest.approx(seconds(e, plan), rel=1e-12)
        assert found.bytes[i] == pytest.approx(float(np.asarray(e.need(degrees(plan)).total)), rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(cases)
def test_memory_grows_with_the_micro_batch(case: tuple[str, str, int]) -> None:
    model, chip, i = case
    e, plan = prepared(model, chip), plans(model)[i]
    small, large = (float(np.asarray(e.need(degrees(replace(plan, micro_batch=m))).total)) for m in (1, 2))
    assert small < large


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("tp", [2, 4, 8])
def test_shards_of_products_sum_to_the_whole(model: str, tp: int) -> None:
    """Forward FLOP of attention and MLP products over all tensor-parallel ranks equal those of one rank without sharding."""
    m = load().model(model)
    whole = build(m, Shard(length=4096.0, tokens=4096.0))
    part = build(m, Shard(length=4096.0, tokens=4096.0, tp=float(tp), sp=float(tp)))
    for name in ("output", "attention", "logits", "up", "down"):
        full = sum(float(np.asarray(w.flop)) * w.calls for w in whole.works if w.name == name)
        shard = sum(float(np.asarray(w.flop)) * w.calls for w in part.works if w.name == name)
        assert shard * tp == pytest.approx(full, rel=1e-12)


@pytest.mark.parametrize("model", MODELS)
def test_ranks_hold_every_parameter_once(model: str) -> None:
    e = prepared(model, CHIPS[0])
    plan = Plan(tp=2, pp=1, ep=2, etp=1, dp=4)
    dense, experts = shard_parameters(e.sizes, degrees(plan))
    count = parameters(e.problem.model)
    assert float(np.asarray(dense)) * 2 + float(np.asarray(experts)) * 2 == pytest.approx(count.total, rel=1e-12)


JOB = ("train-llama-3.1-8b",)


def test_a_chip_against_itself_weighs_one_and_ties_count_half() -> None:
    found = weigh(load(), "h100", "nvidia-h100-sxm-80gb", JOB).jobs[0]
    assert (found.ratio.low, found.ratio.median, found.ratio.high) == (1.0, 1.0, 1.0)
    assert found.p_at_least == 0.5


def test_swapping_the_chips_inverts_the_ratio() -> None:
    forth, back = (weigh(load(), a, b, JOB, seed=3).jobs[0] for a, b in (("910b2", "h100"), ("h100", "910b2")))
    assert forth.ratio.median * back.ratio.median == pytest.approx(1.0, rel=1e-3)
    assert forth.ratio.low * back.ratio.high == pytest.approx(1.0, rel=1e-3)
    assert forth.p_at_least + back.p_at_least == pytest.approx(1.0)


def test_contributions_multiply_to_the_nominal_ratio() -> None:
    found = weigh(load(), "a100", "h100", JOB).jobs[0]
    a, b = sum(s for _, s in found.a.parts), sum(s for _, s in found.b.parts)
    assert float(np.prod([f for _, f in found.contributions])) == pytest.approx(b / a, rel=1e-6)


def test_seed_and_assumption_change_the_answer() -> None:
    base = weigh(load(), "910d", "h100", JOB)
    assert weigh(load(), "910d", "h100", JOB) == base
    assert weigh(load(), "910d", "h100", JOB, seed=1).jobs[0].ratio != base.jobs[0].ratio
    assert weigh(load(), "910d", "h100", JOB, assume={"910d": "quad-die"}).jobs[0].ratio.median > base.jobs[0].ratio.median


def test_a_changed_fact_changes_the_answer(tmp_path) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "chips"
    folder.mkdir()
    catalog = load()
    text = catalog.text("chips/nvidia-h100-sxm-80gb.toml").replace('"989.4 TFLOP/s"', '"494.7 TFLOP/s"').replace('"1979 TFLOP/s"', '"989.4 TFLOP/s"')
    (folder / "nvidia-h100-sxm-80gb.toml").write_text(text)
    slow, usual = (weigh(c, "910b2", "h100", JOB).jobs[0].ratio.median for c in (load(tmp_path), catalog))
    assert slow > usual * 1.2


def test_every_field_of_hardware_is_a_number() -> None:
    for chip in CHIPS:
        hw = prepared(MODELS[0], chip).hardware
        assert all(np.isfinite(float(np.asarray(getattr(hw, f.name)))) for f in fields(Hardware))
