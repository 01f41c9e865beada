"""Hybrid sharding: states spread over a group of ranks, groups that hold replicas."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from chipscale.catalog import load
from chipscale.cost.calibration import constants, read_calibration
from chipscale.cost.hardware import hardware
from chipscale.cost.links import gather_seconds
from chipscale.evidence import Belief, EvidenceError
from chipscale.ops.collective import spread
from chipscale.plan import CP_KINDS, FIELDS, SHARDING, Plan, degrees, parse
from chipscale.planning import train, training_job
from chipscale.rows import plans as plans_of
from chipscale.search import Evaluator, Problem, Space, evaluator, space
from chipscale.simulators.closed_form import data_seconds, shard_parameters
from chipscale.simulators.event import replayed
from chipscale.verdict.weighing import context

LLAMA, MOE = "meta-llama/Meta-Llama-3.1-8B", "deepseek-ai/DeepSeek-V3"


@cache
def prepared(name: str, chips: int = 64) -> tuple[Evaluator, Space]:
    catalog = load()
    chip = catalog.chip("h100")
    assert not isinstance(chip, Belief)
    job = training_job(name, chips)
    k = constants(read_calibration(catalog).coefficients(), context(catalog, chip, job, "bf16"))
    problem = Problem(model=catalog.model(name), length=float(job.length), batch=float(job.batch), precision="bf16")
    e = evaluator(problem, hardware(chip, catalog.cluster_for(chip), "bf16"), k)
    return e, space(problem.model, chips, job.batch, 16, cp_kinds=CP_KINDS, tier=8)


def plan(copies: int, **more: int) -> Plan:
    return replace(Plan(dp=64, sharding=SHARDING.index("zero3"), dp_replicate=copies), **more)


def test_one_group_of_all_ranks_is_full_sharding() -> None:
    """With one group the traffic is that of ZeRO-3, to the last bit: 4 bytes gathered and 2 scattered a parameter over all ranks."""
    e, _ = prepared(LLAMA)
    d = degrees(plan(1))
    dense, _ = shard_parameters(e.sizes, d)
    dense_only, no_experts = (gather_seconds(x, spread(64.0, 1.0, e.hardware.inner_size), e.hardware, e.constants) for x in (6.0 * dense, 0.0))
    assert float(data_seconds(e.sizes, d, e.hardware, e.constants)) == float(dense_only + no_experts)
    assert parse("dp=64,dp_replicate=1,zero=zero3", 64) == parse("zero=zero3", 64) == plan(1)


def test_between_groups_only_the_gradients_of_a_shard_travel() -> None:
    """With nothing to wait for inside a node, 8 groups of 8 all-reduce 2 bytes of an eighth of the parameters."""
    e, _ = prepared(LLAMA)
    fast = replace(e.hardware, inner_bandwidth=1e30, inner_latency=0.0, outer_latency=0.0, middle_latency=0.0)
    d = degrees(plan(8))
    dense, _ = shard_parameters(e.sizes, d)
    expected = 2.0 * 2.0 * float(dense) / 8.0 * (7.0 / 8.0) / float(e.constants.outer * fast.outer_bandwidth)
    assert float(data_seconds(e.sizes, d, fast, e.constants)) == pytest.approx(expected)


@pytest.mark.parametrize("copies", [2, 4, 8, 64])
def test_a_group_of_fewer_ranks_holds_more(copies: int) -> None:
    e, _ = prepared(LLAMA)
    one, some = (e.need(degrees(plan(n))) for n in (1, copies))
    for kind in ("weights", "gradients", "optimizer"):
        assert float(getattr(some, kind)) == pytest.approx(copies * float(getattr(one, kind)))


def test_experts_are_replicated_with_the_rest() -> None:
    e, _ = prepared(MOE)
    one, two = (e.need(degrees(plan(n, ep=16))) for n in (1, 2))
    assert float(two.optimizer) == pytest.approx(2.0 * float(one.optimizer))


@pytest.mark.parametrize("slower", [1.0, 10.0, 100.0])
def test_groups_in_nodes_send_two_thirds_between_them(slower: float) -> None:
    """6 bytes a parameter of a node's share go over the network without groups, an all-reduce of 2 with them."""
    e, _ = prepared(LLAMA)
    hw = replace(e.hardware, outer_bandwidth=float(e.hardware.outer_bandwidth) / slower, outer_latency=0.0, middle_latency=0.0, inner_latency=0.0)
    full, hybrid = (float(data_seconds(e.sizes, degrees(plan(n)), hw, e.constants)) for n in (1, 8))
    dense, _ = shard_parameters(e.sizes, degrees(plan(8)))
    sent = float(dense) / 8.0 * (7.0 / 8.0) / float(e.constants.outer * hw.outer_bandwidth)
    assert full - hybrid == pytest.approx(2.0 * sent)


@pytest.mark.parametrize("name", [LLAMA, MOE])
def test_a_space_lists_groups_that_share_a_node_once(name: str) -> None:
    e, plans = prepared(name)
    t = plans.table()
    rows = np.stack([getattr(t, n) for n in FIELDS], axis=1)
    assert len(np.unique(rows, axis=0)) == len(plans)
    some = t.dp_replicate > 1
    assert some.any()
    assert set(t.sharding[some]) == {3}
    ranks = t.tp * t.cp * t.dp // t.dp_replicate
    assert ranks[some].max() <= 8
    assert not np.any(ranks[some] % (t.ep * t.etp)[some])
    assert all(plans.row(int(i)).chips == 64 for i in np.flatnonzero(some)[::97])
    by_grid, by_row = e.evaluate(plans), e.evaluate(t)
    assert np.array_equal(by_grid.seconds, by_row.seconds)
    assert np.array_equal(by_grid.bytes, by_row.bytes)


def test_groups_replay_as_the_closed_form() -> None:
    e, _ = prepared(LLAMA)
    for copies in (1, 8):
        p = plan(copies)
        assert replayed(e.times(degrees(p)), e.sizes, p, e.hardware, e.constants).seconds == pytest.approx(
            float(e.step(degrees(p)).seconds), rel=0.02
        )


@pytest.mark.parametrize(
    ("text", "node", "groups"),
    [
        ("FSDP 16 x TP 4 per slice", "", 2),
        ("FSDP 8 in node x DP over nodes", "8", 4),
        ("HSDP", "8", 4),
        ("HSDP", "", 1),
        ("FSDP2", "8", 1),
        ("ici=32", "", 1),
    ],
)
def test_a_row_states_its_groups(text: str, node: str, groups: int) -> None:
    catalog = load()
    row = {
        "_line": "1",
        "tp": "1",
        "pp": "1",
        "micro_batch": "1",
        "sharding": "zero3",
        "recompute": "none",
        "sharding_as_stated": text,
        "chips_per_node": node,
    }
    found = plans_of(row, catalog.model(LLAMA), catalog.framework("torchtitan"), 32, 32, [])
    assert {p.dp_replicate for p, _ in found} == {groups}


def test_a_row_whose_groups_do_not_divide_says_so() -> None:
    catalog = load()
    row = {"_line": "1", "tp": "1", "pp": "1", "micro_batch": "1", "sharding": "zero3", "recompute": "none", "sharding_as_stated": "FSDP 24"}
    with pytest.raises(EvidenceError, match="sharding_as_stated: groups of 24 do not divide"):
        plans_of(row, catalog.model(LLAMA), catalog.framework("torchtitan"), 32, 32, [])


@pytest.mark.parametrize(
    ("model", "text", "words"),
    [
        (LLAMA, "zero=zero3,dp_replicate=3", "dp_replicate=3 does not divide dp=64; choose a divisor"),
        (LLAMA, "zero=none,dp_replicate=8", "dp_replicate=8 is about what is sharded, but sharding=none"),
        (LLAMA, "zero=zero3,dp_replicate=0", "dp_replicate='0' is not a whole number"),
        (MOE, "zero=zero3,ep=16,dp_replicate=8", "groups of 8 ranks, which ep x etp = 16 does not divide"),
    ],
)
def test_what_cannot_be_is_refused(model: str, text: str, words: str) -> None:
    with pytest.raises(EvidenceError, match=words):
        train(load(), model, "h100", 64, plan=text)


def test_a_plan_states_its_groups_and_reads_them_again() -> None:
    assert "dp=64,dp_replicate=8," in str(plan(8))
    assert parse(str(plan(8)), 64) == plan(8) == parse("data_parallel_replicate_degree=8,zero=zero3", 64)
