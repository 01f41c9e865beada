"""One collective among ranks, inside a node or across nodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chipscale.cost.kernels.form import Axis, Form, Silicon
from chipscale.ops.work import Num

#: what a rank sends over the full vector's bytes, a and b of a - b / n: all-reduce 2 - 2 / n, gathers, scatters and exchanges 1 - 1 / n
BUS = {
    "all_reduce": (2.0, 2.0),
    "all_gather": (1.0, 1.0),
    "reduce_scatter": (1.0, 1.0),
    "alltoall": (1.0, 1.0),
    "broadcast": (1.0, 0.0),
    "send_recv": (1.0, 0.0),
}
#: messages that follow one another, c n - d with n ranks: a ring all-reduce passes 2 (n - 1), a ring gather n - 1, an exchange 1
STEPS = {
    "all_reduce": (2.0, 2.0),
    "all_gather": (1.0, 1.0),
    "reduce_scatter": (1.0, 1.0),
    "alltoall": (0.0, -1.0),
    "broadcast": (1.0, 1.0),
    "send_recv": (0.0, -1.0),
}
#: how sharply the faster of two protocols wins
SHARPNESS = 4.0


def bus_factor(kind: str, ranks: Num) -> Num:
    """Return what a rank sends over the bytes of the full vector.

    2 (n - 1) / n for an all-reduce, (n - 1) / n for gather, scatter and all-to-all, 1 for broadcast and send.

    Holds when bytes are the full vector: all-reduce input, all-gather output, reduce-scatter input.
    Source: nccl-tests, PERFORMANCE.md ("Bus bandwidth").

    >>> bus_factor("all_reduce", 8.0)
    1.75
    """
    a, b = BUS[kind]
    return a - b / ranks


def bus_bandwidth(kind: str, ranks: Num, bytes: Num, seconds: Num) -> Num:
    """Return the bus bandwidth (B/s) of a measured collective.

    B = V / t times 2 (n - 1) / n (all-reduce) or (n - 1) / n (gather, scatter, all-to-all).

    Holds when bytes are the full vector; it compares with the bandwidth of a link, whatever the number of ranks.
    Source: nccl-tests, PERFORMANCE.md ("Bus bandwidth").

    >>> bus_bandwidth("all_gather", 8.0, 8e9, 0.02)
    350000000000.0
    """
    return bytes / seconds * bus_factor(kind, ranks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Collective:
    """`ranks` in all, `per_node` of them on each node; `bytes` of the full vector; the bus `factor`; `steps` that follow one another."""

    ranks: Num
    per_node: Num
    bytes: Num
    factor: Num
    steps: Num


def collective_of(kind: str, ranks: Num, per_node: Num, bytes: Num) -> Collective:
    """Return the call of a kind of collective.

    factor = a - b / n;  steps = c n - d.

    Holds when a ring or a pairwise exchange carries it.
    Source: nccl-tests, PERFORMANCE.md; thakur-2005, section 4.

    >>> collective_of("all_reduce", 8.0, 8.0, 1e6).steps
    14.0
    """
    c, d = STEPS[kind]
    return Collective(ranks=ranks, per_node=per_node, bytes=bytes, factor=bus_factor(kind, ranks), steps=c * ranks - d)


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveConstants:
    """start (s); step: s a message that follows another; fraction of the links' bandwidth at full rate, `growth` its exponent in
    (n - 1) / n; setup: s more before the full rate; low: fraction of the links under the low-latency protocol; outer: fraction of
    the scale-out bandwidth, `rails` its exponent in ranks a node, hop (s) of one crossing between nodes.
    """

    start: Num
    step: Num
    fraction: Num
    growth: Num
    setup: Num
    low: Num
    outer: Num
    rails: Num
    hop: Num


def links_used(ranks: Num, s: Silicon) -> Num:
    """Return the part of a chip's links that a group of `ranks` can use.

    switch: 1;  full mesh of S chips: (n - 1) / (S - 1).

    Holds when a mesh has one link a pair.
    Source: huawei-atlas-800t-a2, HCCS full mesh; nvidia-nvswitch.
    """
    share = np.minimum(np.maximum(ranks - 1.0, 1.0) / np.maximum(s.link_size - 1.0, 1.0), 1.0)
    return 1.0 - s.mesh * (1.0 - share)


def collective_seconds(c: Collective, s: Silicon, k: CollectiveConstants) -> Num:
    """Cost one collective.

    t = start + step i + soft-min(w / (low B), setup + w / (f B ((n - 1) / n)^g)) + [nodes > 1] (hop j + V_f / (o B_out p^r)),
    w = factor V, B = link bandwidth in use, p ranks a node, i and j the steps inside and between nodes.

    Holds when ranks have equal parts and one low-latency and one full-rate protocol compete.
    Source: thakur-2005, section 4 (start, steps and bytes); nccl-tests, PERFORMANCE.md (bus factors).
    """
    wire = c.factor * c.bytes
    inside = np.minimum(c.per_node, c.ranks)
    rate = s.link_bandwidth * links_used(inside, s)
    grown = np.power(1.0 - 1.0 / np.maximum(inside, 2.0), k.growth)
    full = k.setup + wire / (np.minimum(k.fraction * grown, 1.0) * rate)
    low = wire / (np.minimum(k.low, 1.0) * rate)
    near = np.power(np.power(low, -SHARPNESS) + np.power(full, -SHARPNESS), -1.0 / SHARPNESS)
    across = np.where(c.ranks > c.per_node, 1.0, 0.0)
    lanes = np.power(inside, np.minimum(k.rails, 1.0))
    far = c.steps / inside * k.hop + wire / (np.minimum(k.outer, 1.0) * s.outer_bandwidth * lanes)
    total: Num = k.start + k.step * c.steps + near * np.where(inside > 1.0, 1.0, 0.0) + across * far
    return np.maximum(total, collective_floor(c, s))


def collective_floor(c: Collective, s: Silicon) -> Num:
    """Bound a collective by what its ranks must send once, a switch that reduces or copies included.

    [one node] x V / B;  [nodes] x V (1 - p / n) / (1 - 1 / n) / (p B_out);  x = factor, 1 - 1 / n where the factor is above 1.

    Holds always: each byte of a rank's vector leaves it once at least, less its own part.
    Source: nccl-tests, PERFORMANCE.md; nvidia-nvswitch.
    """
    inside = np.minimum(c.per_node, c.ranks)
    least = np.where(c.factor > 1.0, 1.0 - 1.0 / c.ranks, c.factor) * c.bytes
    far = least * (1.0 - inside / c.ranks) / (1.0 - 1.0 / c.ranks) / (inside * s.outer_bandwidth)
    return np.where(c.ranks > c.per_node, far, least / s.link_bandwidth)


def collective_coordinates(c: Collective, _: Silicon) -> tuple[Num, ...]:
    """Return log2 of the full vector's bytes and of the ranks, on which the surface stands.

    Holds always.
    Source: nccl-tests, PERFORMANCE.md (size and ranks are what it sweeps).
    """
    return np.log2(c.bytes), np.log2(c.ranks)


COLLECTIVE = Form(id="collective", call=Collective, constants=CollectiveConstants, seconds=collective_seconds, floor=collective_floor,
                  axes=(Axis(name="bytes", knots=(9, 13, 16, 18, 19, 20, 21, 22, 23, 24, 25, 27, 29)), Axis(name="ranks", knots=(1, 2, 3, 4))),
                  coordinates=collective_coordinates, matrix=False)  # fmt: skip
