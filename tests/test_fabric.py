"""Laws of collectives on fabrics: bytes, tiers, planes, tori; expert exchange across nodes."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import chipscale
from chipscale.cost.constants import Constants
from chipscale.cost.hardware import hardware
from chipscale.cost.kernels.algorithms import TECHNIQUES, Level, direct, fastest, halving, in_network, nested, phases, ring, switched, torus, tree
from chipscale.cost.kernels.collective import BUS, collective_floor, collective_of
from chipscale.cost.kernels.exchange import EXCHANGE, Exchange, ExchangeConstants, copies, distinct, nodes_reached, sent
from chipscale.cost.links import exchange_seconds, gather_seconds
from chipscale.cost.silicon import silicon
from chipscale.evidence import Belief, EvidenceError
from chipscale.facts.chip import Chip
from chipscale.operators.fabric import algorithms, collective, placed, slice_of
from chipscale.ops.collective import spread

CATALOG = chipscale.load()
SYMMETRIC = ("all_reduce", "all_gather", "reduce_scatter", "alltoall")
KINDS = tuple(BUS)
counts = st.integers(2, 256).map(float)
volumes = st.floats(1.0, 1e12)
rates = st.floats(1e9, 2e12)
waits = st.floats(0.0, 1e-4)


def chip(name: str) -> Chip:
    found = CATALOG.chip(name)
    assert not isinstance(found, Belief)
    return found


def switch(ranks: float, rate: float = 450e9, step: float = 1e-6, adding: float = 0.0, plane: str = "a") -> Level:
    return Level(topology="switch", ranks=ranks, rate=rate, step=step, size=ranks, adding=adding, plane=plane)


def box(sides: tuple[float, ...], closed: float, rate: float = 600e9, step: float = 1e-6) -> Level:
    return Level(
        topology="torus",
        ranks=math.prod(sides),
        rate=rate,
        step=step,
        size=math.prod(sides),
        sides=sides,
        rings=(closed,) * len(sides),
        axes=float(len(sides)),
    )


@given(counts, volumes, rates, waits)
def test_bytes_of_collectives(n: float, volume: float, rate: float, step: float) -> None:
    level = switch(n, rate, step, adding=rate)
    for technique in (ring, halving, in_network, direct):
        gather, scatter = technique("all_gather", volume, level), technique("reduce_scatter", volume, level)
        assert gather == scatter
        assert technique("all_reduce", volume, level).wire >= scatter.wire
    assert in_network("all_reduce", volume, level).wire <= ring("all_reduce", volume, level).wire * (1 + 1e-12)
    assert ring("all_reduce", volume, level).wire == pytest.approx(2 * ring("all_gather", volume, level).wire)
    assert halving("all_reduce", volume, level).wire <= tree("all_reduce", volume, level).wire


@given(st.sampled_from(KINDS), counts, volumes, rates, waits)
def test_more_bytes_take_longer_and_more_bandwidth_does_not(kind: str, n: float, volume: float, rate: float, step: float) -> None:
    for level in (switch(n, rate, step), replace(switch(n, rate, step), topology="mesh"), box((4.0, 4.0), 1.0, rate, step)):
        seconds = fastest(kind, volume, level).seconds
        assert fastest(kind, 1.7 * volume, level).seconds >= seconds
        assert fastest(kind, volume, replace(level, rate=1.7 * rate)).seconds <= seconds
        assert fastest(kind, volume, replace(level, step=1.7 * step)).seconds >= seconds


@given(st.sampled_from(KINDS), counts, counts, volumes)
def test_more_ranks_take_no_less(kind: str, a: float, b: float, volume: float) -> None:
    few, many = sorted((a, b))
    assert fastest(kind, volume, switch(many)).seconds >= fastest(kind, volume, switch(few)).seconds * (1 - 1e-12)


@given(st.sampled_from(KINDS), counts, counts, volumes, rates, waits)
def test_two_tiers_of_one_plane_cost_no_less_than_one(kind: str, i: float, o: float, volume: float, rate: float, step: float) -> None:
    whole = fastest(kind, volume, switch(i * o, rate, step)).seconds
    parts = nested(kind, volume, [switch(i, rate, step), switch(o, rate, step)])
    assert parts >= whole * (1 - 1e-9)


@given(st.sampled_from(SYMMETRIC), counts, counts, volumes)
def test_planes_carry_at_once(kind: str, i: float, o: float, volume: float) -> None:
    levels = [switch(i), switch(o, rate=50e9, plane="b")]
    together = nested(kind, volume, levels)
    assert together <= nested(kind, volume, [levels[0], replace(levels[1], plane="a")])
    assert together >= max(cost.wire for _, cost in phases(kind, volume, levels))


@given(st.sampled_from(KINDS), volumes)
def test_a_lone_rank_on_a_tier_costs_nothing(kind: str, volume: float) -> None:
    assert fastest(kind, volume, switch(1.0)).seconds == 0.0
    if kind != "send_recv":
        assert nested(kind, volume, [switch(8.0), switch(1.0, plane="b")]) == pytest.approx(fastest(kind, volume, switch(8.0)).seconds)


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_are_answered_like_numbers(kind: str) -> None:
    ranks, volume = np.array([2.0, 8.0, 64.0]), np.array([[1e3], [1e9]])
    outer = switch(2.0, rate=50e9, plane="b")
    whole = nested(kind, volume, [replace(switch(8.0), ranks=ranks, size=ranks), outer])
    alone = [[nested(kind, v, [switch(n), outer]) for n in ranks] for v in volume.ravel()]
    assert np.allclose(whole + 0.0 * ranks, alone)


@given(st.sampled_from(SYMMETRIC), st.permutations((4.0, 4.0, 8.0)), volumes)
def test_axes_of_a_torus_may_be_relabelled(kind: str, sides: list[float], volume: float) -> None:
    assert torus(kind, volume, box(tuple(sides), 1.0)).seconds == pytest.approx(torus(kind, volume, box((4.0, 4.0, 8.0), 1.0)).seconds)


@given(st.sampled_from(SYMMETRIC), volumes)
def test_rings_beat_lines_and_a_switch_beats_a_torus(kind: str, volume: float) -> None:
    for sides in ((4.0, 4.0), (2.0, 4.0), (8.0, 8.0, 8.0)):
        closed, line = torus(kind, volume, box(sides, 1.0)), torus(kind, volume, box(sides, 0.0))
        assert closed.seconds <= line.seconds
        assert closed.wire >= ring(kind, volume, switch(math.prod(sides), rate=600e9)).wire * (1 - 1e-12)


def test_an_all_to_all_on_a_torus_by_counting_hops() -> None:
    """Every pair's bytes are laid on the links of a ring of six, half each way where both are as short."""
    n, link = 6, [0.0] * 12
    for a in range(n):
        for b in range(n):
            d = (b - a) % n
            for way, steps, part in ((0, d, 0.5 if 2 * d == n else float(2 * d < n)), (1, n - d, 0.5 if 2 * d == n else float(2 * d > n))):
                for h in range(steps if d else 0):
                    at = (a + h) % n if way == 0 else (a - h - 1) % n
                    link[2 * at + way] += part / n
    level = box((6.0,), 1.0, rate=2.0, step=0.0)
    assert torus("alltoall", 1.0, level).wire == pytest.approx(max(link))


def test_protocols_switch_by_size() -> None:
    assert switched(1.0, 100.0) == pytest.approx(1.0, rel=1e-6)
    assert switched(5.0, 5.0) == pytest.approx(5.0 * 2**-0.25)


@pytest.mark.parametrize("name", ["h100", "gb200", "910c", "910b2", "tpu-v5p", "tpu-v6e", "mi300x", "gaudi-3", "trainium2"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_cluster_answers_above_the_floor(name: str, kind: str) -> None:
    one = chip(name)
    volume = np.array([1.0, 1e4, 1e8, 1e10])
    found = collective(CATALOG, one, kind, ranks=64, bytes=volume)
    call, numbers = collective_of(kind, 64.0, float(placed(CATALOG.cluster_for(one), 64)[0]), volume), silicon(one, CATALOG, "bf16")
    assert found.tier == "prior"
    assert np.all(np.diff(found.seconds) >= 0)
    assert np.all(found.low < found.seconds)
    assert np.all(found.seconds < found.high)
    if kind != "send_recv":
        assert np.all(found.seconds >= collective_floor(call, numbers))


def test_the_fitted_form_answers_where_it_was_measured() -> None:
    one = chip("h100")
    found = collective(CATALOG, one, "all_reduce", ranks=8, bytes=1e9)
    assert found.tier == "calibrated"
    assert 1.75e9 / found.seconds == pytest.approx(445e9, rel=0.05)
    assert algorithms(CATALOG, one, "all_reduce", ranks=8, bytes=1e9) == ("in_network",)
    assert "in_network" not in algorithms(CATALOG, chip("a100"), "all_reduce", ranks=8, bytes=1e9)


def test_three_tiers_are_answered_tier_by_tier() -> None:
    one = chip("h100")
    two = CATALOG.cluster_for(one)
    leaf = replace(two.tiers[1], name="leaf", size=256, plane="network")
    spine = replace(two.tiers[1], name="spine", oversubscription=4.0, plane="network")
    three = replace(two, id="three", tiers=(two.tiers[0], leaf, spine))
    assert placed(three, 1024) == (8, 32, 4)
    narrow, wide = (collective(CATALOG, one, "all_gather", ranks=1024, bytes=1e10, cluster=c).seconds for c in (three, two))
    assert narrow > wide
    near, far = hardware(one, three, "bf16"), hardware(one, two, "bf16")
    assert near.middle_size == 256.0
    assert far.middle_size == 0.0


def test_the_coarse_links_know_a_tier_between_and_a_torus() -> None:
    k = Constants(**dict.fromkeys((f.name for f in fields(Constants)), 1.0))
    base = replace(hardware(chip("h100"), CATALOG.cluster_for(chip("h100")), "bf16"), inner_latency=0.0, outer_latency=0.0)
    slow = replace(base, outer_bandwidth=base.outer_bandwidth / 4.0)
    leaf = replace(slow, middle_size=256.0, middle_bandwidth=base.outer_bandwidth, middle_latency=0.0)
    for cost in (gather_seconds, exchange_seconds):
        inside, across = spread(256.0, 1.0, 8.0), spread(1024.0, 1.0, 8.0)
        assert cost(1e9, inside, leaf, k) == pytest.approx(cost(1e9, inside, base, k))
        assert cost(1e9, across, base, k) < cost(1e9, across, leaf, k) <= cost(1e9, across, slow, k)
    pod = hardware(chip("tpu-v5p"), CATALOG.cluster_for(chip("tpu-v5p")), "bf16")
    plain = replace(pod, axes=0.0)
    four, cube = spread(4.0, 1.0, pod.inner_size), spread(64.0, 1.0, pod.inner_size)
    assert gather_seconds(1e9, four, pod, k) == pytest.approx(3 * gather_seconds(1e9, four, plain, k), rel=1e-2)
    assert gather_seconds(1e9, cube, pod, k) == pytest.approx(gather_seconds(1e9, cube, plain, k))
    level = replace(box((4.0, 4.0, 4.0), 1.0, rate=float(pod.inner_bandwidth), step=0.0))
    assert exchange_seconds(1e9, cube, replace(pod, inner_latency=0.0), k) == pytest.approx(torus("alltoall", 1e9, level).wire)


def test_bytes_are_named_and_elements_have_one_way_to_become_them() -> None:
    one = chip("h100")
    with pytest.raises(TypeError):
        collective(CATALOG, one, "all_reduce", 8, 4096.0)  # type: ignore[misc]
    with pytest.raises(TypeError):
        chipscale.vector_bytes(4096.0, "bf16")  # type: ignore[misc]
    assert chipscale.vector_bytes(elements=4096.0, precision="fp8") == 4096.0
    with pytest.raises(EvidenceError, match="no known width"):
        chipscale.vector_bytes(elements=1.0, precision="fp7")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"kind": "gossip"}, "kind 'gossip'"),
        ({"bytes": 0.0}, "bytes = "),
        ({"bytes": math.nan}, "bytes = "),
        ({"ranks": 1}, "ranks = 1"),
        ({"ranks": 10**7}, "joins"),
        ({"ranks": 12, "per_node": 5}, "per_node = 5"),
        ({"ranks": 16, "per_node": 16}, "per_node = 16"),
    ],
)
def test_bad_calls_are_refused(asked: dict[str, float], told: str) -> None:
    with pytest.raises(EvidenceError, match=told):
        collective(CATALOG, chip("h100"), **{"kind": "all_reduce", "ranks": 8, "bytes": 1e6, **asked})  # type: ignore[arg-type]


def test_slices_of_a_torus() -> None:
    pod = CATALOG.cluster("tpu-v5p-pod").tiers[0]
    assert slice_of(pod, 64) == (4, 4, 4)
    assert slice_of(pod, 8960) == (16, 20, 28)
    assert slice_of(pod, 16, (16,)) == (1, 1, 16)
    with pytest.raises(EvidenceError, match="no slice"):
        slice_of(pod, 64, (4, 4))
    with pytest.raises(EvidenceError, match="no box"):
        slice_of(pod, 31)
    with pytest.raises(EvidenceError, match="axes"):
        replace(pod, axes=(16, 20))
    with pytest.raises(EvidenceError, match="axes"):
        replace(pod, topology="switch")


@pytest.mark.parametrize(("groups", "experts", "top_k"), [(2, 8, 3), (4, 8, 2), (3, 9, 4), (1, 6, 2)])
def test_distinct_groups_by_counting_all_choices(groups: int, experts: int, top_k: int) -> None:
    size = experts // groups
    chosen = [len({e // size for e in c}) for c in combinations(range(experts), top_k)]
    assert float(distinct(float(groups), float(experts), float(top_k))) == pytest.approx(sum(chosen) / len(chosen))


def v3(**changed: float) -> Exchange:
    return replace(Exchange(tokens=4096.0, hidden=7168.0, top_k=8.0, experts=256.0, ranks=64.0, width=1.0, once=1.0, nodes=8.0), **changed)


def test_node_limits_save_bytes_between_nodes() -> None:
    assert nodes_reached(v3(limit=4.0)) < nodes_reached(v3()) < 8.0
    assert nodes_reached(v3(limit=8.0)) == pytest.approx(nodes_reached(v3()))
    assert copies(v3(limit=4.0)) <= copies(v3()) <= 8.0
    each = sent(v3(once=0.0))
    once = sent(v3(limit=4.0))
    assert once[1] < sent(v3())[1] < each[1]
    assert sent(v3(nodes=1.0))[1] == 0.0


@given(st.sampled_from((16.0, 32.0, 64.0)), st.sampled_from((0.0, 1.0)), st.floats(1.0, 1e5), st.floats(1e10, 1e12))
def test_exchanges_across_nodes_keep_the_laws(ranks: float, once: float, tokens: float, rate: float) -> None:
    numbers = silicon(chip("h800"), CATALOG, "bf16")
    k = ExchangeConstants(**{f.name: 1e-5 for f in fields(ExchangeConstants)} | {"rate": rate, "row": 0.0, "board": 1.0})
    call = v3(ranks=ranks, nodes=ranks / 8.0, once=once, tokens=tokens)
    seconds = EXCHANGE.seconds(call, numbers, k)
    assert seconds >= EXCHANGE.floor(call, numbers)
    assert EXCHANGE.seconds(replace(call, tokens=1.7 * tokens), numbers, k) >= seconds
    assert EXCHANGE.seconds(call, replace(numbers, outer_bandwidth=2.0 * numbers.outer_bandwidth), k) <= seconds
    assert EXCHANGE.seconds(call, replace(numbers, outer_bandwidth=1e9), k) >= EXCHANGE.seconds(replace(call, nodes=1.0), numbers, k)


def test_every_topology_has_techniques() -> None:
    assert {t.topology for c in CATALOG.clusters() for t in CATALOG.cluster(c).tiers} <= set(TECHNIQUES)
