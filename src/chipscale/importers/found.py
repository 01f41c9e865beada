"""What an importer finds in a text, and how it becomes a record."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from chipscale.bench.files import sealed
from chipscale.bench.record import Check, Identity, Measure, Note, Record, Setting, State, System, Trial
from chipscale.evidence import EvidenceError
from chipscale.units import GIBI, MEBI

#: what is put into the field `suite` of a record that another tool's result became
SUITE = "imported: "
#: torch and tool names of number formats -> ours
PRECISION = {
    "bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "float": "fp32", "float8_e4m3fn": "fp8", "float8_e4m3fnuz": "fp8", "int8": "int8",
    "mxfp8": "mxfp8", "nvfp4": "nvfp4", "mxfp4": "mxfp4",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a tool's output says. `kind` of device is guessed from who prints it; an empty text or 0 is what it does not say."""

    test: str
    measures: tuple[Measure, ...]
    checks: tuple[Check, ...] = ()
    notes: tuple[Note, ...] = ()
    identity: Identity
    command: str = ""
    created: str = ""
    complete: bool = True
    nodes: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    footnote: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Importer:
    """A tool: how its output is recognised, what it looks like in words, and who reads it, with what the user adds (--set)."""

    kind: str
    title: str
    expects: str
    recognises: Callable[[str], bool]
    read: Callable[[str, Mapping[str, str]], Found]


def device(kind: Literal["cuda", "npu", "cpu"] = "cuda", *, name: str = "", vendor: str = "", count: int = 1, memory: float = 0.0, units: int = 0,
           capability: str = "", driver: str = "", runtime: str = "", clock: float | None = None, memory_clock: float | None = None) -> Identity:  # fmt: skip
    """Return an identity of what a tool tells of its device."""
    return Identity(kind=kind, vendor=vendor or _vendor(name), name=name, count=count, memory_bytes=int(memory), units=units, capability=capability,
                    driver=driver, runtime=runtime, clock=clock, memory_clock=memory_clock)  # fmt: skip


def _vendor(name: str) -> str:
    return next((v for v in ("NVIDIA", "AMD", "Ascend", "Intel") if v.lower() in name.lower()), "").replace("Ascend", "Huawei")


def torch_properties(text: str) -> Identity | None:
    """Read the device that PyTorch prints as _CudaDeviceProperties(name='...', total_memory=81110MB, multi_processor_count=132, ...)."""
    found = re.search(r"DeviceProperties\(name='([^']*)'(.*)\)", text)
    if not found:
        return None
    rest = found.group(2)

    def number(name: str) -> int:
        value = re.search(rf"\b{name}=(\d+)", rest)
        return int(value.group(1)) if value else 0

    gcn = re.search(r"gcnArchName='([^']*)'", rest)
    capability = gcn.group(1) if gcn else f"{number('major')}.{number('minor')}"
    return device(name=found.group(1), memory=number("total_memory") * MEBI, units=number("multi_processor_count"), capability=capability)


def amount(value: float, unit: Literal["GiB", "MiB"]) -> float:
    """Return bytes."""
    return value * {"GiB": GIBI, "MiB": MEBI}[unit]


def plain(test: str, case: str, unit: str, samples: tuple[float, ...], settings: Mapping[str, Setting] | None = None, quantity: str = "") -> Measure:
    """Return a measure whose samples are its values."""
    return Measure(test=test, case=case, unit=unit, samples=samples, settings=settings or {}, quantity=quantity)


def record(found: Found, importer: Importer, text: str, name: str) -> Record:
    """Return what was found as a sealed record that names the file and its sha256."""
    if not found.measures and not found.identity.memory_bytes:
        raise EvidenceError(f"{name}: no result of {importer.title} in it; expected {importer.expects}")
    digest = hashlib.sha256(text.encode("utf-8", errors="surrogateescape")).hexdigest()
    known = found.identity
    accelerated = known.kind != "cpu"
    system = System(
        system_name=known.name, number_of_nodes=found.nodes, host_processors_per_node=0, host_processor_model_name="", host_processor_core_count=0,
        host_processor_vcpu_count=0, host_memory_capacity="", operating_system="", framework="", accelerators_per_node=known.count if accelerated else 0,
        accelerator_model_name=known.name if accelerated else "", hw_notes="", sw_notes=found.footnote, other_software_stack={},
    )  # fmt: skip
    trial = Trial(
        name=found.test,
        outcome="complete" if found.complete else "stopped",
        seconds=0.0,
        budget=0.0,
        measures=found.measures,
        checks=found.checks,
        notes=found.notes,
    )
    versions = {**found.versions, "importer": importer.kind, "source_sha256": digest, "source": name.rpartition("/")[2]}
    state = State(taken=found.created)
    return sealed(Record(created=found.created, command=found.command, suite=SUITE + importer.kind, complete=found.complete, seconds=0.0, versions=versions, system=system,
                         identity=known, before=state, after=state, trials=(trial,)))  # fmt: skip


def number(text: str) -> float:
    """Read a number with thousands commas."""
    return float(text.replace(",", ""))
