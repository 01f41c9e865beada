"""`vllm bench serve`: the JSON of one load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from chipscale.bench.record import Check, Measure, Setting
from chipscale.importers.found import Found, Importer, device, plain

TEST = "serving"
NEEDED = {"request_throughput", "output_throughput"}
#: latencies of the tool, in milliseconds
LATENCIES = ("ttft", "tpot", "itl", "e2el")
RAW = {"ttft": "ttfts"}
LOAD = ("model_id", "num_prompts", "request_rate", "max_concurrency", "total_input_tokens", "total_output_tokens", "backend")


def content(text: str) -> dict[str, Any]:
    """Return a JSON object, empty where the text is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def recognises(text: str) -> bool:
    return content(text).keys() >= NEEDED


def read(text: str, told: Mapping[str, str]) -> Found:
    """Read throughput and latencies; where the tool kept every request (--save-detailed), its times to the first token are the samples."""
    found = content(text)
    load: dict[str, Setting] = {
        k: v if isinstance(v, int | float | str) and not isinstance(v, bool) else str(v) for k in LOAD if (v := found.get(k)) is not None
    }
    measures = [plain(TEST, case, unit, (float(found[key]),), load) for key, case, unit in
                (("request_throughput", "requests", "1/s"), ("output_throughput", "output tokens", "tokens/s"), ("total_token_throughput", "all tokens", "tokens/s"))
                if _positive(found.get(key))]  # fmt: skip
    for name in LATENCIES:
        measures += _latency(found, name, load)
    checks = []
    if isinstance(found.get("completed"), int) and isinstance(found.get("num_prompts"), int):
        lost = float(found["num_prompts"] - found["completed"])
        checks.append(Check(test=TEST, case="requests that were not answered", value=max(lost, 0.0), limit=0.0, unit="requests", settings={}))
    date = str(found.get("date", ""))
    created = f"{date[:4]}-{date[4:6]}-{date[6:8]}T{date[9:11]}:{date[11:13]}:{date[13:15]}" if len(date) == 15 else ""
    return Found(test=TEST, measures=tuple(measures), checks=tuple(checks), identity=device(name=told.get("device", "")), created=created)


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _latency(found: Mapping[str, Any], name: str, load: Mapping[str, Setting]) -> list[Measure]:
    raw = found.get(RAW.get(name, ""))
    if isinstance(raw, list) and raw and all(_positive(v) for v in raw):
        return [plain(TEST, f"{name}, requests", "s", tuple(float(v) for v in raw), load)]
    stats = ("mean", "median", *sorted(k.split("_")[0] for k in found if k.startswith("p") and k.endswith(f"_{name}_ms")))
    return [plain(TEST, f"{name}, {s}", "s", (float(found[f"{s}_{name}_ms"]) / 1e3,), load) for s in stats if _positive(found.get(f"{s}_{name}_ms"))]


IMPORTER = Importer(
    kind="vllm-serve",
    title="vllm bench serve",
    expects="its JSON (--save-result), with request_throughput, output_throughput and mean_ttft_ms",
    recognises=recognises,
    read=read,
)
