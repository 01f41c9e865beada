"""A process that runs tests, so that one that hangs or dies takes nothing with it: a line of JSON in for each, lines of JSON out.

`python -m chipscale.bench.worker` reads `{"open": KIND or null, "against": CHIP or null, "catalog": DIR or null}`, then tests.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

from chipscale.bench.device import Device, opened
from chipscale.bench.machine import host_memory, identity, state, system, versions
from chipscale.bench.physics import bounds
from chipscale.bench.record import Identity
from chipscale.bench.settings import Settings
from chipscale.bench.timing import Bench, Bounds, Event
from chipscale.evidence import Belief, EvidenceError
from chipscale.facts.chip import Chip


def said(out: TextIO, what: str, value: object) -> None:
    """Write one line."""
    out.write(json.dumps({what: value}, allow_nan=False) + "\n")
    out.flush()


def claimed(chip: str | None, folder: str | None) -> Chip | None:
    """Return the chip whose claims bound the samples."""
    if chip is None:
        return None
    from chipscale.catalog import load

    found = load(Path(folder) if folder else None).chip(chip)
    if isinstance(found, Belief):
        raise EvidenceError(
            f"--against {chip}: is a belief over {len(found.hypotheses)} hypotheses; name a chip whose facts are known (chipscale chips)"
        )
    return found


def greeting(device: Device, known: Identity) -> dict[str, Any]:
    """Say who is here."""
    from pydantic import TypeAdapter

    from chipscale.bench.record import State, System

    return {
        "identity": asdict(known),
        "system": TypeAdapter(System).dump_python(system(device, known), mode="json", by_alias=True),
        "state": TypeAdapter(State).dump_python(state(device), mode="json"),
        "versions": versions(),
    }


def found(task: dict[str, Any], device: Device, known: Identity, limits: Bounds) -> Iterator[Event]:
    """Run one test; it is named as MODULE:FUNCTION."""
    module, _, function = str(task["run"]).partition(":")
    memory = known.memory_bytes or host_memory()
    bench = Bench(device=device, cache_bytes=known.cache_bytes or 2**26, memory_bytes=memory, bounds=limits, budget=float(task["budget"]))
    return iter(getattr(import_module(module), function)(bench, Settings(where=str(task["where"]), values=task["settings"])))


def one(task: dict[str, Any], device: Device, known: Identity, limits: Bounds, out: TextIO) -> None:
    """Run one test and write what it finds, as it finds it."""
    start = time.perf_counter()
    try:
        for event in found(task, device, known, limits):
            said(out, type(event).__name__.lower(), asdict(event))
    except EvidenceError as problem:
        return said(out, "refused", str(problem))
    except Exception as problem:  # a test of an unknown device may fail in any way; the others still run
        return said(out, "failed", f"{type(problem).__name__}: {' '.join(str(problem).split())[:500]}")
    finally:
        device.empty_cache()
    return said(out, "done", {"seconds": time.perf_counter() - start})


def main() -> None:
    """Open the device, then run tests until standard input ends."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints goes to standard error
    start = json.loads(sys.stdin.readline())
    try:
        device = opened(start["open"])
        known = identity(device)
        limits = bounds(known, claimed(start["against"], start["catalog"]))
    except EvidenceError as problem:
        return said(out, "refused", str(problem))
    said(out, "hello", greeting(device, known))
    for line in sys.stdin:
        task = json.loads(line)
        if "state" in task:
            said(out, "state", asdict(state(device)))
        else:
            one(task, device, known, limits, out)
    return None


if __name__ == "__main__":
    main()
