"""The optimizer step."""

from __future__ import annotations

from chipscale.ops.work import Num


def adam_bytes(parameters: Num) -> Num:
    """Count the bytes that mixed-precision Adam reads and writes.

    30 P: gradient 4, master weight, momentum and variance 4 + 4 each, 16-bit weight 2.

    Holds when states are 32 bit and stay on the chip.
    Source: zero-2020, section 3.1 (16 bytes of state a parameter, read and written once).

    >>> adam_bytes(1e9)
    30000000000.0
    """
    return 30.0 * parameters
