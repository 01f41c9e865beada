"""Collectives on any catalogued cluster: the fitted form where it was measured, the laws of algorithms and tiers elsewhere."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from chipscale.catalog import Catalog
from chipscale.cost.hardware import WIDTH, base_precision
from chipscale.cost.kernels.algorithms import Level, chosen, nested, switched
from chipscale.cost.kernels.collective import BUS, COLLECTIVE, CollectiveConstants, collective_of
from chipscale.cost.kernels.costing import Estimate
from chipscale.cost.silicon import silicon
from chipscale.evidence import EvidenceError
from chipscale.facts.chip import Chip
from chipscale.facts.cluster import Cluster, Tier
from chipscale.operators.calibration import read
from chipscale.operators.estimate import costing_of
from chipscale.operators.readers.collective import arithmetic
from chipscale.operators.reading import MOST, pattern
from chipscale.ops.work import Num

#: the most ranks that the surface of the fitted form knows
REACH = int(2 ** COLLECTIVE.axes[1].knots[-1])


def vector_bytes(*, elements: Num, precision: str) -> Num:
    """Return the bytes of a vector of `elements` values of a number format: the one way from elements to the bytes of a collective.

    Errors: a format that is unknown.

    >>> float(vector_bytes(elements=4096.0, precision="bf16"))
    8192.0
    """
    widths = {**WIDTH, "fp32": 4.0, "tf32": 4.0, "int32": 4.0}
    if precision not in widths:
        raise EvidenceError(f"precision {precision!r} has no known width; use one of {', '.join(widths)}")
    return elements * widths[precision]


def collective(catalog: Catalog, chip: Chip, kind: str, *, ranks: int, bytes: Num, cluster: Cluster | None = None, per_node: int = 0,
               shape: Sequence[int] = (), precision: str = "bf16") -> Estimate:  # fmt: skip
    """Estimate the seconds of a collective with the 80 % interval and the tier it comes from.

    `kind` is all_reduce, all_gather, reduce_scatter, alltoall, broadcast or send_recv; `bytes` (a number or an array) is the full vector by the
    nccl-tests definitions: all-reduce input, all-gather output, reduce-scatter input, what one rank of an all-to-all sends in all.
    `cluster` is the chip's own where none is given; `per_node` ranks share the innermost tier (as many as fit, where 0); `shape` is the
    ranks along each axis of a torus (the most cubic slice, where empty). A send crosses the outermost tier that the ranks span.
    Inside one switch or mesh of the chip's own cluster, up to 16 ranks, the fitted form answers; all else is composed by the laws, tier "prior".
    Errors: an unknown kind, ranks that the cluster does not hold, a shape that does not multiply to them, bytes below 1 or beyond 2^62.

    >>> import chipscale
    >>> catalog = chipscale.load()
    >>> e = collective(catalog, catalog.chip("tpu-v5p"), "all_gather", ranks=64, bytes=1e9)
    >>> e.tier, bool(e.low < e.seconds < e.high)
    ('prior', True)
    """
    own = catalog.cluster_for(chip)
    fabric = cluster or own
    sizes = np.asarray(bytes, dtype=float)
    if kind not in BUS:
        raise EvidenceError(f"kind {kind!r} is unknown; use one of {', '.join(BUS)}")
    if not np.all((sizes >= 1) & (sizes < MOST)):
        raise EvidenceError(f"bytes = {sizes.ravel()[:3]}: a vector has from 1 to 2^62 bytes; correct them")
    members = placed(fabric, ranks, per_node)
    kernel, engine = f"{kind}:{arithmetic(kind, precision)}", library(catalog, chip.family)
    costing = costing_of(catalog, COLLECTIVE, chip, "", engine, kernel)
    inside = fabric.id == own.id and fabric.tiers[0].topology != "torus" and members[0] == ranks <= REACH
    if inside and any(f"|{engine}/{kernel}:" in cell for cell in read(catalog, COLLECTIVE.id).cells):
        return costing.estimate(collective_of(kind, float(ranks), float(ranks), bytes), silicon(chip, catalog, base_precision(chip)))
    law = tomllib.loads(catalog.text("calibration/operators/fabric.toml"))
    adding = float(law["adding"]["value"])
    low, full = (levels(fabric, members, costing.constants, adding, shape, low=protocol) for protocol in (True, False))
    k = costing.constants
    seconds = k.start + switched(nested(kind, bytes, low), k.setup + nested(kind, bytes, full))
    spread = law["spread"]["several" if len(full) > 1 or members[0] == 1 else "one"]
    return Estimate(seconds=seconds, low=seconds * math.exp(spread["low"]), high=seconds * math.exp(spread["high"]), tier="prior")


def algorithms(catalog: Catalog, chip: Chip, kind: str, *, ranks: int, bytes: float, cluster: Cluster | None = None, per_node: int = 0,
               shape: Sequence[int] = ()) -> tuple[str, ...]:  # fmt: skip
    """Name the technique that the laws choose on each tier that the ranks span, innermost first, for the part of the vector that reaches it.

    Errors: as `collective`.

    >>> import chipscale
    >>> catalog = chipscale.load()
    >>> algorithms(catalog, catalog.chip("h100"), "all_reduce", ranks=8, bytes=1e9), algorithms(catalog, catalog.chip("a100"), "all_reduce", ranks=8, bytes=1e9)
    (('in_network',), ('halving',))
    """
    fabric = cluster or catalog.cluster_for(chip)
    members = placed(fabric, ranks, per_node)
    costing = costing_of(catalog, COLLECTIVE, chip, "", library(catalog, chip.family), f"{kind}:float")
    adding = float(tomllib.loads(catalog.text("calibration/operators/fabric.toml"))["adding"]["value"])
    names, part = [], bytes
    found = levels(fabric, members, costing.constants, adding, shape, low=False)
    for level in found:
        inner = kind == "all_reduce" and level is not found[-1]
        names.append(chosen("reduce_scatter" if inner else kind, part, level))
        part /= float(level.ranks)
    return tuple(names)


def library(catalog: Catalog, arch: str) -> str:
    """Return the library that runs collectives on a chip architecture where nobody names one."""
    return str(_library(catalog, arch)["engine"])


def brings_sums(catalog: Catalog, arch: str) -> bool:
    """Return whether serving engines bring an all-reduce of their own for a chip architecture."""
    return bool(_library(catalog, arch)["custom_sums"])


def _library(catalog: Catalog, arch: str) -> Mapping[str, object]:
    lines = tomllib.loads(catalog.text("kernels/collective.toml"))["library"]
    return next(line for line in lines if pattern(line.get("arch", "")).search(arch))


def placed(cluster: Cluster, ranks: int, per_node: int = 0) -> tuple[int, ...]:
    """Return how many members meet on each tier, innermost first: the largest equal parts that fit each tier.

    Errors: fewer than 2 ranks, more than the cluster holds, `per_node` that does not divide them or does not fit.
    """
    if ranks < 2:
        raise EvidenceError(f"ranks = {ranks}: a collective needs 2 at least; correct it")
    cluster.seat(ranks)
    if per_node and (ranks % per_node or per_node > cluster.tiers[0].size):
        raise EvidenceError(f"per_node = {per_node}: must divide {ranks} ranks and fit {cluster.tiers[0].size} chips of tier {cluster.tiers[0].name}")
    found: list[int] = []
    for i, tier in enumerate(cluster.tiers):
        left = ranks // math.prod(found)
        room = tier.size // (cluster.tiers[i - 1].size if i else 1)
        last = i == len(cluster.tiers) - 1
        found.append(left if last else per_node if per_node and not i else max(n for n in range(1, min(left, room) + 1) if left % n == 0))
    return tuple(found)


def slice_of(tier: Tier, ranks: int, shape: Sequence[int] = ()) -> tuple[int, ...]:
    """Return the chips along each axis of a torus slice: those given, or the most cubic ones that fit.

    Errors: a shape of other size, or one that does not fit the axes.
    """
    axes = sorted(tier.axes)
    if shape:
        sides = sorted([*shape, *[1] * (len(axes) - len(shape))])
        if math.prod(sides) != ranks or len(sides) > len(axes) or any(s > a for s, a in zip(sides, axes, strict=True)):
            raise EvidenceError(f"shape {tuple(shape)} is no slice of {ranks} chips on tier {tier.name} with axes {tier.axes}; correct it")
        return tuple(sides)
    divisors = [n for n in range(1, axes[-1] + 1) if ranks % n == 0]
    fitting = [
        s
        for s in product(divisors, repeat=len(axes))
        if math.prod(s) == ranks and tuple(sorted(s)) == s and all(n <= a for n, a in zip(s, axes, strict=True))
    ]
    if not fitting:
        raise EvidenceError(
            f"{ranks} ranks are no box of chips on tier {tier.name} with axes {tier.axes}; take another number of them, or give shape"
        )
    return min(fitting, key=sum)


def levels(cluster: Cluster, members: Sequence[int], k: CollectiveConstants, adding: float, shape: Sequence[int], *, low: bool) -> list[Level]:
    """Return the tiers on which ranks meet as the algorithms read them, at the sustained rates of the low-latency or of the full-rate protocol.

    r = f B ((n - 1) / n)^g on the innermost tier, f B further out and on a torus, B over the oversubscription; low l B on the innermost one;
    a message takes `step` inside, `hop` beyond; a switch adds at a fraction of B.

    Holds when a tier further out sustains the fraction of its links that the innermost one does.
    Source: data/calibration/operators/collective.toml and fabric.toml (fitted, and by hand).
    """
    found: list[Level] = []
    for i, (tier, n) in enumerate(zip(cluster.tiers, members, strict=True)):
        if n == 1:
            continue
        link = tier.bandwidth.value / tier.oversubscription
        growth = (1.0 - 1.0 / n) ** float(k.growth) if not i and tier.topology != "torus" else 1.0
        fraction = min(float(k.low), 1.0) if low and not found else min(float(k.fraction) * growth, 1.0)
        level = Level(topology=tier.topology, ranks=float(n), rate=fraction * link, step=float(k.hop if i else k.step), size=float(tier.size),
                      adding=adding * link * (fraction / float(k.fraction) if low and not found else 1.0) * tier.in_network,
                      plane=tier.plane or tier.name)  # fmt: skip
        if tier.axes:
            sides = slice_of(tier, n, shape)
            rings = tuple(float(s % tier.closes == 0) for s in sides)
            level = replace(level, sides=tuple(map(float, sides)), rings=rings, axes=float(len(tier.axes)))
        found.append(level)
    return found
