"""Collectives over the devices of this machine, with the columns and the bandwidths of nccl-tests."""

from __future__ import annotations

import contextlib
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chipscale.bench.device import Device, Kind
from chipscale.bench.machine import cores
from chipscale.bench.matmul import first_line
from chipscale.bench.record import Check, Measure, Note, Setting
from chipscale.bench.settings import Settings
from chipscale.bench.timing import Bench, Event

TEST = "collectives"
BACKENDS: Mapping[Kind, str] = {"cuda": "nccl", "npu": "hccl", "cpu": "gloo"}
WARM = 3


def bus_factor(operation: str, n: int) -> float:
    """Return what the algorithm bandwidth is multiplied with to compare it with the links, whatever the number of ranks.

    busbw = algbw f, algbw = S / t; f is 2 (n - 1) / n for all-reduce, (n - 1) / n for all-gather, reduce-scatter and all-to-all, 1 for broadcast, reduce and send.

    Holds when S is as nccl-tests count it: of all-gather what a rank receives, of reduce-scatter what it gives.
    Source: nccl-tests, doc/PERFORMANCE.md (bus bandwidth).

    >>> bus_factor("all_reduce", 8), bus_factor("all_gather", 4), bus_factor("broadcast", 8)
    (1.75, 0.75, 1.0)
    """
    share = (n - 1) / n
    return {
        "all_reduce": 2 * share,
        "all_gather": share,
        "reduce_scatter": share,
        "alltoall": share,
        "broadcast": 1.0,
        "reduce": 1.0,
        "sendrecv": 1.0,
    }[operation]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of nccl-tests: size in bytes, count of elements, seconds of each repeat on the slowest rank, elements that were wrong on any."""

    operation: str
    size: int
    count: int
    redop: str
    seconds: tuple[float, ...]
    wrong: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A collective on its buffers: `call` runs it, `wrong` counts the elements of the result that differ from what they must be."""

    call: Callable[[], object]
    wrong: Callable[[], int]
    redop: str


def prepared(operation: str, rank: int, n: int, count: int, device: str) -> Prepared:
    """Make a collective of `count` float32 elements on this rank; rank r gives elements of value r + 1."""
    import torch
    import torch.distributed as dist

    def full(length: int, value: float) -> Any:
        return torch.full((length,), value, device=device)

    total, mine, part = n * (n + 1) / 2.0, rank + 1.0, count // n
    send, receive = full(count, mine), full(count, 0.0)
    if operation == "all_reduce":
        return _checked(lambda: dist.all_reduce(receive), lambda: receive.fill_(mine), receive, total, "sum")
    if operation == "reduce":
        return _checked(lambda: dist.reduce(receive, 0), lambda: receive.fill_(mine), receive, total if rank == 0 else None, "sum")
    if operation == "broadcast":
        return _checked(lambda: dist.broadcast(receive, 0), lambda: receive.fill_(mine), receive, 1.0, "none")
    ranks = torch.arange(1.0, n + 1, device=device).repeat_interleave(part)
    if operation == "all_gather":
        small = full(part, mine)
        return _checked(lambda: dist.all_gather_into_tensor(receive, small), receive.zero_, receive, ranks, "none")
    if operation == "reduce_scatter":
        out = full(part, 0.0)
        return _checked(lambda: dist.reduce_scatter_tensor(out, send), out.zero_, out, total, "sum")
    if operation == "alltoall":
        return _checked(lambda: dist.all_to_all_single(receive, send), receive.zero_, receive, ranks, "none")

    def ring() -> None:
        to, of = (rank + 1) % n, (rank - 1) % n
        for request in dist.batch_isend_irecv([dist.P2POp(dist.isend, send, to), dist.P2POp(dist.irecv, receive, of)]):
            request.wait()

    return _checked(ring, receive.zero_, receive, (rank - 1) % n + 1.0, "none")


def _checked(call: Callable[[], object], fill: Callable[[], object], out: Any, right: Any, redop: str) -> Prepared:
    def wrong() -> int:
        fill()
        call()
        return 0 if right is None else int((out != right).sum())

    return Prepared(call=call, wrong=wrong, redop=redop)


def _device(kind: Kind, rank: int) -> str:
    return "cpu" if kind == "cpu" else f"{kind}:{rank}"


def _rows(
    device: Device, operations: tuple[str, ...], sizes: tuple[int, ...], seconds: float, rank: int, n: int, backend: Any
) -> Iterator[Row | Note]:
    """Measure every collective at every size on this rank; all ranks do as many repeats as rank 0 finds time for."""
    import torch
    import torch.distributed as dist

    share = seconds / len(operations) / len(sizes)
    for operation in operations:
        for size in sizes:
            count = max(size // 4 // n, 1) * n
            try:
                made = prepared(operation, rank, n, count, device.name)
                wrong = torch.tensor([float(made.wrong())], device=device.name)
            except (RuntimeError, NotImplementedError, ValueError) as problem:
                yield Note(kind="unsupported", case=f"{operation} {size:,} B", text=f"{backend}: {first_line(problem)}")
                break
            dist.all_reduce(wrong)
            lone = device.watch.laps([[made.call] for _ in range(WARM)])
            repeats = torch.tensor([max(5.0, min(200.0, share * 0.8 / max(lone[-1], 1e-7)))], device=device.name)
            dist.broadcast(repeats, 0)
            dist.barrier()
            spent = torch.tensor(device.watch.laps([[made.call] for _ in range(int(repeats))]), device=device.name)
            dist.all_reduce(spent, op=dist.ReduceOp.MAX)
            yield Row(operation=operation, size=count * 4, count=count, redop=made.redop, seconds=tuple(spent.tolist()), wrong=int(wrong))


def rank_main(rank: int, n: int, kind: Kind, meeting: str, operations: tuple[str, ...], sizes: tuple[int, ...], seconds: float, sink: Any) -> None:
    """Be one rank; rank 0 sends its rows to the sink, one by one, then None."""
    import torch
    import torch.distributed as dist

    from chipscale.bench.device import opened

    device = opened(kind)
    if kind == "cpu":
        torch.set_num_threads(max(1, cores() // n))
    else:
        device.backend.set_device(rank)
    from dataclasses import replace

    device = replace(device, name=_device(kind, rank))
    backend = BACKENDS[kind]
    dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=n)
    try:
        for row in _rows(device, operations, sizes, seconds, rank, n, backend):
            if rank == 0:
                sink.send(row)
        if rank == 0:
            sink.send(None)
    finally:
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()


def run(bench: Bench, settings: Settings) -> Iterator[Event]:
    """Measure the collectives among all devices of the machine, or `ranks` processes on a processor."""
    n = settings.integer("ranks") if bench.device.kind == "cpu" else bench.device.count
    if n < 2:
        yield Note(kind="unsupported", case=TEST, text="needs two devices; this machine has one")
        return
    for row in rows(bench.device.kind, n, settings.texts("operations"), settings.integers("sizes"), bench.budget * 0.7):
        if isinstance(row, Note):
            yield row
        else:
            yield from told(row, n, BACKENDS[bench.device.kind])


def rows(kind: Kind, n: int, operations: tuple[str, ...], sizes: tuple[int, ...], seconds: float) -> Iterator[Row | Note]:
    """Start n processes, let them measure, and return what rank 0 says; all are ended at the end."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="chipscale-bench-") as folder:
        meeting = (Path(folder) / "ranks").as_uri()
        ear, mouth = context.Pipe(duplex=False)
        ranks = [context.Process(target=rank_main, args=(r, n, kind, meeting, operations, sizes, seconds, mouth), daemon=True) for r in range(n)]
        for process in ranks:
            process.start()
        mouth.close()
        try:
            while (row := _heard(ear, ranks)) is not None:
                yield row
        finally:
            for process in ranks:
                process.join(timeout=5)
                process.kill()


def _heard(ear: Any, ranks: list[Any]) -> Row | Note | None:
    """Wait for a row while all ranks live."""
    while not ear.poll(0.2):
        dead = [i for i, p in enumerate(ranks) if p.exitcode not in (None, 0)]
        if dead:
            time.sleep(0.2)
            return None if ear.poll(0) else Note(kind="error", case=TEST, text=f"rank {dead[0]} ended with exit code {ranks[dead[0]].exitcode}")
    try:
        found: Row | Note | None = ear.recv()
    except EOFError:
        return None
    return found


def told(row: Row, n: int, backend: str) -> Iterator[Event]:
    """Turn a row into a measure of its bus bandwidth, and a check that nothing was wrong."""
    factor = bus_factor(row.operation, n)
    settings: dict[str, Setting] = {"size": row.size, "count": row.count, "type": "float", "redop": row.redop, "root": 0 if row.operation in ("broadcast", "reduce") else -1,
                                    "ranks": n, "backend": backend, "bus_factor": factor, "wrong": row.wrong}  # fmt: skip
    yield Measure(test=TEST, case=row.operation, unit="B/s", work=row.size * factor, samples=row.seconds, settings=settings,
                  quantity="scaleup_bandwidth" if backend != "gloo" else "")  # fmt: skip
    yield Check(
        test=TEST, case=f"{row.operation} result", value=float(row.wrong), limit=0.0, unit="wrong elements", settings={"size": row.size, "ranks": n}
    )
