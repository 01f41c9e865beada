"""Calibration of serving: which constants a service takes, and how wrong predictions with them are."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from chipscale.catalog import Catalog
from chipscale.facts.chip import Chip
from chipscale.facts.engine import Engine
from chipscale.facts.model import Model
from chipscale.serving.constants import Constants
from chipscale.serving.deployment import Deployment
from chipscale.serving.fit import Prior, design, members, read_prior

FILE = "calibration/serving.toml"
PRIOR = "calibration/serving.prior.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How far a measurement may lie from a prediction: low and high factors of the 80 % interval of TTFT and TPOT."""

    ttft: tuple[float, float]
    tpot: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Fitted coefficients by name, and quantiles of log(measured / predicted) by case, quantity and engine ("cell.ttft.vllm").

    `cells` (model, chip and engine), `models` and `chips` are those that entered the fit. `own` are deviations of single constants by cell, from timings of single
    requests.
    """

    coefficients: Mapping[str, float]
    quantiles: Mapping[str, tuple[float, float]]
    cells: frozenset[str]
    models: frozenset[str]
    chips: frozenset[str]
    prior: Prior
    own: Mapping[str, Mapping[str, float]]

    def quantile(self, case: str, quantity: str, engine: str) -> tuple[float, float]:
        """Return the 10 % and 90 % quantiles of a case: the engine's own, else those of all engines."""
        return self.quantiles.get(f"{case}.{quantity}.{engine}", self.quantiles[f"{case}.{quantity}."])

    def case(self, model: str, chip: str, engine: str, *, split: bool) -> str:
        """Say how well a service is known: its cell was fitted, its chip was, or neither; two pools never were."""
        if split:
            return "split"
        if cell_of(model, chip, engine) in self.cells:
            return "known"
        return "cell" if chip in self.chips else "stranger"

    def constants(self, groups: list[Mapping[str, str]]) -> Constants:
        """Return the constants of services of these members, arrays of shape (rows,); a member that was never fitted does not deviate."""
        d = design(groups, self.prior, self.coefficients)
        return d.constants(np.array([self.coefficients[n] for n in d.names]))


def cell_of(model: str, chip: str, engine: str) -> str:
    """Name a cell."""
    return f"{model}|{chip}|{engine}"


def read(catalog: Catalog) -> Calibration:
    """Return data/calibration/serving.toml, read once for each catalogue."""
    if ("calibration", FILE) not in catalog.memo:
        catalog.memo["calibration", FILE] = _read(catalog)
    found: Calibration = catalog.memo["calibration", FILE]
    return found


def _read(catalog: Catalog) -> Calibration:
    t = tomllib.loads(catalog.text(FILE))
    cells = frozenset(t["cells"])
    return Calibration(
        coefficients={n: float(v) for n, v in t["coefficients"].items()},
        quantiles={n: (float(low), float(high)) for n, (low, high) in t["quantiles"].items()},
        cells=cells,
        models=frozenset(c.split("|")[0] for c in cells),
        chips=frozenset(c.split("|")[1] for c in cells),
        prior=read_prior(catalog.text(PRIOR)),
        own={c: {n: float(v) for n, v in mine.items()} for c, mine in t.get("own", {}).items()},
    )


def one(found: Constants) -> Constants:
    """Return the constants of a single row as floats."""
    return Constants(**{n: float(np.ravel(getattr(found, n))[0]) for n in Constants.__dataclass_fields__})


def constants(catalog: Catalog, *, engine: Engine, chip: Chip, model: Model, deployment: Deployment, version: str = "") -> Constants:
    """Return the constants of an engine that serves a model on a chip, as floats; where single requests of that service were timed, with its own deviations."""
    key = "serving constants", repr((engine.id, chip.id, model.id, deployment.dense.id, deployment.experts.id, version))
    if key not in catalog.memo:
        known = read(catalog)
        found = one(known.constants([members(engine.id, version, model.id, deployment, "")]))
        own = known.own.get(cell_of(model.id, chip.id, engine.id), {})
        catalog.memo[key] = replace(found, **{n: getattr(found, n) * math.exp(v) for n, v in own.items()})
    settled: Constants = catalog.memo[key]
    return settled


def interval(catalog: Catalog, *, engine: Engine, chip: Chip, model: Model, split: bool) -> Spread:
    """Return how far measurements lie from predictions of such a service."""
    c = read(catalog)
    case = c.case(model.id, chip.id, engine.id, split=split)

    def factors(quantity: str) -> tuple[float, float]:
        low, high = c.quantile(case, quantity, engine.id)
        return math.exp(low), math.exp(high)

    return Spread(ttft=factors("ttft"), tpot=factors("tpot"))
