"""Hardware: the numbers of a chip on its cluster that formulas read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chipscale.evidence import EvidenceError
from chipscale.facts.chip import Chip
from chipscale.facts.cluster import Cluster
from chipscale.ops.work import Num

#: bytes of a matrix operand element, by the precisions that a plan may ask for
WIDTH = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "mxfp8": 1.03, "nvfp4": 0.56, "mxfp4": 0.53, "int8": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """One chip on one cluster as numbers, each a float or an array over draws or rows.

    `peak` (FLOP/s) is the dense peak at the plan's matmul precision, `peak16` at 16 bit; `watts_per_flop16` is power over
    the 16-bit peak; bandwidths are B/s a chip and direction; `mesh` is 1 where the inner tier is a full mesh of links,
    `axes` counts those of a torus, 0 where it is none. Where there is a tier between, `middle_size` chips share it, else 0. `host_bandwidth` is 0
    where nothing is known of the link to the host.
    """

    peak: Num
    peak16: Num
    power: Num
    memory_bandwidth: Num
    memory_bytes: Num
    inner_size: Num
    inner_bandwidth: Num
    inner_latency: Num
    outer_bandwidth: Num
    outer_latency: Num
    node: Num
    mesh: Num
    cores: Num = 1.0
    axes: Num = 0.0
    middle_size: Num = 0.0
    middle_bandwidth: Num = 1.0
    middle_latency: Num = 0.0
    host_bandwidth: Num = 0.0


def peak_of(chip: Chip, precision: str) -> float:
    """Return the dense peak (FLOP/s) of a precision, or refuse one that the chip lacks."""
    if precision in WIDTH and chip.has(f"peak_{precision}"):
        return chip.value(f"peak_{precision}")
    known = ", ".join(p for p in chip.precisions if p in WIDTH) or "none"
    raise EvidenceError(
        f"{chip.id} has no {precision or 'precision without a name'} that matrix products can run in (known: {known}); choose one of these with --precision or add the fact to a chip file"
    )


def base_precision(chip: Chip, wanted: str = "bf16") -> str:
    """Return the 16-bit precision that a chip computes in, `wanted` where it has it."""
    order = ("fp16", "bf16") if wanted == "fp16" else ("bf16", "fp16")
    for name in order:
        if chip.has(f"peak_{name}"):
            return name
    raise EvidenceError(f"{chip.id}: neither bf16 nor fp16 peak is known; add peak_bf16 with a source to a chip file (--catalog DIR)")


def hardware(chip: Chip, cluster: Cluster, precision: str) -> Hardware:
    """Read the numbers of a chip on a cluster, with matrix products at `precision`."""
    inner, outer, middle = cluster.tiers[0], cluster.tiers[-1], None
    for tier in cluster.tiers[1:-1]:
        if tier.size <= 1024 and tier.bandwidth.value >= 0.5 * inner.bandwidth.value:
            inner = tier
        else:
            middle = tier
    return Hardware(
        peak=peak_of(chip, precision),
        peak16=chip.value(f"peak_{base_precision(chip, precision)}"),
        power=chip.value("power") if chip.has("power") else np.nan,
        memory_bandwidth=chip.value("memory_bandwidth"),
        memory_bytes=chip.value("memory_bytes"),
        inner_size=float(inner.size),
        inner_bandwidth=inner.bandwidth.value,
        inner_latency=inner.latency,
        outer_bandwidth=outer.bandwidth.value / outer.oversubscription,
        outer_latency=outer.latency,
        node=float(cluster.node),
        mesh=float(inner.topology == "mesh"),
        cores=chip.value("cores") if chip.has("cores") else 100.0,
        axes=float(len(inner.axes)),
        middle_size=float(middle.size) if middle else 0.0,
        middle_bandwidth=middle.bandwidth.value / middle.oversubscription if middle else outer.bandwidth.value,
        middle_latency=middle.latency if middle else outer.latency,
        host_bandwidth=chip.value("host_bandwidth") if chip.has("host_bandwidth") else 0.0,
    )
