"""Algorithms of collectives: bytes, ranks and the facts of a tier -> seconds, one technique a function.

Everywhere V is the full vector in bytes (all-reduce input, all-gather output, what a rank sends in an all-to-all with its own part),
n ranks talk, a chip sends B bytes a second over all its links of the tier together, and alpha is the time of one message that waits for another.
A technique that a kind of collective has no use for takes infinitely long, so that the fastest never is it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from chipscale.cost.kernels.collective import SHARPNESS, STEPS, bus_factor
from chipscale.ops.work import Num

#: rounds of halving or doubling, passes through a tree, messages through a switch that adds or copies; a kind that is absent has no such technique
HALVINGS = {"all_reduce": 2.0, "all_gather": 1.0, "reduce_scatter": 1.0}
PASSES = {"all_reduce": 2.0, "broadcast": 1.0}
THROUGH = {"all_reduce": 2.0, "all_gather": 1.0, "reduce_scatter": 1.0, "broadcast": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One tier of fabric as a group of ranks meets it, each number a float or an array.

    `ranks` of the group meet here; `rate` is what a chip sends here over all its links (B/s), `step` a message that waits for another (s);
    `adding` is the rate (B/s) at which the switches add or copy vectors, 0 where they cannot;
    `size` chips share the tier. On a torus `sides` are the group's chips along each axis, `rings` 1 where that axis closes into a ring, else 0,
    and `axes` counts all axes of the chips. Tiers of one `plane` share the chips' ports; those of different planes carry at once.
    """

    topology: str
    ranks: Num
    rate: Num
    step: Num
    size: Num
    adding: Num = 0.0
    sides: tuple[Num, ...] = ()
    rings: tuple[Num, ...] = ()
    axes: float = 1.0
    plane: str = ""


def ring(kind: str, volume: Num, level: Level) -> Num:
    """Cost a ring, each rank passing to the next; an all-to-all sends to every peer in turn.

    t = i alpha + x V / B;  i steps, x bus factor of the kind.

    Holds when every rank has a path of its own to its neighbour.
    Source: thakur-2005, section 4 (ring); nccl-tests, PERFORMANCE.md (bus factors).

    >>> nvlink = Level(topology="switch", ranks=8.0, rate=450e9, step=1e-6, size=8.0)
    >>> round(1e6 * float(ring("all_reduce", 900e6, nvlink)))
    3514
    """
    c, d = STEPS[kind]
    return (c * level.ranks - d) * level.step + bus_factor(kind, level.ranks) * volume / level.rate


def halving(kind: str, volume: Num, level: Level) -> Num:
    """Cost recursive halving and doubling: partners at distances 1, 2, 4 ...

    t = j ceil(log2 n) alpha + x V / B;  j = 2 for an all-reduce, 1 for a gather or scatter.

    Holds when any pair of ranks can talk at full rate; the bytes are those of the ring.
    Source: thakur-2005, section 4 (recursive halving and doubling).
    """
    if kind not in HALVINGS:
        return np.inf
    return HALVINGS[kind] * np.ceil(np.log2(level.ranks)) * level.step + bus_factor(kind, level.ranks) * volume / level.rate


def tree(kind: str, volume: Num, level: Level) -> Num:
    """Cost two binary trees, each with half of the vector, in which every rank is a leaf of one.

    t = j ceil(log2 n) alpha + j V / B;  j = 2 for an all-reduce (up and down), 1 for a broadcast.

    Holds when the vector is cut into chunks that follow one another up and down the trees.
    Source: sanders-2009, section 3 (two trees keep every link busy).
    """
    if kind not in PASSES:
        return np.inf
    return PASSES[kind] * (np.ceil(np.log2(level.ranks)) * level.step + volume / level.rate)


def in_network(kind: str, volume: Num, level: Level) -> Num:
    """Cost a collective that the switches add or copy: each rank sends its vector once.

    t = j alpha + V / B_s (all-reduce, j = 2; broadcast, j = 1), alpha + V (1 - 1/n) / B_s (gather, scatter);  B_s = rate of the adding switch.

    Holds when the switches have adders; a gather is bound by what a rank receives.
    Source: graham-2016, section 3 (aggregation in switches); nvidia-nvswitch (NVLink SHARP).
    """
    if kind not in THROUGH:
        return np.inf
    part = 1.0 if kind in PASSES else 1.0 - 1.0 / level.ranks
    seconds = THROUGH[kind] * level.step + part * volume / np.maximum(level.adding, 1.0)
    return np.where(np.asarray(level.adding) > 0.0, seconds, np.inf)


def direct(kind: str, volume: Num, level: Level) -> Num:
    """Cost a full mesh, on which every rank sends each peer its part over the one link between them.

    t = j alpha + j (V / n) / b,  b = B / (S - 1);  j = 2 for an all-reduce (scatter, then gather) and a broadcast, 1 for the others; a send has one link: alpha + V / b.

    Holds when a mesh of S chips has one link a pair.
    Source: huawei-atlas-800t-a2, HCCS full mesh; thakur-2005, section 4 (pairwise exchange).
    """
    passes = 2.0 if kind in ("all_reduce", "broadcast") else 1.0
    link = level.rate / np.maximum(level.size - 1.0, 1.0)
    part = 1.0 if kind == "send_recv" else 1.0 / level.ranks
    return passes * (level.step + part * volume / link)


def torus(kind: str, volume: Num, level: Level) -> Num:
    """Cost rings along all axes of a torus at once, parts of the vector taking the axes in different order.

    t = j (sum of h_i) alpha + j V (1 - 1/n) / sum of r_i;  r_i = 2 l on an axis that closes into a ring, l on one that does not, l = B / (2 A) a link;
    h_i = floor(a_i / 2) hops round a ring, a_i - 1 along a line; j = 2 for an all-reduce, 1 for a gather or scatter; a broadcast moves V once; a send has one link: alpha + V / l.

    Holds when the group's sides a_i are alike, so that all axes are busy to the end.
    Source: scaling-book, part 3 ("How to think about TPUs", collectives over several axes); google-tpu-docs.

    >>> v5e = Level(topology="torus", ranks=256.0, rate=200e9, step=0.0, size=256.0, sides=(16.0, 16.0), rings=(1.0, 1.0), axes=2.0)
    >>> round(1e6 * float(torus("all_gather", 1e9, v5e)))
    4980
    """
    link = level.rate / (2.0 * level.axes)
    if kind == "send_recv":
        return level.step + volume / link
    if kind == "alltoall":
        return torus_exchange(volume, level)
    busy = sum(((1.0 + r) * (np.asarray(a) > 1.0) for a, r in zip(level.sides, level.rings, strict=True)), np.asarray(0.0)) * link
    passes = 2.0 if kind == "all_reduce" else 1.0
    part = 1.0 if kind == "broadcast" else 1.0 - 1.0 / level.ranks
    return passes * (_hops(level) * level.step + part * volume / busy)


def _hops(level: Level) -> Num:
    """Return the messages that follow one another along all axes of a torus, both ways at once."""
    return sum((r * np.floor(np.asarray(a) / 2.0) + (1.0 - r) * (a - 1.0) for a, r in zip(level.sides, level.rings, strict=True)), np.asarray(0.0))


def torus_exchange(volume: Num, level: Level) -> Num:
    """Cost an all-to-all on a torus: bytes are forwarded by the chips between, axis by axis.

    t = alpha sum of h_i + max_i of V floor(a_i^2 / 4) / a_i / ((1 + ring_i) l);  a ring halves the load of a line's middle link.

    Holds when pairs exchange equal parts by shortest ways and all axes carry at once.
    Source: scaling-book, part 3 (all-to-all on a ring: a quarter of the all-gather).

    >>> ring16 = Level(topology="torus", ranks=16.0, rate=100e9, step=0.0, size=16.0, sides=(16.0,), rings=(1.0,), axes=1.0)
    >>> round(float(torus_exchange(1e9, ring16) / (15 / 16 * 1e9 / 100e9)), 2)
    4.27
    """
    link = level.rate / (2.0 * level.axes)
    loads = [np.floor(np.asarray(a) ** 2 / 4.0) / a / (1.0 + r) for a, r in zip(level.sides, level.rings, strict=True)]
    return _hops(level) * level.step + volume * reduce(np.maximum, loads) / link


Technique = Callable[[str, Num, Level], Num]
#: what may carry a collective on each topology; the fastest does
TECHNIQUES: Mapping[str, tuple[Technique, ...]] = {
    "switch": (ring, halving, tree, in_network),
    "fat-tree": (ring, halving, tree, in_network),
    "mesh": (direct,),
    "torus": (torus,),
}


def fastest(kind: str, volume: Num, level: Level) -> Num:
    """Cost a collective on one tier by the technique that the laws find fastest, as a library's tuner does; nothing where one rank is alone.

    t = min over techniques.

    Holds when the library has every technique of the tier's topology and chooses well.
    Source: nccl-tuning (the algorithm of the least predicted time).
    """
    alone = np.asarray(level.ranks) <= 1.0
    pair = replace(level, ranks=np.maximum(level.ranks, 2.0))
    return np.where(alone, 0.0, reduce(np.minimum, (technique(kind, volume, pair) for technique in TECHNIQUES[level.topology])))


def chosen(kind: str, volume: float, level: Level) -> str:
    """Return the name of the fastest technique; numbers only."""
    names = {technique.__name__: float(technique(kind, volume, level)) for technique in TECHNIQUES[level.topology]}
    return min(names, key=lambda name: names[name])


def nested(kind: str, volume: Num, levels: Sequence[Level]) -> Num:
    """Cost a collective over any number of nested tiers, innermost first.

    gather, scatter: sum over tiers of t(V / n_1 ... n_(j-1));  all-reduce: scatter inwards out, all-reduce on the outermost tier, gather back;
    broadcast: V down the tiers, or scattered inside, each part across, gathered inside, whichever is faster;
    all-to-all: each tier carries its pairs' share; send: the outermost tier that it crosses.

    Holds when ranks are laid out tier by tier; levels on which one rank is alone cost nothing.
    Source: thakur-2005, section 4; nccl-tuning (hierarchical rings and trees).
    """
    inner, outer = levels[:-1], levels[-1]
    if not inner:
        return fastest(kind, volume, outer)
    if kind == "send_recv":
        return fastest(kind, volume, outer)
    if kind == "alltoall":
        return nested_exchange(volume, levels)
    shared = volume / reduce(np.multiply, (level.ranks for level in inner))
    if kind == "broadcast":
        plain = nested(kind, volume, inner) + fastest(kind, volume, outer)
        return np.minimum(plain, 2.0 * nested("all_gather", volume, inner) + fastest(kind, shared, outer))
    if kind == "all_reduce":
        return nested("reduce_scatter", volume, inner) + fastest(kind, shared, outer) + nested("all_gather", volume, inner)
    return nested(kind, volume, inner) + fastest(kind, shared, outer)


def nested_exchange(volume: Num, levels: Sequence[Level]) -> Num:
    """Cost an all-to-all over nested tiers: those of one plane share a chip's ports, those of different planes carry at once.

    t = max over planes of the sum over its tiers of t_j(V n_j (N_j - N_(j-1)) / (N (n_j - 1)));  N_j = n_1 ... n_j.

    Holds when pairs exchange equal parts.
    Source: deepep, README (NVLink and RDMA at once).
    """
    whole = reduce(np.multiply, (level.ranks for level in levels))
    planes: dict[str, Num] = {}
    reached: Num = 1.0
    for level in levels:
        further = reached * level.ranks
        sent = volume * (further - reached) / whole
        mine = sent * level.ranks / np.maximum(level.ranks - 1.0, 1.0)
        planes[level.plane] = planes.get(level.plane, 0.0) + fastest("alltoall", mine, level)
        reached = further
    return reduce(np.maximum, planes.values())


def switched(low: Num, full: Num) -> Num:
    """Join two protocols: one with little start-up, one at full rate; messages switch from one to the other by size.

    t = (t_low^-s + t_full^-s)^(-1/s), s = 4: within 16 % of the faster one.

    Holds when the library switches near the crossing.
    Source: nccl-tuning (LL, LL128 and Simple by message size).
    """
    return np.power(np.power(low, -SHARPNESS) + np.power(full, -SHARPNESS), -1.0 / SHARPNESS)
