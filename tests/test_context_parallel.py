"""Context parallelism: what each kind sends, what attention hides of it, what it holds, and who has it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from chipscale.catalog import load
from chipscale.cost.calibration import constants, read_calibration
from chipscale.cost.hardware import hardware
from chipscale.evidence import Belief, EvidenceError
from chipscale.facts.model import MLP, Attention, Block, Model
from chipscale.memory import shared_bytes
from chipscale.plan import CP_KINDS, Plan, degrees, parse
from chipscale.planning import train, training_job
from chipscale.rows import plans as plans_of
from chipscale.search import Evaluator, Problem, evaluator, space
from chipscale.simulators.context_parallel import exchange_volumes, ring_volume, shared_seconds, wire_seconds
from chipscale.simulators.event import replayed
from chipscale.step import Times
from chipscale.verdict.weighing import context

LLAMA = "meta-llama/Meta-Llama-3.1-8B"
LENGTH = 65536.0


def model(heads: int, kv_heads: int) -> Model:
    mixer = Attention(heads=heads, kv_heads=kv_heads, head_dim=128, v_head_dim=128)
    return Model(
        id="m",
        name="m",
        d_model=128 * heads,
        vocab=32000,
        tied=False,
        blocks=(Block(mixer=mixer, feed=MLP(d_ff=11008, gated=True), norms=2, repeat=32),),
    )


@cache
def prepared(name: str | Model = LLAMA) -> Evaluator:
    catalog = load()
    chip = catalog.chip("h100")
    assert not isinstance(chip, Belief)
    job = training_job(LLAMA, 64, length=int(LENGTH), batch=64)
    k = constants(read_calibration(catalog).coefficients(), context(catalog, chip, job, "bf16"))
    problem = Problem(model=catalog.model(name) if isinstance(name, str) else name, length=LENGTH, batch=64.0, precision="bf16")
    return evaluator(problem, hardware(chip, catalog.cluster_for(chip), "bf16"), k)


def plan(kind: str, cp: int = 8, **more: int) -> Plan:
    return Plan(cp=cp, dp=64 // cp // more.get("tp", 1), cp_kind=CP_KINDS.index(kind), **more)


@pytest.mark.parametrize("cp", [2, 4, 8, 16])
def test_heads_for_tokens_send_four_hidden_states_over_the_ranks(cp: int) -> None:
    """DeepSpeed-Ulysses, section 3.2: 4 N h / P elements a layer on each link."""
    e = prepared(model(32, 32))
    before, after = exchange_volumes(e.sizes, degrees(plan("a2a", cp)), LENGTH / cp)
    assert before + after == pytest.approx(32 * 2.0 * 4.0 * LENGTH * 4096 / cp)
    assert before == pytest.approx(3.0 * after)


def test_heads_of_keys_are_repeated_where_there_are_fewer_than_ranks() -> None:
    few, ranks = prepared(model(32, 4)), 8
    before, after = exchange_volumes(few.sizes, degrees(plan("a2a", ranks)), LENGTH / ranks)
    queries = 32 * 2.0 * LENGTH / ranks * 4096
    assert after == pytest.approx(queries)
    assert before == pytest.approx(queries * (1.0 + 2.0 * 8 / 32))


@pytest.mark.parametrize("cp", [2, 4, 8, 16])
def test_a_ring_passes_the_keys_and_values_of_all_others(cp: int) -> None:
    e = prepared(model(32, 8))
    passed = (cp - 1) * ring_volume(e.sizes, degrees(plan("p2p", cp)), LENGTH / cp)
    whole = 32 * 2.0 * LENGTH * 2 * 8 * 128
    assert passed == pytest.approx(whole * (cp - 1) / cp)


def shared(e: Evaluator, p: Plan, *, attention: float = 1.0, cp: float = 0.0) -> tuple[float, float, float, float]:
    d = degrees(p)
    t = e.times(d)
    slower = Times(**{n: getattr(t, n) * (attention if n in ("attention", "core") else 1.0) for n in Times.__dataclass_fields__})
    k = replace(e.constants, cp=cp)
    found, wire = (f(slower, e.sizes, d, LENGTH / p.cp, e.hardware, k) for f in (shared_seconds, wire_seconds))
    return tuple(float(x) for x in (found.forward, found.backward, wire.forward, wire.backward))  # type: ignore[return-value]


def test_attention_hides_a_ring_and_nothing_else() -> None:
    e = prepared()
    for attention in (1e-9, 1e9):
        forward, backward, there, back = shared(e, plan("p2p"), attention=attention)
        hidden = attention > 1.0
        assert forward == pytest.approx(0.0 if hidden else there)
        assert backward == pytest.approx(0.0 if hidden else back)
        for kind in ("all_gather", "a2a"):
            forward, backward, there, back = shared(e, plan(kind), attention=attention)
            assert (forward, backward) == (there, back)
    assert all(x == 0.0 for x in shared(e, plan("p2p", 1), cp=0.5))


def test_a_ring_is_exposed_step_by_step() -> None:
    """Where attention over a block takes half as long as its step, half of the ring is exposed."""
    e = prepared()
    d = degrees(plan("p2p"))
    _, _, there, _ = shared(e, plan("p2p"))
    half = there / 7 * 8 / 2 / float(e.times(d).core)
    forward, *_ = shared(e, plan("p2p"), attention=half)
    assert forward == pytest.approx(there / 2)


def test_gathered_keys_and_values_are_held_and_a_ring_holds_one_block() -> None:
    e, own = prepared(), 2.0 * 2 * 8 * 128
    ring, gathered, exchanged = (float(shared_bytes(e.holds, degrees(plan(kind)))) for kind in CP_KINDS)
    assert (ring, gathered) == (pytest.approx(2.0 * own), pytest.approx(2.0 * 7 * own))
    assert exchanged == pytest.approx(own + 2.0 * 2 * 4096)
    assert float(shared_bytes(e.holds, degrees(plan("p2p", 1)))) == 0.0
    leanest, *others = (float(np.asarray(e.need(degrees(plan(kind, recompute=2))).total)) for kind in CP_KINDS)
    assert leanest <= min(others)


@pytest.mark.parametrize("kind", CP_KINDS)
def test_every_kind_replays_as_the_closed_form(kind: str) -> None:
    e = prepared()
    for p in (plan(kind, 4), plan(kind, 4, pp=2, recompute=2), plan(kind, 2, tp=2, pp=4)):
        p = replace(p, dp=64 // (p.tp * p.pp * p.cp))
        found = replayed(e.times(degrees(p)), e.sizes, p, e.hardware, e.constants)
        assert found.seconds == pytest.approx(float(e.step(degrees(p)).seconds), rel=0.02), p
        assert {"cp"} == {name for name, _ in found.load.traffic} & {"cp"}


def test_a_space_lists_each_kind_where_there_are_ranks_to_talk() -> None:
    few = model(12, 4)
    listed = space(few, 64, 64, 8, cp_kinds=CP_KINDS).table()
    alone = listed.cp == 1
    assert set(listed.cp_kind[alone]) == {0}
    assert set(listed.cp_kind[~alone]) == {0, 1, 2}
    exchanged = listed.cp_kind == CP_KINDS.index("a2a")
    assert set(12 % (listed.tp * listed.cp)[exchanged]) == {0}
    assert len(space(few, 64, 64, 8)) == int(np.sum(listed.cp_kind == 0))


def test_a_silent_row_takes_its_frameworks_default() -> None:
    catalog, m = load(), model(32, 8)
    row = {"_line": "1", "tp": "1", "pp": "1", "cp": "8", "micro_batch": "1", "sharding": "zero1", "recompute": "none"}
    for framework, stated, kind in (
        ("megatron", "", "p2p"),
        ("torchtitan", "", "all_gather"),
        ("mindspeed", "", "a2a"),
        ("megatron", "cp_comm_type=a2a", "a2a"),
    ):
        found = plans_of({**row, "overlap_as_stated": stated}, m, catalog.framework(framework), 64, 64, [])
        assert {CP_KINDS[p.cp_kind] for p, _ in found} == {kind}


def test_a_plan_states_its_kind_and_reads_it_again() -> None:
    p = plan("a2a")
    assert "cp=8,cp_kind=a2a" in str(p)
    assert parse(str(p), 64) == p == parse("cp=8,cp_kind=ulysses", 64)
    assert parse("cp=8", 64, cp_kind=1).cp_kind == 1
    assert parse("tp=8", 64, cp_kind=1).cp_kind == 0


@pytest.mark.parametrize(
    ("text", "framework", "words"),
    [
        ("cp=8,cp_kind=star", "megatron", "cp_kind='star' is not one of p2p, all_gather, a2a"),
        ("cp=64,cp_kind=a2a", "megatron", "tp x cp = 64 does not divide 32 attention heads"),
        ("tp=8,cp_kind=a2a", "megatron", "cp=1; state cp or leave cp_kind out"),
        ("cp=8,cp_kind=a2a", "torchtitan", "torchtitan has no cp_kind=a2a; choose one of all_gather, p2p"),
    ],
)
def test_what_cannot_be_is_refused(text: str, framework: str, words: str) -> None:
    with pytest.raises(EvidenceError, match=words):
        train(load(), LLAMA, "h100", 64, length=int(LENGTH), batch=64, plan=text, framework=framework)
