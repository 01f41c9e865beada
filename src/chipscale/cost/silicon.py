"""Chip -> Silicon: the numbers that kernel forms read."""

from __future__ import annotations

import math

from chipscale.catalog import Catalog
from chipscale.cost.hardware import base_precision, peak_of
from chipscale.cost.kernels.form import Silicon
from chipscale.facts.chip import Chip

#: clock (Hz) at which launches and dependent steps of kernel forms are counted
REFERENCE_CLOCK = 2e9


def silicon(chip: Chip, catalog: Catalog, precision: str) -> Silicon:
    """Read a chip's numbers at a precision; a precision that it lacks is refused."""
    cluster = catalog.cluster_for(chip)
    inner, outer = cluster.tiers[0], cluster.tiers[-1]
    return Silicon(
        peak=peak_of(chip, precision),
        peak16=chip.value(f"peak_{base_precision(chip)}"),
        memory_bandwidth=chip.value("memory_bandwidth"),
        cache_bytes=_of(chip, catalog, "cache_bytes"),
        cores=_of(chip, catalog, "cores"),
        exponentials=_exponentials(chip, catalog),
        pace=_clock(chip, catalog) / REFERENCE_CLOCK,
        link_bandwidth=inner.bandwidth.value,
        link_size=float(inner.size),
        node=float(cluster.node),
        mesh=float(inner.topology == "mesh"),
        outer_bandwidth=outer.bandwidth.value / outer.oversubscription,
    )


def _of(chip: Chip, catalog: Catalog, quantity: str) -> float:
    """Return a chip's value, or that of its family's usual chip where its file is silent."""
    return chip.value(quantity) if chip.has(quantity) else catalog.architecture(chip.family).value(quantity)


def _exponentials(chip: Chip, catalog: Catalog) -> float:
    """Return exponentials a second of all cores, or infinity where the architecture's file does not state them: no ceiling is known."""
    architecture = catalog.architecture(chip.family)
    if not architecture.has("exponentials_per_cycle"):
        return math.inf
    return _of(chip, catalog, "cores") * architecture.value("exponentials_per_cycle") * _clock(chip, catalog)


def _clock(chip: Chip, catalog: Catalog) -> float:
    """Return the core clock, the reference where neither the chip nor its architecture states one."""
    known = chip.has("clock") or catalog.architecture(chip.family).has("clock")
    return _of(chip, catalog, "clock") if known else REFERENCE_CLOCK
