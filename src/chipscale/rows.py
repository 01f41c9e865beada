"""Measured training rows: CSV in, plausible plans out.

What a row states is believed; a blank becomes a guess for each plausible setting, weighed before its speed is known (`stack` adds that).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from chipscale import csvfile
from chipscale.catalog import Catalog
from chipscale.cost.calibration import Context
from chipscale.cost.hardware import WIDTH, Hardware, hardware
from chipscale.csvfile import ABOVE_ZERO, Row, name_of
from chipscale.evidence import Belief, EvidenceError
from chipscale.facts.chip import Chip
from chipscale.facts.framework import GRAPHS, MIXED, Framework, Keeping
from chipscale.facts.model import Experts, Model
from chipscale.facts.model_rows import from_catalogue, from_row, named_like, with_reach
from chipscale.plan import CP_KINDS, MODULES, RECOMPUTE, SCHEDULES, SHARDING, Plan, bits
from chipscale.schedules.forms import refuse
from chipscale.units import GIBI, GIGA, TERA

NEEDED = ("chip", "n_chips", "seq_len", "global_batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """One plausible reading of a row: a plan on a chip, with its weight; those of a row sum to 1."""

    weight: float
    plan: Plan
    chip: Chip


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A measured row with everything that a prediction needs, or the reason why there is none.

    `fused` is whether attention ran as one kernel, `assumed` what was read into blanks; hardware and contexts go with the guesses.
    `peak_bytes` is the measured peak of memory, NaN where none is stated.
    """

    key: str
    labels: Mapping[str, str]
    seconds: float
    clean: bool
    reason: str = ""
    model: Model | None = None
    guesses: tuple[Guess, ...] = ()
    hardware: tuple[Hardware, ...] = ()
    contexts: tuple[Context, ...] = ()
    length: float = 0.0
    batch: float = 0.0
    precision: str = "bf16"
    fused: bool = True
    sequence_parallel: bool = True
    keeping: Keeping = MIXED
    peak_bytes: float = math.nan
    assumed: tuple[str, ...] = ()


def read(path: Path) -> list[Row]:
    """Read a CSV of training rows; a missing column or a broken line is an error that names it."""
    return csvfile.read(path, ("chip", "n_chips", "step_time_s"))


def number(row: Row, column: str) -> float | None:
    """Return a positive number of a row, None where it is blank."""
    return csvfile.number(row, column, least=ABOVE_ZERO, below=1e15, wanted="a positive number")


def whole(row: Row, column: str) -> int | None:
    """Return a whole number of a row of at least 1, None where it is blank."""
    return csvfile.whole(row, column, number(row, column))


def measured_seconds(row: Row) -> float | None:
    """Return the step time, from tokens per second where only that is stated."""
    seconds = number(row, "step_time_s")
    rate, chips, length, batch = (number(row, c) for c in ("tokens_per_s_per_chip", "n_chips", "seq_len", "global_batch"))
    if seconds is None and rate and chips and length and batch:
        return length * batch / (rate * chips)
    return seconds


LINK = re.compile(r"(?:(\d+)\s*x\b[^,;()]*?)?\(?(\d+(?:\.\d+)?)\s*(Gb|GB|gb)(?:it)?(?:/s|ps|/Sec)", re.IGNORECASE)


def stated_outer_bandwidth(text: str, node: float) -> float | None:
    """Read bytes per second, chip and direction out of "8x 400 Gb/s InfiniBand per node"; bits unless written GB."""
    best = 0.0
    for part in re.split(r"[;,]", text):
        if re.search(r"storage|management|ethernet 100|bluefield|pcie", part, re.IGNORECASE):
            continue
        found = LINK.search(part)
        if not found:
            continue
        count, size = float(found.group(1) or 1), float(found.group(2))
        bytes_each = size * GIGA if found.group(3) == "GB" else size * GIGA / 8
        per_node = bool(found.group(1)) or "per node" in part.lower()
        best = max(best, bytes_each * count / (node if per_node else 1.0))
    return best or None


def precision_of(row: Row) -> str:
    """Return the row's matmul precision, blank meaning bf16."""
    name = row.get("precision", "").lower() or "bf16"
    name = {"mixed": "bf16", "amp": "bf16", "fp8_e4m3": "fp8", "fp4": "nvfp4"}.get(name, name)
    if name not in WIDTH:
        raise EvidenceError(f"{name_of(row)}, column precision: {name!r} is unknown; use one of {', '.join(WIDTH)}")
    return name


def _choices(stated: int | None, options: Sequence[int], name: str, assumed: list[str]) -> list[tuple[int, float]]:
    if stated is not None:
        return [(stated, 1.0)]
    options = list(dict.fromkeys(options)) or [1]
    if len(options) > 1 or options[0] != 1:
        assumed.append(f"{name} in {'/'.join(map(str, options))}")
    return [(o, 1.0 / len(options)) for o in options]


#: other words for modules: of the Megatron model zoo and MindSpeed, and MaxText's policies, which keep the products' outputs
SAME = {"norm": "layernorm", "rmsnorm": "layernorm", "mla up-projection": "mla_up_proj", "act": "moe_act", "activation-function": "moe_act", "shared_expert": "shared_experts", "minimal policy": "layernorm+moe_act+core_attn",
        "minimal_flash policy": "layernorm+moe_act"}  # fmt: skip


def modules_of(text: str, assumed: list[str]) -> int:
    """Read "modules: norm+act" as bits of `MODULES`; a policy that is not known counts as selective, and is said."""
    words = text.removeprefix("modules:").strip()
    parts = [SAME.get(p.strip(), p.strip()) for p in ([words] if "policy" in words else re.split(r"\+| and ", words))]
    if not all(p in MODULES for part in parts for p in part.split("+")):
        assumed.append(f"recompute {words!r} counts as selective")
        return 1
    return bits("+".join(parts))


def _recomputes(row: Row, framework: Framework, layers: int, assumed: list[str]) -> list[tuple[int, int, float]]:
    """Return what a row may recompute: the setting, the layers of a stage if not all, and the weight."""
    stated, words = row.get("recompute", "").lower(), row.get("recompute_as_stated", "").lower()
    selective = bits("+".join(framework.selective))
    some = re.search(r"full on (\d+) layers|full/block/(\d+)", words)
    if some and (count := int(some.group(1) or some.group(2))) < layers:
        return [(2 | (bits("moe_act") if "activation-function" in words else 0), count, 1.0)]
    if words == "selective layer":  # every second layer
        return [(2, max(layers // 2, 1), 1.0)]
    if stated in RECOMPUTE:
        return [(selective if stated == "selective" else RECOMPUTE.index(stated), 0, 1.0)]
    if stated == "modules":
        return [(modules_of(words, assumed), 0, 1.0)]
    if stated == "none-stated":
        assumed.append("recompute none (0.8) or selective (0.2)")
        return [(0, 0, 0.8), (selective, 0, 0.2)]
    assumed.append("recompute " + " or ".join(f"{name} ({w:g})" for name, w in framework.recompute))
    return [(selective if name == "selective" else RECOMPUTE.index(name), 0, w) for name, w in framework.recompute]


def _shardings(row: Row, framework: Framework, assumed: list[str]) -> int:
    stated = row.get("sharding", "").lower()
    if stated == "none" and "fsdp" in row.get("sharding_as_stated", "").lower():  # says that weights are whole, not that the optimizer is
        stated = ""
    if stated in SHARDING:
        return SHARDING.index(stated)
    assumed.append(f"sharding {framework.sharding}")
    return SHARDING.index(framework.sharding)


#: ranks that share what is sharded, as rows state them
GROUP = re.compile(r"(?:shard group |fsdp |ici=)(\d+)")


def _replicas(row: Row, ranks: int, dp: int, assumed: list[str]) -> int:
    """Return over how many groups of ranks a row replicates what it shards: "FSDP 16 per slice", or "HSDP", whose groups are nodes unless it says else."""
    text = row.get("sharding_as_stated", "").lower()
    stated, node = GROUP.search(text), whole(row, "chips_per_node")
    if not stated and "hsdp" not in text:
        return 1
    if not stated and node:
        assumed.append(f"HSDP in nodes of {node}")
    group = int(stated.group(1)) if stated else node or ranks
    if ranks % group or dp % (ranks // group):
        raise EvidenceError(f"column sharding_as_stated: groups of {group} do not divide cp x dp = {ranks} ranks; correct it")
    return ranks // group


def _interleaves(row: Row, pp: int, layers: int, assumed: list[str]) -> list[tuple[int, float]]:
    stated = whole(row, "vpp")
    if stated is None and "1f1b" in (word.strip() for word in row.get("overlap_as_stated", "").lower().split(";")):
        assumed.append("1F1B by name: no interleave")
        stated = 1
    if pp == 1 or _schedule(row, pp):
        return [(1, 1.0)]
    options = [v for v in (1, 2, 4, 8) if v == 1 or -(-layers // pp) >= v]
    return _choices(stated, options, "interleave", assumed)


def _schedule(row: Row, pp: int) -> int:
    """Return the schedule that a row states, as a position in SCHEDULES; 1F1B where it is silent or has one stage."""
    text = row.get("overlap_as_stated", "").lower()
    return max((i for i, name in enumerate(SCHEDULES) if i and pp > 1 and name.replace("-", "") in text.replace("-", "")), default=0)


def _cp_kind(row: Row, framework: Framework) -> int:
    """Return how a row's context-parallel ranks talk: as it states, else the framework's default."""
    text = row.get("overlap_as_stated", "").lower()
    stated = re.search(r"(?:cp_comm_type|cp)\s*[=:]?\s*(p2p|all_gather|a2a)\b", text)
    return CP_KINDS.index(stated.group(1) if stated else framework.cp_kinds[0])


def _expert_splits(row: Row, model: Model, framework: Framework, tp: int, assumed: list[str]) -> list[tuple[int, float]]:
    """Guess over how many ranks one expert is split: as all else is, where the framework knows no other way."""
    if not any(isinstance(b.feed, Experts) for b in model.blocks):
        return [(whole(row, "etp") or 1, 1.0)]
    options = [tp] if "no_expert_tp" in missing_features(row, framework) else [1, tp]
    return _choices(whole(row, "etp"), options, "etp", assumed)


def plans(row: Row, model: Model, framework: Framework, chips: int, batch: int, assumed: list[str]) -> list[tuple[Plan, float]]:
    """List the plans that a row may have run, weights summing to 1."""
    tps = _choices(whole(row, "tp"), [t for t in (1, 2, 4, 8) if chips % t == 0], "tp", assumed)
    pps = _choices(whole(row, "pp"), [p for p in (1, 2, 4, 8) if chips % p == 0 and p <= model.layers], "pp", assumed)
    cp = whole(row, "cp") or 1
    recomputes, sharding = _recomputes(row, framework, model.layers // (whole(row, "pp") or 1), assumed), _shardings(row, framework, assumed)
    found: list[tuple[Plan, float]] = []
    for (tp, w_tp), (pp, w_pp), (recompute, some, w_r) in product(tps, pps, recomputes):
        if chips % (tp * pp * cp):
            continue
        dp = chips // (tp * pp * cp)
        each = batch / dp
        micro = _choices(whole(row, "micro_batch"), [m for m in (1, 2, 4) if each >= m and each % m == 0], "micro-batch", [])
        splits = _expert_splits(row, model, framework, tp, [])
        for (mb, w_m), (vpp, w_v), (etp, w_e) in product(micro, _interleaves(row, pp, model.layers, []), splits):
            ep = whole(row, "ep") or 1
            if pp > 1 and each / mb < pp:
                mb = max(int(each // pp), 1)
                note = "micro-batch read as the local batch, since fewer micro-batches than stages would idle"
                assumed += [note] if note not in assumed else []
            if (tp * cp * dp) % (ep * etp):
                continue
            schedule = _schedule(row, pp)
            refuse(SCHEDULES[schedule], pp, 1 if schedule == 0 else vpp, max(int(each // mb), 1))
            plan = Plan(tp=tp, pp=pp, vpp=vpp, cp=cp, ep=ep, etp=etp, dp=dp, micro_batch=mb, sharding=sharding, recompute=recompute,
                        recompute_layers=some, schedule=schedule, cp_kind=_cp_kind(row, framework) if cp > 1 else 0,
                        dp_replicate=_replicas(row, cp * dp, dp, assumed) if sharding else 1)  # fmt: skip
            found.append((plan, w_tp * w_pp * w_r * w_m * w_v * w_e))
    _choices(whole(row, "micro_batch"), (1, 2, 4), "micro-batch", assumed)
    if any(p.pp > 1 for p, _ in found):
        _interleaves(row, 2, 8, assumed)
    _expert_splits(row, model, framework, max((t for t, _ in tps), default=1), assumed)
    total = sum(w for _, w in found)
    return [(p, w / total) for p, w in found]


def _graphs(text: str, framework: Framework, year: float) -> tuple[str, ...]:
    """Return the flag of CUDA graphs that a row states, else that of its framework's default in its year."""
    if "full_cuda_graph" in text or "full_iteration" in text:
        return GRAPHS["full"]
    return GRAPHS["part" if re.search("cuda[_ ]graph", text) else framework.graph_in(year)]


def flags(row: Row, framework: Framework) -> tuple[str, ...]:
    """Return what a row states about overlap, CUDA graphs and the expert dispatcher, and the features that its framework lacks."""
    text = row.get("overlap_as_stated", "").lower()
    found = []
    if "tp_comm_overlap" in text or "async tp" in text or re.search(r"\btp\b.*overlap", text):
        found.append("tp_overlap")
    found += _graphs(text, framework, number(row, "year") or math.inf)
    if "hybridep" in text or "deepep" in text:
        found.append("fused_dispatch")
    if "a2a_overlap" in text or "a2a overlap" in text:
        found.append("ep_overlap")
    if "dualpipe" in text:
        found.append("dualpipe")
    if "compile" in text:
        found.append("compiled")
    return (*found, *missing_features(row, framework))


def missing_features(row: Row, framework: Framework) -> tuple[str, ...]:
    """Return `no_` and the name of each feature that a framework lacks, or did not yet have in the year of a row."""
    year = number(row, "year")
    young = [feature for feature, first in framework.since if year and year < first]
    return tuple(f"no_{feature}" for feature in (*young, *framework.lacks))


def _chips_of(catalog: Catalog, name: str, assumed: list[str]) -> list[tuple[Chip, float]]:
    chip = catalog.chip(name)
    if isinstance(chip, Belief):
        assumed.append("chip " + " or ".join(f"{h.value.id} ({h.weight:g})" for h in chip.hypotheses))
        return [(h.value, h.weight) for h in chip.hypotheses]
    return [(chip, 1.0)]


def row_hardware(catalog: Catalog, chip: Chip, row: Row, precision: str) -> Hardware:
    """Return the chip on its usual cluster, with the links that the row states."""
    found = hardware(chip, catalog.cluster_for(chip), precision)
    node = number(row, "chips_per_node") or float(found.node)
    stated = stated_outer_bandwidth(row.get("inter_node_link", ""), node)
    return replace(found, outer_bandwidth=stated) if stated else found


def model_of(row: Row, catalog: Catalog) -> tuple[Model, tuple[str, ...]]:
    """Return a row's model and what was assumed: by its dimensions, or the catalogue's model of that name where they are blank."""
    named = named_like(row.get("model", ""), catalog.models())
    if named is None:
        return from_row(row)
    known = catalog.model(named)
    found = from_catalogue(row, known)
    if found:
        return found
    model, notes = from_row(row)
    return with_reach(model, known), notes


def understand(row: Row, catalog: Catalog) -> Measured:
    """Turn a row into plausible plans with hardware; what cannot be predicted carries its reason."""
    key = row.get("row") or row["_line"]
    seconds = measured_seconds(row)
    clean = row.get("complete", "yes") != "no" and not row.get("doubt") and not row.get("token_dropping")
    precision = precision_of(row)
    labels = {"chip": row["chip"], "source_group": row.get("source_group", ""), "architecture": row.get("architecture", ""),
              "precision": precision, "framework": row.get("framework", ""), "source": row.get("source", "")}  # fmt: skip
    missing = [c for c in NEEDED if not row.get(c)]
    if seconds is None or missing:
        return Measured(key=key, labels=labels, seconds=seconds or math.nan, clean=False, reason=f"{', '.join(missing) or 'step_time_s'} is blank")
    assumed: list[str] = []
    try:
        model, notes = model_of(row, catalog)
        assumed += notes
        framework = catalog.framework_matching(row.get("framework", ""))
        chips, batch = whole(row, "n_chips") or 1, whole(row, "global_batch") or 1
        found = plans(row, model, framework, chips, batch, assumed)
        if not found:
            raise EvidenceError("no plan with these degrees multiplies to n_chips")
        kinds = _chips_of(catalog, row["chip"], assumed)
        guesses = [Guess(weight=w * wc, plan=p, chip=c) for (p, w), (c, wc) in product(found, kinds)]
        hw = tuple(row_hardware(catalog, g.chip, row, precision) for g in guesses)
    except EvidenceError as problem:
        return Measured(key=key, labels=labels, seconds=seconds, clean=clean, reason=str(problem))
    contexts = tuple(
        Context(family=g.chip.family, vendor=g.chip.vendor.lower(), framework=framework.id, precision=precision, flags=flags(row, framework),
                source=row.get("source_group", ""), watts_per_tflop=float(h.power) / float(h.peak16) * TERA, legacy_share=catalog.legacy_share(g.chip))
        for g, h in zip(guesses, hw, strict=True)
    )  # fmt: skip
    notes_text = (row.get("notes", "") + " " + row.get("recompute_as_stated", "")).lower()
    fused = not re.search(r"without flash|flash attention false|flash attention n/a|no flash", notes_text)
    if "script flags:" in notes_text:  # a script lists all its flags
        fused = "use-flash-attn" in notes_text
    return Measured(key=key, labels={**labels, "size": size_label(model)}, seconds=seconds, clean=clean, model=model, guesses=tuple(guesses), hardware=hw,
                    contexts=contexts, length=number(row, "seq_len") or 0.0, batch=float(batch), precision=precision, fused=fused,
                    sequence_parallel=row.get("sp", "").lower() not in ("no", "false"), keeping=framework.keeping_of(row.get("framework", "")),
                    peak_bytes=(number(row, "peak_memory_gib") or math.nan) * GIBI,
                    assumed=tuple(dict.fromkeys(assumed)))  # fmt: skip


def size_label(model: Model) -> str:
    """Return a model's size class by parameters in all."""
    from chipscale.facts.parameters import parameters

    billions = parameters(model).total / GIGA
    for limit in (1, 5, 20, 100, 400):
        if billions < limit:
            return f"below {limit} B"
    return "400 B and more"
