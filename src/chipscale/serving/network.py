"""Network: what a step takes more than its kernels, where those were timed inside networks: one factor."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from chipscale.catalog import Catalog
from chipscale.serving.constants import Constants

FILE = "calibration/serving_network.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The factor, those without each source, the chips whose kernels were fitted; logs of the ends of 80 % intervals on such chips (`calibrated`) and on others (`prior`)."""

    factor: float
    without: Mapping[str, float]
    chips: frozenset[str]
    calibrated: tuple[float, float]
    prior: tuple[float, float]

    def ends(self, *, calibrated: bool) -> tuple[float, float]:
        """Return the logs of the ends of an 80 % interval of seconds."""
        return self.calibrated if calibrated else self.prior


def read(catalog: Catalog) -> Network:
    """Read data/calibration/serving_network.toml."""
    t = tomllib.loads(catalog.text(FILE))
    return Network(factor=float(t["factor"]), without={s: float(f) for s, f in t["without"].items()}, chips=frozenset(t["chips"]),
                   calibrated=(float(t["calibrated"][0]), float(t["calibrated"][1])), prior=(float(t["prior"][0]), float(t["prior"][1])))  # fmt: skip


def networked(k: Constants, factor: float) -> Constants:
    """Return constants for kernels that were timed inside networks: no multiplier on kernels alone, no earlier start, one factor on the whole step; the host's stay.

    t' = f t.

    Holds when what a step adds to its kernels (gaps, casts, small kernels that no graph lists) grows with them.
    Source: sarathi-2024, section 4; data/calibration/serving_network.toml (fitted).
    """
    return replace(k, products_few=1.0, products_many=1.0, experts_few=1.0, experts_many=1.0, links_few=1.0, links_many=1.0, vector=1.0, token=1.0, prompt=1.0, start=0.0,
                   scale=factor)  # fmt: skip
