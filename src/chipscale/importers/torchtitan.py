"""torchtitan: its log, a line a logged step."""

from __future__ import annotations

import re
from collections.abc import Mapping

from chipscale.bench.record import Note
from chipscale.importers.found import Found, Importer, amount, device, number, plain
from chipscale.units import TERA

TEST = "training"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
STEP = re.compile(
    r"step:\s*(?P<step>\d+)\s+loss:\s*(?P<loss>[\d.]+)\s+(?:grad_norm:\s*[\d.]+\s+)?memory:\s*(?P<memory>[\d.]+)GiB\((?P<full>[\d.]+)%\)\s+"
    r"tps:\s*(?P<tps>[\d,]+)(?:\s+tflops:\s*(?P<tflops>[\d,.]+)\s+mfu:\s*(?P<mfu>[\d.]+)%)?"
)
STARTED = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)")


def recognises(text: str) -> bool:
    return STEP.search(COLOUR.sub("", text)) is not None


def read(text: str, told: Mapping[str, str]) -> Found:
    """Read tokens a second and device, once a step however many ranks print it; the first step, which compiles, is set apart."""
    clean = COLOUR.sub("", text)
    rows = {int(m["step"]): m for m in STEP.finditer(clean)}
    steps = sorted(rows)
    kept = [s for s in steps if s > 1] or steps
    notes = () if kept == steps else (Note(kind="reduced", case="step 1", text="compiles and warms up; set apart"),)
    measures = []
    if kept:
        settings = {"steps": len(kept), "first_step": kept[0], "last_step": kept[-1]}
        measures.append(plain(TEST, "tokens a device", "tokens/s", tuple(number(rows[s]["tps"]) for s in kept), settings))
        if all(rows[s]["tflops"] for s in kept):
            measures.append(
                plain(TEST, "FLOP a device, by the tool's count", "FLOP/s", tuple(number(rows[s]["tflops"]) * TERA for s in kept), settings)
            )
        top = rows[max(kept, key=lambda s: float(rows[s]["memory"]))]
        measures.append(plain(TEST, "peak memory, reserved", "B", (amount(float(top["memory"]), "GiB"),), settings))
        measures.append(plain(TEST, "loss", "1", tuple(float(rows[s]["loss"]) for s in kept), settings))
    share = rows[kept[-1]] if kept else None
    memory = amount(float(share["memory"]), "GiB") / (float(share["full"]) / 100) if share and float(share["full"]) > 0 else 0.0
    started = STARTED.search(clean)
    named = re.search(r"(?:CUDA|XPU|GPU) capacity:\s*(.+?) with ([\d.]+)GiB memory", clean)
    if named:
        memory = amount(float(named.group(2)), "GiB")
    name = told.get("device") or (named.group(1) if named else "")
    return Found(
        test=TEST,
        measures=tuple(measures),
        notes=notes,
        identity=device(name=name, memory=memory),
        created="T".join(started.groups()) if started else "",
    )


IMPORTER = Importer(
    kind="torchtitan",
    title="torchtitan",
    expects="lines such as 'step: 10  loss:  7.85  memory: 39.24GiB(41.30%)  tps: 7,156  tflops: 366.66  mfu: 37.07%'",
    recognises=recognises,
    read=read,
)
