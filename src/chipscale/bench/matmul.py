"""Matrix products: how fast each precision goes at its best, and how fast it stays."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from chipscale.bench.device import Call, out_of_memory
from chipscale.bench.record import Check, Measure, Note, Setting
from chipscale.bench.settings import Settings
from chipscale.bench.statistics import quantile
from chipscale.bench.timing import Bench, Event, flagged, measure, rotation, timed, windows

TEST = "matmul"
#: seconds at full load that a rate must be held to be called sustained
HELD = 2.0
#: times that the plain product of PyTorch may take over what it is compared with before it is called slow
SLOW = 1.25
#: times the seconds of the device's clock that may pass on the host's
APART = 1.1
#: share of the search that one product may take at the best rate so far
LONGEST = 0.05
Shape = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A product in one precision: `operands(m, n, k)` makes the inputs, `call` multiplies them; `other` is another way to the same product;
    `reduced` asks for TF32 arithmetic on float32.
    """

    precision: str
    operands: Callable[[int, int, int], tuple[Any, ...]]
    call: Callable[..., Any]
    bytes_in: int
    bytes_out: int
    other: Callable[..., Any] | None = None
    reduced: bool = False

    def bytes_of(self, shape: Shape) -> int:
        m, n, k = shape
        return self.bytes_in * (m * k + k * n) + self.bytes_out * m * n


def kernels(device: str) -> Mapping[str, Kernel]:
    """Return PyTorch's product of every precision; what a build or a device lacks shows when it is called."""
    import torch

    def normal(dtype: Any) -> Callable[[int, int, int], tuple[Any, ...]]:
        return lambda m, n, k: (torch.randn(m, k, device=device).to(dtype), torch.randn(k, n, device=device).to(dtype))

    def bytes_(m: int, n: int, k: int) -> tuple[Any, ...]:
        return tuple(torch.randint(-128, 128, shape, device=device, dtype=torch.int8) for shape in ((m, k), (k, n)))

    def narrow(m: int, n: int, k: int) -> tuple[Any, ...]:
        one = torch.ones((), device=device)
        kind = torch.float8_e4m3fn
        return torch.randn(m, k, device=device).to(kind), torch.randn(n, k, device=device).to(kind).t(), one, one

    def scaled(a: Any, b: Any, scale_a: Any, scale_b: Any) -> Any:
        return torch._scaled_mm(a, b, scale_a=scale_a, scale_b=scale_b, out_dtype=torch.bfloat16)

    def batched(a: Any, b: Any) -> Any:
        return torch.bmm(a[None], b[None])

    plain = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    found = {
        p: Kernel(precision=p, operands=normal(t), call=torch.mm, bytes_in=t.itemsize, bytes_out=t.itemsize, other=batched) for p, t in plain.items()
    }
    found["tf32"] = Kernel(precision="tf32", operands=normal(torch.float32), call=torch.mm, bytes_in=4, bytes_out=4, reduced=True)
    found["int8"] = Kernel(precision="int8", operands=bytes_, call=torch._int_mm, bytes_in=1, bytes_out=4)
    found["fp8"] = Kernel(precision="fp8", operands=narrow, call=scaled, bytes_in=1, bytes_out=2)
    return found


def run(bench: Bench, settings: Settings) -> Iterator[Event]:
    """Measure every precision of the suite, each within its share of the budget."""
    known = kernels(bench.device.name)
    wanted = settings.texts("precisions")
    shapes = list(product(*(settings.integers(axis) for axis in ("m", "n", "k"))))
    for name in wanted:
        yield from rates(bench, known[name], shapes, bench.budget / len(wanted), idle=settings.number("idle"))


def rates(bench: Bench, kernel: Kernel, shapes: Sequence[tuple[int, ...]], seconds: float, *, idle: float) -> Iterator[Event]:
    """Find the fastest shape in half the time, then measure its achievable and its sustained rate.

    Achievable: the median rate of the fastest shape, after the device has idled. Sustained: the highest rate held for 2 s at full load. FLOP are 2 m n k.

    Source: mamf-finder, the search over shapes and the median of the best.
    """
    import torch

    torch.set_float32_matmul_precision("high" if kernel.reduced else "highest")
    start = time.perf_counter()
    try:
        kernel.call(*kernel.operands(32, 32, 32))
        bench.device.synchronize()
    except (RuntimeError, AttributeError, NotImplementedError, TypeError, ValueError) as problem:
        yield Note(
            kind="unsupported",
            case=kernel.precision,
            text=f"PyTorch {torch.__version__} has no such product on {bench.device.name}: {first_line(problem)}",
        )
        return
    search = min(seconds * 0.5, seconds - HELD - idle - 1.0) if seconds > 2 * HELD else seconds * 0.4
    best, tried = yield from fastest(bench, kernel, shapes, search)
    if best is None:
        return
    calls = made(bench, kernel, best)
    time.sleep(idle)
    bound = bench.bounds.peaks.get(kernel.precision)
    common: dict[str, Setting] = {
        "m": best[0],
        "n": best[1],
        "k": best[2],
        "precision": kernel.precision,
        "shapes_tried": tried,
        "buffers": len(calls),
    }
    work = 2.0 * best[0] * best[1] * best[2]
    left = max(seconds - (time.perf_counter() - start) - HELD * 1.1, 0.5)
    found = measure(TEST, f"{kernel.precision} achievable", "FLOP/s", timed(calls, bench.device, left * 0.8, least=20), work=work, settings=common,
                    quantity=f"peak_{kernel.precision}", bound=bound, bound_source=bench.bounds.source)  # fmt: skip
    yield found
    yield from flagged(found)
    if kernel.other is not None:
        yield compared(bench, kernel, kernel.other, best, min(0.5, left * 0.1))
    yield honest(bench, kernel.precision, calls)
    yield held(bench, kernel.precision, calls, work, common, max(seconds - (time.perf_counter() - start), HELD))
    torch.set_float32_matmul_precision("highest")


def fastest(bench: Bench, kernel: Kernel, shapes: Sequence[tuple[int, ...]], seconds: float) -> Any:
    """Try shapes, the smallest first, then in a fixed random order, until the time is over; a product that would take long is passed over.

    Return the fastest and how many were tried, and yield what does not fit.
    """
    smallest, *others = sorted(shapes, key=lambda s: s[0] * s[1] * s[2])
    random.Random(0).shuffle(others)
    start, tried, best, rate = time.perf_counter(), 0, None, 0.0
    each = max(seconds / len(shapes), 0.1)
    for m, n, k in (smallest, *others):
        if tried and time.perf_counter() - start > seconds:
            break
        if tried and 2.0 * m * n * k / rate > LONGEST * seconds:
            continue
        try:
            found = timed(made(bench, kernel, (m, n, k)), bench.device, each, least=5, tolerance=0.05)
        except (RuntimeError, MemoryError) as problem:
            if not out_of_memory(problem):
                yield Note(kind="unsupported", case=f"{kernel.precision} {m}x{n}x{k}", text=first_line(problem))
                continue
            bench.device.empty_cache()
            yield Note(kind="out-of-memory", case=f"{kernel.precision} {m}x{n}x{k}", text="this shape does not fit in memory; smaller ones are tried")
            continue
        tried += 1
        here = 2.0 * m * n * k / quantile(sorted(found.samples), 0.5)
        if here > rate:
            best, rate = (m, n, k), here
    return best, tried


def made(bench: Bench, kernel: Kernel, shape: Shape) -> list[Call]:
    """Make calls of a product on rotated operands."""

    def one(operands: tuple[Any, ...]) -> Call:
        return lambda: kernel.call(*operands)

    return [one(kernel.operands(*shape)) for _ in range(rotation(kernel.bytes_of(shape), bench))]


def held(bench: Bench, precision: str, calls: Sequence[Call], work: float, settings: Mapping[str, Setting], seconds: float) -> Measure:
    """Return the highest rate of windows of 2 s without a pause."""
    found = windows(calls, bench.device, HELD, seconds)
    bound = bench.bounds.peaks.get(precision)
    kept = [s for s in found if bound is None or work / s <= bound]
    return Measure(test=TEST, case=f"{precision} sustained", unit="FLOP/s", work=work, samples=tuple(kept), flagged=tuple(s for s in found if s not in kept),
                   bound=bound, bound_source=bench.bounds.source if bound is not None else "", statistic="highest",
                   settings={**settings, "window_s": HELD}, stop="fixed")  # fmt: skip


def honest(bench: Bench, precision: str, calls: Sequence[Call]) -> Check:
    """Hold the device's clock against the host's over about a fifth of a second of products: a device that reports less time than passes fails."""
    one = bench.device.watch.laps([calls])[0]
    group = [call for _ in range(max(1, round(0.2 / max(one, 1e-6)))) for call in calls]
    bench.device.synchronize()
    start = time.perf_counter()
    told = bench.device.watch.laps([group])[0]
    passed = time.perf_counter() - start
    return Check(
        test=TEST,
        case=f"{precision} host clock over device clock",
        value=passed / max(told, 1e-9),
        limit=APART,
        unit="times",
        settings={"seconds": passed},
    )


def compared(bench: Bench, kernel: Kernel, reference: Callable[..., Any], shape: Shape, seconds: float) -> Check:
    """Hold a kernel's time against another that does the same on the same operands, taking turns: a ratio above 1.25 fails."""
    operands = kernel.operands(*shape)

    def mine() -> object:
        return kernel.call(*operands)

    def other() -> object:
        return reference(*operands)

    ratios: list[float] = []
    bench.device.watch.laps([[mine], [other]])
    start = time.perf_counter()
    while len(ratios) < 5 or time.perf_counter() - start < seconds:
        first, second = bench.device.watch.laps([[mine], [other]])
        ratios.append(first / second)
    settings: dict[str, Setting] = {"m": shape[0], "n": shape[1], "k": shape[2], "n_pairs": len(ratios)}
    return Check(
        test=TEST, case=f"{kernel.precision} time over another way", value=quantile(sorted(ratios), 0.5), limit=SLOW, unit="times", settings=settings
    )


def first_line(problem: BaseException) -> str:
    """Return the first line of a message, shortened."""
    lines = str(problem).strip().splitlines()
    return (lines[0] if lines else type(problem).__name__)[:200]
