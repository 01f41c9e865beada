"""A device through PyTorch: the same code on NVIDIA and AMD (cuda), Ascend (npu) and processors (cpu)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, Protocol, get_args

from chipscale.evidence import EvidenceError

Kind = Literal["cuda", "npu", "cpu"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Call = Callable[[], object]
#: what a run without PyTorch says
NO_TORCH = "chipscale bench measures through PyTorch, which is not installed; install it with: pip install 'chipscale[bench]'"


class Stopwatch(Protocol):
    """Times groups of calls, in seconds a group."""

    def laps(self, groups: Sequence[Sequence[Call]]) -> list[float]: ...


@dataclass(frozen=True, slots=True)
class HostWatch:
    """The processor's monotonic clock around calls that return when their work is done."""

    def laps(self, groups: Sequence[Sequence[Call]]) -> list[float]:
        """Run every group; return its seconds."""
        found = []
        for group in groups:
            start = time.perf_counter()
            for call in group:
                call()
            found.append(time.perf_counter() - start)
        return found


@dataclass(frozen=True, slots=True)
class EventWatch:
    """The device's own events around calls that are only queued; `backend` is torch.cuda or torch.npu."""

    backend: Any

    def laps(self, groups: Sequence[Sequence[Call]]) -> list[float]:
        """Queue every group between two events, wait once, and return its seconds."""
        marks = [(self.backend.Event(enable_timing=True), self.backend.Event(enable_timing=True)) for _ in groups]
        for group, (first, last) in zip(groups, marks, strict=True):
            first.record()
            for call in group:
                call()
            last.record()
        self.backend.synchronize()
        return [first.elapsed_time(last) / 1e3 for first, last in marks]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Where tests run. `name` is PyTorch's (cuda:0); `backend` torch.cuda, torch.npu or None for a processor."""

    kind: Kind
    name: str
    count: int
    watch: Stopwatch
    backend: Any = None

    def synchronize(self) -> None:
        """Wait until all that was queued is done."""
        if self.backend is not None:
            self.backend.synchronize()

    def empty_cache(self) -> None:
        """Give memory that PyTorch keeps back to the device."""
        if self.backend is not None:
            self.backend.empty_cache()


def available() -> Kind:
    """Return the kind of device that is here: an accelerator before the processor."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "npu" if _npu() is not None else "cpu"


def opened(kind: Kind | None) -> Device:
    """Open a device, the best one that is here if no kind is given.

    Raises EvidenceError where PyTorch or the device is missing.
    """
    if find_spec("torch") is None:
        raise EvidenceError(NO_TORCH)
    import torch

    kind = kind or available()
    if kind == "cpu":
        return Device(kind="cpu", name="cpu", count=1, watch=HostWatch())
    backend = torch.cuda if kind == "cuda" else _npu()
    if backend is None:
        raise EvidenceError("--device npu: needs the package torch_npu beside PyTorch and an Ascend driver; install them, or take --device cpu")
    if not backend.is_available():
        raise EvidenceError(f"--device {kind}: PyTorch {torch.__version__} sees no such device; {_remedy(kind)}, or take --device cpu")
    backend.set_device(0)
    return Device(kind=kind, name=f"{kind}:0", count=backend.device_count(), watch=EventWatch(backend), backend=backend)


def _remedy(kind: Kind) -> str:
    tool = "nvidia-smi or rocm-smi" if kind == "cuda" else "npu-smi info"
    return f"look whether {tool} lists it, and install a build of PyTorch for it"


def _npu() -> Any:
    if find_spec("torch_npu") is None:
        return None
    import torch
    import torch_npu  # noqa: F401  registers torch.npu

    return torch.npu


def out_of_memory(problem: BaseException) -> bool:
    """Say whether an exception means that memory did not suffice, whatever its class is called in this version."""
    told = str(problem).lower()
    return isinstance(problem, MemoryError) or any(sign in told for sign in ("out of memory", "can't allocate memory", "not enough memory"))
