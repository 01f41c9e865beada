"""What no device can exceed: the ceiling that its own properties set, or the peaks that somebody claims of it."""

from __future__ import annotations

from collections.abc import Mapping

from chipscale.bench.record import Identity
from chipscale.bench.timing import Bounds
from chipscale.facts.chip import PRECISIONS, Chip

#: no processor on sale is clocked higher; taken where a processor does not tell its own highest clock
HIGHEST_CLOCK = 6.5e9
#: FLOP (or OP) a core and cycle of the widest products of an instruction set: two units, each a fused multiply-add on every lane
PER_CYCLE: Mapping[str, Mapping[str, float]] = {
    "amx_tile": {"bf16": 2048.0, "fp16": 2048.0, "int8": 4096.0},
    "avx512_bf16": {"bf16": 256.0},
    "avx512_vnni": {"int8": 512.0},
    "avx512f": {"fp32": 64.0, "bf16": 64.0, "fp16": 128.0, "int8": 256.0},
    "avx2": {"fp32": 32.0, "bf16": 32.0, "fp16": 32.0, "int8": 128.0},
}


def bounds(known: Identity, claimed: Chip | None = None) -> Bounds:
    """Return a chip's claimed peaks where one is named, else what clock, cores and memory bus allow; nothing where neither is known."""
    if claimed is not None:
        peaks = {p: claimed.value(f"peak_{p}") for p in PRECISIONS if claimed.has(f"peak_{p}")}
        memory = claimed.value("memory_bandwidth") if claimed.has("memory_bandwidth") else None
        return Bounds(peaks=peaks, memory=memory, source=f"claimed of {claimed.id}")
    if known.kind != "cpu":
        bus = known.memory_clock * 2 * known.memory_bus_bits / 8 if known.memory_clock and known.memory_bus_bits else None
        return Bounds(peaks={}, memory=bus, source="memory clock x bus width x 2")
    peaks = {}
    for name in reversed([s for s in PER_CYCLE if s in known.capability.split()]):
        peaks |= {p: per * known.units * (known.clock or HIGHEST_CLOCK) for p, per in PER_CYCLE[name].items()}
    clock = "its highest clock" if known.clock else f"{HIGHEST_CLOCK / 1e9:g} GHz, above any clock"
    return Bounds(peaks=peaks, memory=None, source=f"{known.units} cores x two full vector units x {clock}")
