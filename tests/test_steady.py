"""The closed form of a busy replica, and capacity, against the simulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.serving_cases import closed_form, draw_apart, draw_case, misses, misses_apart

from chipscale.evidence import EvidenceError
from chipscale.serving.apart import apart
from chipscale.serving.capacity import capacity
from chipscale.serving.load import Closed
from chipscale.serving.server import simulate
from chipscale.serving.service import Pool, Service


def test_capacity_is_what_waiting_users_get() -> None:
    missed = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        case = draw_case(rng)
        rule = replace(case.rules, sequences=min(case.rules.sequences, 64), tokens=max(case.rules.tokens, 4 * 64))
        pool = Pool(pace=case.pace, rules=rule)
        service = Service(pool=pool, prefill=pool if seed % 2 else None, speculation=case.speculation)
        ends = np.sort(simulate(service, replace(case.load, arrival=Closed(users=256), requests=1200)).end)
        missed.append(capacity(service, case.lengths) / (600 / (ends[899] - ends[299])) - 1.0)
    assert np.median(np.abs(missed)) < 0.03
    assert np.max(np.abs(missed)) < 0.15


def test_the_closed_form_is_near_the_simulation() -> None:
    missed = np.abs([misses(seed) for seed in range(120)])
    assert np.all(np.median(missed, axis=0) < [0.03, 0.005, 0.015]), "TTFT, TPOT, throughput"
    assert np.all(np.quantile(missed, 0.9, axis=0) < [0.12, 0.025, 0.05])


def test_the_closed_form_of_two_pools_is_near_the_simulation() -> None:
    missed = np.abs([misses_apart(seed) for seed in range(100)])
    assert np.all(np.median(missed, axis=0) < [0.03, 0.005, 0.015]), "TTFT, TPOT, throughput"
    assert np.all(np.quantile(missed, 0.9, axis=0) < [0.12, 0.025, 0.05])


def test_two_pools_are_answered_as_arrays_and_one_pool_is_refused() -> None:
    service, case = draw_apart(np.random.default_rng(3))
    users, lengths = np.array([1, 8, 64, 500]), case.lengths
    formed = apart(service, users=users, requests=10 * users, input=lengths.input, output=lengths.output, low=lengths.low)
    alone = [float(apart(service, users=u, requests=10 * u, input=lengths.input, output=lengths.output, low=lengths.low).ttft) for u in users]
    np.testing.assert_allclose(formed.ttft, alone, rtol=1e-12)
    with pytest.raises(EvidenceError, match="one pool"):
        apart(replace(service, prefill=None), users=1, requests=1, input=1, output=2)


def test_the_closed_form_answers_arrays_as_it_answers_numbers() -> None:
    case, users = draw_case(np.random.default_rng(7)), np.array([[1, 4, 32], [100, 256, 1000]])
    together = closed_form(case, users)
    for name in ("ttft", "tpot", "queueing", "requests", "tokens", "running", "step"):
        one_by_one = [[float(getattr(closed_form(case, int(u)), name)) for u in row] for row in users]
        np.testing.assert_allclose(getattr(together, name), one_by_one, rtol=1e-12, err_msg=name)
    with pytest.raises(EvidenceError, match="concurrency 0 is no load"):
        closed_form(case, 0)
