"""How a call is timed: warm, on rotated buffers, until the median is known or the time is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from math import ceil
from typing import Literal, TypeVar

from chipscale.bench.device import Call, Device, out_of_memory
from chipscale.bench.record import Check, Measure, Note, Setting
from chipscale.bench.statistics import stable

T = TypeVar("T")
Event = Measure | Check | Note
#: a sample shorter than this would be mostly the clock's own noise; short calls are grouped
SHORTEST = 2e-4
#: buffers together fill the last cache this often, so that none is found there
CACHES = 3
LEAST, MOST, BATCH, TOLERANCE = 10, 20_000, 5, 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What no sample can exceed: FLOP/s by precision and B/s of memory; `source` says who says so."""

    peaks: Mapping[str, float]
    memory: float | None
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What a test is given: a device, its last cache in bytes, bounds, and the seconds that it may take."""

    device: Device
    cache_bytes: int
    memory_bytes: int
    bounds: Bounds
    budget: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Seconds of each sample, `calls` calls in a sample, and why sampling ended."""

    samples: tuple[float, ...]
    calls: int
    stop: Literal["stable", "budget"]


def rotation(bytes_each: int, bench: Bench) -> int:
    """Return how many sets of buffers to rotate, so that together they exceed the last cache; never more than a quarter of memory, at least one."""
    wanted = ceil(CACHES * bench.cache_bytes / max(bytes_each, 1))
    return max(1, min(max(2, wanted), bench.memory_bytes // 4 // max(bytes_each, 1), 64))


def timed(calls: Sequence[Call], device: Device, seconds: float, *, least: int = LEAST, tolerance: float = TOLERANCE) -> Timed:
    """Time calls in rotation for at most about `seconds`, a fifth of it warm-up; stop when the median is known to within `tolerance`.

    The first sample is always taken, however long it is.
    """
    turn = cycle(calls)
    one = _warm(turn, device, seconds / 5, len(calls))
    inner = max(1, ceil(SHORTEST / max(one, 1e-9)))
    found: list[float] = []
    start = time.perf_counter()
    while True:
        left = seconds * 0.8 - (time.perf_counter() - start)
        fitting = max(1, min(BATCH, int(left / (2 * BATCH) / max(one * inner, 1e-9))))
        found += [s / inner for s in device.watch.laps([list(islice(turn, inner)) for _ in range(fitting)])]
        if stable(found, tolerance, least):
            return Timed(samples=tuple(found), calls=inner, stop="stable")
        if time.perf_counter() - start >= seconds * 0.8 or len(found) >= MOST:
            return Timed(samples=tuple(found), calls=inner, stop="budget")


def _warm(turn: Iterator[Call], device: Device, seconds: float, sets: int) -> float:
    """Run calls for a while, each set of buffers at least once, and return the seconds that one takes when warm."""
    start, done, taken = time.perf_counter(), 1, device.watch.laps([[next(turn)]])[0]
    while done < sets or time.perf_counter() - start < seconds:
        group = max(1, min(100, int(SHORTEST / max(taken, 1e-6))))
        taken = device.watch.laps([list(islice(turn, group))])[0] / group
        done += group
        if time.perf_counter() - start > 4 * seconds:
            break
    return taken


def windows(calls: Sequence[Call], device: Device, length: float, seconds: float) -> list[float]:
    """Run calls without a pause for `seconds` (at least one window); return the seconds a call of each window of at least `length`."""
    turn = cycle(calls)
    one = max(_warm(turn, device, min(0.2, length / 5), len(calls)), 1e-9)
    found: list[float] = []
    start = time.perf_counter()
    while not found or time.perf_counter() - start + length <= seconds:
        done, taken = 0, 0.0
        while taken < length:
            group = max(1, ceil(min(length - taken, 0.25) / one))
            taken += device.watch.laps([list(islice(turn, group))])[0]
            done += group
        found.append(taken / done)
    return found


def measure(test: str, case: str, unit: str, timed_as: Timed, *, work: float, settings: Mapping[str, Setting], quantity: str = "",
            bound: float | None = None, bound_source: str = "") -> Measure:  # fmt: skip
    """Make a measure of samples, those above the bound set apart; `work` 0 keeps the seconds as they are."""
    above = [bool(bound is not None and work and work / s > bound) for s in timed_as.samples]
    return Measure(
        test=test,
        case=case,
        unit=unit,
        work=work,
        quantity=quantity,
        samples=tuple(s for s, over in zip(timed_as.samples, above, strict=True) if not over),
        flagged=tuple(s for s, over in zip(timed_as.samples, above, strict=True) if over),
        bound=bound,
        bound_source=bound_source if bound is not None else "",
        settings={**settings, "calls_a_sample": timed_as.calls},
        stop=timed_as.stop,
    )


def flagged(found: Measure) -> Iterator[Note]:
    """Say how many samples lie above the bound, if any do."""
    if found.flagged:
        total = len(found.samples) + len(found.flagged)
        told = f"{len(found.flagged)} of {total} samples lie above {found.bound:.3g} {found.unit} ({found.bound_source}); they are kept apart and not averaged"
        yield Note(kind="above-physics", case=found.case, text=told)


def shrinking(attempt: Callable[[int], T], size: int, least: int, case: str, device: Device) -> tuple[T | None, list[Note]]:
    """Try a size, and half of it as often as memory does not suffice, down to `least`; return what came out and a note for each retreat."""
    notes: list[Note] = []
    while True:
        try:
            return attempt(size), notes
        except (RuntimeError, MemoryError) as problem:
            if not out_of_memory(problem):
                raise
        device.empty_cache()
        smaller = size // 2
        if smaller < least:
            notes.append(
                Note(
                    kind="out-of-memory",
                    case=case,
                    text=f"size {size:,} does not fit in memory, nor does anything larger than {least:,}; not measured",
                )
            )
            return None, notes
        notes.append(Note(kind="out-of-memory", case=case, text=f"size {size:,} does not fit in memory; tried {smaller:,} instead"))
        size = smaller
