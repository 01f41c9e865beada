"""The optimizer step."""

from __future__ import annotations

from chipscale.ops.work import Num


def adam_traffic(*, gradient: Num = 4.0, master: Num = 4.0, momentum: Num = 4.0, variance: Num = 4.0, weight: Num = 2.0) -> tuple[Num, Num]:
    """Count the bytes a parameter that an Adam step reads and writes, by bytes a parameter of each state.

    read g + s + m + v, written s + m + v + w: gradient, master weight, momentum, variance, narrow weight.

    Holds when states stay on the chip and each crosses memory once.
    Source: zero-2020, section 3.1 (mixed-precision Adam).

    >>> adam_traffic()
    (16.0, 14.0)
    """
    states = master + momentum + variance
    return gradient + states, states + weight


def adam_bytes(parameters: Num) -> Num:
    """Count the bytes that mixed-precision Adam reads and writes.

    30 P: gradient 4, master weight, momentum and variance 4 + 4 each, 16-bit weight 2.

    Holds when states are 32 bit and stay on the chip.
    Source: zero-2020, section 3.1 (16 bytes of state a parameter, read and written once).

    >>> adam_bytes(1e9)
    30000000000.0
    """
    read, written = adam_traffic()
    return (read + written) * parameters
