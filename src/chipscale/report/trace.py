"""A replayed step as a Chrome trace, which ui.perfetto.dev and chrome://tracing open."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from chipscale.schedules.orders import Kind, Op
from chipscale.simulators.event import Replay
from chipscale.simulators.timeline import STREAMS, WAYS, Message, Slice
from chipscale.units import GIGA, MEGA

Event = Mapping[str, object]


def chrome_trace(replay: Replay, title: str, layer_bytes: float) -> str:
    """Write a step as Chrome-trace JSON: a process for each pipeline rank, a thread for each stream, times in microseconds.

    Arrows follow each pipeline message; a counter shows the activations (`layer_bytes` a layer and micro-batch) that a rank keeps.
    """
    events = [*_names(replay), *sorted(_timed(replay, layer_bytes), key=lambda e: (e["pid"], e["tid"], e["ts"]))]
    return json.dumps(
        {"displayTimeUnit": "ms", "otherData": {"title": title, "step_s": replay.seconds}, "traceEvents": events}, separators=(",", ":")
    )


def _names(replay: Replay) -> Iterator[Event]:
    used = {s.stream for s in replay.timeline.slices} | {name for name, _ in replay.load.traffic} | {_stream(m.op) for m in replay.timeline.messages}
    for rank, slots in enumerate(replay.timeline.order.ranks):
        stages = sorted({op.stage for slot in slots for op in slot})
        held = ", ".join(f"stage {g}: {replay.layers[g]} layers" for g in stages)
        yield {"ph": "M", "name": "process_name", "pid": rank, "tid": 0, "args": {"name": f"rank {rank} ({held})"}}
        yield {"ph": "M", "name": "process_sort_index", "pid": rank, "tid": 0, "args": {"sort_index": rank}}
        for stream in (s for s in STREAMS if s in used):
            yield {"ph": "M", "name": "thread_name", "pid": rank, "tid": STREAMS.index(stream), "args": {"name": stream}}


def _timed(replay: Replay, layer_bytes: float) -> Iterator[dict[str, object]]:
    line = replay.timeline
    starts = {(WAYS[s.op.kind], s.op.stage, s.op.batch): s for s in line.slices if s.op is not None and s.stream == "compute"}
    for s in line.slices:
        yield _slice(s.rank, s.stream, s.name, s.start, s.seconds, s.op)
        if s.op is not None and s.stream == "compute":
            yield from _traffic(replay, s, s.op)
    for i, message in enumerate(line.messages):
        yield from _arrow(i, message, starts)
    for rank in range(len(line.order.ranks)):
        yield from _kept(replay, rank, layer_bytes)


def _slice(rank: int, stream: str, name: str, start: float, seconds: float, op: Op | None, **more: float) -> dict[str, object]:
    label = name if op is None else f"{name} {op.batch}"
    args = dict(more) if op is None else {"stage": op.stage, "micro_batch": op.batch, **more}
    return {"ph": "X", "name": label, "cat": name if stream == "compute" else stream, "ts": start * MEGA, "dur": seconds * MEGA, "pid": rank,
            "tid": STREAMS.index(stream), "args": args}  # fmt: skip


def _traffic(replay: Replay, s: Slice, op: Op) -> Iterator[dict[str, object]]:
    """Show the collectives of an operation beside it, no longer than it; `wire_s` is what they take on the wire."""
    rows = {Kind.FORWARD: (0,), Kind.INPUT: (1,), Kind.WEIGHT: (2,), Kind.BACKWARD: (1, 2)}[op.kind]
    for stream, seconds in replay.load.traffic:
        wire = float(sum(seconds[row, op.stage] for row in rows))
        if wire > 0.0:
            yield _slice(s.rank, stream, f"{stream} {s.name}", s.start, min(wire, s.seconds), op, wire_s=wire)


def _stream(op: Op) -> str:
    return "pp forward" if op.kind is Kind.FORWARD else "pp backward"


def _arrow(i: int, m: Message, starts: Mapping[tuple[int, int, int], Slice]) -> Iterator[dict[str, object]]:
    """Show a message on its sender's stream, and an arrow from there to the operation that it feeds."""
    forward = m.op.kind is Kind.FORWARD
    name = "activations" if forward else "gradients"
    yield _slice(m.source, _stream(m.op), name, m.sent, m.arrived - m.sent, m.op)
    fed = starts[WAYS[m.op.kind], m.op.stage + (1 if forward else -1), m.op.batch]
    both = {"name": name, "cat": "pp", "id": i}
    yield {"ph": "s", **both, "ts": m.sent * MEGA, "pid": m.source, "tid": STREAMS.index(_stream(m.op))}
    yield {"ph": "f", "bp": "e", **both, "ts": fed.start * MEGA, "pid": m.target, "tid": STREAMS.index("compute")}


def _kept(replay: Replay, rank: int, layer_bytes: float) -> Iterator[dict[str, object]]:
    """Count the activations on a rank: from the start of a forward pass to the end of its weight gradients."""
    changes = []
    for s in replay.timeline.slices:
        if s.rank == rank and s.stream == "compute" and s.op is not None:
            size = replay.layers[s.op.stage] * layer_bytes
            if s.op.kind is Kind.FORWARD:
                changes.append((s.start, size))
            elif s.op.kind in (Kind.WEIGHT, Kind.BACKWARD):
                changes.append((s.start + s.seconds, -size))
    held = 0.0
    for when, change in sorted(changes):
        held += change
        yield {
            "ph": "C",
            "name": "activations",
            "cat": "memory",
            "ts": when * MEGA,
            "pid": rank,
            "tid": 0,
            "args": {"GB": round(max(held, 0.0) / GIGA, 6)},
        }
