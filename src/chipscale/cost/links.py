"""Collectives: bytes x Hardware -> seconds."""

from __future__ import annotations

import numpy as np

from chipscale.cost.constants import Constants
from chipscale.cost.hardware import Hardware
from chipscale.ops.collective import Spread
from chipscale.ops.work import Num


def inner_rate(group: Num, hardware: Hardware, constants: Constants) -> Num:
    """Return what one chip sends inside the innermost tier (B/s) when `group` of it talk.

    switch: f B;  full mesh of S chips: f B (n - 1) / (S - 1), since only the links to the group's members carry.

    Holds when links are one per pair (mesh) or any-to-any (switch, torus of the slice's own shape).
    Source: huawei-atlas-800t-a2, HCCS full mesh; nvidia-nvswitch.
    """
    links = np.maximum(group - 1.0, 1.0) / np.maximum(hardware.inner_size - 1.0, 1.0)
    share = 1.0 - hardware.mesh * (1.0 - np.minimum(links, 1.0))
    return constants.inner * hardware.inner_bandwidth * share


def gather_seconds(volume: Num, group: Spread, hardware: Hardware, constants: Constants) -> Num:
    """Cost an all-gather or a reduce-scatter whose full vector is `volume` bytes; an all-reduce is two of them.

    t = V (i - 1) / i / r_in + V (o - 1) / (o i) / r_out + latencies: across nodes each of the i members carries 1 / i of the vector.

    Holds when collectives are hierarchical and large enough for bandwidth to decide; the ring factor is exact.
    Source: thakur-2005, section 4; nccl-tests, PERFORMANCE.md (bus bandwidth).
    """
    inside, outside = group.inside, group.outside
    near = volume * (inside - 1.0) / inside / inner_rate(inside, hardware, constants)
    far = volume * (outside - 1.0) / outside / inside / (constants.outer * hardware.outer_bandwidth)
    steps = (inside - 1.0) * hardware.inner_latency + np.minimum(outside - 1.0, 8.0 * np.log2(np.maximum(outside, 1.0))) * hardware.outer_latency
    return near + far + steps


def exchange_seconds(volume: Num, group: Spread, hardware: Hardware, constants: Constants) -> Num:
    """Cost an all-to-all in which each rank sends `volume` bytes in all, its own part included.

    t = max(V (i - 1) / n / r_in, V (n - i) / n / r_out) + latencies.

    Holds when pairs exchange equal parts and both tiers carry at once.
    Source: deepep, README (dispatch over NVLink and RDMA).
    """
    size = group.size
    near = volume * (group.inside - 1.0) / size / inner_rate(group.inside, hardware, constants)
    far = volume * (size - group.inside) / size / (constants.outer * hardware.outer_bandwidth)
    return np.maximum(near, far) + (size > 1.0) * hardware.inner_latency + (group.outside > 1.0) * hardware.outer_latency


def pass_seconds(volume: Num, stride: Num, hardware: Hardware, constants: Constants) -> Num:
    """Cost sending `volume` bytes to the rank `stride` places on.

    t = V / r of the tier that holds both + latency.

    Holds when one message is in flight per link.
    Source: megatron-2021, section 2.2 (pipeline messages).
    """
    inside = stride < hardware.inner_size
    near = volume / inner_rate(2.0, hardware, constants) + hardware.inner_latency
    far = volume / (constants.outer * hardware.outer_bandwidth) + hardware.outer_latency
    return np.where(inside, near, far)
