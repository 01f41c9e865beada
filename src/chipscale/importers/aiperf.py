"""aiperf and genai-perf: profile_export_aiperf.json and profile_export_genai_perf.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chipscale.bench.record import Check, Measure
from chipscale.importers.found import Found, Importer, device, plain
from chipscale.importers.vllm_serve import content

TEST = "serving"
#: metric -> how it is called here
METRICS = {
    "time_to_first_token": "ttft", "inter_token_latency": "itl", "request_latency": "e2el", "request_throughput": "requests",
    "output_token_throughput": "output tokens", "total_token_throughput": "all tokens", "output_token_throughput_per_user": "output tokens of a user",
}  # fmt: skip
#: units as the tools write them -> ours and the factor
UNITS = {
    "ms": ("s", 1e-3), "us": ("s", 1e-6), "sec": ("s", 1.0), "s": ("s", 1.0), "ns": ("s", 1e-9), "requests/sec": ("1/s", 1.0), "req/s": ("1/s", 1.0),
    "tokens/sec": ("tokens/s", 1.0), "tok/s": ("tokens/s", 1.0), "tokens/sec/user": ("tokens/s", 1.0), "tok/s/user": ("tokens/s", 1.0),
}  # fmt: skip
STATISTICS = ("avg", "p50", "p90", "p99")


def recognises(text: str) -> bool:
    found = _metrics(content(text))
    return isinstance(found.get("request_throughput"), dict) and isinstance(found.get("request_latency", found.get("time_to_first_token")), dict)


def _metrics(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return where the metrics stand: at the top, or under `records` as early versions wrote them."""
    inner = found.get("records")
    return inner if isinstance(inner, dict) else found


def read(text: str, told: Mapping[str, str]) -> Found:
    """Read each metric's mean and quantiles in its own unit; a unit that is unknown is left out, never guessed."""
    whole = content(text)
    found = _metrics(whole)
    measures: list[Measure] = []
    for key, case in METRICS.items():
        table = found.get(key)
        unit = UNITS.get(str(table.get("unit"))) if isinstance(table, dict) else None
        if unit is None or not isinstance(table, dict):
            continue
        for s in STATISTICS:
            value = table.get(s)
            if isinstance(value, int | float) and value > 0:
                measures.append(plain(TEST, f"{case}, {'mean' if s == 'avg' else s}", unit[0], (value * unit[1],)))
    failed = found.get("error_request_count")
    lost = float(failed["avg"]) if isinstance(failed, dict) and isinstance(failed.get("avg"), int | float) else 0.0
    checks = (Check(test=TEST, case="requests that were not answered", value=lost, limit=0.0, unit="requests", settings={}),)
    version = str(whole.get("aiperf_version", ""))
    return Found(test=TEST, measures=tuple(measures), checks=checks, identity=device(name=told.get("device") or _gpu(whole)), created=str(whole.get("start_time", "") or ""),
                 versions={"aiperf": version} if version else {})  # fmt: skip


def _gpu(whole: Mapping[str, Any]) -> str:
    """Return the accelerator's name that the telemetry tells, empty where there is none or several differ."""
    try:
        names = {g["gpu_name"] for e in whole["telemetry_data"]["endpoints"].values() for g in e["gpus"].values()}
    except (KeyError, TypeError, AttributeError):
        return ""
    return str(names.pop()) if len(names) == 1 else ""


IMPORTER = Importer(
    kind="aiperf",
    title="aiperf or genai-perf",
    expects="profile_export_aiperf.json, with request_throughput and time_to_first_token, each a unit with avg and quantiles",
    recognises=recognises,
    read=read,
)
