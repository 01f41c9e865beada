"""Tests of a suite that go wrong on purpose; a worker finds them by name."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from chipscale.bench.record import Measure
from chipscale.bench.settings import Settings
from chipscale.bench.timing import Bench, Event


def _one(case: str) -> Measure:
    return Measure(test="planted", case=case, unit="s", samples=(1.0,), settings={})


def fine(_bench: Bench, settings: Settings) -> Iterator[Event]:
    yield _one(f"size {settings.integer('size')}")


def hangs(_bench: Bench, _settings: Settings) -> Iterator[Event]:
    yield _one("before it hangs")
    time.sleep(600)


def dies(_bench: Bench, _settings: Settings) -> Iterator[Event]:
    yield _one("before it dies")
    os._exit(3)


def fails(_bench: Bench, _settings: Settings) -> Iterator[Event]:
    yield _one("before it fails")
    raise RuntimeError("the device said no")
