"""Calibration of serving: which constants and which error a service takes."""

from __future__ import annotations

from dataclasses import dataclass

from chipscale.catalog import Catalog
from chipscale.facts.chip import Chip
from chipscale.facts.engine import Engine
from chipscale.facts.model import Model
from chipscale.serving.constants import Constants
from chipscale.serving.deployment import Deployment


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How far a measurement may lie from a prediction: low and high factors of the 80 % interval of TTFT and TPOT."""

    ttft: tuple[float, float]
    tpot: tuple[float, float]


def constants(catalog: Catalog, *, engine: Engine, chip: Chip, model: Model, deployment: Deployment) -> Constants:  # noqa: ARG001
    """Return the constants of an engine on a chip (a stand-in until the fit: kernels as they take alone, typical host times)."""
    return Constants(products_few=1.0, products_many=1.0, experts_few=1.0, experts_many=1.0, links_few=1.0, links_many=1.0, vector=0.6, token=1.0, prompt=1.0,
                     start=2e-6, step=0.5e-3, layer=10e-6, sequence=20e-6, eager=60e-6, scale=1.0, first=15e-3, tokenise=6e-6, admit=2e-4, stream=1.5,
                     burst=1.0)  # fmt: skip


def interval(catalog: Catalog, *, engine: Engine, chip: Chip, model: Model, split: bool) -> Spread:  # noqa: ARG001
    """Return the error of predictions (a stand-in until the fit)."""
    return Spread(ttft=(1.0 / 1.5, 1.5), tpot=(1.0 / 1.25, 1.25))
