"""Algorithms of collectives: bytes, ranks and the facts of a tier -> seconds, one technique a function.

Everywhere V is the full vector in bytes (all-reduce input, all-gather output, what a rank sends in an all-to-all with its own part),
n ranks talk, a chip sends B bytes a second over all its links of the tier together, and alpha is the time of one message that waits for another.
A technique that a kind of collective has no use for takes infinitely long, so that the fastest never is it. A cost has two parts: `wait`, the messages
that follow one another, and `wire`, the bytes over the rate; chunks of a long vector keep several tiers busy at once, so that wires overlap and waits add.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Seconds of messages that wait for one another, and of bytes on the links."""

    wait: Num
    wire: Num

    @property
    def seconds(self) -> Num:
        return self.wait + self.wire


NEVER = Cost(wait=np.inf, wire=0.0)


def ring(kind: str, volume: Num, level: Level) -> Cost:
    """Cost a ring, each rank passing to the next; an all-to-all sends to every peer in turn.

    t = i alpha + x V / B;  i steps, x bus factor of the kind.

    Holds when every rank has a path of its own to its neighbour.
    Source: thakur-2005, section 4 (ring); nccl-tests, PERFORMANCE.md (bus factors).

    >>> nvlink = Level(topology="switch", ranks=8.0, rate=450e9, step=1e-6, size=8.0)
    >>> round(1e6 * float(ring("all_reduce", 900e6, nvlink).seconds))
    3514
    """
    c, d = STEPS[kind]
    return Cost(wait=(c * level.ranks - d) * level.step, wire=bus_factor(kind, level.ranks) * volume / level.rate)


def halving(kind: str, volume: Num, level: Level) -> Cost:
    """Cost recursive halving and doubling: partners at distances 1, 2, 4 ...

    t = j ceil(log2 n) alpha + x V / B;  j = 2 for an all-reduce, 1 for a gather or scatter.

    Holds when any pair of ranks can talk at full rate; the bytes are those of the ring.
    Source: thakur-2005, section 4 (recursive halving and doubling).
    """
    if kind not in HALVINGS:
        return NEVER
    return Cost(wait=HALVINGS[kind] * np.ceil(np.log2(level.ranks)) * level.step, wire=bus_factor(kind, level.ranks) * volume / level.rate)


def tree(kind: str, volume: Num, level: Level) -> Cost:
    """Cost two binary trees, each with half of the vector, in which every rank is a leaf of one.

    t = j ceil(log2 n) alpha + j V / B;  j = 2 for an all-reduce (up and down), 1 for a broadcast.

    Holds when the vector is cut into chunks that follow one another up and down the trees.
    Source: sanders-2009, section 3 (two trees keep every link busy).
    """
    if kind not in PASSES:
        return NEVER
    return Cost(wait=PASSES[kind] * np.ceil(np.log2(level.ranks)) * level.step, wire=PASSES[kind] * volume / level.rate)


def in_network(kind: str, volume: Num, level: Level) -> Cost:
    """Cost a collective that the switches add or copy: each rank sends its vector once.

    t = j alpha + V / B_s (all-reduce, j = 2; broadcast, j = 1), alpha + V (1 - 1/n) / B_s (gather, scatter);  B_s = rate of the adding switch.

    Holds when the switches have adders; a gather is bound by what a rank receives.
    Source: graham-2016, section 3 (aggregation in switches); nvidia-nvswitch (NVLink SHARP).
    """
    if kind not in THROUGH:
        return NEVER
    part = 1.0 if kind in PASSES else 1.0 - 1.0 / level.ranks
    able = np.asarray(level.adding) > 0.0
    return Cost(wait=np.where(able, THROUGH[kind] * level.step, np.inf), wire=part * volume / np.maximum(level.adding, 1.0))


def direct(kind: str, volume: Num, level: Level) -> Cost:
    """Cost a full mesh, on which every rank sends each peer its part over the one link between them.

    t = j alpha + j (V / n) / b,  b = B / (S - 1);  j = 2 for an all-reduce (scatter, then gather) and a broadcast, 1 for the others; a send has one link: alpha + V / b.

    Holds when a mesh of S chips has one link a pair.
    Source: huawei-atlas-800t-a2, HCCS full mesh; thakur-2005, section 4 (pairwise exchange).
    """
    passes = 2.0 if kind in ("all_reduce", "broadcast") else 1.0
    link = level.rate / np.maximum(level.size - 1.0, 1.0)
    part = 1.0 if kind == "send_recv" else 1.0 / level.ranks
    return Cost(wait=passes * level.step, wire=passes * part * volume / link)


def torus(kind: str, volume: Num, level: Level) -> Cost:
    """Cost rings along all axes of a torus at once, parts of the vector taking the axes in different order.

    t = j (sum of h_i) alpha + j V (1 - 1/n) / sum of r_i;  r_i = 2 l on an axis that closes into a ring, l on one that does not, l = B / (2 A) a link;
    h_i = floor(a_i / 2) hops round a ring, a_i - 1 along a line; j = 2 for an all-reduce, 1 for a gather or scatter; a broadcast moves V once; a send has one link: alpha + V / l.

    Holds when the group's sides a_i are alike, so that all axes are busy to the end.
    Source: scaling-book, part 3 ("How to think about TPUs", collectives over several axes); google-tpu-docs.

    >>> v5e = Level(topology="torus", ranks=256.0, rate=200e9, step=0.0, size=256.0, sides=(16.0, 16.0), rings=(1.0, 1.0), axes=2.0)
    >>> round(1e6 * float(torus("all_gather", 1e9, v5e).seconds))
    4980
    """
    link = level.rate / (2.0 * level.axes)
    if kind == "send_recv":
        return Cost(wait=level.step, wire=volume / link)
    if kind == "alltoall":
        return torus_exchange(volume, level)
    busy = sum(((1.0 + r) * (np.asarray(a) > 1.0) for a, r in zip(level.sides, level.rings, strict=True)), np.asarray(0.0)) * link
    passes = 2.0 if kind == "all_reduce" else 1.0
    part = 1.0 if kind == "broadcast" else 1.0 - 1.0 / level.ranks
    return Cost(wait=passes * _hops(level) * level.step, wire=passes * part * volume / busy)


def _hops(level: Level) -> Num:
    """Return the messages that follow one another along all axes of a torus, both ways at once."""
    return sum((r * np.floor(np.asarray(a) / 2.0) + (1.0 - r) * (a - 1.0) for a, r in zip(level.sides, level.rings, strict=True)), np.asarray(0.0))


def torus_exchange(volume: Num, level: Level) -> Cost:
    """Cost an all-to-all on a torus: bytes are forwarded by the chips between, axis by axis.

    t = alpha sum of h_i + max_i of V floor(a_i^2 / 4) / a_i / ((1 + ring_i) l);  a ring halves the load of a line's middle link.

    Holds when pairs exchange equal parts by shortest ways and all axes carry at once.
    Source: scaling-book, part 3 (all-to-all on a ring: a quarter of the all-gather).

    >>> ring16 = Level(topology="torus", ranks=16.0, rate=100e9, step=0.0, size=16.0, sides=(16.0,), rings=(1.0,), axes=1.0)
    >>> round(float(torus_exchange(1e9, ring16).seconds / (15 / 16 * 1e9 / 100e9)), 2)
    4.27
    """
    link = level.rate / (2.0 * level.axes)
    loads = [np.floor(np.asarray(a) ** 2 / 4.0) / a / (1.0 + r) for a, r in zip(level.sides, level.rings, strict=True)]
    return Cost(wait=_hops(level) * level.step, wire=volume * reduce(np.maximum, loads) / link)


Technique = Callable[[str, Num, Level], Cost]
#: what may carry a collective on each topology; the fastest does
TECHNIQUES: Mapping[str, tuple[Technique, ...]] = {
    "switch": (ring, halving, tree, in_network),
    "fat-tree": (ring, halving, tree, in_network),
    "mesh": (direct,),
    "torus": (torus,),
}


def faster(a: Cost, b: Cost) -> Cost:
    """Return the faster of two costs, element by element."""
    first = a.seconds <= b.seconds
    return Cost(wait=np.where(first, a.wait, b.wait), wire=np.where(first, a.wire, b.wire))


def fastest(kind: str, volume: Num, level: Level) -> Cost:
    """Cost a collective on one tier by the technique that the laws find fastest, as a library's tuner does; nothing where one rank is alone.

    t = min over techniques.

    Holds when the library has every technique of the tier's topology and chooses well.
    Source: nccl-tuning (the algorithm of the least predicted time).
    """
    together = np.asarray(level.ranks) > 1.0
    pair = replace(level, ranks=np.maximum(level.ranks, 2.0))
    best = reduce(faster, (technique(kind, volume, pair) for technique in TECHNIQUES[level.topology]))
    return Cost(wait=np.where(together, best.wait, 0.0), wire=np.where(together, best.wire, 0.0))


def chosen(kind: str, volume: float, level: Level) -> str:
    """Return the name of the fastest technique; numbers only."""
    names = {technique.__name__: float(technique(kind, volume, level).seconds) for technique in TECHNIQUES[level.topology]}
    return min(names, key=lambda name: names[name])


#: what a tier does, with the plane that carries it
Phase = tuple[str, Cost]


def phases(kind: str, volume: Num, levels: Sequence[Level]) -> list[Phase]:
    """List what each tier of a nested fabric does for a collective, innermost first.

    gather, scatter: tier j carries V / (n_1 ... n_(j-1));  all-reduce: scatter from inside out, all-reduce on the outermost tier, gather back;
    all-to-all: tier j carries its pairs' share V (N_j - N_(j-1)) / N, N_j = n_1 ... n_j;  send: the outermost tier;  broadcast: V on every tier.

    Holds when ranks are laid out tier by tier.
    Source: thakur-2005, section 4; nccl-tuning (hierarchical rings and trees).
    """
    inner, outer = levels[:-1], levels[-1]
    if not inner or kind == "send_recv":
        return [(outer.plane, fastest(kind, volume, outer))]
    reached = reduce(np.multiply, (level.ranks for level in inner))
    if kind == "alltoall":
        group = np.maximum(outer.ranks, 2.0)
        mine = volume * (1.0 - 1.0 / outer.ranks) * group / (group - 1.0)
        return [*phases(kind, volume / outer.ranks, inner), (outer.plane, fastest(kind, mine, outer))]
    if kind == "broadcast":
        return [*phases(kind, volume, inner), (outer.plane, fastest(kind, volume, outer))]
    across = (outer.plane, fastest(kind, volume / reached, outer))
    if kind == "all_reduce":
        return [*phases("reduce_scatter", volume, inner), across, *phases("all_gather", volume, inner)]
    return [*phases(kind, volume, inner), across]


def joined(done: Sequence[Phase]) -> Num:
    """Join the phases of a collective: waits add, tiers of one plane share its ports, and planes carry at once.

    t = sum of waits + max over planes of the sum of wires.

    Holds when the vector is cut into chunks that follow one another through the tiers; a short one is all waits.
    Source: nccl-tuning (chunks pass NVLink and network at once); deepep, README (NVLink and RDMA at once).
    """
    planes: dict[str, Num] = {}
    for plane, cost in done:
        planes[plane] = planes.get(plane, 0.0) + cost.wire
    wait: Num = sum((cost.wait for _, cost in done), np.asarray(0.0))
    total: Num = wait + reduce(np.maximum, planes.values())
    return total


def nested(kind: str, volume: Num, levels: Sequence[Level]) -> Num:
    """Cost a collective over any number of nested tiers, innermost first.

    t of the phases joined;  a broadcast goes down the tiers, or is scattered inside, passed on in parts and gathered again, whichever is faster.

    Holds when ranks are laid out tier by tier; tiers on which one rank is alone cost nothing.
    Source: thakur-2005, section 4; nccl-tuning (hierarchical rings and trees).

    >>> nvlink = Level(topology="switch", ranks=8.0, rate=450e9, step=0.0, size=8.0, plane="nvlink")
    >>> rdma = Level(topology="fat-tree", ranks=4.0, rate=50e9, step=0.0, size=1024.0, plane="rdma")
    >>> round(1e3 * float(nested("all_gather", 8e9, [nvlink, rdma])))
    16
    """
    plain = joined(phases(kind, volume, levels))
    if kind != "broadcast" or len(levels) == 1:
        return plain
    inner, outer = levels[:-1], levels[-1]
    part = volume / reduce(np.multiply, (level.ranks for level in inner))
    inside = phases("all_gather", volume, inner)
    return np.minimum(plain, joined([*inside, (outer.plane, fastest(kind, part, outer)), *inside]))


def switched(low: Num, full: Num) -> Num:
    """Join two protocols: one with little start-up, one at full rate; messages switch from one to the other by size.

    t = (t_low^-s + t_full^-s)^(-1/s), s = 4: within 16 % of the faster one.

    Holds when the library switches near the crossing.
    Source: nccl-tuning (LL, LL128 and Simple by message size).
    """
    both: Num = np.power(np.power(low, -SHARPNESS) + np.power(full, -SHARPNESS), -1.0 / SHARPNESS)
    return both
