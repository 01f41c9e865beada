"""Services: every deployment of a model, the best within limits, confirmed by simulation; what cannot be is one clear message."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import chipscale
from chipscale.catalog import load
from chipscale.cli import main
from chipscale.evidence import EvidenceError
from chipscale.provision import Serving, Wish, serve, versus
from chipscale.report.jsonable import to_json
from chipscale.serving.causes import causes
from chipscale.serving.choose import Grid, best, front_of, grid, offer, reach
from chipscale.serving.confirm import confirm
from chipscale.serving.deployment import table
from chipscale.serving.load import Lengths
from chipscale.serving.metrics import Objective
from chipscale.serving.parts import Bench, Parts, parts
from chipscale.serving.plans import Fleet, Question, deployments, fleet, pace_of, parse, rules, title, usual_formats
from chipscale.serving.split import split
from chipscale.serving.steady import steady
from chipscale.verdict import weigh

CATALOG = load(None)
V3, SMALL = "deepseek-ai/DeepSeek-V3", "meta-llama/Meta-Llama-3.1-8B"
LIMITS = Objective(ttft=3.0, tpot=0.05)


@cache
def asked(model: str = V3, chip: str = "h200", chips: int = 16) -> Question:
    known, one = CATALOG.model(model), CATALOG.chip(chip)
    assert not hasattr(one, "hypotheses")
    return Question(
        bench=Bench(catalog=CATALOG, chip=one, engine=CATALOG.engine("vllm")),
        model=known,
        chips=chips,
        lengths=Lengths(input=2048, output=512, low=0.8, high=1.2),
        formats=usual_formats(known, one),
    )


@cache
def evaluated(model: str = V3, chip: str = "h200", chips: int = 16) -> tuple[Fleet, Grid]:
    found = fleet(asked(model, chip, chips))
    return found, grid(asked(model, chip, chips), found)


@cache
def answered(model: str = SMALL, on: str = "h100", chips: int = 2, wish: Wish | None = None) -> Serving:
    return serve(CATALOG, model, on, chips, wish or Wish(input=512, output=256))[0]


@pytest.mark.parametrize("model", [V3, SMALL, "Qwen3.5-397B-A17B", "DeepSeek-V4-Flash"])
def test_parts_of_a_table_are_those_of_each_deployment_alone(model: str) -> None:
    q = replace(asked(), model=CATALOG.model(model), chips=32)
    rows = [d for d in deployments(q) if d.dense == q.formats[-1][0] and d.experts == q.formats[-1][1] and d.pp == 1][::5]
    many = parts(q.bench, q.model, table(rows), q.lengths.mean_input, q.seen)
    for i, d in enumerate(rows):
        one = parts(q.bench, q.model, d, q.lengths.mean_input, q.seen)
        for name in Parts.__dataclass_fields__:
            value = np.asarray(getattr(many, name))
            assert np.allclose(value[i] if value.ndim else value, getattr(one, name), rtol=1e-9), (name, d)


def test_a_row_of_a_grid_is_the_deployment_alone() -> None:
    q, (found, given) = asked(), evaluated()
    for row in range(0, len(found), 37):
        pace, rule = pace_of(found, row), rules(q, found.deployments[row], float(found.blocks[row]))
        alone = steady(pace, rule, users=given.users[row], requests=200 * given.users[row], input=2048, output=512, low=0.8, high=1.2)
        assert np.allclose(alone.tokens, given.found.tokens[row], rtol=1e-9)
        assert np.allclose(alone.tpot, given.found.tpot[row], rtol=1e-9)


def test_every_deployment_fits_in_memory_and_on_the_chips() -> None:
    q, (found, _) = asked(), evaluated()
    for on, room, replicas, blocks in zip(found.deployments, found.rooms, found.replicas, found.blocks, strict=True):
        assert room.weights < room.memory
        assert blocks * q.engine.block * room.token * on.pp / on.dp <= (room.memory - room.weights) * (1 + 1e-9)
        assert replicas / on.pp * on.chips <= q.chips
        assert on.moe_tp * on.moe_ep == on.tp * on.dp


def test_deeper_pipelines_bring_memory_and_never_speed_for_a_user() -> None:
    found, given = evaluated()
    by = {d: i for i, d in enumerate(found.deployments)}
    pairs = [(i, by[deeper]) for d, i in by.items() if (deeper := replace(d, pp=2 * d.pp)) in by]
    assert pairs
    for i, j in pairs:
        assert found.rooms[j].tokens > found.rooms[i].tokens
        assert given.tpot[j, 0] >= given.tpot[i, 0] * (1 - 1e-9)


@pytest.mark.parametrize(("model", "chip"), [(V3, "h200"), (SMALL, "huawei-ascend-910c"), ("openai/gpt-oss-120b", "b200")])
def test_more_chips_never_reduce_what_can_be_served(model: str, chip: str) -> None:
    found = [float(reach(evaluated(model, chip, n)[1], LIMITS).max()) for n in (8, 16, 32, 64)]
    assert found[0] > 0
    assert all(more >= less * (1 - 1e-9) for less, more in pairwise(found))


def test_looser_limits_never_reduce_what_can_be_served() -> None:
    _, given = evaluated()
    found = [reach(given, Objective(ttft=t, tpot=p)).max() for t, p in ((0.5, 0.03), (1.0, 0.03), (1.0, 0.05), (5.0, 0.2))]
    assert sorted(found) == found


def test_offers_keep_the_limits_and_are_in_order() -> None:
    q, (found, given) = asked(), evaluated()
    one, (two, points) = best(q, given, LIMITS), split(q, found, LIMITS)
    for offers in (one, two):
        assert offers
        assert all(o.ttft <= LIMITS.ttft and o.tpot <= LIMITS.tpot for o in offers)
        assert [o.tokens for o in offers] == sorted((o.tokens for o in offers), reverse=True)
    for o in two:
        assert o.prefill is not None
        assert o.service.chips <= q.chips
    assert all(p.ttft <= LIMITS.ttft for p in points)


def test_the_front_falls_from_fast_for_a_user_to_much_for_a_chip() -> None:
    q, (_, given) = asked(), evaluated()
    points = front_of(q, given)
    assert len(points) > 5
    for a, b in pairwise(points):
        assert a.user >= b.user
        assert a.chip < b.chip
    rates = np.stack([1 / given.tpot.ravel(), given.tokens.ravel() / q.chips])
    for p in points:
        assert not np.any((rates[0] > p.user * (1 + 1e-9)) & (rates[1] > p.chip * (1 + 1e-9)))


def test_causes_sum_to_the_step() -> None:
    q, (_, given) = asked(), evaluated()
    for o in best(q, given, LIMITS)[:4]:
        assert math.isclose(sum(t for _, t in causes(q, o)), o.step, rel_tol=0.02)


def test_the_simulation_confirms_the_closed_form() -> None:
    q, (found, given) = asked(), evaluated()
    offers = [*best(q, given, LIMITS, 3), *split(q, found, LIMITS)[0][:2]]
    for o in offers:
        m = confirm(q, o, None, LIMITS, seed=1)
        assert math.isclose(m.metrics.tpot.mean.value, o.tpot, rel_tol=0.05)
        assert math.isclose(m.metrics.ttft.mean.value, o.ttft, rel_tol=0.35)
        assert math.isclose(m.tokens, o.tokens, rel_tol=0.05)


def test_equal_parts_of_a_service_stand_for_the_whole() -> None:
    q = replace(asked(SMALL, "h100", 4))
    found, given = evaluated(SMALL, "h100", 4)
    row = next(i for i, d in enumerate(found.deployments) if d.chips == 1)
    few, many = (offer(q, given, row, at) for at in (12, 20))
    assert few.users <= 1500 < many.users
    assert confirm(q, few, None, LIMITS, 0).share == 1
    assert confirm(q, many, None, LIMITS, 0).share > 1


@pytest.mark.parametrize("statistic", ["mean", "p90"])
def test_the_winner_meets_its_objective(statistic: str) -> None:
    a = answered(wish=Wish(input=512, output=256, ttft=0.4, tpot=0.015, statistic=statistic))
    ttft, tpot = (a.ttft.mean.median, a.tpot.mean.median) if statistic == "mean" else (a.ttft.p90, a.tpot.p90)
    assert ttft <= 0.4
    assert tpot <= 0.015


def test_waiting_and_service_sum_to_the_first_token_and_little_holds() -> None:
    a = answered(wish=Wish(input=512, output=256, concurrency=200))
    assert math.isclose(a.waiting + a.service, a.ttft.mean.median, rel_tol=1e-9)
    assert math.isclose(a.requests * a.latency, 200, rel_tol=0.01)
    assert a.best.users == 200


def test_an_open_load_is_answered_as_fast_as_it_comes() -> None:
    a = answered(wish=Wish(input=512, output=256, rate=5.0, burst=2.0))
    assert a.requests == 5.0
    assert a.capacity > 5.0
    assert a.tokens.low == a.tokens.high


def test_the_same_seed_gives_the_same_answer_and_runs_do_not_influence_each_other() -> None:
    wish = Wish(input=512, output=256, rate=5.0, seed=3)
    first = serve(CATALOG, SMALL, "h100", 1, wish)
    serve(CATALOG, SMALL, "a100", 1, replace(wish, seed=4))
    assert serve(load(None), SMALL, "h100", 1, wish) == first
    assert serve(CATALOG, SMALL, "h100", 1, replace(wish, seed=4))[0].ttft != first[0].ttft


def test_drafts_whose_fate_is_unknown_give_two_answers() -> None:
    none, every = serve(CATALOG, SMALL, "h100", 1, Wish(input=512, output=256, concurrency=8, drafts=2))
    one = serve(CATALOG, SMALL, "h100", 1, Wish(input=512, output=256, concurrency=8, drafts=2, accepted=1.0))
    assert len(one) == 1
    assert none.chip.median < one[0].chip.median < every.chip.median


def test_a_prefix_cache_and_more_memory_for_the_cache_help() -> None:
    plain = answered(wish=Wish(input=2048, output=64, concurrency=64))
    cached = answered(wish=Wish(input=2048, output=64, concurrency=64, prefix=0.5))
    narrow = answered(wish=Wish(input=2048, output=64, concurrency=64, kv=1.0))
    assert cached.chip.median > plain.chip.median
    assert narrow.cached == 2 * plain.cached


def test_a_believed_chip_is_answered_by_hypothesis() -> None:
    found = serve(CATALOG, V3, "910d", 16, Wish(input=512, output=256, split="off"))
    assert {a.hypothesis for a in found} == {h.key for h in CATALOG.chip("910d").hypotheses}  # type: ignore[union-attr]
    assert [a.weight for a in found] == sorted((a.weight for a in found), reverse=True)
    pinned = serve(CATALOG, V3, "910d", 16, Wish(input=512, output=256, split="off"), {"910d": "quad-die"})
    assert [a.hypothesis for a in pinned] == ["quad-die"]


def test_energy_and_money_follow_the_rate() -> None:
    a = answered(wish=Wish(input=512, output=256, price=3.6, electricity=0.1, watts=1000.0))
    assert a.rent is not None
    assert a.joules is not None
    assert a.electricity is not None
    assert math.isclose(a.rent.median, 1e-3 / a.chip.median * 1e6)
    assert math.isclose(a.joules.median, 1e9 / a.chip.median)
    assert math.isclose(a.electricity.median, a.joules.median / 3.6e6 * 0.1)


def test_a_plan_is_written_as_it_is_read() -> None:
    q = asked()
    for on in list(deployments(q))[::23]:
        assert parse(title(on), q) == [on]


def test_json_holds_the_answer() -> None:
    a = answered()
    told = json.loads(to_json(a))
    assert told["best"]["plan"] == a.best.plan
    assert told["ttft"]["mean"]["median"] == a.ttft.mean.median
    assert len(told["front"]) == len(a.front)
    assert a.best.plan in a._repr_html_()


def test_a_thousand_of_a_chip_replace_a_thousand_of_the_same_and_swapping_inverts() -> None:
    jobs = ("serve-llama-3.1-8b",)
    same = weigh(CATALOG, "h100", "h100", jobs).jobs[0]
    assert same.ratio.low == same.ratio.high == 1.0
    one, two = weigh(CATALOG, "h100", "910c", jobs).jobs[0], weigh(CATALOG, "910c", "h100", jobs).jobs[0]
    assert math.isclose(one.ratio.median * two.ratio.median, 1.0, rel_tol=0.01)
    assert math.isclose(math.prod(f for _, f in one.contributions), one.a.rate.median / one.b.rate.median, rel_tol=0.15)


def test_versus_says_how_many_chips_serve_what_others_do() -> None:
    verdict = versus(CATALOG, SMALL, "h200", 8, "h100", Wish(input=512, output=256, tpot=0.02))
    needed = verdict.jobs[0].a_per_1000_b
    assert needed.low < needed.median < needed.high
    assert needed.median < 1000


Run = Callable[..., str]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["chipscale", "serve", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        assert end.value.code == 2
        assert not said.out
        assert "Traceback" not in said.err
        return said.err

    return call


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((V3, "--on", "h100:4"), r"101 GB more than the 72 GB usable; it would fit on 16"),
        ((V3, "--on", "h100:8", "--plan", "tp8 dp2 ep16"), "takes 16 chips and there are 8"),
        ((SMALL, "--on", "h100:1", "--slo-tpot", "1ms"), "the shortest TPOT"),
        ((SMALL, "--on", "h100:1", "--slo-ttft", "1ms"), "keeps TTFT 0.001 s: the nearest is"),
        ((SMALL, "--on", "h100:1", "--rate", "5000"), r"unstable: the best deployment answers \d"),
        ((SMALL, "--on", "h100:1", "--engine", "foo"), "unknown engine 'foo'"),
        ((SMALL, "--on", "h100:1", "--precision", "fp9"), "--precision fp9: it is one of bf16"),
        ((SMALL, "--on", "a100:1", "--precision", "fp8"), "has no fp8"),
        ((SMALL, "--on", "h100:1", "--plan", "xx4"), "'xx4' is no degree and no format"),
        ((SMALL, "--on", "h100:8", "--plan", "tp3"), "does not divide 32 attention heads"),
        ((SMALL, "--on", "h100:8", "--plan", "tp2 dp2"), "has no experts"),
        ((V3, "--on", "h200:8", "--plan", "tp8 ep4"), "ep x etp = 4"),
        ((SMALL, "--on", "h100:1", "--concurrency", "0"), "--concurrency 0"),
        ((SMALL, "--on", "h100:1", "--rate", "-1"), "--rate -1"),
        ((SMALL, "--on", "h100:1", "--rate", "nan"), "--rate nan"),
        ((SMALL, "--on", "h100:1", "--concurrency", "4", "--rate", "2"), "two loads"),
        ((SMALL, "--on", "h100:1", "--burst", "2"), "--rate"),
        ((SMALL, "--on", "h100:1", "--slo-ttft", "soon"), "--slo-ttft: 'soon' is not a quantity"),
        ((SMALL, "--on", "h100:1", "--slo-at", "p42"), "--slo-at p42"),
        ((SMALL, "--on", "h100:1", "--drafts", "1", "--accepted", "2"), "--accepted 2 of 1"),
        ((SMALL, "--on", "h100:1", "--kv", "int3"), "--kv int3"),
        ((SMALL, "--on", "h100:1", "--prefix-hit", "2"), "--prefix-hit 2"),
        ((SMALL, "--on", "h100:1", "--disaggregated", "maybe"), "--disaggregated maybe"),
        ((SMALL, "--on", "h100:1", "--input", "200000"), "reads 131,072 tokens at most"),
        ((SMALL, "--on", "h100:1", "--trace", "/nowhere.csv"), "cannot be read"),
        ((SMALL, "--on", "h100:1", "--versus", "h200"), "--versus h200: write CHIP:N"),
        ((SMALL, "--on", "h100:1", "--versus", "h200:10", "--rate", "3"), "does not go with --versus"),
        ((SMALL, "--on", "h100:1", "--versus", "h200:10", "--slo-ttft", "1s"), "state --slo-tpot"),
        ((SMALL, "--on", "h100:1", "--assume", "910d=quad-die"), "is not the chip served on"),
        (("no-such-model", "--on", "h100:1"), "unknown model"),
        ((SMALL, "--on", "no-such-chip:1"), "unknown chip"),
    ],
)
def test_bad_input_is_one_clear_message(refused: Run, arguments: tuple[str, ...], wanted: str) -> None:
    assert re.search(wanted, " ".join(refused(*arguments).split()))


def test_a_broken_trace_is_named_by_its_line(refused: Run, tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n0,100,10\n1,x,10\n")
    assert "trace.csv, line 3, input_tokens" in refused(SMALL, "--on", "h100:1", "--trace", str(path))


def test_a_trace_is_served(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n" + "".join(f"{i / 4},{200 + i},{50 + i}\n" for i in range(100)))
    a = answered(wish=Wish(trace=path))
    assert "100 requests of a trace" in a.load
    assert 0 < a.ttft.mean.median < 1


def test_engines_come_from_the_catalogue(tmp_path: Path) -> None:
    assert set(CATALOG.engines()) >= {"vllm", "sglang", "trtllm"}
    (tmp_path / "engines").mkdir()
    text = CATALOG.text("engines/vllm.toml").replace('id = "vllm"', 'id = "mine"')
    (tmp_path / "engines" / "mine.toml").write_text(text.replace("tokens = 8192", "tokens = 4096"))
    assert load(tmp_path).engine("mine").tokens == 4096
    (tmp_path / "engines" / "mine.toml").write_text(text.replace('arch = "', 'arch = "(', 1))
    with pytest.raises(EvidenceError, match=r"mine\.toml.*arch.*regular expression"):
        load(tmp_path).engine("mine")


def test_the_public_names_are_there() -> None:
    assert {"serve", "Wish", "Serving"} <= set(chipscale.__all__)
    assert chipscale.serve is serve
