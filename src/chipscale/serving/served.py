"""Served: what became of each request of a load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chipscale.serving.load import Load, Requests
from chipscale.serving.replica import Watch


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Requests as served, arrays of shape (requests,) in the order of arrival.

    `arrival`, `start` (first time that its prompt was computed or its cache fetched), `first` (the client sees a token) and `end` in seconds; `input` and `output` in tokens; `stopped` is how
    often each was stopped for want of blocks. `counted` of the last requests belong to the measurement. `gaps` are seconds between tokens, each of `weights` requests (waits of a
    request that was stopped or handed over are not among them). `present` is the mean number of requests in the service from time 0 to the last end, noted while time passed;
    `fullest` the most blocks in use by replica, at most.
    """

    arrival: np.ndarray
    start: np.ndarray
    first: np.ndarray
    end: np.ndarray
    input: np.ndarray
    output: np.ndarray
    stopped: np.ndarray
    counted: int
    gaps: np.ndarray
    weights: np.ndarray
    present: float
    fullest: np.ndarray


def served(asked: Requests, arrival: Sequence[float], watch: Watch, load: Load, area: float, fullest: Sequence[float]) -> Served:
    """Gather what a simulation wrote down."""
    pauses = np.array(watch.pauses, dtype=float).reshape(-1, 4)
    steps = pauses[:, 2].astype(int)
    place = np.arange(steps.sum()) - np.repeat(np.cumsum(steps) - steps, steps)
    gaps = np.repeat(pauses[:, 0], steps) + np.repeat(pauses[:, 1], steps) * place
    return Served(
        arrival=np.array(arrival), start=np.array(watch.start), first=np.array(watch.first), end=np.array(watch.end), input=asked.input, output=asked.output,
        stopped=np.array(watch.stopped), counted=load.requests, gaps=gaps, weights=np.repeat(pauses[:, 3], steps), present=area / max(watch.end), fullest=np.array(fullest),
    )  # fmt: skip
