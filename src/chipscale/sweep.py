"""Sweeps over chips, models and sizes: each task once, whatever happens meanwhile."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, as_completed
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from chipscale import __version__
from chipscale.catalog import Catalog, load
from chipscale.cost.calibration import read_calibration
from chipscale.evidence import Belief, EvidenceError
from chipscale.planning import check_precision, train
from chipscale.search import Watch, silent
from chipscale.verdict.nouns import Side


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One model on so many of one chip; what is None is as `train` has it."""

    chip: str
    model: str
    chips: int
    length: int | None = None
    batch: int | None = None
    precision: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The best plan under one hypothesis of a chip; seconds a step with their 80 % interval, tokens a second and chip, bytes a chip."""

    hypothesis: str
    cluster: str
    precision: str
    plan: str
    seconds: float
    low: float
    high: float
    rate: float
    mfu: float
    memory_bytes: float
    memory_capacity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A task done: what came out, the likeliest hypothesis first, or the reason why nothing did. `key` tells its inputs from all others."""

    key: str
    task: Task
    outcomes: tuple[Outcome, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """The results of a sweep in the order of its tasks, sorted; how many were `found` done, and who ran the others."""

    results: tuple[Result, ...]
    found: int
    runner: str


def tasks(catalog: Catalog, chips: Sequence[str], models: Sequence[str], sizes: Sequence[int], *, length: int | None = None,
          batch: int | None = None, precision: str | None = None) -> tuple[Task, ...]:  # fmt: skip
    """List the tasks of a sweep, sorted, each once, under the ids of chips and models.

    Errors: names that the catalogue does not know, models that it refuses, a precision that no training is planned in, a sweep of nothing.
    """
    for name, listed in (("--chips", chips), ("--models", models), ("--sizes", sizes)):
        if not listed:
            raise EvidenceError(f"{name}: names nothing; write one or several, parted by commas")
    check_precision(precision)
    known = {_id(catalog, chip) for chip in chips}
    ids = {name if name.endswith(".json") else catalog.model(name).id for name in models}
    for name in ids:
        catalog.model(name)
    each = product(sorted(ids), sorted(known), sorted(set(sizes)))
    return tuple(Task(chip=c, model=m, chips=n, length=length, batch=batch, precision=precision) for m, c, n in each)


def _id(catalog: Catalog, chip: str) -> str:
    catalog.chip(chip)
    return catalog.aliases().get(chip.lower(), chip)


def key(catalog: Catalog, task: Task) -> str:
    """Return what tells a task from all others: its inputs, the facts about its chip, cluster and model, the version and the calibration."""
    chip = catalog.chip(task.chip)
    each = [h.value for h in chip.hypotheses] if isinstance(chip, Belief) else [chip]
    facts = [chip, *(catalog.cluster_for(c) for c in each), catalog.model(task.model)]
    told = [asdict(task), [asdict(f) for f in facts], __version__, read_calibration(catalog).date]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=_plain).encode()).hexdigest()[:32]


def _plain(value: object) -> object:
    """Turn what JSON lacks into what it has."""
    if isinstance(value, set | frozenset):
        return sorted(str(v) for v in value)
    return str(value)


@cache
def _catalog(folder: Path | None) -> Catalog:
    return load(folder)


def run(task: Task, folder: Path | None) -> Result:
    """Do one task with the catalogue of this process; a task that cannot be done gives its reason."""
    catalog = _catalog(folder)
    name = key(catalog, task)
    try:
        sides = train(catalog, task.model, task.chip, task.chips, length=task.length, batch=task.batch, precision=task.precision)
    except EvidenceError as problem:
        return Result(key=name, task=task, outcomes=(), reason=" ".join(str(problem).split()))
    return Result(key=name, task=task, outcomes=tuple(_outcome(s) for s in sides), reason="")


def _outcome(s: Side) -> Outcome:
    return Outcome(hypothesis=s.hypothesis, cluster=s.cluster, precision=s.precision, plan=s.plan, seconds=s.seconds.median, low=s.seconds.low,
                   high=s.seconds.high, rate=s.rate.median, mfu=s.mfu, memory_bytes=s.memory_bytes, memory_capacity=s.memory_capacity)  # fmt: skip


#: how the line of a result begins
START = b'{"key": "'


def line(result: Result) -> bytes:
    """Write a result as one line of JSON."""
    return json.dumps(asdict(result), allow_nan=False, ensure_ascii=False).encode() + b"\n"


def parsed(text: bytes) -> Result:
    """Read such a line. Errors: ValueError, TypeError or KeyError where it is none."""
    raw: Mapping[str, Any] = json.loads(text)
    if set(raw) != {f.name for f in fields(Result)}:
        raise ValueError("not the fields of a result")
    return Result(key=raw["key"], task=Task(**raw["task"]), outcomes=tuple(Outcome(**o) for o in raw["outcomes"]), reason=raw["reason"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A file of results that one sweep holds open: what stands in it, and a way to add a line that survives whatever comes after."""

    done: Mapping[str, Result]
    file: int

    def add(self, result: Result) -> None:
        """Append a result and wait until the disk has it."""
        left = memoryview(line(result))
        while left:
            left = left[os.write(self.file, left) :]
        os.fsync(self.file)


@contextmanager
def store(path: Path) -> Iterator[Store]:
    """Open a file of results for one sweep alone; a last line that was torn off is dropped, so that its task is done again.

    Errors: a file that another sweep writes, that cannot be written, or that holds other lines than results.
    """
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as problem:
        raise EvidenceError(f"--out {path}: cannot be written ({problem.strerror}); name a file in an existing folder") from problem
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            raise EvidenceError(f"--out {path}: another sweep is writing it; wait for its end or name another file") from problem
        yield Store(done=_read(path, file), file=file)
    finally:
        os.close(file)


def _read(path: Path, file: int) -> dict[str, Result]:
    done: dict[str, Result] = {}
    whole = 0
    for number, text in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        if not text.endswith(b"\n") and START.startswith(text[: len(START)]):
            os.ftruncate(file, whole)
            break
        try:
            result = parsed(text)
        except (ValueError, TypeError, KeyError, AttributeError) as problem:
            raise EvidenceError(f"--out {path}: line {number} is no result of a sweep; name another file, or take the line out") from problem
        done[result.key] = result
        whole += len(text)
    return done


#: opens what runs tasks, with its name
Runner = Callable[[], AbstractContextManager[tuple[Executor, str]]]


def sweep(catalog: Catalog, wanted: Sequence[Task], path: Path, runner: Runner, *, folder: Path | None = None, watch: Watch = silent) -> Swept:
    """Do the tasks whose results do not stand in the file yet, and return the results of all of them.

    Results are written in the order in which they come and returned in that of the tasks. A key made by another version or from other facts than
    ours is an error, since a worker then has another chipscale or catalogue.
    """
    keys = {key(catalog, task): task for task in wanted}
    with store(path) as kept:
        done = {k: kept.done[k] for k in keys if k in kept.done}
        found, name = len(done), ""
        if found < len(keys):
            with runner() as (executor, name):
                for result in _results(executor, [t for k, t in keys.items() if k not in done], folder, path):
                    if result.key not in keys:
                        raise EvidenceError(f"a worker has another version of chipscale or other facts about {result.task.chip} and {result.task.model}; "
                                            "install the same on all machines")  # fmt: skip
                    kept.add(result)
                    done[result.key] = result
                    watch(len(done) / len(keys))
    return Swept(results=tuple(done[k] for k in keys), found=found, runner=name)


def _results(executor: Executor, todo: Sequence[Task], folder: Path | None, path: Path) -> Iterator[Result]:
    """Yield results as they come. Errors: workers that die or go away."""
    try:
        for future in as_completed([executor.submit(run, task, folder) for task in todo]):
            yield future.result()
    except (BrokenExecutor, CancelledError, OSError) as problem:
        raise EvidenceError(
            f"the workers of the sweep are gone ({type(problem).__name__}); {path} keeps what is done, run the same again to go on"
        ) from problem
