"""nvidia-smi -q and npu-smi info: who a device is."""

from __future__ import annotations

import re
from collections.abc import Mapping

from chipscale.bench.record import Identity
from chipscale.importers.found import Found, Importer, amount, device, plain
from chipscale.units import MEGA

TEST = "identity"
NVIDIA = re.compile(r"^GPU [0-9A-Fa-f]+:[0-9A-Fa-f]+:[0-9A-Fa-f.]+\s*$", re.MULTILINE)
#: npu-smi info: a row with the chip's name, then one that ends in used / total of the high-bandwidth memory
NPU = re.compile(r"^\|\s*\d+\s+(?P<name>\S*\d{3}\S*)\s*\|\s*\w+\s*\|.*\|\s*\n\|.*?(?P<used>\d+)\s*/\s*(?P<total>\d+)\s*\|\s*$", re.MULTILINE)
BOARD = re.compile(r"^\s*(?:Chip Name|Product Name)\s*:\s*(?P<name>Ascend\s*\S+)", re.MULTILINE)


def _value(text: str, *names: str) -> str:
    """Return the value of a field inside sections: 'FB Memory Usage', 'Total'."""
    at = text
    for name in names[:-1]:
        found = re.search(rf"^\s*{re.escape(name)}\s*$", at, re.MULTILINE)
        if not found:
            return ""
        at = at[found.end() :]
    found = re.search(rf"^\s*{re.escape(names[-1])}\s*:\s*(.+?)\s*$", at, re.MULTILINE)
    return found.group(1) if found else ""


def _number(text: str) -> float:
    found = re.match(r"([\d.]+)", text)
    return float(found.group(1)) if found else 0.0


def recognises(text: str) -> bool:
    return ("NVSMI LOG" in text and "Product Name" in text) or NPU.search(text) is not None or BOARD.search(text) is not None


def read(text: str, told: Mapping[str, str]) -> Found:  # noqa: ARG001  (every importer takes both)
    """Read the first device and how many there are; its memory is the one thing that it measures."""
    known = _nvidia(text) if "Product Name" in text and "NVSMI LOG" in text else _ascend(text)
    measures = (plain(TEST, "capacity reported", "B", (float(known.memory_bytes),), {}, "memory_bytes"),) if known.memory_bytes else ()
    return Found(test=TEST, measures=measures, identity=known)


def _nvidia(text: str) -> Identity:
    memory = amount(_number(_value(text, "FB Memory Usage", "Total")), "MiB")
    clock, memory_clock = (_number(_value(text, "Max Clocks", c)) * MEGA or None for c in ("SM", "Memory"))
    return device(name=_value(text, "Product Name"), vendor="NVIDIA", count=max(len(NVIDIA.findall(text)), 1), memory=memory, driver=_value(text, "Driver Version"),
                  runtime=_value(text, "CUDA Version"), clock=clock, memory_clock=memory_clock)  # fmt: skip


def _ascend(text: str) -> Identity:
    rows = list(NPU.finditer(text))
    version = re.search(r"Version:\s*(\S+)", text)
    if rows:
        name = rows[0]["name"]
        full = name if name.lower().startswith("ascend") else f"Ascend{name}"
        return device(
            "npu",
            name=full,
            vendor="Huawei",
            count=len(rows),
            memory=amount(float(rows[0]["total"]), "MiB"),
            driver=version.group(1) if version else "",
        )
    board = BOARD.search(text)
    name = board["name"].replace(" ", "") if board else ""
    return device("npu", name=name, vendor="Huawei", memory=amount(_number(_value(text, "HBM Capacity(MB)")), "MiB"), units=int(_number(_value(text, "Aicore Count"))),
                  driver=_value(text, "Software Version"))  # fmt: skip


IMPORTER = Importer(
    kind="smi",
    title="nvidia-smi -q or npu-smi info",
    expects="'==============NVSMI LOG==============' with Product Name and FB Memory Usage, or the table of npu-smi info",
    recognises=recognises,
    read=read,
)
