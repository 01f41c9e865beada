"""MLPerf: the log of one training run (:::MLLOG). A log that somebody imports is no result of MLPerf, and says so."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping
from typing import Any

from chipscale.bench.record import Check, Setting
from chipscale.importers.found import Found, Importer, device, plain

TEST = "mlperf"
#: what MLCommons asks to stand below every number that it did not verify
FOOTNOTE = "Result not verified by MLCommons Association."
LINE = re.compile(r":::MLLOG\s+(\{.*\})\s*$", re.MULTILINE)
SAID = ("submission_benchmark", "submission_org", "submission_division", "submission_status", "submission_platform", "global_batch_size", "seed")


def recognises(text: str) -> bool:
    return ":::MLLOG" in text


def events(text: str) -> list[dict[str, Any]]:
    """Return the events of a log in order; a line that is no JSON is passed over."""
    found = []
    for match in LINE.finditer(text):
        try:
            event = json.loads(match.group(1))
        except ValueError:
            continue
        if isinstance(event, dict) and "key" in event and isinstance(event.get("time_ms"), int | float):
            found.append(event)
    return found


def read(text: str, told: Mapping[str, str]) -> Found:
    """Read the time from run_start to run_stop, the throughput that was tracked and the quality that was reached."""
    found = events(text)
    said: dict[str, Setting] = {
        e["key"]: e["value"] for e in found if e["key"] in SAID and isinstance(e.get("value"), int | float | str) and e["value"] != ""
    }
    start = next((e for e in found if e["key"] == "run_start"), None)
    stop = next((e for e in reversed(found) if e["key"] == "run_stop"), None)
    measures = []
    if start and stop and stop["time_ms"] > start["time_ms"]:
        measures.append(plain(TEST, "time to train", "s", ((stop["time_ms"] - start["time_ms"]) / 1e3,), said))
    rates = [
        e["value"]["throughput"] for e in found if e["key"] == "tracked_stats" and isinstance(e.get("value"), dict) and "throughput" in e["value"]
    ]
    if rates:
        measures.append(plain(TEST, "throughput, as the run tracks it", "1/s", tuple(float(r) for r in rates), said))
    quality = [float(e["value"]) for e in found if e["key"] == "eval_accuracy" and isinstance(e.get("value"), int | float)]
    if quality:
        measures.append(plain(TEST, "quality", "1", tuple(quality), said))
    status = str((stop.get("metadata") or {}).get("status", "")) if stop else ""
    checks = (
        (Check(test=TEST, case="the run ended with success", value=float(status != "success"), limit=0.0, unit="failures", settings={}),)
        if stop
        else ()
    )
    created = datetime.datetime.fromtimestamp(start["time_ms"] / 1e3, datetime.UTC).isoformat(timespec="seconds") if start else ""
    return Found(test=TEST, measures=tuple(measures), checks=checks, identity=device(name=told.get("device") or str(said.get("submission_platform", ""))),
                 created=created, complete=stop is not None, footnote=FOOTNOTE)  # fmt: skip


IMPORTER = Importer(
    kind="mlperf",
    title="an MLPerf training log",
    expects="lines ':::MLLOG {...}' with the keys run_start and run_stop",
    recognises=recognises,
    read=read,
)
