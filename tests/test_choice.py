"""How settings are read: what people choose, what a year excludes, what a chip lacks, attention before fused kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chipscale.catalog import load
from chipscale.choice import KAPPAS, alternatives, gains, likeliest_kappa
from chipscale.cost.calibration import constants, read_calibration, terms
from chipscale.cost.hardware import WIDTH, Hardware, hardware, peak_of
from chipscale.cost.roofline import seconds
from chipscale.evidence import Belief, EvidenceError
from chipscale.facts.chip import PRECISIONS, Chip
from chipscale.facts.job import Job
from chipscale.ops.attention import mean_span, softmax_core, unfused_core
from chipscale.ops.work import Work
from chipscale.rows import Measured, Row, read, understand
from chipscale.stack import KAPPA, stack
from chipscale.validate import ANCHORS, load_rows
from chipscale.verdict.world import context

CATALOG = load()
ANCHOR: Row = next(r for r in read(CATALOG.folders[0] / ANCHORS) if r["row"].startswith("kor22-"))


@cache
def coefficients() -> Mapping[str, float]:
    return read_calibration(CATALOG).coefficients()


@cache
def shipped() -> tuple[Measured, ...]:
    return tuple(load_rows(None, CATALOG))


@cache
def pipelines() -> tuple[Measured, ...]:
    """Return rows that state an interleave and had a choice."""
    rows = (r for r in shipped() if r.clean and not r.reason and r.guesses[0].plan.pp > 1 and not any("nterleave" in a for a in r.assumed))
    return tuple(r for r in rows if len(alternatives(r).guesses) > 2)[::3]


@cache
def logs_of(key: str) -> np.ndarray:
    (row,) = (r for r in pipelines() if r.key == key)
    problem = stack([alternatives(row)])
    theta = np.array([coefficients().get(name, 0.0) for name in problem.design.coefficients])
    return np.log(problem.step(theta).seconds)


def stating(row: Measured, index: int) -> Measured:
    """Return the row as if it had stated another of its alternatives."""
    return replace(row, guesses=(alternatives(row).guesses[index],), hardware=row.hardware[:1], contexts=row.contexts[:1])


# --- kappa


def test_the_shipped_kappa_is_about_as_likely_as_any() -> None:
    found = gains(shipped(), coefficients())
    assert KAPPA in found
    assert found[KAPPA] >= max(found.values()) - 0.01
    assert found[0.0] == pytest.approx(0.0, abs=1e-12)


some = st.sets(st.integers(0, len(pipelines()) - 1), min_size=1, max_size=5)


@settings(max_examples=15, deadline=None)
@given(some)
def test_rows_that_state_the_fastest_pull_kappa_up(indices: set[int]) -> None:
    rows = [stating(r, int(np.argmin(logs_of(r.key)))) for r in (pipelines()[i] for i in sorted(indices))]
    found = gains(rows, coefficients())
    assert found[0.0] == pytest.approx(0.0, abs=1e-12)
    assert np.all(np.diff([found[kappa] for kappa in KAPPAS]) >= -1e-9)
    assert found[KAPPAS[-1]] > 0.0
    assert likeliest_kappa(rows, coefficients()) > KAPPA


@settings(max_examples=15, deadline=None)
@given(some)
def test_rows_that_state_the_slowest_leave_kappa_at_zero(indices: set[int]) -> None:
    rows = [stating(r, int(np.argmax(logs_of(r.key)))) for r in (pipelines()[i] for i in sorted(indices))]
    assert likeliest_kappa(rows, coefficients()) == 0.0


def test_the_alternatives_hold_what_was_stated() -> None:
    for row in pipelines():
        plans = [g.plan for g in alternatives(row).guesses]
        assert row.guesses[0].plan in plans
        assert len({p.vpp for p in plans}) == len(plans)
        assert row.model is not None
        assert all(p.vpp <= -(-row.model.layers // p.pp) or p == row.guesses[0].plan for p in plans)


def test_the_faster_guess_weighs_more() -> None:
    row = next(r for r in shipped() if not r.reason and sum("interleave in" in a for a in r.assumed) and len(r.guesses) > 2)
    problem = stack([row])
    logs = np.log(problem.step(np.zeros(len(problem.design.coefficients))).seconds)
    share = problem.likely(logs)
    assert share.sum() == pytest.approx(1.0)
    ratio = share / problem.weight
    order = np.argsort(logs)
    assert np.all(np.diff(ratio[order]) <= 1e-12)
    slow, fast = order[-1], order[0]
    assert ratio[slow] / ratio[fast] == pytest.approx(np.exp(-KAPPA * (logs[slow] - logs[fast])))


# --- what a year excludes


@pytest.mark.parametrize(
    ("framework", "year", "old"),
    [
        ("Megatron-LM", "2022", True),
        ("Megatron-LM", "2021", True),
        ("Megatron-LM", "2023", False),
        ("Megatron-LM", "2024", False),
        ("Megatron-LM", "", False),
        ("torchtitan", "2022", False),
    ],
)
def test_a_row_older_than_a_feature_is_read_without_it(framework: str, year: str, old: bool) -> None:
    found = understand({**ANCHOR, "framework": framework, "year": year}, CATALOG)
    assert not found.reason
    assert all(("no_tp_overlap" in c.flags) == old for c in found.contexts)
    assert all((terms(c)["tp"] == (("tp.none", 1.0),)) == old for c in found.contexts)


def test_an_old_row_is_not_believed_to_overlap_whatever_it_says() -> None:
    found = understand({**ANCHOR, "year": "2022", "overlap_as_stated": "tp_comm_overlap"}, CATALOG)
    assert terms(found.contexts[0])["tp"] == (("tp.none", 1.0),)


# --- what a chip lacks


def every_chip() -> list[Chip]:
    found: dict[str, Chip] = {}
    for name in CATALOG.chips():
        chip = CATALOG.chip(name)
        for one in [h.value for h in chip.hypotheses] if isinstance(chip, Belief) else [chip]:
            found[one.id] = one
    return list(found.values())


@pytest.mark.parametrize("chip", every_chip(), ids=lambda chip: chip.id)
def test_a_precision_that_a_chip_lacks_is_refused(chip: Chip) -> None:
    for precision in sorted({*PRECISIONS, *WIDTH, "fp7", ""}):
        if precision in WIDTH and chip.has(f"peak_{precision}"):
            assert peak_of(chip, precision) == chip.value(f"peak_{precision}") > 0
        else:
            with pytest.raises(EvidenceError, match="--precision") as problem:
                peak_of(chip, precision)
            assert chip.id in str(problem.value)


def test_mxfp8_is_not_fp8() -> None:
    h100 = CATALOG.chip("h100")
    assert not isinstance(h100, Belief)
    assert peak_of(h100, "fp8") > 0
    with pytest.raises(EvidenceError, match="has no mxfp8"):
        peak_of(h100, "mxfp8")


# --- attention before fused kernels


def cores(length: float, *, heads: float = 16.0, train: bool = True) -> tuple[list[Work], list[Work]]:
    """Describe one sequence's causal attention, unfused and fused."""
    span = mean_span(length, None, False)
    return (
        unfused_core("a", length, span, heads, 128.0, 128.0, calls=1.0, train=train),
        softmax_core("a", length, span, heads, heads, 128.0, 128.0, calls=1.0, train=train),
    )


def flop(works: list[Work], backward: bool) -> float:
    return float(sum(w.flop * w.calls for w in works if w.backward == backward))


@given(st.floats(128.0, 1e6))
def test_unfused_attention_computes_the_masked_half_too(length: float) -> None:
    unfused, fused = cores(length)
    assert flop(unfused, False) == pytest.approx(2.0 * flop(fused, False))
    assert flop(unfused, False) == pytest.approx(4.0 * length**2 * 16.0 * 128.0, rel=2.0 / length)
    assert flop(unfused, True) == pytest.approx(2.0 * flop(unfused, False))
    assert flop(cores(length, train=False)[0], True) == 0.0


@cache
def h100() -> Hardware:
    chip = CATALOG.chip("h100")
    assert not isinstance(chip, Belief)
    return hardware(chip, CATALOG.cluster_for(chip), "bf16")


def cost(works: list[Work]) -> float:
    chip = CATALOG.chip("h100")
    assert not isinstance(chip, Belief)
    job = Job(id="j", title="j", phase="train", model="meta-llama/Meta-Llama-3.1-8B", chips=8, length=4096, batch=8, tokens=1.0)
    k = constants(coefficients(), context(CATALOG, chip, job, "bf16"))
    return float(sum(np.asarray(seconds(w, h100(), k)) for w in works))


@settings(max_examples=50, deadline=None)
@given(st.floats(128.0, 1e6), st.floats(1.0, 16.0), st.floats(1024.0, 65536.0))
def test_more_context_is_never_faster(length: float, factor: float, tokens: float) -> None:
    for train in (False, True):
        short, long = (
            unfused_core("a", tokens, mean_span(s, None, False), 16.0, 128.0, 128.0, calls=1.0, train=train) for s in (length, length * factor)
        )
        assert cost(long) >= cost(short) * (1.0 - 1e-12)


@pytest.mark.parametrize("length", [2048.0, 8192.0, 32768.0])
def test_a_fused_kernel_is_faster(length: float) -> None:
    unfused, fused = cores(length)
    assert cost(unfused) > cost(fused)
