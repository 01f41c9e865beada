"""Operators that only move memory: norms, activations, rotations, cross-entropy."""

from __future__ import annotations

from chipscale.ops.work import Cause, Num, Work


def passes(name: str, elements: Num, forward: float, backward: float, *, calls: float, train: bool,
           cause: Cause = "elementwise", core: bool = False) -> list[Work]:  # fmt: skip
    """Describe an operator that reads and writes an element a stated number of bytes, forward and backward.

    bytes = n b.

    Holds when the working set is larger than the last cache.
    Source: korthikanti-2022, section 4 (bytes by operator).

    >>> passes("norm", 100.0, 4.0, 6.0, calls=1.0, train=True)[1].bytes
    600.0
    """
    works = [Work(name=name, form="memory", cause=cause, flop=0.0, bytes=elements * forward, calls=calls, core=core)]
    if train:
        works.append(Work(name=name + " backward", form="memory", cause=cause, flop=0.0, bytes=elements * backward, calls=calls,
                          backward=True))  # fmt: skip
    return works
