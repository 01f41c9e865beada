"""Published: figures of papers, documents and vendors predicted, and what one network factor of steps is worth with whole sources left out."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from chipscale.border import inside
from chipscale.catalog import Catalog
from chipscale.evidence import EvidenceError
from chipscale.operators.calibration import few_groups
from chipscale.scores import ScoredRow, Validation, assembled
from chipscale.serving.calibration import constants
from chipscale.serving.constants import Constants, paced
from chipscale.serving.network import FILE, Network, read
from chipscale.serving.parts import Bench, parts
from chipscale.serving.published_rows import Published, Setting, Silicon, load
from chipscale.serving.room import GIVEN, room
from chipscale.serving.rules import Rules, Speculation
from chipscale.serving.single import decode_step, prefill_step
from chipscale.serving.steady import steady

SHIPPED = "measurements/serving/ascend.csv"
GROUPS = ("quantity", "phase", "source", "model", "engine")
REQUESTS = 10.0
NOTES = (
    "figures of many kinds: error = predicted / measured - 1 of each row's own quantity; rows of doubt, whole services and what vendors state of other chips are reported apart",
    "rows: CloudMatrix384 paper, vllm-ascend and msmodeling (Apache-2.0), MindFormers (Apache-2.0), as each row says",
)


def validated(path: Path | None, catalog: Catalog, leave_out: str | None = None) -> Validation:
    """Compare published serving figures with predictions; `measured_s` and `predicted_s` are seconds or tokens a second, as labels["quantity"] and ["unit"] say.

    `leave_out` "source" predicts each row by a network factor that its source did not enter; "all" without any.
    Errors: a file that cannot be read, a missing column, a number that is none, a row that stands twice, another `leave_out`.
    """
    if leave_out not in (None, "source", "all"):
        raise EvidenceError(f"--leave-out {leave_out}: for published rows it is source or all")
    where = path or _shipped(catalog)
    with inside(where):
        rows = load(where, catalog)
    network = read(catalog)
    bare = {p.key: bare_seconds(p.setting, p.labels, catalog) for p in rows if p.setting}
    factors = network.without if leave_out == "source" else {}
    scored = []
    for p in rows:
        base, problem = bare.get(p.key, (math.nan, ""))
        factor = 1.0 if leave_out == "all" else factors.get(p.labels["source"], network.factor)
        scored.append(_row(replace(p, reason=p.reason or problem), base * factor, network))
    title = {None: "fitted", "source": "each source left out", "all": "no factor fitted"}[leave_out]
    return assembled(f"published serving figures, {title}", scored, GROUPS, NOTES)


def _shipped(catalog: Catalog) -> Path:
    return next(f / SHIPPED for f in reversed(catalog.folders) if (f / SHIPPED).is_file())


def _row(p: Published, seconds: float, network: Network) -> ScoredRow:
    """Turn predicted seconds into the row's quantity, with the ends of the interval."""
    low, high = network.ends(calibrated=p.setting is not None and all(s.chip.id in network.chips for s in p.setting.silicon))
    value, ends = of_seconds(p, seconds), sorted(of_seconds(p, seconds * math.exp(e)) for e in (low, high))
    return ScoredRow(row=p.key, measured_s=p.measured, predicted_s=value, low_s=ends[0], high_s=ends[1], error=value / p.measured - 1.0, labels=p.labels, assumed=p.assumed,
                     reason=p.reason, clean=p.clean)  # fmt: skip


def of_seconds(p: Published, seconds: float) -> float:
    """Return a row's own quantity from the seconds that stand behind it: a step's, or for whole services those of a token."""
    name = p.labels["quantity"]
    if p.setting is None or name in ("latency", "tpot"):
        return seconds
    n = p.setting.load
    if name == "prefill_tokens_per_s_per_device":
        return n.sequences * n.input / n.devices / seconds
    if name == "decode_tokens_per_s_per_device":
        return n.sequences * (1.0 + n.accepted) / n.devices / seconds
    return n.sequences / seconds


def bare_seconds(it: Setting, labels: Mapping[str, str], catalog: Catalog) -> tuple[float, str]:
    """Predict the seconds behind a row without a network factor, the geometric mean over the chips that it may mean; NaN and the reason where that fails."""
    total = sum(s.weight for s in it.silicon)
    try:
        return math.exp(sum(s.weight * math.log(_seconds(it, s, labels, catalog)) for s in it.silicon) / total), ""
    except EvidenceError as problem:
        return math.nan, str(problem)


def _seconds(it: Setting, s: Silicon, labels: Mapping[str, str], catalog: Catalog) -> float:
    bench = Bench(catalog=catalog, chip=s.chip, engine=it.engine, changed=s.changed, skew=it.skew)
    k = constants(catalog, engine=it.engine, chip=s.chip, model=it.model, deployment=it.on)
    if it.engine.inside:
        k = replace(k, scale=1.0)
    n = it.load
    if labels["phase"].startswith("prefill"):
        return prefill_step(bench, it.model, it.on, k, prompts=n.sequences, length=n.input, drafts=n.drafts).seconds
    if labels["phase"].startswith("decode"):
        return decode_step(bench, it.model, it.on, k, sequences=n.sequences, past=n.input + n.output / 2.0, drafts=n.drafts).seconds
    tpot, tokens = _service(it, s, bench, k)
    return tpot if labels["quantity"] == "tpot" else n.sequences / tokens


def _service(it: Setting, s: Silicon, bench: Bench, k: Constants) -> tuple[float, float]:
    """Predict the seconds between tokens of a busy service, and its tokens a second."""
    n, e = it.load, it.engine
    seen = n.input + n.output / 2.0
    held = room(it.model, it.on, s.chip, seen=seen, given=GIVEN * s.share).tokens
    rules = Rules(
        tokens=e.tokens * it.on.dp,
        sequences=e.sequences * it.on.dp,
        chunked=e.chunked,
        shared=e.shared,
        block=e.block,
        blocks=held / e.block,
        reserve=e.reserve,
    )
    served = steady(paced(parts(bench, it.model, it.on, n.input, seen), k), rules, users=n.sequences, requests=REQUESTS * n.sequences, input=n.input, output=n.output,
                    speculation=Speculation(drafts=n.drafts, accepted=n.accepted))  # fmt: skip
    return float(served.tpot), float(served.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Misses:
    """Logs of measured over predicted seconds of the rows that count, without a factor, by source."""

    by_source: Mapping[str, np.ndarray]

    def factor(self, without: str = "") -> float:
        """Return the log of the network factor: the mean over sources of the median within each."""
        return float(np.mean([np.median(m) for s, m in self.by_source.items() if s != without]))


def misses(rows: Sequence[Published], catalog: Catalog) -> Misses:
    """Predict the rows that are judged."""
    found: dict[str, list[float]] = {}
    for p in rows:
        seconds, _ = bare_seconds(p.setting, p.labels, catalog) if p.clean and p.setting else (math.nan, "")
        if math.isfinite(seconds):
            latency = p.labels["unit"] == "s"
            measured = p.measured if latency else of_seconds(p, 1.0) / p.measured
            found.setdefault(p.labels["source"], []).append(math.log(measured / seconds))
    return Misses(by_source={s: np.array(m) for s, m in found.items()})


def calibrate(catalog: Catalog, date: str) -> dict[str, str]:
    """Fit the network factor to the shipped rows that are judged, learn its misses with each source left out, and return the file's text by name."""
    rows = load(_shipped(catalog), catalog)
    m = misses(rows, catalog)
    left = np.concatenate([values - m.factor(without=s) for s, values in m.by_source.items()])
    low, high = np.quantile(left, [0.1, 0.9], method="inverted_cdf")
    wide, middle = few_groups(len(m.by_source)), float(np.median(left))
    chips = sorted({s.chip.id for p in rows if p.clean and p.setting for s in p.setting.silicon if _fitted(catalog, s.chip.id)})
    lines = ["# Written by `chipscale.serving.published.calibrate`: what steps of kernels that were timed inside networks take more, as one factor; logs of the ends of 80 % intervals.",
             f'date = "{date}"', f"rows = {len(left)}", f"factor = {math.exp(m.factor()):.4f}", "# chips whose kernels entered the fits of operators", f"chips = {chips}".replace("'", '"'),
             f"calibrated = [{low:.4f}, {high:.4f}]", f"prior = [{middle + wide * (low - middle):.4f}, {middle + wide * (high - middle):.4f}]", "", "# the factor without each source", "[without]",
             *(f'"{s}" = {math.exp(m.factor(without=s)):.4f}' for s in m.by_source)]  # fmt: skip
    return {Path(FILE).name: "\n".join(lines) + "\n"}


def _fitted(catalog: Catalog, chip: str) -> bool:
    return chip in tomllib.loads(catalog.text("calibration/operators/gemm.toml"))["chips"]
