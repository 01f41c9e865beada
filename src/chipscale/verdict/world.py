"""World: what all jobs of a verdict share, and the candidates that it weighs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from chipscale.catalog import Catalog
from chipscale.cost.calibration import Calibration, Context, usual_framework
from chipscale.cost.constants import Constants
from chipscale.evidence import Belief, Hypothesis
from chipscale.facts.chip import Chip
from chipscale.facts.cluster import Cluster
from chipscale.facts.framework import GRAPHS
from chipscale.facts.job import Job
from chipscale.units import TERA
from chipscale.verdict.draws import Draws, Theta
from chipscale.verdict.nouns import Interval

#: log-scale error of a serving pass at roofline level (assumed until the serving tables are held against measurements)
SERVING_SIGMA = 0.25
MAPE_TO_SIGMA = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A chip by its key: hypotheses with weights, each on its cluster."""

    key: str
    belief: Belief[Chip]
    clusters: tuple[Cluster, ...]

    @property
    def certain(self) -> bool:
        return len(self.belief.hypotheses) == 1


def candidate(catalog: Catalog, name: str, assume: Mapping[str, str]) -> Candidate:
    """Look a chip up, pin a hypothesis where one is assumed, and put each hypothesis on its cluster."""
    found = catalog.chip(name)
    key = catalog.aliases()[name.lower()]
    belief = (
        found
        if isinstance(found, Belief)
        else Belief(hypotheses=(Hypothesis(key="known", title=found.name, weight=1.0, reason="a product", value=found),))
    )
    pins = [h for n, h in assume.items() if catalog.aliases().get(n.lower()) == key]
    for pin in pins:
        belief = belief.pinned(pin)
    return Candidate(key=key, belief=belief, clusters=tuple(catalog.cluster_for(h.value) for h in belief.hypotheses))


def context(catalog: Catalog, chip: Chip, job: Job, precision: str, framework: str | None = None) -> Context:
    """Return what selects coefficients for a chip: a training framework, its vendor's usual one unless named, with all that it can do by now,
    or a serving engine with captured graphs.
    """
    peak = chip.value(next(p for p in ("peak_bf16", "peak_fp16") if chip.has(p)))
    watts = chip.value("power") / peak * TERA if chip.has("power") else math.nan
    vendor = chip.vendor.lower()
    used = usual_framework(catalog, vendor, framework)
    training = job.phase == "train"
    return Context(
        family=chip.family,
        vendor=vendor,
        framework=used.id if training else "serving",
        precision=precision,
        flags=tuple(
            dict.fromkeys(
                (
                    "tp_overlap",
                    *(f for f, _ in used.since if training),
                    *(GRAPHS[used.graph_in(math.inf)] if training else ()),
                    *(f"no_{f}" for f in used.lacks if training),
                )
            )
        ),
        watts_per_tflop=watts,
        legacy_share=catalog.legacy_share(chip),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What all jobs share: draws, coefficients, calibration."""

    catalog: Catalog
    draws: Draws
    theta: Theta
    calibration: Calibration

    def constants(self, chip: Chip, job: Job, precision: str, *, nominal: bool) -> Constants:
        return self.theta.constants(context(self.catalog, chip, job, precision), nominal)

    def sigma(self, chip: Chip, job: Job) -> float:
        """Return the log error of one chip that another does not share: known families from left-out sources, others from left-out chips."""
        if job.phase != "train":
            return SERVING_SIGMA / math.sqrt(2.0)
        arch = "moe" if any(hasattr(b.feed, "top_k") for b in self.catalog.model(job.model).blocks) else "dense"
        label = "source_group" if f"gemm.family.{chip.family}" in self.calibration.names else "chip"
        wrong = max(self.calibration.scores[f"left_out_{label}_{arch}"], self.calibration.scores[f"left_out_source_group_{arch}"])
        return MAPE_TO_SIGMA * wrong * (1.0 if label == "source_group" else 1.5)


def interval(values: np.ndarray) -> Interval:
    """Return median and 80 % interval."""
    low, median, high = np.quantile(values, [0.1, 0.5, 0.9])
    return Interval(median=float(median), low=float(low), high=float(high))
