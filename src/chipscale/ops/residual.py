"""Hyper-connections: a residual of several streams, mixed around each layer."""

from __future__ import annotations

from chipscale.ops.work import Cause, Num, Work


def hyper_connection(name: str, tokens: Num, d_model: float, streams: float, *, calls: float, train: bool) -> list[Work]:
    """Describe one hyper-connection: weights from all streams, their sum into the layer, the layer's output back into the mixed streams.

    FLOP = 2 T (n^2 + 2 n) n d + 2 T n d + 2 T (n^2 + n) d;  bytes = 2 T (4 n + 2) d: n streams for the weights, n read and one written for
    the layer, n + 1 read and n written after it; backward twice both.

    Holds when each of the three steps is one kernel; the iterations that make the mix doubly stochastic (n^2 numbers a token) are not counted.
    Source: mhc-2025, section 4.3.1 (fused kernels).

    >>> hyper_connection("x", 1.0, 4096.0, 4.0, calls=1.0, train=False)[0].bytes
    147456.0
    """
    flop = 2.0 * tokens * d_model * ((streams**2 + 2.0 * streams) * streams + streams + streams**2 + streams)
    return _moved(name, flop, 2.0 * tokens * (4.0 * streams + 2.0) * d_model, calls=calls, train=train, cause="elementwise")


def collapse(name: str, tokens: Num, d_model: float, streams: float, *, train: bool) -> list[Work]:
    """Describe the sum of all streams into one before the head.

    FLOP = 2 T n n d + 2 T n d;  bytes = 2 T (2 n + 1) d; backward twice both.

    Holds when the weights and the sum are one kernel each.
    Source: transformers, models/deepseek_v4/modeling_deepseek_v4.py, DeepseekV4HyperHead.

    >>> collapse("x", 1.0, 4096.0, 4.0, train=False)[0].bytes
    73728.0
    """
    flop = 2.0 * tokens * d_model * (streams**2 + streams)
    return _moved(name, flop, 2.0 * tokens * (2.0 * streams + 1.0) * d_model, calls=1.0, train=train, cause="head")


def _moved(name: str, flop: Num, moved: Num, *, calls: float, train: bool, cause: Cause) -> list[Work]:
    works = [Work(name=name, form="memory", cause=cause, flop=flop, bytes=moved, calls=calls)]
    if train:
        works.append(Work(name=name + " backward", form="memory", cause=cause, flop=2.0 * flop, bytes=2.0 * moved, calls=calls, backward=True))
    return works
