"""The order in which each rank of a pipeline runs its operations, one definition a schedule.

A model is cut along its depth into stages; `Order.place` says which rank holds which. A pattern lists turns (kind, stage) slot by slot;
since micro-batches pass a stage in order, numbering the turns gives the operations. Seconds are none of its business.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from chipscale.plan import SCHEDULES
from chipscale.schedules.forms import refuse


class Kind(IntEnum):
    """What an operation computes; a BACKWARD is INPUT and WEIGHT in one, whose message leaves when both are done."""

    FORWARD = 0
    INPUT = 1
    WEIGHT = 2
    BACKWARD = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One pass of one micro-batch through one stage."""

    kind: Kind
    stage: int
    batch: int


#: operations that a rank runs together, one or two
Slot = tuple[Op, ...]
Turn = tuple[Kind, int]
Pattern = Iterator[tuple[Turn, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Slots of each rank in the order in which they run.

    `flows` lists, for each direction in which micro-batches enter, the rank of each stage; flow f takes the f-th equal part of `batches`.
    """

    ranks: tuple[tuple[Slot, ...], ...]
    flows: tuple[tuple[int, ...], ...]
    batches: int

    @property
    def stages(self) -> int:
        return len(self.flows[0])

    def flow(self, batch: int) -> int:
        """Return the direction that a micro-batch takes."""
        return batch * len(self.flows) // self.batches

    def rank(self, stage: int, batch: int) -> int:
        """Return the rank that a micro-batch finds a stage on."""
        return self.flows[self.flow(batch)][stage]


def one_f_one_b(rank: int, p: int, v: int, m: int) -> Pattern:
    """List 1F1B, interleaved for v > 1: warm-up, then a forward and a backward in turn, then the backwards that are left.

    Micro-batches pass in groups of at least p through one chunk after the other; warm-up is p - 1 - r, or 2 (p - 1 - r) + (v - 1) g.

    Holds when micro-batches are dealt to groups of p or more, so that no chunk waits for a short group.
    Source: megatron-2021, section 2.2.
    """
    groups = max(m // p, 1) if v > 1 else 1
    sizes = [m // groups + (i < m % groups) for i in range(groups)]
    chunk = [c for size in sizes for c in range(v) for _ in range(size)]
    warm = min(2 * (p - 1 - rank) + (v - 1) * sizes[0], m * v) if v > 1 else min(p - 1 - rank, m)
    for i in range(m * v + warm):
        if i < m * v:
            yield ((Kind.FORWARD, chunk[i] * p + rank),)
        if i >= warm:
            yield ((Kind.BACKWARD, (v - 1 - chunk[i - warm]) * p + rank),)


def gpipe(rank: int, m: int) -> Pattern:
    """List GPipe: all forwards, then all backwards.

    Source: gpipe-2019, section 2.3.
    """
    for kind in (Kind.FORWARD, Kind.BACKWARD):
        yield from [((kind, rank),)] * m


def zb_h1(rank: int, p: int, m: int) -> Pattern:
    """List ZB-H1: 1F1B whose weight gradients start r micro-batches late, so that each rank keeps p in flight.

    Source: zero-bubble-2023, section 2.1.
    """
    yield from [((Kind.FORWARD, rank),)] * min(p - rank, m)
    for k in range(m):
        yield ((Kind.INPUT, rank),)
        if k >= rank:
            yield ((Kind.WEIGHT, rank),)
        if k < m - p + rank:
            yield ((Kind.FORWARD, rank),)
    yield from [((Kind.WEIGHT, rank),)] * min(rank, m)


def zb_v(rank: int, p: int, m: int) -> Pattern:
    """List ZB-V: each rank holds one stage on the way down and one on the way up, so that the first backward starts where it began.

    Source: zero-bubble-2023, section 6.
    """
    down, up = rank, 2 * p - 1 - rank
    turn = [((Kind.FORWARD, up),), ((Kind.INPUT, up),), ((Kind.WEIGHT, up),)]
    yield from [((Kind.FORWARD, down),)] * (2 * (p - rank) - 1)
    yield from [((Kind.FORWARD, up),), ((Kind.FORWARD, down),)] * rank
    yield from turn * (p - rank)
    for i in range(m - p):
        if i < m - 2 * p + rank + 1:
            yield ((Kind.FORWARD, down),)
        yield from [((Kind.INPUT, down),), ((Kind.WEIGHT, down),), *turn]
    yield from [((Kind.INPUT, down),), ((Kind.INPUT, up),)] * rank
    yield from [((Kind.INPUT, down),), ((Kind.WEIGHT, down),)] * (p - rank)
    yield from [((Kind.WEIGHT, up),)] * rank
    yield from [((Kind.WEIGHT, down),)] * rank


def _both_ways(down: int, up: int, near: int, half: int, m: int) -> Pattern:
    """List a rank of a bidirectional pipeline, `near` places from its end, `half` places to the middle, m micro-batches a direction.

    `down` is the stage that this rank begins with. Paired turns overlap the compute of one with the messages of the other.
    """
    ahead = half - 1 - near
    f, b, i, w = Kind.FORWARD, Kind.BACKWARD, Kind.INPUT, Kind.WEIGHT
    yield from [((f, down),)] * (2 * ahead)
    yield from [((f, down),), ((f, up),)] * (near + 1)
    yield from [((i, up),), ((w, up),), ((f, up),)] * ahead
    pair: list[tuple[Turn, ...]] = [((f, down), (b, up)), ((f, up), (b, down))]
    first: list[tuple[Turn, ...]] = pair if ahead else [((f, down),), ((b, up),), pair[1]]
    yield from first + pair * (m - 2 * half + near)
    yield from [((b, up),), pair[1]] * ahead
    tail = [(up, down)[k % 2] for k in range(2 * (near + 1))]
    yield from [((b, stage),) for stage in tail[: near + 1]]
    yield from [((i, stage),) for stage in tail[near + 1 :]]
    late = tail[near + 1 :] + [down] * ahead
    for stage in late[:ahead]:
        yield from [((w, stage),), ((i, down),)]
    yield from [((w, stage),) for stage in late[ahead:]]


def dualpipe(rank: int, p: int, m: int) -> Pattern:
    """List DualPipe: half of the micro-batches enter at each end, each rank holds stages r and p - 1 - r.

    Source: dualpipe, README; deepseek-v3, section 3.2.1.
    """
    near = min(rank, p - 1 - rank)
    yield from _both_ways(near, p - 1 - near, near, p // 2, m // 2)


def dualpipe_v(rank: int, p: int, m: int) -> Pattern:
    """List DualPipeV: DualPipe on 2 p stages, cut in half and folded, so that no parameter is held twice.

    Source: dualpipe, README.
    """
    yield from _both_ways(rank, 2 * p - 1 - rank, rank, p, m)


#: what a rank of p runs with v chunks and m micro-batches, in the order of SCHEDULES
PATTERNS: tuple[Callable[[int, int, int, int], Pattern], ...] = (
    one_f_one_b,
    lambda rank, _p, _v, m: gpipe(rank, m),
    lambda rank, p, _v, m: zb_h1(rank, p, m),
    lambda rank, p, _v, m: zb_v(rank, p, m),
    lambda rank, p, _v, m: dualpipe(rank, p, m),
    lambda rank, p, _v, m: dualpipe_v(rank, p, m),
)


def _flows(schedule: str, p: int, v: int) -> tuple[tuple[int, ...], ...]:
    down, up = tuple(range(p)), tuple(reversed(range(p)))
    return {"dualpipe": (down, up), "zb-v": (down + up,), "dualpipe-v": (down + up,)}.get(schedule, (down * v,))


def _numbered(pattern: Pattern, first: dict[int, int]) -> Iterator[Slot]:
    """Number the turns of each kind on each stage; a backward counts as both of its halves."""
    seen: Counter[Turn] = Counter()
    for slot in pattern:
        ops = []
        for kind, stage in slot:
            counted = Kind.INPUT if kind is Kind.BACKWARD else kind
            ops.append(Op(kind=kind, stage=stage, batch=first.get(stage, 0) + seen[counted, stage]))
            seen[counted, stage] += 1
            seen[Kind.WEIGHT, stage] += kind is Kind.BACKWARD
        yield tuple(ops)


@lru_cache(maxsize=64)
def order(schedule: str, p: int, v: int, m: int) -> Order:
    """Write down a schedule for p ranks, v chunks a rank and m micro-batches.

    Errors: a schedule that cannot hold the micro-batches or the ranks.
    """
    refuse(schedule, p, v, m)
    flows = _flows(schedule, p, v)
    pattern = PATTERNS[SCHEDULES.index(schedule)]

    def slots(rank: int) -> tuple[Slot, ...]:
        entered = {stage: f * (m // 2) for f, ranks in enumerate(flows) for stage, r in enumerate(ranks) if r == rank}
        return tuple(_numbered(pattern(rank, p, v, m), entered))

    return Order(ranks=tuple(slots(r) for r in range(p)), flows=flows, batches=m)
