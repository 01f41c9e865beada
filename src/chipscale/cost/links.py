"""Collectives: bytes x Hardware -> seconds."""

from __future__ import annotations

import numpy as np

from chipscale.cost.constants import Constants
from chipscale.cost.hardware import Hardware
from chipscale.ops.collective import Spread
from chipscale.ops.work import Num


def axes_used(group: Num, hardware: Hardware) -> Num:
    """Return on how many axes of a torus a group's rings run, 1/2 for the one link of a pair and where there is no torus.

    c = clip(log_4 n, 1/2, A).

    Holds when slices are built of cubes of 4 chips a side and rings close: 4 chips fill an axis, 16 two, 64 three.
    Source: google-tpu-docs, "TPU v5p" (slices of 4 x 4 x 4 cubes).
    """
    return np.minimum(np.maximum(0.5 * np.log2(group), 0.5), np.maximum(hardware.axes, 0.5))


def inner_rate(group: Num, hardware: Hardware, constants: Constants) -> Num:
    """Return what one chip sends inside the innermost tier (B/s) when `group` of it talk.

    switch: f B;  full mesh of S chips: f B (n - 1) / (S - 1), since only the links to the group's members carry;  torus of A axes: f B c / A.

    Holds when links are one per pair (mesh), any-to-any (switch), two an axis (torus).
    Source: huawei-atlas-800t-a2, HCCS full mesh; nvidia-nvswitch; google-tpu-docs.
    """
    links = np.maximum(group - 1.0, 1.0) / np.maximum(hardware.inner_size - 1.0, 1.0)
    share = 1.0 - hardware.mesh * (1.0 - np.minimum(links, 1.0))
    torus = axes_used(group, hardware) / np.maximum(hardware.axes, 0.5)
    return constants.inner * hardware.inner_bandwidth * share * torus


def forwarded(group: Num, hardware: Hardware) -> Num:
    """Return how many links a byte of an all-to-all passes on a torus, over the axes that carry at once; 1 on a switch or mesh.

    c a / 4 n / (n - 1), a = n^(1/c) chips an axis.

    Holds when rings close and sides are even: the mean way round a ring of a is a / 4.
    Source: scaling-book, part 3 (all-to-all on a ring).
    """
    c, n = axes_used(group, hardware), np.maximum(group, 2.0)
    return np.where(np.asarray(hardware.axes) > 0.0, c * np.power(n, 1.0 / c) / 4.0 * n / (n - 1.0), 1.0)


def parts_near(group: Spread, hardware: Hardware) -> Num:
    """Return how many of a group's parts share the tier between the innermost and the outermost one, 1 where there is none.

    m = clip(floor(S_m / max(S, stride)), 1, o).

    Holds when parts are neighbours.
    Source: megatron-2021, section 3.2 (ranks laid out tier by tier).
    """
    return np.minimum(np.maximum(np.floor(hardware.middle_size / np.maximum(hardware.inner_size, group.stride)), 1.0), group.outside)


def gather_seconds(volume: Num, group: Spread, hardware: Hardware, constants: Constants) -> Num:
    """Cost an all-gather or a reduce-scatter whose full vector is `volume` bytes; an all-reduce is two of them.

    t = V (i - 1) / i / r_in + V (m - 1) / (m i) / r_mid + V (o - m) / (o m i) / r_out + latencies: across nodes each of the i members carries
    1 / i of the vector, across middle tiers 1 / (i m).

    Holds when collectives are hierarchical and large enough for bandwidth to decide; the ring factor is exact.
    Source: thakur-2005, section 4; nccl-tests, PERFORMANCE.md (bus bandwidth).
    """
    inside, outside, middle = group.inside, group.outside, parts_near(group, hardware)
    near = volume * (inside - 1.0) / inside / inner_rate(inside, hardware, constants)
    beyond, share = outside / middle, volume / inside / constants.outer
    between = share * (1.0 - 1.0 / middle) / hardware.middle_bandwidth + (middle - 1.0) * hardware.middle_latency
    far = share * (1.0 - 1.0 / beyond) / middle / hardware.outer_bandwidth
    rounds = np.minimum(beyond - 1.0, 8.0 * np.log2(beyond))
    return near + between + far + (inside - 1.0) * hardware.inner_latency + rounds * hardware.outer_latency


def exchange_seconds(volume: Num, group: Spread, hardware: Hardware, constants: Constants) -> Num:
    """Cost an all-to-all in which each rank sends `volume` bytes in all, its own part included.

    t = max(V h (i - 1) / n / r_in, V (i m - i) / n / r_mid + V (n - i m) / n / r_out) + latencies;  h = 1, on a torus the links that a byte passes.

    Holds when pairs exchange equal parts, the planes inside and beyond carry at once, and the tiers beyond share their ports.
    Source: deepep, README (dispatch over NVLink and RDMA).
    """
    size, reached = group.size, group.inside * parts_near(group, hardware)
    near = volume * forwarded(group.inside, hardware) * (group.inside - 1.0) / size / inner_rate(group.inside, hardware, constants)
    between = volume * (reached - group.inside) / size / (constants.outer * hardware.middle_bandwidth)
    far = volume * (size - reached) / size / (constants.outer * hardware.outer_bandwidth)
    latency = np.where(size > reached, hardware.outer_latency, (reached > group.inside) * hardware.middle_latency)
    return np.maximum(near, between + far) + (size > 1.0) * hardware.inner_latency + latency


def pass_seconds(volume: Num, stride: Num, hardware: Hardware, constants: Constants) -> Num:
    """Cost sending `volume` bytes to the rank `stride` places on.

    t = V / r of the tier that holds both + latency.

    Holds when one message is in flight per link.
    Source: megatron-2021, section 2.2 (pipeline messages).
    """
    near = volume / inner_rate(2.0, hardware, constants) + hardware.inner_latency
    between = volume / (constants.outer * hardware.middle_bandwidth) + hardware.middle_latency
    far = volume / (constants.outer * hardware.outer_bandwidth) + hardware.outer_latency
    return np.where(stride < hardware.inner_size, near, np.where(stride < hardware.middle_size, between, far))
