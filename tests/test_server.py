"""The server: laws of every simulation, and the same loads served step by step and sequence by sequence."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from benchmarks.stepwise import serve
from hypothesis import given, settings
from hypothesis import strategies as st

from chipscale.evidence import EvidenceError
from chipscale.serving.capacity import capacity
from chipscale.serving.load import Closed, Lengths, Load, Open, Trace, requests
from chipscale.serving.metrics import Objective
from chipscale.serving.pace import Pace
from chipscale.serving.rules import Rules, Speculation, decode_steps
from chipscale.serving.served import Served
from chipscale.serving.server import simulate
from chipscale.serving.service import Pool, Service, Transfer


@st.composite
def paces(draw: st.DrawFn) -> Pace:
    """Draw the pace of some replica: weights, products, attention, host."""
    weights, product, settle, host = (draw(st.floats(*ends)) for ends in ((1e-3, 2e-2), (1e-6, 1e-4), (1e-5, 2e-3), (1e-4, 5e-3)))
    tokens, running = np.array([1.0, 64.0, 512.0, 4096.0]), np.array([1.0, 16.0, 256.0])
    return Pace(
        tokens=tokens, flow=np.maximum(weights, product * tokens), running=running, settle=settle * (1.0 + running / 100.0), reach=np.array([2.0, 1.0, 0.9]) * draw(st.floats(1e-9, 1e-7)),
        chunk=draw(st.floats(0.0, 1e-3)), pair=draw(st.floats(1e-12, 1e-9)), step=host, sequence=draw(st.floats(0.0, 2e-5)),
    )  # fmt: skip


@st.composite
def loads(draw: st.DrawFn) -> Load:
    """Draw a load of a hundred requests of up to 80 + 60 tokens: users who wait, or requests that come whether or not the service keeps up."""
    lengths, seed = Lengths(input=draw(st.integers(1, 80)), output=draw(st.integers(1, 60)), low=0.3), draw(st.integers(0, 999))
    if draw(st.booleans()):
        return Load(arrival=Closed(users=draw(st.integers(1, 50))), requests=100, lengths=lengths, seed=seed)
    asked = requests(
        Load(arrival=Open(rate=draw(st.floats(0.5, 30.0)), variation=draw(st.floats(0.0, 3.0))), requests=100, lengths=lengths, seed=seed)
    )
    return Load(arrival=Trace(arrival=asked.arrival, input=asked.input, output=asked.output), requests=100, seed=seed)


@st.composite
def rules(draw: st.DrawFn) -> Rules:
    """Draw a scheduling rule whose memory is scarce but holds any request of `loads`."""
    block = draw(st.integers(1, 20))
    return Rules(
        tokens=draw(st.integers(200, 400)), sequences=draw(st.integers(1, 40)), chunked=draw(st.booleans()), shared=draw(st.booleans()), block=block,
        blocks=draw(st.integers(160, 1200)) // block + 1, reserve=draw(st.booleans()), cached=draw(st.sampled_from([0.0, 0.3, 1.0])), stream=draw(st.integers(1, 30)),
    )  # fmt: skip


@st.composite
def services(draw: st.DrawFn) -> Service:
    """Draw a service of one or two pools of up to three replicas, with or without drafts."""
    drafts = draw(st.integers(0, 3))
    pools = [Pool(pace=draw(paces()), rules=draw(rules()), replicas=draw(st.integers(1, 3))) for _ in range(draw(st.integers(1, 2)))]
    speculation = Speculation(drafts=drafts, accepted=drafts * draw(st.floats(0.0, 1.0)))
    transfer = Transfer(token=draw(st.floats(0.0, 1e-4)), fixed=draw(st.floats(0.0, 1e-2)), early=draw(st.booleans()))
    return Service(pool=pools[0], prefill=pools[1] if len(pools) > 1 else None, speculation=speculation, transfer=transfer, routing=draw(st.sampled_from(["round-robin", "least-loaded"])))  # fmt: skip


def alike(a: Served, b: Served, within: float) -> None:
    """Assert that two simulations say the same."""
    for name in ("arrival", "start", "first", "end", "stopped"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=within, atol=within, err_msg=name)


@given(paces(), rules(), loads())
@settings(max_examples=60, deadline=None)
def test_leaps_equal_single_steps_of_single_sequences(pace: Pace, rule: Rules, load: Load) -> None:
    served = simulate(Service(pool=Pool(pace=pace, rules=rule)), load)
    expected, fullest = serve(pace, rule, requests(load))
    np.testing.assert_allclose(served.start, [r.start for r in expected], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(served.first, [r.tokens[min(rule.stream, r.output) - 1] for r in expected], rtol=1e-9)
    np.testing.assert_allclose(served.end, [r.tokens[-1] for r in expected], rtol=1e-9)
    assert served.stopped.tolist() == [r.stopped for r in expected]
    assert fullest <= served.fullest[0] <= rule.blocks
    assert served.weights.sum() == (served.output - 1).sum() - served.stopped.sum() or rule.blocks < math.inf
    if not served.stopped.any():
        gaps = np.sort(np.concatenate([np.diff(r.tokens) for r in expected]))
        np.testing.assert_allclose(np.sort(np.repeat(served.gaps, served.weights.astype(int))), gaps, rtol=1e-9, atol=1e-9)


@given(services(), loads())
@settings(max_examples=60, deadline=None)
def test_laws_of_every_simulation(service: Service, load: Load) -> None:
    s = simulate(service, load)
    assert np.all(s.arrival <= s.start)
    assert np.all(s.start < s.first), "a token before its prompt"
    assert np.all(s.first <= s.end)
    assert np.all(np.diff(s.arrival) >= 0)
    throughput, sojourn = len(s.end) / s.end.max(), np.mean(s.end - s.arrival)
    assert s.present == pytest.approx(throughput * sojourn, rel=1e-9), "Little's law"
    for pool, fullest in zip(
        [p for p in (service.prefill, service.pool) if p], np.split(s.fullest, [service.prefill.replicas] if service.prefill else []), strict=True
    ):
        assert np.all(fullest <= pool.rules.blocks)
    assert np.all(s.gaps > 0)
    if isinstance(load.arrival, Closed):
        assert s.present <= load.arrival.users + 1e-9


@given(services(), loads())
@settings(max_examples=40, deadline=None)
def test_the_same_for_any_leap_and_any_second_run(service: Service, load: Load) -> None:
    first = simulate(service, load)
    simulate(service, replace(load, seed=load.seed + 1))
    alike(first, simulate(service, load), 0.0)
    if service.pool.replicas == 1 and (service.prefill is None or service.prefill.replicas == 1):
        alike(first, simulate(service, load, leap=1), 1e-9)


def test_a_step_is_what_the_pace_says() -> None:
    pace = Pace(tokens=np.array([1.0, 100.0]), flow=np.array([1.0, 2.0]), running=np.array([1.0, 2.0]), settle=np.array([0.1, 0.2]), reach=np.array([0.001, 0.001]),
                chunk=0.5, pair=0.01, step=0.25, sequence=0.125)  # fmt: skip
    served = simulate(
        Service(pool=Pool(pace=pace, rules=Rules(tokens=64, sequences=4))),
        Load(arrival=Closed(users=1), requests=1, lengths=Lengths(input=10, output=3)),
    )
    steps = [pace.seconds(10, 55, 0, 0, 0, 1), pace.seconds(0, 0, 1, 10), pace.seconds(0, 0, 1, 11)]
    assert served.first[0] == pytest.approx(float(steps[0]))
    assert served.end[0] == pytest.approx(float(sum(steps)))
    np.testing.assert_allclose(served.gaps, steps[1:])


@given(st.integers(1, 5), st.floats(0.0, 1.0), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_drafts_bring_as_many_tokens_as_said(drafts: int, share: float, seed: int) -> None:
    speculation = Speculation(drafts=drafts, accepted=drafts * share)
    steps = decode_steps(np.full(300, 401), speculation, seed)
    assert 400 / steps.mean() == pytest.approx(1.0 + speculation.accepted, rel=0.03)


@given(paces(), st.integers(8, 60))
@settings(max_examples=25, deadline=None)
def test_more_replicas_never_reduce_capacity(pace: Pace, users: int) -> None:
    load = Load(arrival=Closed(users=users), requests=8 * users, lengths=Lengths(input=60, output=40, low=0.5))
    pool = Pool(pace=pace, rules=Rules(tokens=256, sequences=64))
    ends = [simulate(Service(pool=replace(pool, replicas=n), routing="least-loaded"), load).end.max() for n in (1, 2, 4)]
    assert ends[1] <= 1.02 * ends[0], "the end of a run is ragged, by at most a request of hundreds"
    assert ends[2] <= 1.02 * ends[1]


@given(services(), st.floats(0.1, 0.9), st.floats(0.0, 1.5), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_an_open_load_below_capacity_is_answered_as_fast_as_it_comes(service: Service, share: float, variation: float, seed: int) -> None:
    ample = [replace(p, rules=replace(p.rules, blocks=math.inf, chunked=True)) for p in (service.pool, service.prefill) if p]
    service, lengths = (
        replace(service, pool=ample[0], prefill=ample[1] if len(ample) > 1 else None, routing="least-loaded"),
        Lengths(input=60, output=40, low=0.5),
    )
    most = capacity(service, lengths)
    load = Load(arrival=Open(rate=share * most, variation=variation), requests=600, lengths=lengths, seed=seed)
    served = simulate(service, load)
    assert len(served.end) / served.arrival.max() == pytest.approx(share * most, rel=0.25 + 0.1 * variation)
    last, first = (served.first - served.arrival)[300:], (served.first - served.arrival)[:300]
    assert np.median(last) < 20.0 * np.median(first) + 1.0
    with pytest.raises(EvidenceError, match=f"unstable: the service answers {most:.4g} requests/s"):
        simulate(service, replace(load, arrival=Open(rate=1.01 * most)))


LENGTHS = Lengths(input=64, output=8)
FLAT = Pace(
    tokens=np.array([1.0, 2.0]),
    flow=np.ones(2),
    running=np.array([1.0, 2.0]),
    settle=np.ones(2),
    reach=np.ones(2),
    chunk=0.0,
    pair=0.0,
    step=0.0,
    sequence=0.0,
)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Closed(users=0), "concurrency 0"),
        (lambda: Open(rate=0.0), "rate 0"),
        (lambda: Open(rate=math.nan), "rate nan"),
        (lambda: Open(rate=1.0, variation=-1.0), "variation -1"),
        (lambda: Lengths(input=0, output=1), "input length 0"),
        (lambda: Lengths(input=1, output=0), "output length 0"),
        (lambda: Lengths(input=1, output=1, low=2.0), "low <= high"),
        (lambda: Objective(ttft=0.0, tpot=1.0), "cannot be met"),
        (lambda: Pool(pace=FLAT, rules=Rules(tokens=1, sequences=1), replicas=0), "at least 1 replica"),
        (lambda: Pool(pace=replace(FLAT, flow=np.ones((3, 2))), rules=Rules(tokens=1, sequences=1)), "not the 3 rows"),
        (lambda: Load(arrival=Closed(users=1), requests=0, lengths=LENGTHS), "0 requests"),
        (lambda: Load(arrival=Closed(users=1), requests=1), "no lengths"),
        (lambda: Load(arrival=Closed(users=1), requests=1, lengths=LENGTHS, statistic="mode"), "'mode' is unknown"),
        (lambda: Trace(arrival=np.array([1.0, 0.5]), input=np.array([1, 1]), output=np.array([1, 1])), "request 1 .* sort"),
        (lambda: Rules(tokens=0, sequences=1), "tokens = 0"),
        (lambda: Rules(tokens=1, sequences=1, cached=1.5), "cached = 1.5"),
        (lambda: Speculation(drafts=2, accepted=2.5), "2.5 of 2"),
        (lambda: Transfer(token=-1.0), "backwards"),
    ],
)
def test_bad_loads_and_rules_are_refused(build: object, says: str) -> None:
    with pytest.raises(EvidenceError, match=says):
        build()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("rule", "routing", "says"),
    [
        (Rules(tokens=128, sequences=8, block=16, blocks=4), "round-robin", "71 tokens exceeds .* by 7"),
        (Rules(tokens=32, sequences=8, chunked=False), "round-robin", "exceeds the budget of 32 tokens a step by 32"),
        (Rules(tokens=4, sequences=8), "round-robin", "8 sequences of 1 tokens"),
        (Rules(tokens=128, sequences=8), "nearest", "'nearest' is unknown; give one of round-robin, least-loaded"),
    ],
)
def test_what_can_never_be_served_is_refused(rule: Rules, routing: str, says: str) -> None:
    with pytest.raises(EvidenceError, match=says):
        simulate(Service(pool=Pool(pace=FLAT, rules=rule), routing=routing), Load(arrival=Closed(users=8), requests=16, lengths=LENGTHS))
