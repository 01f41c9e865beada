"""The space, the frontier, and what the others lose."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chipscale.catalog import load
from chipscale.cost.calibration import constants, read_calibration
from chipscale.cost.hardware import hardware
from chipscale.evidence import Belief, EvidenceError
from chipscale.plan import FIELDS
from chipscale.planning import pareto, train, training_job
from chipscale.search import Evaluator, Problem, Space, evaluator, frontier, space
from chipscale.verdict.world import context

LLAMA, MOE = "Meta-Llama-3.1-8B", "DeepSeek-V3"


@cache
def prepared(model: str, chips: int) -> tuple[Evaluator, Space]:
    catalog = load()
    chip = catalog.chip("h100")
    assert not isinstance(chip, Belief)
    job = training_job(model, chips)
    k = constants(read_calibration(catalog).coefficients(), context(catalog, chip, job, "bf16"))
    problem = Problem(model=catalog.model(model), length=float(job.length), batch=float(job.batch), precision="bf16")
    e = evaluator(problem, hardware(chip, catalog.cluster_for(chip), "bf16"), k)
    return e, space(problem.model, chips, job.batch, 16)


@pytest.mark.parametrize(("model", "chips"), [(LLAMA, 64), (MOE, 256)])
def test_a_space_is_evaluated_as_its_table(model: str, chips: int) -> None:
    e, plans = prepared(model, chips)
    by_grid, by_row = e.evaluate(plans), e.evaluate(plans.table())
    assert np.array_equal(by_grid.seconds, by_row.seconds)
    assert np.array_equal(by_grid.bytes, by_row.bytes)


@pytest.mark.parametrize(("model", "chips"), [(LLAMA, 64), (MOE, 256)])
def test_a_space_lists_each_plan_once(model: str, chips: int) -> None:
    _, plans = prepared(model, chips)
    table = plans.table()
    rows = np.stack([getattr(table, name) for name in FIELDS], axis=1)
    assert len(plans) == len(table) == len(np.unique(rows, axis=0))
    assert {plans.row(i).chips for i in range(0, len(plans), 97)} == {chips}
    some = np.random.default_rng(0).integers(0, len(plans), 50)
    assert [plans.take(some).row(i) for i in range(50)] == [plans.row(int(n)) for n in some] == [table.row(int(n)) for n in some]


def test_a_watch_is_told_shares_up_to_one() -> None:
    e, plans = prepared(MOE, 256)
    told: list[float] = []
    e.evaluate(plans, told.append)
    assert told == sorted(told)
    assert len(told) >= len(plans.grids)
    assert told[-1] == 1.0


points = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 4)), min_size=1, max_size=60)


@settings(max_examples=300, deadline=None)
@given(points)
def test_the_frontier_is_what_brute_force_finds(listed: list[tuple[int, int, int]]) -> None:
    seconds, held, chips = (np.array(column) for column in zip(*listed, strict=True))
    kept = [listed[i] for i in frontier(seconds.astype(float), held.astype(float), chips)]
    beaten = {p for p in listed if any(q != p and all(a <= b for a, b in zip(q, p, strict=True)) for q in listed)}
    assert len(kept) == len(set(kept))
    assert set(kept) == set(listed) - beaten


def test_a_frontier_ends_at_the_fastest_and_at_the_leanest() -> None:
    e, plans = prepared(LLAMA, 64)
    found = e.evaluate(plans)
    sides = pareto(load(), LLAMA, "h100", [64], precision="bf16")
    (fastest,) = train(load(), LLAMA, "h100", 64, precision="bf16", top=1)
    assert (sides[0].plan, sides[0].seconds) == (fastest.plan, fastest.seconds)
    assert sides[-1].memory_bytes == found.bytes.min()
    assert all(a.seconds.median < b.seconds.median and a.memory_bytes > b.memory_bytes for a, b in pairwise(sides))


def test_a_frontier_over_sizes_has_one_batch_and_leaves_out_what_does_not_fit() -> None:
    sides = pareto(load(), MOE, "h100", [512, 8, 256], precision="bf16")
    assert {s.chips for s in sides} == {256, 512}
    tokens = {round(s.rate.median * s.seconds.median * s.chips) for s in sides}
    assert len(tokens) == 1
    with pytest.raises(EvidenceError, match="does not fit"):
        pareto(load(), MOE, "h100", [8, 16])


def test_each_plan_says_what_it_loses() -> None:
    first, *others = train(load(), MOE, "h100", 2048, top=10)
    assert first.loss is None
    assert len(others) == 9
    assert len({(s.plan, s.precision) for s in (first, *others)}) == 10
    for s in others:
        assert s.loss is not None
        more = {name: t - dict(first.parts).get(name, 0.0) for name, t in s.parts}
        assert s.loss.slower == pytest.approx(s.seconds.median / first.seconds.median - 1.0, abs=1e-12)
        assert s.loss.more * first.seconds.median == pytest.approx(max(more.values()), abs=1e-12)
        assert more[s.loss.cause] == max(more.values())
        assert s.loss.memory == s.memory_bytes - first.memory_bytes
