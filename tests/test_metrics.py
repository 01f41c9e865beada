"""What is measured of a simulation, and the traces that go into one."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chipscale.evidence import EvidenceError
from chipscale.serving.load import Closed, Lengths, Load
from chipscale.serving.metrics import Objective, bill, distribution, measure
from chipscale.serving.pace import Pace
from chipscale.serving.rules import Rules
from chipscale.serving.served import Served
from chipscale.serving.server import simulate
from chipscale.serving.service import Pool, Service
from chipscale.serving.trace import read_trace

PACE = Pace(
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


def test_metrics_follow_their_definitions() -> None:
    count = 1000
    arrival, wait, service = np.arange(count) * 0.5, np.tile([0.1, 0.3], count // 2), np.tile([1.0, 2.0, 3.0, 4.0, 5.0], count // 5)
    served = Served(
        arrival=arrival, start=arrival + wait, first=arrival + wait + 0.5, end=arrival + wait + 0.5 + service, input=np.full(count, 10), output=np.full(count, 11), stopped=np.zeros(count),
        counted=count, gaps=np.array([0.1, 0.2, 0.9]), weights=np.array([90.0, 9.0, 1.0]), present=1.0, fullest=np.zeros(1),
    )  # fmt: skip
    m = measure(served, 4.0, Objective(ttft=0.7, tpot=0.35))
    assert [m.ttft.mean.value, m.queueing.mean.value, m.service.mean.value, m.latency.mean.value] == pytest.approx([0.7, 0.2, 3.5, 3.7])
    assert [m.tpot.mean.value, m.tpot.of("median").value, m.tpot.p90.value] == pytest.approx([0.3, 0.3, 0.5])
    assert [m.itl.p50.value, m.itl.p95.value, m.itl.p99.value] == pytest.approx([0.1, 0.2, 0.2])
    assert m.goodput == pytest.approx(300 / m.seconds), "half wait too long, of the others two in five speak too slowly"
    assert [m.requests, m.tokens, m.chip, m.user] == pytest.approx([count / m.seconds, 11 * count / m.seconds, 11 * count / m.seconds / 4.0, 1 / 0.3])
    assert bill(m, 1000.0, 36.0).joules == pytest.approx(1e9 / m.tokens)


def test_an_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = [(d := distribution(rng.exponential(1.0, 400)).mean).low <= 1.0 <= d.high for _ in range(300)]
    assert np.mean(hits) == pytest.approx(0.8, abs=0.07)
    assert distribution(np.array([1.0, 2.0])).mean.high == math.inf, "two values tell no interval"
    assert math.isnan(distribution(np.array([])).p50.value)


def test_a_warm_up_is_left_out_and_a_drained_one_leaves_nothing() -> None:
    service = Service(pool=Pool(pace=PACE, rules=Rules(tokens=64, sequences=4)))
    plain = Load(arrival=Closed(users=8), requests=30, lengths=Lengths(input=20, output=10, low=0.5))
    drained, excluded = simulate(service, replace(plain, warmup=16)), simulate(service, replace(plain, warmup=16, drained=False))
    np.testing.assert_array_equal(drained.end, simulate(service, plain).end)
    assert (len(drained.end), len(excluded.end), excluded.counted) == (30, 46, 30)
    m = measure(excluded, 1.0)
    assert m.ttft.mean.value == pytest.approx(np.mean((excluded.first - excluded.arrival)[16:]))
    assert m.requests == pytest.approx(30 / (excluded.end[16:].max() - excluded.arrival[16]))


def test_traces_are_read_alike_from_csv_and_json(tmp_path: Path) -> None:
    lines = [(100.0, 5, 7), (100.5, 3, 1), (104.0, 9, 2)]
    (tmp_path / "a.csv").write_text("id,arrival_s,input_tokens,output_tokens\n" + "".join(f"x,{a},{i},{o}\n" for a, i, o in lines))
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"arrival_s": a, "input_tokens": i, "output_tokens": o}) for a, i, o in lines))
    for name in ("a.csv", "a.jsonl"):
        trace = read_trace(tmp_path / name)
        assert trace.arrival.tolist() == [0.0, 0.5, 4.0]
        assert (trace.input.tolist(), trace.output.tolist()) == ([5, 3, 9], [7, 1, 2])
    served = simulate(Service(pool=Pool(pace=PACE, rules=Rules(tokens=64, sequences=4))), Load(arrival=trace, requests=3))
    assert np.all(served.end > served.arrival)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("t.csv", "arrival_s,input_tokens\n1,2\n", "line 1: column output_tokens stands 0 times"),
        ("t.csv", "arrival_s,input_tokens,output_tokens\n0,2,3\n\n1,2\n", "line 4: 2 fields under 3"),
        ("t.csv", "arrival_s,input_tokens,output_tokens\n0,2,3\nx,2,3\n", "line 3, arrival_s: 'x' is not a number"),
        ("t.csv", "arrival_s,input_tokens,output_tokens\n0,2,3\nnan,2,3\n", "line 3, arrival_s: 'nan'"),
        ("t.csv", "arrival_s,input_tokens,output_tokens\n5,2,3\n4,2,3\n", "line 3, arrival_s: 4 lies before 5 .* sort"),
        ("t.csv", "arrival_s,input_tokens,output_tokens\n5,0,3\n", "line 2, input_tokens: 0 is not a whole number"),
        ("t.csv", "arrival_s,input_tokens,output_tokens\n5,2,3.5\n", "line 2, output_tokens: 3.5"),
        ("t.csv", 'arrival_s,input_tokens,output_tokens\n5,"2"x,3\n', "line 2: malformed CSV"),
        ("t.csv", "", "holds no requests"),
        ("t.jsonl", '{"arrival_s": 1, "input_tokens": 2, "output_tokens": 3}\n{"arrival_s": 1', "line 2: malformed JSON"),
        ("t.jsonl", "[1, 2, 3]", "line 1: not an object"),
        ("t.jsonl", '{"arrival_s": 1, "input_tokens": true, "output_tokens": 3}', "line 1, input_tokens: 'True'"),
        ("t.jsonl", '{"arrival_s": 1, "output_tokens": 3}', "line 1, input_tokens: 'None'"),
    ],
)
def test_malformed_traces_name_line_and_field(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(EvidenceError, match=says):
        read_trace(tmp_path / name)
