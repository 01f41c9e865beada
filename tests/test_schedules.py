"""Orders of operations: each once, none waiting for itself, and as much in flight as the closed form says."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chipscale.evidence import EvidenceError
from chipscale.plan import SCHEDULES, Degrees, Plan, degrees, parse
from chipscale.schedules.forms import Passes, bubble, in_flight, problem
from chipscale.schedules.orders import Kind, Order, order

NONE = Passes(total=0.0, forward=0.0, weights=0.0)


@st.composite
def shapes(draw: st.DrawFn) -> tuple[str, int, int, int]:
    """Draw a schedule with ranks, chunks and micro-batches that it can hold."""
    schedule = draw(st.sampled_from(SCHEDULES))
    p = draw(st.integers(2, 10))
    v = draw(st.integers(1, 4)) if schedule == "1f1b" else 1
    m = draw(st.integers(1, 5 * p))
    p, m = (2 * (p // 2), 2 * (m // 2)) if schedule == "dualpipe" else (p, m)
    while problem(schedule, p, v, m):
        m += 2
    return schedule, p, v, m


def plan_of(schedule: str, p: int, v: int) -> Degrees:
    return degrees(Plan(pp=p, vpp=v, schedule=SCHEDULES.index(schedule)))


def peak(o: Order, rank: int) -> int:
    """Count the stage inputs that a rank holds at most: from their forward pass to their weight gradient."""
    held = most = 0
    for slot in o.ranks[rank]:
        held += sum(op.kind is Kind.FORWARD for op in slot)
        most = max(most, held)
        held -= sum(op.kind in (Kind.WEIGHT, Kind.BACKWARD) for op in slot)
    assert held == 0
    return most


@settings(max_examples=150, deadline=None)
@given(shapes())
def test_each_micro_batch_passes_each_stage_once_each_way(shape: tuple[str, int, int, int]) -> None:
    o = order(*shape)
    seen = Counter((op.kind, op.stage, op.batch) for slots in o.ranks for slot in slots for op in slot)
    assert set(seen.values()) == {1}
    for stage in range(o.stages):
        for batch in range(o.batches):
            whole = seen[Kind.BACKWARD, stage, batch]
            assert seen[Kind.FORWARD, stage, batch] == 1
            assert seen[Kind.INPUT, stage, batch] == seen[Kind.WEIGHT, stage, batch] == 1 - whole
    for rank, slots in enumerate(o.ranks):
        assert all(o.rank(op.stage, op.batch) == rank for slot in slots for op in slot)


@settings(max_examples=150, deadline=None)
@given(shapes())
def test_in_flight_is_what_the_order_keeps(shape: tuple[str, int, int, int]) -> None:
    schedule, p, v, m = shape
    o = order(*shape)
    share = 1.0 if schedule == "dualpipe" else p / o.stages
    assert float(in_flight(plan_of(schedule, p, v), float(m))) == pytest.approx(share * max(peak(o, r) for r in range(p)), rel=1e-12)


@pytest.mark.parametrize(("schedule", "first", "last"), [("1f1b", 8, 1), ("gpipe", 32, 32), ("zb-h1", 8, 8), ("zb-v", 16, 16), ("dualpipe", 9, 9)])
def test_first_and_last_rank_keep_what_is_published(schedule: str, first: int, last: int) -> None:
    o = order(schedule, 8, 1, 32)
    assert (peak(o, 0), peak(o, 7)) == (first, last)


def test_published_bubbles() -> None:
    """With F = B = W = 1: 1F1B 3 (p - 1), ZB-H1 p - 1, ZB-V none, DualPipe (p / 2 - 1) (F&B + B' - 3 W) with B' = B + W."""
    s = Passes(total=3.0, forward=1.0, weights=1.0)
    found = {name: float(bubble(plan_of(name, 8, 1), 32.0, s, NONE)) for name in SCHEDULES}
    assert found == {"1f1b": 21.0, "gpipe": 21.0, "zb-h1": 7.0, "zb-v": 0.0, "dualpipe": 6.0, "dualpipe-v": 7.0}


def test_a_table_mixes_schedules() -> None:
    plans = [Plan(pp=8, schedule=i) for i in range(len(SCHEDULES))]
    s = Passes(total=3.0, forward=0.9, weights=0.8)
    column = Degrees(**{n: np.array([getattr(p, n) for p in plans], dtype=float) for n in Degrees.__dataclass_fields__})
    assert bubble(column, 32.0, s, NONE).tolist() == [float(bubble(degrees(p), 32.0, s, NONE)) for p in plans]


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (("dualpipe", 7, 1, 28), "pp=7"),
        (("dualpipe", 8, 1, 17), "even number"),
        (("dualpipe", 8, 1, 14), "14 micro-batches are too few"),
        (("zb-v", 8, 1, 15), "needs 16"),
        (("1f1b", 8, 2, 7), "vpp=2, which needs 8"),
        (("gpipe", 8, 2, 16), "leave vpp out"),
        (("zb-h1", 1, 1, 16), "at least two stages"),
        (("1f1b", 4, 1, 0), "at least one"),
    ],
)
def test_a_schedule_that_cannot_hold_the_micro_batches_is_refused(shape: tuple[str, int, int, int], words: str) -> None:
    with pytest.raises(EvidenceError, match=words):
        order(*shape)


def test_more_stages_than_layers_are_a_problem() -> None:
    assert "more than the 12 layers" in problem("zb-v", 8, 1, 32, 12)


def test_a_plan_states_its_schedule() -> None:
    plan = parse("pp=8,schedule=zb-v", 64)
    assert SCHEDULES[plan.schedule] == "zb-v"
    assert "schedule=zb-v" in str(plan)
    assert parse(str(plan), 64) == plan
    with pytest.raises(EvidenceError, match="one of 1f1b, gpipe"):
        parse("pp=8,schedule=zigzag", 64)
