"""Offload: what moving states to the host's memory and back costs."""

from __future__ import annotations

import numpy as np

from chipscale.cost.hardware import Hardware
from chipscale.ops.work import Num

#: slower than any link: where nothing is known of a host link no plan uses it
LEAST = 1.0


def copy_seconds(volume: Num, hardware: Hardware) -> Num:
    """Cost copying `volume` bytes one way between a chip and its host.

    t = V / r_h.

    Holds when chips do not share the link, and the host's memory keeps up.
    Source: zero-offload-2021, section 3 (traffic over PCIe).
    """
    return volume / np.maximum(hardware.host_bandwidth, LEAST)


def beside(copy: Num, compute: Num) -> Num:
    """Return what a copy adds to the compute that it runs beside: max(0, x - s).

    Holds when a copy engine moves one layer while the next computes.
    Source: zero-offload-2021, section 4.1 (copies hidden behind compute).

    >>> float(beside(3.0, 2.0)), float(beside(1.0, 2.0))
    (1.0, 0.0)
    """
    return np.maximum(copy - compute, 0.0)
