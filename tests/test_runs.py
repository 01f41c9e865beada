"""Runs: laws of failures, energy and money, published runs, deadlines, a million chips, and refusals."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chipscale.catalog import load
from chipscale.evidence import EvidenceError
from chipscale.facts.site import SITE_QUANTITIES
from chipscale.planning import train
from chipscale.runs import Run, Terms, account, run
from chipscale.runs.bill import chip_watts, draw
from chipscale.runs.deadline import fewest, round_counts, rungs
from chipscale.runs.failures import Reliability, checkpoint_bytes, checkpoint_seconds, daly_interval, goodput, mean_time, shares
from chipscale.runs.nouns import check_tokens
from chipscale.space import spreads
from chipscale.verdict.nouns import Interval, Side

CATALOG = load(None)
HOUR, DAY = 3600.0, 86400.0
LLAMA = "meta-llama/Llama-3.1-405B"
SIDE = Side(chip="nvidia-h100-sxm-80gb", cluster="dgx-h100", hypothesis="known", plan="", precision="bf16", seconds=Interval(median=10.0, low=9.0, high=11.0),
            rate=Interval(median=400.0, low=360.0, high=440.0), mfu=0.4, memory_bytes=1.0, memory_capacity=2.0, parts=(("gemm", 7.0), ("dp", 3.0)),
            fits=1.0)  # fmt: skip

chips_s = st.integers(1, 10**6)
hours_s = st.floats(100.0, 1e6)
restart_s = st.floats(1.0, 3600.0)
state_s = st.floats(1e9, 1e14)


def reliability(hours: float, restart: float, state: float) -> Reliability:
    return Reliability(mtbf=hours * HOUR, restart=restart, checkpoint=state, bandwidth=1e8)


def llama(chips: int, terms: Terms | None = None, tokens: float = 15e12) -> Run:
    return account(CATALOG, LLAMA, "h100", SIDE, chips, tokens, terms)


# --- laws


@given(chips_s, hours_s, restart_s, state_s, st.floats(0.01, 600.0))
def test_shares_of_time_are_shares(chips: int, hours: float, restart: float, state: float, step: float) -> None:
    s = shares(reliability(hours, restart, state), chips, step)
    parts = [float(x) for x in (s.useful, s.writing, s.restarting, s.repeating)]
    assert all(0.0 <= p <= 1.0 for p in parts)
    assert sum(parts) == pytest.approx(1.0, abs=1e-9)
    assert s.interval >= step


@given(chips_s, st.floats(1e4, 1e6), st.floats(1.0, 900.0), st.floats(1e9, 1e13))
def test_useful_time_falls_with_failures(chips: int, hours: float, restart: float, state: float) -> None:
    def useful(h: float, r: float, c: float) -> float:
        return float(shares(reliability(h, r, c), chips, 0.0).useful)

    at = useful(hours, restart, state)
    assert 0.0 <= at < 1.0
    assert useful(hours / 2.0, restart, state) <= at
    assert useful(hours, restart * 2.0, state) <= at
    assert useful(hours, restart, state * 2.0) <= at


@given(st.floats(0.1, 1e3), st.floats(10.0, 1e6), st.floats(0.0, 1e3))
def test_dalys_interval_is_close_to_the_best(write: float, between: float, restart: float) -> None:
    if write < between / 2.0:
        best = max(float(goodput(np.float64(tau), write, between, restart)) for tau in np.geomspace(write / 10.0, between * 5.0, 400))
        assert float(goodput(daly_interval(write, between), write, between, restart)) >= best * 0.995


def test_more_chips_are_less_useful_each() -> None:
    useful = [llama(n).useful.median for n in (8, 1024, 16384, 131072, 10**6)]
    assert useful == sorted(useful, reverse=True)
    assert 0.0 < useful[-1] < useful[0] < 1.0


@settings(deadline=None, max_examples=20)
@given(chips_s, st.floats(1e6, 1e16))
def test_days_chips_and_rate_make_the_tokens(chips: int, tokens: float) -> None:
    found = llama(chips, tokens=tokens)
    assert found.ideal_days.median * DAY * chips * SIDE.rate.median == pytest.approx(tokens)
    assert found.days.median * found.useful.median == pytest.approx(found.ideal_days.median)
    assert found.chip_hours.median == pytest.approx(found.days.median * 24.0 * chips)
    assert found.failures.median * found.between.median == pytest.approx(found.days.median * DAY)
    assert found.steps * SIDE.seconds.median == pytest.approx(found.ideal_days.median * DAY)


def test_the_bill_adds_up() -> None:
    bill = llama(1024).bill
    assert bill.energy is not None
    parts = [p for p in (bill.chips, bill.host, bill.network, bill.cooling) if p is not None]
    assert sum(p.median for p in parts) == pytest.approx(bill.energy.median)
    assert all(p.low <= p.median <= p.high for p in parts)
    assert bill.power is not None
    assert bill.power.median * llama(1024).days.median * 24.0 == pytest.approx(bill.energy.median)


@settings(deadline=None, max_examples=20)
@given(st.floats(1.0, 3.9))
def test_more_pue_more_energy_and_nothing_else(pue: float) -> None:
    one, two = llama(1024, Terms(pue=pue)), llama(1024, Terms(pue=pue + 0.1))
    assert one.bill.energy is not None
    assert two.bill.energy is not None
    assert two.bill.energy.median / one.bill.energy.median == pytest.approx((pue + 0.1) / pue)
    assert two.bill.chips == one.bill.chips
    assert two.days == one.days


def test_a_stated_price_is_taken_without_a_range_of_its_own() -> None:
    found = llama(1024, Terms(price=2.0))
    assert found.bill.rent is not None
    assert found.bill.rent.median == pytest.approx(2.0 * found.chip_hours.median)
    assert found.bill.rent.high == pytest.approx(2.0 * found.chip_hours.high)


@given(st.floats(0.0, 1.0), st.floats(0.0, 0.99))
def test_power_rises_with_utilisation_up_to_the_rated(waiting: float, utilisation: float) -> None:
    assert chip_watts(700.0, 1.0, waiting, utilisation) <= chip_watts(700.0, 1.0, waiting, utilisation + 0.01) <= 700.0 + 1e-9


# --- published runs, none of which was fitted


def test_llama_3_lost_less_than_a_tenth_of_its_time() -> None:
    """More than 90 % of 54 days were effective, with 419 interruptions on 16,384 chips; the rate is from the same run, the loss is not."""
    found = llama(16384)
    assert 0.90 < found.useful.median < 1.0
    assert found.between.median == pytest.approx(54 * DAY / 419, rel=0.001)


def test_megascale_restarted_more_than_a_hundred_times_in_several_weeks() -> None:
    typical = CATALOG.site("typical")
    between = mean_time(typical.fact("mtbf").value, 12288)
    assert 28 * DAY / between > 100
    found = shares(Reliability(mtbf=typical.fact("mtbf").value, restart=typical.fact("restart").value, checkpoint=checkpoint_bytes(175e9),
                               bandwidth=typical.fact("storage_bandwidth").value), 12288, 6.0)  # fmt: skip
    assert 0.90 < float(found.useful) < 0.98


def test_bloom_wrote_its_checkpoint_in_40_seconds() -> None:
    seconds = checkpoint_seconds(checkpoint_bytes(176.2e9), 384, CATALOG.site("ampere").fact("storage_bandwidth").value)
    assert seconds == pytest.approx(40.0, rel=0.4)


def test_bloom_drew_690_megawatt_hours() -> None:
    """433 MWh at rated power and 257 MWh of idle nodes over 1,082,990 chip-hours, before cooling; our range of facts holds it."""
    s = CATALOG.site("ampere")
    ends = []
    for end in ("low", "high"):
        of = {q: getattr(s.fact(q), end) for q in SITE_QUANTITIES}
        chip = chip_watts(400.0, of["busy_power"], of["waiting_power"], 0.85)
        ends.append(1_082_990 * float(draw(400.0, chip, of["host_power"], of["network_power"], 0.0).total) / 1e6)
    assert ends[0] < 433.196 + 256.646 < ends[1]
    middle = chip_watts(400.0, s.fact("busy_power").value, s.fact("waiting_power").value, 0.85)
    drawn = float(draw(400.0, middle, s.fact("host_power").value, s.fact("network_power").value, 0.0).total) * 1_082_990 / 1e6
    assert drawn == pytest.approx(689.842, rel=0.1)


def test_a_node_of_h100_trains_at_three_quarters_of_its_rated_power() -> None:
    s = CATALOG.site("hopper")
    chip = chip_watts(700.0, s.fact("busy_power").value, s.fact("waiting_power").value, 0.85)
    assert 8.0 * float(draw(700.0, chip, s.fact("host_power").value, 0.0, 0.0).total) == pytest.approx(0.76 * 10_200.0, rel=0.1)


def test_deepseek_v3_took_2664_thousand_hours_of_h800() -> None:
    found = run(CATALOG, "deepseek-ai/DeepSeek-V3", "h800", 2048, 14.8e12, batch=15360).runs[0]
    assert found.chip_hours.low < 2.664e6 < found.chip_hours.high
    assert found.bill.rent is not None
    assert found.bill.rent.low < 5.328e6 < found.bill.rent.high


# --- a million chips


def test_a_million_chips_need_no_more_memory_than_a_thousand() -> None:
    peaks = []
    for chips in (1000, 1000, 10**6):  # the first warms up
        tracemalloc.start()
        llama(chips)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.1 * peaks[1]


def test_a_million_chips_are_answered() -> None:
    found = run(CATALOG, LLAMA, "h100", 10**6, 15e12)
    assert found.runs[0].chips == 10**6
    assert math.isfinite(found.runs[0].days.high)


def test_the_space_of_plans_does_not_grow_with_the_chips() -> None:
    model = CATALOG.model(LLAMA)
    counts = [len(list(spreads(model, n, n, 16))) for n in (2**10, 2**15, 2**19)]
    assert counts[-1] <= counts[1] * 1.2


def test_every_cluster_of_nodes_names_a_site() -> None:
    for name in CATALOG.clusters():
        assert CATALOG.site(CATALOG.cluster(name).site).facts.keys() >= SITE_QUANTITIES.keys()


# --- deadlines


@given(st.integers(2, 10**6), st.floats(0.1, 1e4))
def test_the_fewest_chips_meet_the_deadline_and_one_count_less_does_not(most: int, limit: float) -> None:
    counts = round_counts(1, most)

    def days(n: int) -> float:
        return 1e5 / n

    if days(counts[-1]) > limit:
        with pytest.raises(EvidenceError, match="no number of chips"):
            fewest(days, counts, limit)
        return
    found = fewest(days, counts, limit)
    assert days(found) <= limit
    assert all(days(n) > limit for n in counts if n < found)


def test_few_counts_are_asked_about() -> None:
    asked: list[int] = []

    def days(n: int) -> float:
        asked.append(n)
        return 1e7 / n

    counts = round_counts(8, 10**6)
    assert fewest(days, counts, 10.1) == 995328
    assert len(asked) <= len(rungs(counts)) + 60


def test_beyond_the_peak_more_chips_do_not_help() -> None:
    with pytest.raises(EvidenceError, match=r"512 chips, the fastest, take 9\.8 days"):
        fewest(lambda n: 5e3 / n if n <= 512 else n / 50.0, round_counts(8, 4096), 5.0)


def test_chips_that_never_end_meet_no_deadline() -> None:
    with pytest.raises(EvidenceError, match="none of them ends"):
        fewest(lambda _: math.inf, round_counts(8, 64), 5.0)


def test_a_deadline_gives_chips_that_meet_it() -> None:
    terms = Terms(days=40.0)
    found = run(CATALOG, "mistralai/Mixtral-8x7B-v0.1", "h100", 4096, 1e12, terms=terms)
    chips = found.runs[0].chips
    assert found.runs[0].days.median <= 40.0
    less = [n for n in round_counts(8, chips) if n < chips][-1]
    assert (
        account(
            CATALOG, "mistralai/Mixtral-8x7B-v0.1", "h100", train(CATALOG, "mistralai/Mixtral-8x7B-v0.1", "h100", less)[0], less, 1e12
        ).days.median
        > 40.0
    )


# --- refusals


@pytest.mark.parametrize(
    "wrong",
    [{"pue": 0.9}, {"pue": math.nan}, {"pue": 40.0}, {"price": 0.0}, {"price": -2.0}, {"price": math.inf}, {"price": 1e6}, {"mtbf": 0.0},
     {"electricity": -1.0}, {"days": 0.0}, {"days": math.nan}],
)  # fmt: skip
def test_terms_that_make_no_sense(wrong: dict[str, float]) -> None:
    (name,) = wrong
    with pytest.raises(EvidenceError, match=f"--{name} .*must be from"):
        Terms(**wrong)


@pytest.mark.parametrize("tokens", [0.0, -1.0, 1e19, math.nan, math.inf])
def test_token_budgets_that_cannot_be(tokens: float) -> None:
    with pytest.raises(EvidenceError, match="must be positive, and 1000000T at most"):
        check_tokens(tokens)


def test_a_run_that_never_ends_is_refused() -> None:
    with pytest.raises(EvidenceError, match="never ends"):
        llama(10**6, Terms(mtbf=1000.0))


def test_what_nobody_states_is_missing_and_said() -> None:
    side = train(CATALOG, "mistralai/Mixtral-8x7B-v0.1", "910b2", 64)[0]
    found = account(CATALOG, "mistralai/Mixtral-8x7B-v0.1", "910b2", side, 64, 1e12).bill
    assert found.rent is None
    assert found.capital is None
    assert [m.partition(":")[0] for m in found.missing] == ["rent", "capital"]


def test_a_site_that_lacks_a_fact_or_goes_in_circles_is_named(tmp_path: Path) -> None:
    sites = tmp_path / "sites"
    sites.mkdir()
    fact = '[[fact]]\nquantity = "mtbf"\nvalue = "1000 h"\nsource = "site-assumptions"\n'
    (sites / "mine.toml").write_text(f'id = "mine"\nname = "mine"\n{fact}')
    (sites / "round.toml").write_text(f'id = "round"\nname = "round"\nlike = "round"\n{fact}')
    (sites / "taken.toml").write_text(f'id = "taken"\nname = "taken"\nlike = "typical"\n{fact}')
    mine = load(tmp_path)
    with pytest.raises(EvidenceError, match="nothing is known of busy_power"):
        mine.site("mine")
    with pytest.raises(EvidenceError, match="a circle"):
        mine.site("round")
    assert mine.site("taken").fact("mtbf").value == 1000 * HOUR
    assert mine.site("taken").fact("restart") == mine.site("typical").fact("restart")
