"""A run: tests in a process of their own, one after the other, whatever happens to them, into a record."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from chipscale.bench.device import Kind
from chipscale.bench.files import sealed
from chipscale.bench.machine import now
from chipscale.bench.record import Check, Identity, Measure, Note, Outcome, Record, State, System, Trial
from chipscale.bench.suite import Suite, Task, Where
from chipscale.bench.timing import Event
from chipscale.evidence import EvidenceError

#: seconds in which a process imports PyTorch and opens its device
OPENING = 180.0
ENDED = "ended"
#: what a worker runs with unless the user set it: threads that wait for each other sleep (where other work shares the cores, spinning ones made a block
#: fifty times slower), and large tensors lie on large pages (as numpy's do; a sum of arrays is a tenth slower without)
ENVIRONMENT: Mapping[str, str] = {"OMP_WAIT_POLICY": "PASSIVE", "THP_MEM_ALLOC_ENABLE": "1"}
Watch = Callable[[str, float], None]
_EVENTS: Mapping[str, TypeAdapter[Any]] = {"measure": TypeAdapter(Measure), "check": TypeAdapter(Check), "note": TypeAdapter(Note)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What a worker is told first: the kind of device (the best one if None), the chip whose claims bound its samples, a folder of the user's own chips."""

    kind: Kind | None = None
    against: str | None = None
    catalog: Path | None = None


class Worker:
    """A process that runs tests, and the lines that it writes."""

    def __init__(self, opening: Opening) -> None:
        command = [sys.executable, "-m", "chipscale.bench.worker"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", start_new_session=True
        )
        self.lines: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.errors: list[str] = []
        self.ears = [threading.Thread(target=hear, daemon=True) for hear in (self._listen, self._overhear)]
        for ear in self.ears:
            ear.start()
        self.tell({"open": opening.kind, "against": opening.against, "catalog": str(opening.catalog) if opening.catalog else None})
        self.hello = self._greeted()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            ((what, value),) = json.loads(line).items()
            self.lines.put((what, value))
        self.lines.put((ENDED, self.process.wait()))

    def _overhear(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors = [*self.errors[-20:], line.strip()]

    def tell(self, what: Mapping[str, object]) -> None:
        """Write it a line; one that has ended shows when it is heard."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(what) + "\n")
            self.process.stdin.flush()
        except OSError:
            return

    def _greeted(self) -> dict[str, Any]:
        try:
            what, value = self.lines.get(timeout=OPENING)
        except queue.Empty:
            self.end()
            raise EvidenceError(f"the device did not open within {OPENING:.0f} s; restart its driver, or take --device cpu") from None
        if what == "hello":
            return dict(value)
        self.end()
        if what == "refused":
            raise EvidenceError(str(value))
        raise EvidenceError(f"the device did not open: {self.last()}; see whether python -c 'import torch' works")

    def last(self) -> str:
        """Return the last thing that it wrote to standard error."""
        return next((e for e in reversed(self.errors) if e), "the process ended without a word")

    def state(self) -> State | None:
        """Ask how the device is."""
        self.tell({"state": True})
        try:
            what, value = self.lines.get(timeout=60)
        except queue.Empty:
            return None
        return TypeAdapter(State).validate_python(value) if what == "state" else None

    def end(self) -> None:
        """End it and all that it started."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self.process.kill()
        self.process.wait()
        for ear in self.ears:
            ear.join(timeout=5)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def tried(worker: Worker, task: Task, where: Where, patience: float, suite: str) -> Trial:
    """Run one test; keep what it found until it was done, failed, died or hung."""
    entry = task.on(where)
    if entry is None:
        return Trial(name=task.name, outcome="skipped", seconds=0.0, budget=0.0)
    worker.tell({"run": task.run, "budget": entry.budget, "settings": entry.settings, "where": f"suite {suite}, test {task.name}"})
    start, events = time.monotonic(), list[Event]()
    outcome: Outcome = "complete"
    while True:
        try:
            what, value = worker.lines.get(timeout=max(entry.budget + patience - (time.monotonic() - start), 0.001))
        except queue.Empty:
            text = f"no end {entry.budget + patience:.0f} s after its start (budget {entry.budget:.0f} s); the process was ended, what it had found is kept"
            events.append(Note(kind="timeout", case=task.name, text=text))
            outcome = "timeout"
            break
        except KeyboardInterrupt:
            outcome = "stopped"
            break
        if what in _EVENTS:
            events.append(_EVENTS[what].validate_python(value))
            continue
        if what == "refused":
            raise EvidenceError(str(value))
        if what != "done":
            told = str(value) if what == "failed" else f"the process died (exit code {value}): {worker.last()}"
            events.append(Note(kind="error", case=task.name, text=told))
            outcome = "failed"
        break
    return Trial(name=task.name, outcome=outcome, seconds=time.monotonic() - start, budget=entry.budget,
                 measures=tuple(e for e in events if isinstance(e, Measure)), checks=tuple(e for e in events if isinstance(e, Check)),
                 notes=tuple(e for e in events if isinstance(e, Note)))  # fmt: skip


def run(suite: Suite, opening: Opening, command: Sequence[str], watch: Watch, keep: Callable[[Record], None]) -> Record:
    """Run a suite and return its record; `keep` is given the record so far after each test, and after an interrupt.

    Raises EvidenceError where there is no PyTorch or no such device.
    """
    start, created = time.monotonic(), now()
    worker = Worker(opening)
    hello, trials = worker.hello, list[Trial]()
    before = TypeAdapter(State).validate_python(hello["state"])
    record = Record(
        created=created, command=" ".join(command), suite=suite.name, complete=False, seconds=0.0, versions=hello["versions"],
        system=TypeAdapter(System).validate_python(hello["system"]), identity=TypeAdapter(Identity).validate_python(hello["identity"]),
        before=before, after=before, trials=(),
    )  # fmt: skip
    where: Where = "cpu" if record.identity.kind == "cpu" else "accelerator"
    total = suite.seconds(where) or 1.0
    try:
        for task in suite.test:
            spent = sum(t.budget for t in trials)
            watch(task.title, spent / total)
            trials.append(tried(worker, task, where, suite.patience, suite.name))
            record = sealed(replace(record, trials=tuple(trials), seconds=time.monotonic() - start))
            keep(record)
            if trials[-1].outcome == "stopped":
                raise KeyboardInterrupt
            if trials[-1].outcome == "timeout" or worker.process.poll() is not None:
                worker.end()
                worker = Worker(opening)
        after = worker.state()
        return sealed(replace(record, after=after or before, complete=True, seconds=time.monotonic() - start))
    except (KeyboardInterrupt, EvidenceError):
        keep(sealed(replace(record, seconds=time.monotonic() - start)))
        raise
    finally:
        worker.end()
