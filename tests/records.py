"""Records of devices that nobody here has: a real record of a processor in which device and samples are exchanged. They say what tests need, and prove nothing of a chip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from chipscale.bench.files import read, sealed
from chipscale.bench.record import Identity, Measure, Record, Setting, Trial

REAL = Path(__file__).parent / "bench" / "cpu-quick.json"
#: what deviceQuery of an H100 80GB HBM3 prints (thamada/nvidia-smi, nvsim/H100SXMx8_deviceQuery.py)
H100_BYTES, H100_UNITS, H100_CLOCK, H100_BUS = 85045477376, 132, 2619e6, 5120
#: five runs scatter by a tenth of a per cent
SCATTER = (1.0, 0.999, 1.001, 1.0005, 0.9995)
SETTINGS: Mapping[str, Mapping[str, Setting]] = {
    "peak": {"m": 8192, "n": 8192, "k": 8192, "shapes_tried": 20},
    "memory_bandwidth": {"array_bytes": 10**9, "beyond_cache": 1},
    "scaleup_bandwidth": {"size": 10**9, "ranks": 8},
}
CASES = {"memory_bandwidth": ("memory", "copy", "B/s"), "scaleup_bandwidth": ("collectives", "all_gather", "B/s")}


def measure(quantity: str, value: float, case: str = "") -> Measure:
    """Return a measure of a chip's quantity whose median is `value`."""
    test, name, unit = CASES.get(quantity, ("matmul", f"{quantity.removeprefix('peak_')} achievable", "FLOP/s"))
    settings = SETTINGS["peak" if quantity.startswith("peak_") else quantity]
    samples = tuple(1e9 / (value * s) for s in SCATTER)
    return Measure(test=test, case=case or name, unit=unit, work=1e9, samples=samples, quantity=quantity, settings=settings)


def record(identity: Identity, *measures: Measure, created: str = "2026-11-25T10:00:00+00:00") -> Record:
    """Return a sealed record of these measures on this device."""
    trial = Trial(name="simulated", outcome="complete", seconds=10.0, budget=20.0, measures=measures)
    return sealed(replace(read(REAL), identity=identity, trials=(trial,), created=created, command="simulated by the tests"))


def h100(name: str = "NVIDIA H100 80GB HBM3") -> Identity:
    """Return the identity of an H100, as it calls itself or otherwise."""
    return Identity(kind="cuda", vendor="NVIDIA", name=name, count=1, memory_bytes=H100_BYTES, units=H100_UNITS, capability="9.0", driver="565.57.01", runtime="12.7",
                    memory_clock=H100_CLOCK, memory_bus_bits=H100_BUS)  # fmt: skip


def ascend(name: str, gigabytes: float, units: int) -> Identity:
    """Return the identity of an Ascend device."""
    return Identity(
        kind="npu", vendor="Huawei", name=name, count=1, memory_bytes=int(gigabytes * 1e9), units=units, capability=name, driver="24.1", runtime="8.0"
    )
