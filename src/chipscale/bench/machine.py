"""Who the device is and how it is: identity, MLPerf's description of the system, and its state before and after."""

from __future__ import annotations

import datetime
import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from chipscale.bench.device import Device
from chipscale.bench.record import Identity, State, System
from chipscale.units import GIBI, show

#: what a vendor's tool is asked, and how long it may take
SMI_SECONDS = 10.0
SMI_FIELDS = ("clocks.sm", "clocks.mem", "temperature.gpu", "power.draw", "power.limit", "clocks_event_reasons.active")
TOOLS = ("npu-smi", "rocm-smi")
PACKAGES = ("torch", "numpy", "torch_npu", "triton", "chipscale")
#: settings from outside that change what is measured
SURROUNDINGS = (
    "OMP_WAIT_POLICY",
    "THP_MEM_ALLOC_ENABLE",
    "OMP_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "ASCEND_RT_VISIBLE_DEVICES",
    "NCCL_ALGO",
    "NCCL_PROTO",
)
#: instruction sets that decide the rate of products, widest first
SETS = ("amx_tile", "avx512_bf16", "avx512_vnni", "avx512f", "avx2", "sve2", "sve", "asimd")


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _field(text: str, name: str) -> str:
    found = re.search(rf"^{re.escape(name)}\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else ""


def cores() -> int:
    """Return the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host_memory() -> int:
    """Return bytes of host memory, 0 where unknown; a container's own limit where it is smaller."""
    total = _field(_read("/proc/meminfo"), "MemTotal").split()
    known = int(total[0]) * 1024 if total else 0
    limit = _read("/sys/fs/cgroup/memory.max")
    return min(known, int(limit)) if limit.isdigit() and known else known


def host_cache() -> int:
    """Return bytes of the last cache of processor 0, 32 MiB where it is unknown (buffers are then larger than most caches)."""
    sizes = [_bytes(_read(str(p))) for p in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max(sizes, default=0) or 2**25


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+)([KM]?)", text)
    return int(found.group(1)) * {"": 1, "K": 2**10, "M": 2**20}[found.group(2)] if found else 0


def _processor() -> tuple[str, str, str]:
    """Return vendor, model name and the widest instruction sets of the processor."""
    info = _read("/proc/cpuinfo")
    flags = set((_field(info, "flags") or _field(info, "Features")).split())
    vendor = _field(info, "vendor_id") or _field(info, "CPU implementer") or "unknown"
    return vendor, _field(info, "model name") or platform.processor() or platform.machine(), " ".join(s for s in SETS if s in flags)


def _clock() -> float | None:
    """Return the highest clock of processor 0 in Hz where the system tells it."""
    told = _read("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    return float(told) * 1e3 if told.isdigit() else None


def identity(device: Device) -> Identity:
    """Return what tells this device from others."""
    import torch

    if device.kind == "cpu":
        vendor, name, sets = _processor()
        return Identity(kind="cpu", vendor=vendor, name=name, count=1, memory_bytes=host_memory(), units=cores(), capability=sets, driver=platform.release(),
                        runtime=f"torch {torch.__version__}, {torch.get_num_threads()} threads", clock=_clock(), cache_bytes=host_cache())  # fmt: skip
    told = device.backend.get_device_properties(0)

    def number(name: str, factor: float = 1.0) -> float | None:
        value = getattr(told, name, None)
        return float(value) * factor if value else None

    bus, cache = number("memory_bus_width"), number("L2_cache_size")
    amd = getattr(torch.version, "hip", None)
    vendor = "Huawei" if device.kind == "npu" else "AMD" if amd else "NVIDIA"
    runtime = amd or getattr(torch.version, "cuda", None) or getattr(getattr(torch, "version", None), "cann", None) or "unknown"
    capability = str(getattr(told, "gcnArchName", "")) or f"{getattr(told, 'major', '')}.{getattr(told, 'minor', '')}".strip(".")
    return Identity(kind=device.kind, vendor=vendor, name=str(told.name), count=device.count, memory_bytes=int(told.total_memory),
                    units=int(number("multi_processor_count") or number("cube_core_num") or 0), capability=capability, driver=_driver(), runtime=str(runtime),
                    clock=number("clock_rate", 1e3), memory_clock=number("memory_clock_rate", 1e3), memory_bus_bits=int(bus) if bus else None,
                    cache_bytes=int(cache) if cache else None)  # fmt: skip


def _driver() -> str:
    told = _asked("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").splitlines()
    return (
        told[0].strip()
        if told
        else _read("/sys/module/amdgpu/version") or _field(_read("/usr/local/Ascend/driver/version.info").replace("=", ":"), "Version")
    )


def _asked(tool: str, *words: str) -> str:
    """Return what a vendor's tool prints, empty where there is none or it does not answer."""
    if shutil.which(tool) is None:
        return ""
    try:
        done = subprocess.run([tool, *words], capture_output=True, text=True, timeout=SMI_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _number(text: str, factor: float = 1.0) -> float | None:
    try:
        return float(text) * factor
    except ValueError:
        return None


def state(device: Device) -> State:
    """Return how the device is now: clocks, temperature, power and what holds it back; of a processor its load and governor."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    governor = _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if device.kind == "cpu":
        told = _field(_read("/proc/cpuinfo"), "cpu MHz")
        return State(taken=now(), clock=_number(told, 1e6), load=load, governor=governor)
    told = _asked("nvidia-smi", "-i", "0", f"--query-gpu={','.join(SMI_FIELDS)}", "--format=csv,noheader,nounits").strip()
    parts = [p.strip() for p in told.split(",")]
    if len(parts) == len(SMI_FIELDS):
        core, memory, temperature, power, limit = (_number(p) for p in parts[:5])
        return State(taken=now(), clock=core * 1e6 if core else None, memory_clock=memory * 1e6 if memory else None, temperature=temperature, power=power,
                     power_limit=limit, throttle=parts[5], load=load, governor=governor, text=told)  # fmt: skip
    words = {"npu-smi": ("info",), "rocm-smi": ("--showtemp", "--showpower", "--showclocks", "--showperflevel")}
    printed = next((t for t in (_asked(tool, *words[tool]) for tool in TOOLS) if t), "")
    return State(taken=now(), load=load, governor=governor, text=printed[:8000])


def versions() -> dict[str, str]:
    """Return the versions of what takes part."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def system(device: Device, known: Identity) -> System:
    """Describe the machine with MLPerf's field names."""
    import torch

    _, processor, _ = _processor()
    accelerated = device.kind != "cpu"
    sockets = len(set(re.findall(r"^physical id\s*:\s*(\d+)", _read("/proc/cpuinfo"), re.MULTILINE))) or 1
    per_socket = _field(_read("/proc/cpuinfo"), "cpu cores")
    memory = f"{host_memory() / GIBI:.0f} GiB"
    stack: dict[str, str] = {"runtime": known.runtime, "driver": known.driver, "kernel": platform.release()}
    nccl: Any = getattr(getattr(device.backend, "nccl", None), "version", None)
    if callable(nccl):
        stack["nccl"] = ".".join(map(str, nccl())) if isinstance(nccl(), tuple) else str(nccl())
    return System(
        system_name=f"{known.count}x {known.name}" if accelerated else f"{sockets}x {processor}",
        number_of_nodes=1,
        host_processors_per_node=sockets,
        host_processor_model_name=processor,
        host_processor_core_count=int(per_socket) if per_socket.isdigit() else cores(),
        host_processor_vcpu_count=cores(),
        host_processor_caches=f"last level {host_cache() // 2**20} MiB",
        host_memory_capacity=memory,
        operating_system=_os(),
        framework=f"PyTorch {torch.__version__}",
        accelerators_per_node=known.count if accelerated else 0,
        accelerator_model_name=known.name if accelerated else "",
        accelerator_memory_capacity=f"{known.memory_bytes / GIBI:.0f} GiB" if accelerated else "",
        accelerator_frequency=show(known.clock, "Hz") if accelerated and known.clock else "",
        accelerator_on_chip_memories=f"L2 {known.cache_bytes // 2**20} MiB" if accelerated and known.cache_bytes else "",
        accelerator_interconnect_topology=_asked("nvidia-smi", "topo", "-m")[:4000] if accelerated and known.count > 1 else "",
        sw_notes=", ".join(f"{name}={os.environ[name]}" for name in SURROUNDINGS if name in os.environ),
        other_software_stack=stack,
    )


def _os() -> str:
    told = _field(_read("/etc/os-release").replace("=", ":"), "PRETTY_NAME").strip('"')
    return f"{told or platform.system()} (Linux {platform.release()})" if platform.system() == "Linux" else platform.platform()
