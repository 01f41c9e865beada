"""Published: rows of serving figures as papers, documents and vendors state them, each of its own kind; what can be predicted of them, and why the rest cannot."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chipscale import csvfile
from chipscale.catalog import Catalog
from chipscale.csvfile import Row, text
from chipscale.evidence import Belief, EvidenceError
from chipscale.facts.chip import Chip
from chipscale.facts.engine import Engine
from chipscale.facts.model import Experts, Model
from chipscale.operators.reading import SHARED
from chipscale.serving.deployment import Deployment
from chipscale.serving.parts import SKEW
from chipscale.serving.room import routed
from chipscale.serving.rows import Unusable, engine_named, formats_of, model_named

NEEDED = ("row_id", "source_title", "chip", "n_devices", "device_basis", "framework", "model", "weight_precision", "phase", "reliability", "notes")
#: what a row may have measured, with the factor to seconds or tokens a second; the first that is there counts
QUANTITIES = {
    "latency_ms": 1e-3, "prefill_tokens_per_s_per_device": 1.0, "decode_tokens_per_s_per_device": 1.0, "tpot_ms": 1e-3, "output_tokens_per_s_total": 1.0, "ttft_ms": 1e-3,
    "total_tokens_per_s": 1.0,
}  # fmt: skip
#: what each phase is judged by, so that the figures of one row agree
JUDGED = {
    "decode step": ("latency_ms",), "prefill step": ("latency_ms",), "decode": ("decode_tokens_per_s_per_device",), "prefill": ("prefill_tokens_per_s_per_device",),
    "end_to_end": ("tpot_ms", "output_tokens_per_s_total"),
}  # fmt: skip
#: words by which a row says that it is unsure of itself
DOUBT = re.compile(r"conflict|with care|not read|approximate|inconsistent|regression floor|projection|secondary", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Silicon:
    """One chip that may have run a row, and how likely; `changed` multiplies its numbers (a die's share, a slower grade)."""

    chip: Chip
    weight: float
    changed: Mapping[str, float]
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a row ran: `sequences` that decode, or prompts, of a replica at once, `input` and `output` tokens; `drafts` a step, of which `accepted` are right (NaN unknown)."""

    sequences: float
    input: float
    output: float
    drafts: int
    accepted: float
    devices: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What predicts a row: the chips that may have run it, engine, model, layout, load, and the `skew` of experts' popularity."""

    silicon: tuple[Silicon, ...]
    engine: Engine
    model: Model
    on: Deployment
    load: Load
    skew: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A row: what it measured (SI; NaN where that is no figure of ours), and its setting, or the `reason` why it has none."""

    key: str
    labels: Mapping[str, str]
    clean: bool
    measured: float
    setting: Setting | None = None
    reason: str = ""
    assumed: tuple[str, ...] = ()


def load(path: Path, catalog: Catalog) -> list[Published]:
    """Read and understand a file; a key that stands twice, a missing column or a number that is none is an error."""
    found: list[Published] = []
    for row in csvfile.read(path, NEEDED, "docs/serving.md"):
        key = text(row, "row_id") or row["_line"]
        if any(p.key == key for p in found):
            raise EvidenceError(f"{path}: row {key} stands twice; give each row its own key")
        named = {**row, "row": key}
        try:
            found.append(_understood(named, key, catalog))
        except Unusable as problem:
            quantity, measured = _measured(named)
            found.append(Published(key=key, labels=_labels(named, quantity), clean=_clean(named), measured=measured, reason=str(problem)))
        except EvidenceError as problem:
            raise EvidenceError(f"{path}, {problem}") from problem
    return found


def _understood(row: Row, key: str, catalog: Catalog) -> Published:
    quantity, measured = _measured(row)
    if text(row, "phase") not in JUDGED or quantity not in JUDGED[text(row, "phase")]:
        raise Unusable(f"no model of this kind of figure: {text(row, 'phase') or 'no phase'}, {quantity or 'no quantity'}")
    load = _load(row)
    silicon = chips_of(row, catalog)
    try:
        engine, model = engine_named(catalog, text(row, "framework")), model_named(catalog, text(row, "model"))
    except EvidenceError as problem:
        raise Unusable(str(problem)) from problem
    on = deployment_of(row, silicon[0], model)
    assumed = [] if text(row, "weight_precision") else ["weights at 16 bit"]
    assumed += ["ten requests a user"] if text(row, "phase") == "end_to_end" else []
    even = "perfect expert balance" in text(row, "notes") or on.moe_ep > experts_of(model)
    setting = Setting(silicon=silicon, engine=engine, model=model, on=on, load=load, skew=0.0 if even else SKEW)
    return Published(key=key, labels=_labels(row, quantity), clean=_clean(row), measured=measured, assumed=tuple(assumed), setting=setting)


def experts_of(model: Model) -> float:
    """Count the routed experts of a layer, infinite where none routes."""
    return max((float(b.feed.count) for b in model.blocks if isinstance(b.feed, Experts)), default=math.inf)


def _measured(row: Row) -> tuple[str, float]:
    names = [*JUDGED.get(text(row, "phase"), ()), *QUANTITIES]
    for name in names:
        value = csvfile.number(row, name, least=csvfile.ABOVE_ZERO, below=1e12, wanted="a number above 0")
        if value is not None:
            return name, value * QUANTITIES[name]
    return text(row, "other_metric"), math.nan


def _clean(row: Row) -> bool:
    """Whether a row is judged: graded A or B, of one phase, and with no doubt about itself."""
    doubt = DOUBT.search(text(row, "notes")) or DOUBT.search(text(row, "reliability"))
    return text(row, "reliability")[:1] in ("A", "B") and text(row, "phase") != "end_to_end" and not doubt


def _labels(row: Row, quantity: str) -> Mapping[str, str]:
    return {"quantity": quantity.removesuffix("_ms"), "unit": "s" if quantity.endswith("_ms") else "tokens/s" if quantity in QUANTITIES else "", "phase": text(row, "phase"),
            "source": text(row, "source_title"), "chip": text(row, "chip"), "model": text(row, "model"), "engine": text(row, "framework"), "precision": text(row, "weight_precision")}  # fmt: skip


def chips_of(row: Row, catalog: Catalog) -> tuple[Silicon, ...]:
    """Return the chips that a stated name may mean, dies of packages each by itself; a stated grade ("560T grade") chooses among them, else sets the matrix peak.

    Errors: a name that the catalogue does not hold, a package or a die that is not told apart.
    """
    stated = text(row, "chip")
    known = [a for a in catalog.aliases() if re.search(rf"(?<![\w-]){re.escape(a)}(?![\w-])", stated.lower())]
    if not known:
        raise Unusable(f"chip {stated!r} is not in the catalogue")
    found = catalog.chip(max(known, key=len))
    several = [(h.value, h.weight) for h in found.hypotheses] if isinstance(found, Belief) else [(found, 1.0)]
    grade = re.search(r"(\d+)T grade", stated)
    if grade:
        least = min(abs(_grade(c) - float(grade[1])) for c, _ in several)
        several = [(c, w) for c, w in several if abs(_grade(c) - float(grade[1])) == least][:1]
    return tuple(_silicon(c, w, float(grade[1]) / _grade(c) if grade else 1.0) for c, w in several)


def _grade(chip: Chip) -> float:
    return chip.value("peak_fp16") / 1e12


def _silicon(chip: Chip, weight: float, slower: float) -> Silicon:
    share = 1.0 / (chip.value("dies") if chip.has("dies") else 1.0)
    changed = {name: share * (slower if name in ("peak", "peak16") else 1.0) for name in SHARED}
    return Silicon(chip=chip, weight=weight, changed=changed, share=share)


def deployment_of(row: Row, silicon: Silicon, model: Model) -> Deployment:
    """Read how a replica lies on its ranks, a die each; where only expert parallelism over all ranks is stated, each is an attention group of its own.

    Errors: ranks or layout that are not stated or contradict each other.
    """
    tp, dp, stated = (_count(row, name) for name in ("tp", "dp", "n_devices"))
    dies = round(1.0 / silicon.share)
    if stated and dies > 1 and not text(row, "device_basis"):
        raise Unusable("layout not stated: whether a device is a package or a die")
    ranks = stated * (dies if "package" in text(row, "device_basis") else 1) if stated else (tp or 0) * (dp or 1)
    if not ranks:
        raise Unusable("layout not stated: how many devices")
    ep = ranks if text(row, "ep") == "enabled" else _count(row, "ep") or 1
    if not tp and not dp and ranks > 1 and ep != ranks:
        raise Unusable("layout not stated: tensor and data parallelism")
    tp = tp or ranks // (dp or ranks)
    dp = dp or ranks // tp
    if tp * dp != ranks:
        raise Unusable(f"layout contradicts itself: tp {tp} x dp {dp} on {ranks} ranks")
    called = re.sub(r"_(dynamic|static)$", "", text(row, "weight_precision").lower())
    narrow_cache, called = called.endswith("c8"), called.removesuffix("c8")
    four = called == "w4a8"
    moe = routed(model)
    try:
        dense, experts = formats_of("w8a8" if four else "", called, called, model, silicon.chip)
        return Deployment(tp=tp, dp=dp, moe_ep=ep if moe else 1, moe_tp=max(ranks // ep, 1) if moe else 1, dense=dense, experts=experts,
                          kv=1.0 if narrow_cache else 2.0)  # fmt: skip
    except EvidenceError as problem:
        raise Unusable(str(problem)) from problem


def _load(row: Row) -> Load:
    """Read what ran at once. Errors: what is not stated, by name."""
    phase, notes = text(row, "phase"), text(row, "notes")
    if "image" in notes:
        raise Unusable("prompts hold images, whose tokens are not stated")
    if float(_number(row, "prefix_cache_hit_percent") or 0.0) > 0.0:
        raise Unusable("the prefix cache served part of the prompts, and what stayed in it is not stated")
    if phase == "end_to_end" and (text(row, "pd_disaggregated").startswith("yes") or text(row, "request_rate")):
        raise Unusable("two pools or a request rate: how the load was shared is not stated")
    devices, length = _number(row, "n_devices"), _number(row, "input_len")
    drafts, accepted = _drafts(row)
    if drafts and math.isnan(accepted) and phase in ("decode", "end_to_end"):
        raise Unusable("load not stated: how many drafts are accepted")
    batch = re.fullmatch(r"(\d+)(?: (tokens))?", text(row, "batch_per_device"))
    each = (float(batch[1]) / ((length or math.nan) if batch[2] else 1.0)) * (devices or math.nan) if batch else math.nan
    sequences = _number(row, "concurrency") or each
    output = _number(row, "output_len")
    if length is None or math.isnan(sequences) or (phase == "end_to_end" and (output or 0.0) < 2.0):
        raise Unusable("load not stated: lengths of prompts and answers, and how many run at once")
    return Load(
        sequences=sequences, input=length, output=output or 0.0, drafts=drafts, accepted=accepted if drafts else 0.0, devices=devices or math.nan
    )


def _drafts(row: Row) -> tuple[int, float]:
    """Return the drafts a step and how many of them are right on average, NaN where not stated; one share for each of several drafts is none of all."""
    said = text(row, "spec_decode")
    if not said:
        return 0, 0.0
    count, share = re.search(r"\d+", re.sub(r"eagle\d|qwen3_5", "", said)), re.match(r"[\d.]+", text(row, "spec_acceptance"))
    if not count:
        raise Unusable(f"load not stated: how many drafts a step ({said})")
    return int(count[0]), float(share[0]) if share and int(count[0]) == 1 else math.nan


def _number(row: Row, column: str) -> float | None:
    return csvfile.number(row, column, least=0.0, below=1e12, wanted="a number")


def _count(row: Row, column: str) -> int | None:
    return csvfile.whole(row, column, csvfile.number(row, column, least=1.0, below=1e9, wanted="a count of 1 or more"))
