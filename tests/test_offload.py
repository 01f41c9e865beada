"""Offload: seconds on the host link, bytes that leave the chip, and the copies of a replay."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chipscale.catalog import load
from chipscale.cost.calibration import constants, read_calibration
from chipscale.cost.hardware import hardware
from chipscale.evidence import Belief, EvidenceError
from chipscale.plan import OFFLOAD, SCHEDULES, Plan, degrees, offloads, parse
from chipscale.planning import replay, train, training_job
from chipscale.report.trace import chrome_trace
from chipscale.search import Evaluator, Problem, evaluator, space
from chipscale.simulators.event import Replay, replayed
from chipscale.step import CAUSES
from chipscale.verdict.weighing import context

LLAMA, MOE = "meta-llama/Meta-Llama-3.1-8B", "deepseek-ai/DeepSeek-V3"


@cache
def prepared(name: str = LLAMA) -> Evaluator:
    catalog = load()
    chip = catalog.chip("h100")
    assert not isinstance(chip, Belief)
    job = training_job(name, 64, batch=512)
    k = constants(read_calibration(catalog).coefficients(), context(catalog, chip, job, "bf16"))
    problem = Problem(model=catalog.model(name), length=4096.0, batch=512.0, precision="bf16")
    return evaluator(problem, hardware(chip, catalog.cluster_for(chip), "bf16"), k)


@cache
def plans(name: str) -> list[Plan]:
    t = space(load().model(name), 64, 512, 16)
    return [t.row(int(i)) for i in np.linspace(0, len(t) - 1, 300)]


def away(plan: Plan, what: str) -> Plan:
    return replace(plan, offload=OFFLOAD.index(what))


def seconds(e: Evaluator, plan: Plan) -> float:
    return float(np.asarray(e.step(degrees(plan)).seconds))


def run(e: Evaluator, plan: Plan) -> Replay:
    d = degrees(plan)
    return replayed(e.times(d), e.sizes, plan, e.hardware, e.constants, moved=e.moved(d))


@settings(max_examples=80, deadline=None)
@given(st.sampled_from((LLAMA, MOE)), st.integers(0, 299), st.sampled_from(OFFLOAD[1:]))
def test_offload_never_holds_more_and_never_runs_faster(name: str, i: int, what: str) -> None:
    e, plan = prepared(name), plans(name)[i]
    kept, moved = (e.need(degrees(p)) for p in (plan, away(plan, what)))
    assert float(np.asarray(moved.total)) <= float(np.asarray(kept.total)) * (1 + 1e-12)
    assert seconds(e, away(plan, what)) >= seconds(e, plan) * (1 - 1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 299), st.floats(1.0, 100.0))
def test_a_wider_host_link_is_never_slower(i: int, factor: float) -> None:
    e, plan = prepared(), away(plans(LLAMA)[i], "both")
    wider = replace(e, hardware=replace(e.hardware, host_bandwidth=factor * float(e.hardware.host_bandwidth)))
    assert seconds(wider, plan) <= seconds(e, plan) * (1 + 1e-12)


def test_states_stream_at_the_rate_of_the_link() -> None:
    """12 bytes of each parameter that a rank updates, in and out at once, but for what the update itself takes."""
    e, plan = prepared(), Plan(dp=64)
    states = 12.0 * (float(e.sizes.dense) + float(e.sizes.ends)) / 64.0
    update = e.step(degrees(plan)).parts[CAUSES.index("optimizer")]
    more = states / 64e9 - float(update) / float(e.constants.scale)
    assert seconds(e, away(plan, "optimizer")) - seconds(e, plan) == pytest.approx(float(e.constants.scale) * more)
    assert float(e.need(degrees(away(plan, "optimizer"))).optimizer) == pytest.approx(states * 2.0 / 32.0)


def test_copies_of_activations_hide_behind_the_passes() -> None:
    """At 64 GB/s all are hidden where a layer is long against what it keeps; on a link without end nothing is added."""
    e, plan = prepared(), away(Plan(dp=64), "activations")
    endless = replace(e, hardware=replace(e.hardware, host_bandwidth=1e30))
    assert seconds(endless, plan) == pytest.approx(seconds(e, replace(plan, offload=0)))
    slow = replace(e, hardware=replace(e.hardware, host_bandwidth=1e9))
    copied = float(e.moved(degrees(plan)).activations) / 1e9
    batches = 512 / 64
    one = (seconds(e, replace(plan, offload=0)), seconds(slow, plan))
    assert one[1] - one[0] < 2.0 * copied * batches * float(e.constants.scale)
    assert one[1] > 2.0 * copied * batches * float(e.constants.scale) * 0.99


@pytest.mark.parametrize("schedule", [s for s in SCHEDULES if s != "gpipe"])
@pytest.mark.parametrize("link", [4e9, 64e9, 1e12])
def test_a_replay_agrees(schedule: str, link: float) -> None:
    e = replace(prepared(), hardware=replace(prepared().hardware, host_bandwidth=link))
    for what in OFFLOAD:
        plan = away(Plan(pp=4, dp=16, schedule=SCHEDULES.index(schedule)), what)
        assert run(e, plan).seconds == pytest.approx(seconds(e, plan), rel=0.02), plan


def test_a_trace_shows_the_copies() -> None:
    catalog = load()
    (side,) = train(catalog, LLAMA, "h100", 64, batch=512, precision="bf16", plan="pp=4,offload=both")
    found = replay(catalog, "h100", side, training_job(LLAMA, 64, batch=512))
    events = json.loads(chrome_trace(found.replay, "a step", found.layer_bytes))["traceEvents"]
    names = {x["args"]["name"]: (x["pid"], x["tid"]) for x in events if x["name"] == "thread_name"}
    assert {"copy out", "copy in"} <= names.keys()
    threads: dict[tuple[int, int], float] = {}
    copied = [x for x in events if x["ph"] == "X" and x["cat"] in ("copy out", "copy in")]
    for x in copied:
        assert x["ts"] >= threads.get((x["pid"], x["tid"]), 0.0) - 1e-3
        threads[x["pid"], x["tid"]] = x["ts"] + x["dur"]
    batches = 512 // 16
    for cat in ("copy out", "copy in"):
        mine = [x for x in copied if x["cat"] == cat]
        assert len(mine) == 4 * (batches + 1)
        assert {x["name"].split()[0] for x in mine} == {"activations", "optimizer"}
    assert dict(side.parts)["offload"] > 0.0


def test_a_search_moves_what_it_is_asked_to() -> None:
    kept, asked = (
        train(load(), LLAMA, "h100", 8, batch=64, precision="bf16", offloads=o)[0] for o in (("none",), ("none", "activations", "optimizer"))
    )
    assert "offload" not in kept.plan
    assert asked.seconds.median <= kept.seconds.median
    listed = space(load().model(LLAMA), 8, 64, 8, offloads=("none", "optimizer")).table()
    assert set(listed.offload) == {0, 1}
    assert len(listed) == 2 * len(space(load().model(LLAMA), 8, 64, 8))


def test_a_space_with_offload_is_evaluated_as_its_table() -> None:
    e, listed = prepared(), space(load().model(LLAMA), 64, 512, 8, offloads=OFFLOAD)
    by_grid, by_row = e.evaluate(listed), e.evaluate(listed.table())
    assert np.array_equal(by_grid.seconds, by_row.seconds)
    assert np.array_equal(by_grid.bytes, by_row.bytes)


def test_what_cannot_be_is_refused() -> None:
    for arguments in ({"plan": "offload=optimizer"}, {"offloads": ("none", "optimizer")}):
        with pytest.raises(EvidenceError, match="link to the host, and nothing is known of that of huawei-ascend-910b2; add a"):
            train(load(), LLAMA, "910b2", 64, **arguments)  # type: ignore[arg-type]
    with pytest.raises(EvidenceError, match="offload='weights' is not one of none, optimizer, activations, both"):
        train(load(), LLAMA, "h100", 64, plan="offload=weights")
    with pytest.raises(EvidenceError, match="--offload weights: 'weights' is not one of none, optimizer, activations, both"):
        offloads("weights")


def test_a_plan_states_what_it_moves_and_reads_it_again() -> None:
    plan = away(Plan(dp=64), "both")
    assert str(plan).endswith("offload=both")
    assert parse(str(plan), 64) == plan
