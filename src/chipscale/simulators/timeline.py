"""The event loop: operations of a schedule on the streams of each rank, message by message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

import numpy as np

from chipscale.schedules.orders import Kind, Op, Order

#: streams of a rank, in the order in which a trace shows them; activations and gradients of the pipeline are apart
STREAMS = ("compute", "tp", "ep", "cp", "pp forward", "pp backward", "dp", "copy out", "copy in")

NAMES = {Kind.FORWARD: "forward", Kind.INPUT: "backward, inputs", Kind.WEIGHT: "backward, weights", Kind.BACKWARD: "backward"}
#: what each kind counts as where one operation waits for another: a whole backward pass is its inputs
WAYS = (0, 1, 2, 1)
WEIGHT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Seconds of one micro-batch on each stage: rows forward, backward for inputs, backward for weights.

    `compute` (3 x stages) includes the exposed share of `traffic`, which lists (stream, seconds on the wire, 3 x stages). A message takes
    `hop`, of which `shown` keeps its sender's cores busy. `ahead` is what gathering sharded parameters adds to a second of compute, unless
    the rank idles before; `copy` (stages) is a copy of activations to the host beside the forward pass, and the same back beside the backward pass, either of which
    lasts as long as its copy. After its last operation a rank reduces gradients for `reduce`, `late` of it after the backward pass, then steps its optimizer, whose
    states come from the host and go back within `stream`.
    """

    compute: np.ndarray
    traffic: tuple[tuple[str, np.ndarray], ...]
    hop: float = 0.0
    shown: float = 0.0
    ahead: float = 0.0
    copy: np.ndarray | None = None
    reduce: float = 0.0
    late: float = 0.0
    optimizer: float = 0.0
    stream: float = 0.0


@dataclass(frozen=True, slots=True)
class Slice:
    """What a stream of a rank does from `start` for `seconds`; an operation's own slice carries it."""

    rank: int
    stream: str
    name: str
    start: float
    seconds: float
    op: Op | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """Activations or gradients on their way from the end of one operation to the start of another."""

    source: int
    target: int
    sent: float
    arrived: float
    op: Op


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """A step, replayed: `begin` and `end` of each rank's work, its busy seconds, its slices, the messages between ranks."""

    begin: np.ndarray
    end: np.ndarray
    busy: np.ndarray
    slices: tuple[Slice, ...]
    messages: tuple[Message, ...]
    order: Order

    @property
    def seconds(self) -> float:
        """Return the time from one step to the next, where ranks wait for one another only through messages: the longest rank.

        max over ranks (end - begin).

        Holds when no barrier parts two steps (the optimizer validates afterwards); a barrier costs `makespan`.
        Source: zero-bubble-2023, section 4.
        """
        return float(np.max(self.end - self.begin))

    @property
    def makespan(self) -> float:
        """Return the time from the first operation of any rank to the last."""
        return float(np.max(self.end) - np.min(self.begin))


def replay(order: Order, load: Load, *, pace: Sequence[float] = (), jitter: float = 0.0, rng: np.random.Generator | None = None) -> Timeline:
    """Replay a step; `pace` multiplies each rank's compute (a straggler's is above 1), `jitter` is the log-normal spread of every slot.

    A slot starts when its rank is free and all its inputs have arrived. A message leaves when the compute of its operation ends and keeps the
    sender busy for `shown`; where it finds a receiver at work it is there by then, and where it fills or drains the pipeline it takes a whole
    `hop`. Messages of one kind and rank follow one another on the wire.

    Holds when orders are static, as all of `schedules.orders` are.
    Source: zero-bubble-2023, section 2; megatron-2021, section 2.2 (dependencies).
    """
    run = _Run(order, load, tuple(pace) or (1.0,) * len(order.ranks), jitter, rng)
    for rank in range(len(order.ranks)):
        run.start(rank)
    while run.heap:
        run.finish(heappop(run.heap)[1])
    ends = [run.close(rank) for rank in range(len(order.ranks))]
    return Timeline(begin=np.array([r.begin for r in run.ranks]), end=np.array(ends), busy=np.array([r.busy for r in run.ranks]),
                    slices=tuple(run.slices), messages=tuple(run.messages), order=order)  # fmt: skip


@dataclass(slots=True)
class _Rank:
    """Where a rank stands: its next slot, and when its streams are free."""

    slot: int = 0
    running: bool = False
    begin: float = 0.0
    began: float = 0.0
    done: float = 0.0
    free: float = 0.0
    busy: float = 0.0
    wire: list[float] = field(default_factory=lambda: [0.0, 0.0])


class _Run:
    """The state of one replay: the heap of slots that end, what has arrived, and where each rank stands."""

    def __init__(self, order: Order, load: Load, pace: tuple[float, ...], jitter: float, rng: np.random.Generator | None) -> None:
        self.order, self.load, self.pace, self.jitter, self.rng = order, load, pace, jitter, rng
        self.seconds = np.vstack([load.compute, load.compute[1] + load.compute[2]]).tolist()
        self.copies = [0.0] * order.stages if load.copy is None else load.copy.tolist()
        self.ranks = [_Rank() for _ in order.ranks]
        self.arrived: dict[tuple[int, int, int], float] = {}
        self.origin = (0, order.stages - 1)
        self.heap: list[tuple[float, int]] = []
        self.slices: list[Slice] = []
        self.messages: list[Message] = []
        size = order.batches // len(order.flows)
        flows = range(len(order.flows))
        self.edges = (frozenset(f * size for f in flows), frozenset((f + 1) * size - 1 for f in flows))

    def start(self, rank: int) -> None:
        """Start a rank's next slot as soon as all that it waits for is known; its own earlier passes are, since it runs them in order."""
        r, slots = self.ranks[rank], self.order.ranks[rank]
        if r.running or r.slot == len(slots):
            return
        slot, ready = slots[r.slot], r.free
        for op in slot:
            way = WAYS[op.kind]
            if way < WEIGHT and op.stage != self.origin[way]:
                arrived = self.arrived.get((way, op.stage, op.batch))
                if arrived is None:
                    return
                ready = max(ready, arrived)
        pace = self.pace[rank] * self._noise()
        lengths = [max(self.seconds[op.kind][op.stage] * pace, self._copied(op)) for op in slot]
        busy = sum(lengths)
        gather = self.load.ahead * busy
        r.began = max(ready, r.free + gather)
        if not r.slot:
            r.begin = r.began - gather
        r.busy += busy
        r.done = r.began
        sends = 0
        for op, length in zip(slot, lengths, strict=True):
            self.slices.append(Slice(rank, "compute", NAMES[op.kind], r.done, length, op))
            if self._copied(op):
                self.slices.append(Slice(rank, "copy in" if WAYS[op.kind] else "copy out", "activations", r.done, self._copied(op), op))
            r.done += length
            sends += WAYS[op.kind] < WEIGHT
        r.free = r.done + self.load.shown * sends
        r.running = True
        heappush(self.heap, (r.free, rank))

    def _noise(self) -> float:
        return 1.0 if self.rng is None else float(np.exp(self.jitter * self.rng.standard_normal() - self.jitter**2 / 2.0))

    def finish(self, rank: int) -> None:
        """End the slot that runs on a rank: send what it made, and start whoever waited for it."""
        r = self.ranks[rank]
        slot = self.order.ranks[rank][r.slot]
        r.slot, r.running = r.slot + 1, False
        waiting = [rank]
        for op in slot:
            way = WAYS[op.kind]
            to = op.stage + (-1 if way else 1)
            if way < WEIGHT and 0 <= to < self.order.stages:
                target = self.order.rank(to, op.batch)
                self.arrived[way, to, op.batch] = r.free if target == rank else self._send(rank, target, op, way)
                waiting.append(target)
        for one in waiting:
            self.start(one)

    def _send(self, rank: int, target: int, op: Op, way: int) -> float:
        """Put a message on the wire; return when its receiver has it."""
        r, hop = self.ranks[rank], self.load.hop
        sent = max(r.done, r.wire[way])
        r.wire[way] = sent + hop
        self.messages.append(Message(rank, target, sent, sent + hop, op))
        unhidden = op.batch in self.edges[way] and op.stage <= len(self.ranks) - (not way)
        return sent + hop if unhidden else max(r.free, sent + self.load.shown)

    def _copied(self, op: Op) -> float:
        """Return how long an operation's activations take to the host or back; weight gradients copy nothing."""
        return float(self.copies[op.stage]) if WAYS[op.kind] < WEIGHT else 0.0

    def close(self, rank: int) -> float:
        """Reduce gradients, most of it beside the last backward passes, and step the optimizer; return when the rank is done."""
        r, load = self.ranks[rank], self.load
        if load.reduce:
            start = max(r.begin, r.free + load.late - load.reduce)
            self.slices.append(Slice(rank, "dp", "reduce gradients", start, r.free + load.late - start))
        start = r.free + load.late
        if load.optimizer:
            self.slices.append(Slice(rank, "compute", "optimizer", start, load.optimizer))
        if load.stream:
            self.slices += [Slice(rank, stream, "optimizer states", start, load.stream) for stream in ("copy out", "copy in")]
        return start + max(load.optimizer, load.stream)
