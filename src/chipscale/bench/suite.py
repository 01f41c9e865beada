"""Suites as data: which tests, in which order, with which sizes and seconds."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from chipscale.bench.record import CLOSED
from chipscale.bench.settings import Value
from chipscale.evidence import EvidenceError

SUITES = ("quick", "full")
Where = Literal["cpu", "accelerator"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One test on one kind of device: seconds that it may take, and its settings."""

    __pydantic_config__ = CLOSED

    budget: float
    settings: dict[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A test of a suite: `run` names its function as MODULE:FUNCTION, `title` says what it measures."""

    __pydantic_config__ = CLOSED

    name: str
    run: str
    title: str
    cpu: Entry | None = None
    accelerator: Entry | None = None

    def on(self, where: Where) -> Entry | None:
        return self.cpu if where == "cpu" else self.accelerator


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Tests in order; one that takes `patience` seconds more than its budget hangs and is ended."""

    __pydantic_config__ = CLOSED

    name: str
    patience: float
    test: tuple[Task, ...]

    def only(self, names: Sequence[str]) -> Suite:
        """Return the suite with these tests alone."""
        known = [t.name for t in self.test]
        if unknown := [n for n in names if n not in known]:
            raise EvidenceError(f"--only {unknown[0]}: no such test in suite {self.name}; choose of: {', '.join(known)}")
        return Suite(name=self.name, patience=self.patience, test=tuple(t for t in self.test if not names or t.name in names))

    def seconds(self, where: Where) -> float:
        """Return the sum of the budgets."""
        return sum(e.budget for t in self.test if (e := t.on(where)))


def parsed(text: str, name: str) -> Suite:
    """Read a suite from TOML."""
    try:
        return TypeAdapter(Suite).validate_python(tomllib.loads(text))
    except tomllib.TOMLDecodeError as problem:
        raise EvidenceError(f"{name}: malformed TOML: {problem}; correct that line") from problem
    except ValidationError as problem:
        bad = "; ".join(f"field {'.'.join(map(str, e['loc']))}: {e['msg'].lower()}" for e in problem.errors()[:4])
        raise EvidenceError(f"{name}: {bad}; docs/bench.md lists the fields") from problem
