"""One all-reduce by the kernels of a serving framework: in one shot, in two, or handed to a ring."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chipscale.cost.kernels.collective import collective_floor, collective_of, links_used
from chipscale.cost.kernels.form import Axis, Form, Silicon
from chipscale.ops.work import Num

#: how sharply the fastest of the three ways wins
SHARPNESS = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AllReduce:
    """`ranks` on one node add vectors of `bytes`."""

    ranks: Num
    bytes: Num


@dataclass(frozen=True, slots=True, kw_only=True)
class AllReduceConstants:
    """start (s); once, twice, ring: fraction of the links' bandwidth of each way; sync: s more of the second shot; setup: s more
    of the ring; `growth`: exponent of the ring's fraction in (n - 1) / n; step: s a rank more.
    """

    start: Num
    once: Num
    twice: Num
    ring: Num
    sync: Num
    setup: Num
    growth: Num
    step: Num


def allreduce_seconds(c: AllReduce, s: Silicon, k: AllReduceConstants) -> Num:
    """Cost one custom all-reduce.

    t = start + step (n - 2) + soft-min(V (n - 1) / (a B), sync + w / (b B), setup + w / (f B ((n - 1) / n)^g)), w = 2 V (n - 1) / n.

    Holds when each rank reads its peers' whole vectors (one shot), their shares and then the sums (two), or rings (large vectors).
    Source: thakur-2005, section 4 (reduce-scatter and all-gather against all at once); nccl-tests, PERFORMANCE.md (bus factor).
    """
    rate = s.link_bandwidth * links_used(c.ranks, s)
    wire = 2.0 * c.bytes * (c.ranks - 1.0) / c.ranks
    once = c.bytes * (c.ranks - 1.0) / (np.minimum(k.once, 1.0) * rate)
    twice = k.sync + wire / (np.minimum(k.twice, 1.0) * rate)
    ring = k.setup + wire / (np.minimum(k.ring * np.power(1.0 - 1.0 / c.ranks, k.growth), 1.0) * rate)
    ways = np.power(once, -SHARPNESS) + np.power(twice, -SHARPNESS) + np.power(ring, -SHARPNESS)
    total: Num = k.start + k.step * (c.ranks - 2.0) + np.power(ways, -1.0 / SHARPNESS)
    return np.maximum(total, allreduce_floor(c, s))


def allreduce_floor(c: AllReduce, s: Silicon) -> Num:
    """Bound a custom all-reduce by what each rank must send, as for any collective.

    V (n - 1) / n / B.

    Holds always.
    Source: nccl-tests, PERFORMANCE.md; nvidia-nvswitch.
    """
    return collective_floor(collective_of("all_reduce", c.ranks, c.ranks, c.bytes), s)


def allreduce_coordinates(c: AllReduce, _: Silicon) -> tuple[Num, ...]:
    """Return log2 of the vector's bytes and of the ranks, on which the surface stands.

    Holds always.
    Source: nccl-tests, PERFORMANCE.md (size and ranks are what it sweeps).
    """
    return np.log2(c.bytes), np.log2(c.ranks)


ALLREDUCE = Form(id="allreduce", call=AllReduce, constants=AllReduceConstants, seconds=allreduce_seconds, floor=allreduce_floor,
                 axes=(Axis(name="bytes", knots=(8, 13, 16, 18, 19, 20, 21, 22, 23, 24, 26, 30)), Axis(name="ranks", knots=(1, 2, 3, 4))),
                 coordinates=allreduce_coordinates, matrix=False)  # fmt: skip
