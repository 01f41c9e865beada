"""Megatron-LM and its relatives: the log of iterations."""

from __future__ import annotations

import re
from collections.abc import Mapping

from chipscale.bench.record import Check, Note
from chipscale.importers.found import Found, Importer, device, plain
from chipscale.units import TERA

TEST = "training"
LINE = re.compile(
    r"^(?P<lead>.*?)\biteration\s+(?P<i>\d+)\s*/\s*(?:\d+|infinity)\s*\|(?P<rest>.*elapsed time per iteration \(ms\):.*)$", re.MULTILINE
)
STARTED = re.compile(r"\[(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)")


def _field(rest: str, name: str) -> float | None:
    found = re.search(rf"{re.escape(name)}:\s*([\d.]+(?:[eE][+-]?\d+)?)", rest)
    return float(found.group(1)) if found else None


def recognises(text: str) -> bool:
    return LINE.search(text) is not None


def read(text: str, told: Mapping[str, str]) -> Found:
    """Read seconds an iteration; iteration 1, which warms up, is set apart; skipped and NaN iterations are checks."""
    rows = {int(m["i"]): m for m in LINE.finditer(text)}
    kept = [i for i in sorted(rows) if i > 1] or sorted(rows)
    notes = () if len(kept) == len(rows) else (Note(kind="reduced", case="iteration 1", text="warms up; set apart"),)
    rests = [rows[i]["rest"] for i in kept]
    measures = []
    if kept:
        batch = _field(rests[-1], "global batch size")
        settings = {"iterations": len(kept), "last_iteration": kept[-1], **({"global_batch_size": int(batch)} if batch else {})}
        seconds = [s / 1e3 for r in rests if (s := _field(r, "elapsed time per iteration (ms)"))]
        measures.append(plain(TEST, "iteration", "s", tuple(seconds), settings))
        for name in ("throughput per GPU (TFLOP/s/GPU)", "compute per GPU (TFLOP/s/GPU)"):
            rates = [v * TERA for r in rests if (v := _field(r, name))]
            if rates:
                measures.append(plain(TEST, "FLOP a device, by the tool's count", "FLOP/s", tuple(rates), settings))
        losses = [v for r in rests if (v := _field(r, "lm loss"))]
        if losses:
            measures.append(plain(TEST, "loss", "1", tuple(losses), settings))
    checks = tuple(
        Check(test=TEST, case=name, value=max(values), limit=0.0 if "nan" in name else None, unit="iterations", settings={})
        for name in ("number of skipped iterations", "number of nan iterations")
        if (values := [v for r in rests if (v := _field(r, name)) is not None])
    )
    started = STARTED.search(rows[min(rows)].group(0)) if rows else None
    return Found(test=TEST, measures=tuple(measures), checks=checks, notes=notes, identity=device(name=told.get("device", "")),
                 created="T".join(started.groups()) if started else "")  # fmt: skip


IMPORTER = Importer(
    kind="megatron",
    title="Megatron-LM",
    expects="lines such as 'iteration 10/ 1000 | consumed samples: 160 | elapsed time per iteration (ms): 1147.6 | ...'",
    recognises=recognises,
    read=read,
)
