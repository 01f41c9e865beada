"""Energy and money of a run."""

from __future__ import annotations

from dataclasses import dataclass

from chipscale.ops.work import Num
from chipscale.units import KILO


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What one chip draws (W), and what host, network and cooling draw for it."""

    chips: Num
    host: Num
    network: Num
    cooling: Num

    @property
    def total(self) -> Num:
        return self.chips + self.host + self.network + self.cooling


def chip_watts(rated: Num, busy: Num, waiting: Num, utilisation: Num) -> Num:
    """Return the mean power of a chip that computes part of the time and waits for the rest.

    W = W_0 (w + (b - w) u)

    Holds when u is the share of time in which the chip computes, b and w the shares of its rated power W_0 that it draws then and otherwise.
    Source: patel-2024, section 4; latif-2025.

    >>> 1082990 * chip_watts(400.0, 1.0, 0.5, 1.0) / 1000  # published of BLOOM: 433,196 kWh of 1,082,990 chip-hours at rated power
    433196.0
    """
    return rated * (waiting + (busy - waiting) * utilisation)


def draw(rated: Num, chip: Num, host: Num, network: Num, cooling: Num) -> Draw:
    """Add to a chip's power what stands around it.

    W_host = h W_0, W_net = k W_0, W_cool = (PUE - 1) (W + W_host + W_net)

    Holds when host and network draw the same whatever the chip does, as measured on an H100 node.
    Source: latif-2025; uptime-2024.

    >>> 8 * draw(700.0, 700.0, 0.51, 0.0, 0.0).total  # published of a node of eight H100 under full load: 8,480 W
    8456.0
    """
    around = (host + network) * rated
    return Draw(chips=chip, host=host * rated, network=network * rated, cooling=cooling * (chip + around))


def rent_dollars(chip_hours: Num, price: Num) -> Num:
    """Return what renting costs.

    D = n T p

    Holds when chips are paid for by the hour, failures included.
    Source: deepseek-v3, table 1.

    >>> rent_dollars(2.664e6, 2.0) / 1e6  # published of DeepSeek-V3's pre-training: 5.328 million dollars
    5.328
    """
    return chip_hours * price


def capital_dollars(chips: Num, seconds: Num, price: Num, whole: Num, life: Num) -> Num:
    """Return the part of a cluster's price that a run uses up.

    D = n p s T / L

    Holds when the cluster is written off evenly over its life L and is never idle; s is the price with server and network over the chip's.
    Source: h100-economics.
    """
    return chips * price * whole * seconds / life


def electricity_dollars(watt_hours: Num, price: Num) -> Num:
    """Return what the energy costs.

    D = E p

    Holds when p is in dollars per kWh.
    Source: by definition of a tariff.
    """
    return watt_hours / KILO * price
