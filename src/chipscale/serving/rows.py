"""Rows of measured serving points: CSV in, points understood out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chipscale import csvfile
from chipscale.catalog import Catalog
from chipscale.csvfile import Row, name_of, text
from chipscale.evidence import Belief, EvidenceError
from chipscale.facts.chip import Chip
from chipscale.facts.engine import Engine
from chipscale.facts.model import Model
from chipscale.facts.protocol import Protocol
from chipscale.serving.deployment import FORMATS, Deployment, Format, runnable
from chipscale.serving.room import routed

NEEDED = ("backend", "model_path", "chip", "isl", "osl", "concurrency", "measured_ttft_ms", "measured_tpot_ms")
#: endings of a checkpoint's name that say how it is stored or tuned, not what it computes
ENDINGS = re.compile(
    r"[-_]((?:fp8|nvfp4|fp4|mxfp4)(?:-v\d+)?|bf16|fp16|int8|int4|w8a8|w4a16|w4a8|awq|gptq|instruct|chat|it|hf|\d{4}|v2-\d{4})$", re.IGNORECASE
)
#: formats of weights by what a row calls them
CALLED = {"": "bf16", "bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16", "float16": "fp16", "fp8": "fp8", "fp8_block": "fp8_block", "nvfp4": "nvfp4", "fp4": "nvfp4",
          "mxfp4": "w4a8_mxfp4_mxfp8", "w4a8_mxfp4_mxfp8": "w4a8_mxfp4_mxfp8", "w4a16_mxfp4": "w4a16_mxfp4", "int8": "int8", "w8a8": "int8", "w4a8": "w4a8", "int4": "w4a16", "int4_wo": "w4a16",
          "w4a16": "w4a16", "int8_wo": "w8a16", "w8a16": "w8a16"}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One measured point: a service at fixed concurrency, and the mean seconds to the first token and between tokens (NaN where not stated).

    `on` decodes, and reads prompts too unless `prefill` does; each has `workers` and `readers` replicas. `protocol` is None where nobody says how requests came.
    `first_counts` is False where the row itself says to leave its TTFT out. `reason` is why it cannot be predicted.
    """

    key: str
    labels: Mapping[str, str]
    clean: bool
    ttft: float
    tpot: float
    engine: Engine
    version: str
    chip: Chip
    model: Model
    on: Deployment
    workers: int
    prefill: Deployment | None
    readers: int
    protocol: Protocol | None
    users: float
    input: float
    output: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """A row that cannot be predicted, with its reason."""

    key: str
    labels: Mapping[str, str]
    clean: bool
    ttft: float
    tpot: float
    reason: str


def load(path: Path, catalog: Catalog) -> list[Point | Unread]:
    """Read and understand a file of serving points; a key that stands twice, a missing column or a number that is none is an error."""
    found: list[Point | Unread] = []
    keys: set[str] = set()
    for row in csvfile.read(path, NEEDED, "docs/serving.md"):
        key = text(row, "row") or row["_line"]
        if key in keys:
            raise EvidenceError(f"{path}: row {key} stands twice; give each row its own key")
        keys.add(key)
        try:
            found.append(understand(row, key, catalog))
        except Unusable as problem:
            labels, clean = _labels(row), not text(row, "doubt")
            found.append(
                Unread(
                    key=key,
                    labels=labels,
                    clean=clean,
                    ttft=_milli(row, "measured_ttft_ms"),
                    tpot=_milli(row, "measured_tpot_ms"),
                    reason=str(problem),
                )
            )
        except EvidenceError as problem:
            raise problem if str(problem).startswith(str(path)) else EvidenceError(f"{path}, {problem}") from problem
    return found


class Unusable(EvidenceError):
    """A row that is well formed but cannot be predicted."""


def understand(row: Row, key: str, catalog: Catalog) -> Point:
    """Turn one row into a point."""
    try:
        engine = engine_named(catalog, text(row, "backend"))
        chip = one_chip(catalog, text(row, "chip"))
        model = model_named(catalog, text(row, "model_path"))
    except EvidenceError as problem:
        raise Unusable(str(problem)) from problem
    apart = text(row, "mode") == "disagg"
    with_workers = apart and bool(text(row, "prefill_num_workers"))
    on = _deployment(row, "decode_" if apart else "", engine, chip, model)
    prefill = _deployment(row, "prefill_", engine, chip, model) if apart else None
    readers = _count(row, "prefill_num_workers") if with_workers else 1
    workers = _count(row, "decode_num_workers") if with_workers else 1
    harness = text(row, "harness")
    return Point(
        key=key,
        labels=_labels(row),
        clean=not text(row, "doubt"),
        ttft=_milli(row, "measured_ttft_ms") if "leave TTFT out" not in text(row, "doubt") else math.nan,
        tpot=_milli(row, "measured_tpot_ms"),
        engine=engine,
        version=version_of(row),
        chip=chip,
        model=model,
        on=on,
        workers=workers,
        prefill=prefill,
        readers=readers,
        protocol=catalog.protocol(harness) if harness in catalog.protocols() else None,
        users=float(_count(row, "concurrency", needed=True)),
        input=float(_count(row, "isl", needed=True)),
        output=float(_count(row, "osl", needed=True)),
    )


def one_chip(catalog: Catalog, stated: str) -> Chip:
    """Return a chip that is no belief over hypotheses."""
    chip = catalog.chip(stated)
    if isinstance(chip, Belief):
        raise EvidenceError(f"{stated} is a belief over hypotheses; name a chip")
    return chip


def engine_named(catalog: Catalog, stated: str) -> Engine:
    """Return the engine whose word a stated name holds."""
    found = [e for e in map(catalog.engine, catalog.engines()) if any(m in stated.lower() for m in e.matches)]
    if not found:
        raise EvidenceError(f"engine {stated!r} is unknown; known: {', '.join(catalog.engines())}; describe it in data/engines")
    return max(found, key=lambda e: max(len(m) for m in e.matches if m in stated.lower()))


def model_named(catalog: Catalog, stated: str) -> Model:
    """Return the model that a checkpoint's name names: endings that say how it is stored or tuned count on neither side."""
    bare = {_bare(id): id for id in sorted(catalog.files("models", ".json"), reverse=True)}
    name = _bare(stated)
    for candidate in (name, f"meta-{name}"):
        if candidate in bare:
            return catalog.model(stated if catalog.knows_model(stated) else bare[candidate])
    return catalog.model(stated)


def _bare(name: str) -> str:
    """Return a checkpoint's name without organisation and endings, in lower case."""
    short = name.rpartition("/")[2]
    while (cut := ENDINGS.sub("", short)) != short:
        short = cut
    return short.lower()


def version_of(row: Row) -> str:
    """Return the version of the engine, the month of the measurement where it is blank."""
    return text(row, "backend_version") or text(row, "measured_date")[:7]


def formats_of(dense: str, experts: str, precision: str, model: Model, chip: Chip) -> tuple[Format, Format]:
    """Return the formats of dense layers and of experts as a chip runs them, from what a row calls them.

    A checkpoint that its authors published below 16 bit keeps its own format: MXFP4 experts with attention at 16 bit, FP8 in blocks. Experts in FP8 without a stated
    scale come in blocks, as their checkpoints do.
    """
    for said in (dense, experts, precision):
        if said.lower() not in CALLED:
            raise Unusable(f"number format {said!r} is unknown; use one of {', '.join(sorted(CALLED))}")
    first, second = CALLED[(dense or precision).lower()], CALLED[(experts or dense or precision).lower()]
    narrow = FORMATS[second].weight < 1.0
    if model.stored == "mxfp4" and narrow:
        second = CALLED["mxfp4"]
        first = "bf16" if model.wide_mixers else second
    if routed(model):
        first, second = ("fp8_block" if f == "fp8" else f for f in (first, second))
    return runnable(FORMATS[first], chip), runnable(FORMATS[second], chip)


def _deployment(row: Row, pool: str, engine: Engine, chip: Chip, model: Model) -> Deployment:
    """Read the degrees of a pool; attention groups that a row leaves out are those that its experts' ranks tell of."""
    tp, dp, pp, moe_tp, moe_ep = (_count(row, pool + name) for name in ("tp_size", "attention_dp_size", "pp_size", "moe_tp_size", "moe_ep_size"))
    if not routed(model):
        moe_tp = moe_ep = 1
    elif moe_tp * moe_ep == 1:
        moe_tp = tp * dp
    dp = max(dp, moe_tp * moe_ep // tp)
    try:
        dense, experts = formats_of(text(row, "gemm_quant_mode"), text(row, "moe_quant_mode"), text(row, "precision"), model, chip)
        return Deployment(tp=tp, dp=dp, pp=pp, moe_tp=moe_tp, moe_ep=moe_ep, dense=dense, experts=experts, kv=cache_width(engine, dense))
    except Unusable:
        raise
    except EvidenceError as problem:
        raise Unusable(str(problem)) from problem


def cache_width(engine: Engine, dense: Format) -> float:
    """Return the bytes of a cached element where nobody states them: narrow where the engine narrows the cache of narrow checkpoints."""
    return 1.0 if engine.narrow_cache and dense.weight < 2.0 else 2.0


def _labels(row: Row) -> Mapping[str, str]:
    family = text(row, "family") or text(row, "model_path")
    mode = text(row, "mode") or "agg"
    return {"chip": text(row, "chip"), "engine": text(row, "backend"), "family": family, "mode": mode, "harness": text(row, "harness"), "precision": text(row, "precision"),
            "cell": f"{family}|{text(row, 'chip')}|{text(row, 'backend')}", "doubt": text(row, "doubt")}  # fmt: skip


def _count(row: Row, column: str, *, needed: bool = False) -> int:
    value = csvfile.whole(row, column, csvfile.number(row, column, least=1.0, below=1e9, wanted="a count of 1 or more"))
    if value is None and needed:
        raise EvidenceError(f"{name_of(row)}, column {column}: is blank; state it")
    return value or 1


def _milli(row: Row, column: str) -> float:
    value = csvfile.number(row, column, least=csvfile.ABOVE_ZERO, below=1e9, wanted="milliseconds above 0")
    return math.nan if value is None else value / 1e3
