"""mamf-finder: the best matrix product that a search found."""

from __future__ import annotations

import re
from collections.abc import Mapping

from chipscale.bench.record import Measure, Setting
from chipscale.importers.found import PRECISION, Found, Importer, device, torch_properties
from chipscale.units import TERA

TEST = "matmul"
SHAPE = r"([\d.]+)\s*TFLOPS\s*@\s*(\d+)x(\d+)x(\d+)"
BEST = re.compile(rf"^\s*#?\s*(mean|median|max):\s+{SHAPE}", re.MULTILINE)
OLD = re.compile(rf"The best outcome was\s+{SHAPE}.*?(?:tried (\d+) shapes)?", re.IGNORECASE)
TRIED = re.compile(r"Tried\s+(\d+)\s+shapes\s+=>\s+the best outcomes were", re.IGNORECASE)
#: which of the tool's statistics is the achievable rate of chipscale bench: a median, of which one fast sample is no part
ACHIEVABLE = "median"


def recognises(text: str) -> bool:
    return TRIED.search(text) is not None or OLD.search(text) is not None


def read(text: str, told: Mapping[str, str]) -> Found:
    """Read the last best outcomes; mean and max stand beside the median, which counts."""
    dtype = re.search(r"\*\* Dtype:\s*(?:torch\.)?(\w+)", text) or re.search(r"--dtype[ =](\w+)", text)
    precision = told.get("precision") or PRECISION.get(dtype.group(1) if dtype else "bfloat16", dtype.group(1) if dtype else "bf16")
    tried = TRIED.findall(text)
    found = {name: (float(rate), int(m), int(n), int(k)) for name, rate, m, n, k in BEST.findall(text)}
    if not found and (old := OLD.findall(text)):
        rate, m, n, k, count = max(old, key=lambda o: float(o[0]))
        found, tried = {ACHIEVABLE: (float(rate), int(m), int(n), int(k))}, [count] if count else []
    measures = tuple(_measure(name, precision, *values, int(tried[-1]) if tried else 0) for name, values in found.items())
    started = re.search(r"Benchmark started on (\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)", text)
    command = re.search(r"\*\* Command line:\s*\n(.+)", text)
    torch = re.search(r"torch=(\S+)", text)
    version = re.search(r"benchmark version:\s*(\S+)", text)
    versions = {k: v.group(1) for k, v in (("torch", torch), ("mamf-finder", version)) if v}
    return Found(test=TEST, measures=measures, identity=torch_properties(text) or device(name=told.get("device", "")), versions=versions,
                 command=command.group(1).strip() if command else "", created="T".join(started.groups()) if started else "")  # fmt: skip


def _measure(name: str, precision: str, rate: float, m: int, n: int, k: int, tried: int) -> Measure:
    work = 2.0 * m * n * k
    settings: dict[str, Setting] = {"m": m, "n": n, "k": k, "shapes_tried": tried}
    counts = name == ACHIEVABLE
    return Measure(test=TEST, case=f"{precision} {'achievable' if counts else name}", unit="FLOP/s", work=work, samples=(work / (rate * TERA),), settings=settings,
                   quantity=f"peak_{precision}" if counts else "")  # fmt: skip


IMPORTER = Importer(
    kind="mamf-finder",
    title="mamf-finder",
    expects="its last lines, 'Tried  79 shapes => the best outcomes were:' and 'median: 794.5 TFLOPS @ 2048x2048x13312 (MxNxK)'",
    recognises=recognises,
    read=read,
)
