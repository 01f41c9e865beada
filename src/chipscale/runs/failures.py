"""Failures: how much of a run is useful when chips fail and work restarts from a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chipscale.ops.work import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """How often one chip stops a job (`mtbf`, s), how long a restart takes (s), what a checkpoint holds (B) and a chip's share of the store (B/s)."""

    mtbf: Num
    restart: Num
    checkpoint: Num
    bandwidth: Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Where the time of a run goes, as shares that sum to 1, with the interval between checkpoints and the mean time between failures (s)."""

    useful: Num
    writing: Num
    restarting: Num
    repeating: Num
    interval: Num
    between: Num


def mean_time(mtbf: Num, chips: Num) -> Num:
    """Return the mean time between failures of all chips together.

    M = M_1 / n

    Holds when chips fail independently at a constant rate and any one stops the job; small jobs were seen to fail more often than this.
    Source: kokolis-2025, section III.

    >>> per_chip = 8 * 1000 / 6.5 * 86400  # 6.50 failures in a thousand days of a node of eight
    >>> round(mean_time(per_chip, 16384) / 3600, 1), round(mean_time(per_chip, 131072) / 3600, 2)  # published: 1.8 and 0.23 hours
    (1.8, 0.23)
    """
    return mtbf / chips


def checkpoint_bytes(parameters: Num, master: Num = 12.0) -> Num:
    """Count the bytes of a checkpoint: 16-bit weights and the optimizer's state.

    C = (2 + w) P

    Holds when gradients are not kept and Adam's state is 32-bit weights and two moments (w = 12).
    Source: zero-2020, section 3.1; bloom-training.

    >>> checkpoint_bytes(176.2e9) / 1e12  # published of BLOOM: 2.3 TiB, 2.53 TB
    2.47
    """
    return (2.0 + master) * parameters


def checkpoint_seconds(size: Num, chips: Num, bandwidth: Num) -> Num:
    """Return how long all chips write, or read, one checkpoint.

    delta = C / (n B)

    Holds when each chip writes its part at its share of the store, and the store grows with the chips.
    Source: llama-3-herd, section 3.3.1; bloom-training.

    >>> checkpoint_seconds(2.47e12, 384, 150e6)  # published of BLOOM: 40 s
    42.9
    """
    return size / (chips * bandwidth)


def young_interval(write: Num, between: Num) -> Num:
    """Return the interval between checkpoints that loses least, to first order.

    tau = sqrt(2 delta M)

    Holds when delta << M.
    Source: young-1974.
    """
    return np.sqrt(2.0 * write * between)


def daly_interval(write: Num, between: Num) -> Num:
    """Return the interval of work between checkpoints that loses least, to higher order.

    tau = sqrt(2 delta M) [1 + 1/3 sqrt(delta / 2M) + 1/9 delta / 2M] - delta  for delta < 2M, else M

    Holds when failures come at a constant rate.
    Source: daly-2006, equation 37, figures 3 to 5.

    >>> [round(float(daly_interval(5.0, m)), 1) for m in (1440.0, 360.0, 15.0)]  # published: 117, 57 and 9.1 minutes
    [116.7, 56.7, 9.1]
    """
    x = np.sqrt(write / (2.0 * between))
    return np.where(write < 2.0 * between, young_interval(write, between) * (1.0 + x / 3.0 + x * x / 9.0) - write, between)


def goodput(interval: Num, write: Num, between: Num, restart: Num) -> Num:
    """Return the useful share of a run that restarts from its last checkpoint.

    g = tau / (M exp(R / M) (exp((tau + delta) / M) - 1))

    Holds when failures come at a constant rate, also while restarting; it stays above zero where the first order turns negative.
    Source: daly-2006, equation 20.

    >>> day = 86400.0
    >>> m = 54 * day / 419  # Llama 3: 419 interruptions in 54 days, more than 90 % of the time effective
    >>> float(goodput(daly_interval(2.8, m), 2.8, m, 600.0))
    0.926
    """
    x = (interval + write) / between
    useful: Num = np.exp(np.log(interval / between) - restart / between - x - np.log(-np.expm1(-x)))
    return useful


def restarting_share(between: Num, restart: Num) -> Num:
    """Return the share of time in which chips restart.

    r = 1 - exp(-R / M)

    Holds when failures come at a constant rate, also while restarting: a restart lasts M (1 - exp(-R / M)) in the mean.
    Source: daly-2006, section 4.
    """
    return -np.expm1(-restart / between)


def shares(reliability: Reliability, chips: Num, step: Num) -> Shares:
    """Share out the time of a run on `chips` chips whose steps take `step` seconds.

    1 = g + g delta / tau + r + rest

    Holds when the interval is Daly's, and no shorter than a step; the rest is work done again.
    Source: daly-2006.
    """
    between = mean_time(reliability.mtbf, chips)
    write = checkpoint_seconds(reliability.checkpoint, chips, reliability.bandwidth)
    interval = np.maximum(daly_interval(write, between), step)
    restart = reliability.restart + write
    useful = goodput(interval, write, between, restart)
    writing, restarting = useful * write / interval, restarting_share(between, restart)
    return Shares(useful=useful, writing=writing, restarting=restarting, interval=interval, between=between,
                  repeating=np.maximum(1.0 - useful - writing - restarting, 0.0))  # fmt: skip
