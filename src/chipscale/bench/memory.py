"""Memory: the five kernels of BabelStream by size, copies to and from the host, and whether the stated memory is there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from chipscale.bench.device import Call
from chipscale.bench.record import Check, Measure, Setting
from chipscale.bench.settings import Settings
from chipscale.bench.statistics import quantile
from chipscale.bench.timing import Bench, Event, flagged, measure, rotation, shrinking, timed

TEST = "memory"
#: BabelStream's start values of a, b, c and its scalar
A, B, C, SCALAR = 0.1, 0.2, 0.0, 0.4
#: an array is beyond the caches when it is so many times the last one
BEYOND = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel over arrays a, b, c: how many of them are read or written, and the value that every element of the result must have.

    `other` is another way to the same: a copy that writes past the caches, as the C library's does, where PyTorch's own reads what it overwrites.
    """

    name: str
    arrays: int
    call: Callable[[Any, Any, Any], Any]
    expected: float
    other: Callable[[Any, Any, Any], Any] | None = None


def kernels() -> Mapping[str, Kernel]:
    """Return BabelStream's kernels: copy c = a, mul b = s c, add c = a + b, triad a = b + s c, dot a . b; bytes are those of 2, 2, 3, 3, 2 arrays.

    Source: babelstream, src/main.cpp (kernels, bytes of each).
    """
    import torch

    listed = (
        Kernel(name="copy", arrays=2, call=lambda a, _b, c: c.copy_(a), expected=A, other=lambda a, _b, c: torch.narrow_copy(a, 0, 0, len(a), out=c)),
        Kernel(name="mul", arrays=2, call=lambda _a, b, c: torch.mul(c, SCALAR, out=b), expected=SCALAR * C),
        Kernel(name="add", arrays=3, call=lambda a, b, c: torch.add(a, b, out=c), expected=A + B),
        Kernel(name="triad", arrays=3, call=lambda a, b, c: torch.add(b, c, alpha=SCALAR, out=a), expected=B + SCALAR * C),
        Kernel(name="dot", arrays=2, call=lambda a, b, _c: torch.dot(a, b), expected=A * B),
    )
    return {k.name: k for k in listed}


def run(bench: Bench, settings: Settings) -> Iterator[Event]:
    """Measure the copy by size, all kernels at the largest size, then copies between host and device and the memory itself."""
    known = list(kernels().values())
    sizes = sorted(settings.integers("sizes"))
    share = bench.budget / (len(sizes) + len(known) + 3)
    for size in sizes[:-1]:
        yield from stream(bench, known[0], size, share)
    for kernel in known:
        yield from stream(bench, kernel, sizes[-1], share)
    if bench.device.kind != "cpu":
        yield from transfers(bench, settings.integer("transfer"), share)
        yield from capacity(bench)


def stream(bench: Bench, kernel: Kernel, size: int, seconds: float) -> Iterator[Event]:
    """Measure one kernel on arrays of `size` bytes each, and check its result; sizes that do not fit are halved.

    Small arrays stay in the caches on purpose, so that their levels show; beyond them buffers rotate.
    """
    import torch

    dtype = element(bench)

    def arrays(bytes_each: int) -> list[tuple[Any, Any, Any]]:
        n = bytes_each // dtype.itemsize
        sets = rotation(kernel.arrays * bytes_each, bench) if bytes_each >= BEYOND * bench.cache_bytes else 1
        return [tuple(torch.full((n,), v, dtype=dtype, device=bench.device.name) for v in (A, B, C)) for _ in range(sets)]

    made, notes = shrinking(arrays, size, 2**12, f"{kernel.name} {size:,} B", bench.device)
    yield from notes
    if made is None:
        return
    n = made[0][0].numel()
    yield checked(kernel, made[0])
    best = faster(bench, kernel, made, seconds / 10)
    if best is not kernel:
        yield checked(best, made[0])
    beyond = n * dtype.itemsize >= BEYOND * bench.cache_bytes
    found = measure(TEST, kernel.name, "B/s", timed([_bound(best, *set_) for set_ in made], bench.device, seconds), work=float(kernel.arrays * n * dtype.itemsize),
                    settings={"array_bytes": n * dtype.itemsize, "arrays": kernel.arrays, "buffers": len(made), "beyond_cache": int(beyond), "dtype": str(dtype).removeprefix("torch.")},
                    quantity="memory_bandwidth" if beyond else "", bound=bench.bounds.memory if beyond else None, bound_source=bench.bounds.source)  # fmt: skip
    yield found
    yield from flagged(found)


def faster(bench: Bench, kernel: Kernel, sets: list[tuple[Any, Any, Any]], seconds: float) -> Kernel:
    """Return the kernel with the faster of its two ways, tried in turn."""
    if kernel.other is None:
        return kernel
    ways = [kernel, replace(kernel, call=kernel.other, other=None)]
    taken = [sorted(timed([_bound(way, *set_) for set_ in sets], bench.device, seconds, least=5).samples) for way in ways]
    return ways[int(quantile(taken[1], 0.5) < quantile(taken[0], 0.5))]


def element(bench: Bench) -> Any:
    """Return float64, BabelStream's element, or float32 where the device has no float64."""
    import torch

    try:
        torch.zeros(1, dtype=torch.float64, device=bench.device.name).add_(1.0)
        bench.device.synchronize()
    except (RuntimeError, TypeError):
        return torch.float32
    return torch.float64


def _bound(kernel: Kernel, a: Any, b: Any, c: Any) -> Call:
    return lambda: kernel.call(a, b, c)


def checked(kernel: Kernel, arrays: tuple[Any, Any, Any]) -> Check:
    """Run a kernel once on fresh arrays and compare every element with the right value."""
    import torch

    for array, value in zip(arrays, (A, B, C), strict=True):
        array.fill_(value)
    n, dtype = arrays[0].numel(), arrays[0].dtype
    out = kernel.call(*arrays)
    right = kernel.expected * n if out.ndim == 0 else kernel.expected
    error = float((out.cpu().double() - right).abs().max()) / max(abs(right), 1.0)
    rounding = torch.finfo(dtype).eps * (n if out.ndim == 0 else 2)
    return Check(test=TEST, case=f"{kernel.name} result", value=error if math.isfinite(error) else torch.finfo(dtype).max, limit=min(rounding, 0.01),
                 unit="relative error", settings={"array_bytes": n * dtype.itemsize})  # fmt: skip


def transfers(bench: Bench, size: int, seconds: float) -> Iterator[Event]:
    """Measure copies of `size` bytes from pinned host memory to the device, back, and to a second device where there is one."""
    import torch

    def buffers(n: int) -> tuple[Any, Any]:
        return torch.empty(n, dtype=torch.uint8, pin_memory=True), torch.empty(n, dtype=torch.uint8, device=bench.device.name)

    made, notes = shrinking(buffers, size, 2**16, "host copies", bench.device)
    yield from notes
    if made is None:
        return
    host, there = made
    ways: dict[str, Call] = {
        "host to device": lambda: there.copy_(host, non_blocking=True),
        "device to host": lambda: host.copy_(there, non_blocking=True),
    }
    if bench.device.count > 1:
        second = torch.empty_like(there, device=f"{bench.device.kind}:1")
        ways["device to device"] = lambda: second.copy_(there, non_blocking=True)
    settings: dict[str, Setting] = {"bytes": there.numel(), "pinned": 1}
    for case, call in ways.items():
        yield measure(TEST, case, "B/s", timed([call], bench.device, seconds / 2), work=float(there.numel()), settings=settings)


def capacity(bench: Bench, share: float = 0.9, chunk: int = 2**30) -> Iterator[Event]:
    """Fill nine tenths of the free memory with numbers that differ by place, then read all of it back: memory that is only claimed shows as wrong."""
    import torch

    bench.device.empty_cache()
    free, total = bench.device.backend.mem_get_info()
    kept, wrong = [], 0
    for i in range(max(1, int(free * share) // chunk)):
        made, notes = shrinking(lambda n: torch.empty(n // 8, dtype=torch.int64, device=bench.device.name), chunk, 2**20, "capacity", bench.device)
        yield from notes
        if made is None or made.numel() * 8 < chunk:
            break
        torch.arange(i * chunk, i * chunk + made.numel(), out=made)
        kept.append(made)
    for i, part in enumerate(kept):
        wrong += int((part != torch.arange(i * chunk, i * chunk + part.numel(), device=bench.device.name)).sum())
    filled = float(sum(part.numel() * 8 for part in kept))
    settings: dict[str, Setting] = {"free": int(free), "chunk": chunk, "filled": int(filled)}
    yield Check(test=TEST, case="capacity read back", value=float(wrong), limit=0.0, unit="wrong words", settings=settings)
    yield Measure(test=TEST, case="capacity reported", unit="B", quantity="memory_bytes", samples=(float(total),), settings=settings)
    yield Measure(test=TEST, case="capacity filled", unit="B", samples=(filled,), settings=settings)
