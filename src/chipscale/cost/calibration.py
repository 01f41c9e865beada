"""Calibration: named coefficients in, Constants out.

Every constant is the exponential of a weighted sum of coefficients, so that a chip, a framework or a precision that
was never measured falls back on what all share. The same terms serve the fit and the prediction.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from chipscale.catalog import Catalog
from chipscale.cost.constants import Constants
from chipscale.evidence import EvidenceError
from chipscale.facts.framework import Framework
from chipscale.ops.work import Num

#: power over 16-bit peak (W per TFLOP/s) below which the clock is held down by power; between the A100 (1.3) and the H100 (0.7)
POWER_KNEE = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What selects coefficients: the chip's family and vendor, framework, precision, stated flags, source, power over peak.

    `legacy_share` is the part of the chip's matrix rate that kernels of the generation before reach.
    """

    family: str
    vendor: str
    framework: str
    precision: str
    flags: tuple[str, ...] = ()
    source: str = ""
    watts_per_tflop: float = math.nan
    legacy_share: float = 1.0


Terms = Mapping[str, tuple[tuple[str, float], ...]]


def throttle(watts_per_tflop: float) -> float:
    """Return the logarithm of how far power per peak lies below the knee, 0 above it or where power is unknown.

    min(0, ln(x / x_0)).

    Holds when matrix engines run at full rate long enough for the power limit to act.
    Source: data/calibration/prior.toml (the same die at 700 W and 500 W sustains 1 : 0.8).
    """
    return min(0.0, math.log(watts_per_tflop / POWER_KNEE)) if watts_per_tflop > 0 else 0.0


def terms(c: Context) -> Terms:
    """List for each constant the coefficients that multiply into it, with their exponents."""
    narrow = c.precision not in ("bf16", "fp16")
    gemm = (("gemm", 1.0), (f"gemm.family.{c.family}", 1.0), (f"gemm.vendor.{c.vendor}", 1.0), ("gemm.power", throttle(c.watts_per_tflop)))
    has = {
        flag: float(flag in c.flags) for flag in ("tp_overlap", "full_graph", "part_graph", "fused_dispatch", "ep_overlap", "compiled", "dualpipe")
    }
    return {
        "gemm": gemm,
        "narrow_gemm": (*gemm, (f"gemm.precision.{c.precision}", 1.0), (f"gemm.narrow.{c.family}", 1.0)) if narrow else gemm,
        "gemm_size": (("gemm_size", 1.0),),
        "grouped": (("grouped", 1.0), ("grouped.narrow", float(narrow))),
        "grouped_size": (("grouped_size", 1.0),),
        "attention": (("attention", 1.0), (f"attention.family.{c.family}", 1.0), (f"attention.framework.{c.framework}", 1.0),
                      ("attention.legacy", math.log(c.legacy_share) if "no_native_attention" in c.flags else 0.0)),
        "attention_backward": (("attention_backward", 1.0),),
        "attention_start": (("attention_start", 1.0),),
        "memory": (("memory", 1.0),),
        "elementwise": (("elementwise", 1.0), (f"elementwise.framework.{c.framework}", 1.0), ("elementwise.compiled", has["compiled"])),
        "host": (("host", 1.0), (f"host.framework.{c.framework}", 1.0), ("host.full_graph", has["full_graph"]), ("host.part_graph", has["part_graph"])),
        "host_expert": (("host_expert", 1.0), ("host_expert.full_graph", has["full_graph"]), ("host_expert.part_graph", has["part_graph"]),
                        (f"host_expert.vendor.{c.vendor}", 1.0)),
        "permute": (("permute", 1.0), ("permute.fused", has["fused_dispatch"])),
        "inner": (("inner", 1.0), (f"inner.vendor.{c.vendor}", 1.0)),
        "outer": (("outer", 1.0), (f"outer.vendor.{c.vendor}", 1.0)),
        "tp": (("tp.none", 1.0),) if "no_tp_overlap" in c.flags else (("tp", 1.0), ("tp.overlap", has["tp_overlap"]), (f"tp.vendor.{c.vendor}", 1.0)),
        "ep": (("ep", 1.0), ("ep.overlap", has["ep_overlap"]), ("ep.dualpipe", has["dualpipe"]), ("ep.fused", has["fused_dispatch"])),
        "dp": (("dp", 1.0),),
        "cp": (("cp", 1.0),),
        "fsdp": (("fsdp", 1.0),),
        "fixed": (("fixed", 1.0), (f"fixed.framework.{c.framework}", 1.0)),
        "scale": ((f"scale.framework.{c.framework}", 1.0), (f"scale.source.{c.source}", 1.0), ("scale.narrow", float(narrow))),
    }  # fmt: skip


NAMES = tuple(f.name for f in fields(Constants))


def constants(coefficients: Mapping[str, float], context: Context) -> Constants:
    """Return the constants of one context; a coefficient that was never fitted counts as its prior, which is 0 for deviations."""
    return Constants(**{name: math.exp(sum(w * coefficients.get(term, 0.0) for term, w in terms(context)[name])) for name in NAMES})


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """The terms of many contexts as one matrix a constant, over `coefficients`."""

    coefficients: tuple[str, ...]
    matrices: Mapping[str, np.ndarray]

    def constants(self, theta: np.ndarray) -> Constants:
        """Return constants as arrays over the contexts."""
        values: dict[str, Num] = {name: np.exp(matrix @ theta) for name, matrix in self.matrices.items()}
        return Constants(**values)


def design(contexts: Sequence[Context], coefficients: Sequence[str] | None = None) -> Design:
    """Build the design matrices of these contexts; `coefficients` fixes the columns (unknown ones are left out)."""
    listed = [terms(c) for c in contexts]
    names = tuple(coefficients) if coefficients is not None else tuple(sorted({t for row in listed for ts in row.values() for t, w in ts if w}))
    column = {name: i for i, name in enumerate(names)}
    matrices = {name: np.zeros((len(listed), len(names))) for name in NAMES}
    for i, row in enumerate(listed):
        for constant, pairs in row.items():
            for term, weight in pairs:
                if term in column:
                    matrices[constant][i, column[term]] += weight
    return Design(coefficients=names, matrices=matrices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """What a coefficient is before rows are seen: centre and log-scale spread by name; "a.*" covers all members of a."""

    centre: Mapping[str, float]
    spread: Mapping[str, float]
    noise: Mapping[str, float]

    def noise_of(self, *labels: str) -> float:
        """Return the row noise of the noisiest of these labels (architecture, vendor)."""
        return max((self.noise[label] for label in labels if label in self.noise), default=max(self.noise.values()))

    def of(self, name: str) -> tuple[float, float]:
        """Return centre and spread of a coefficient."""
        key = name if name in self.centre else name[: name.rfind(".") + 1] + "*"
        if key not in self.centre:
            key = ".".join(name.split(".")[:2]) + ".*"
        if key not in self.centre:
            raise EvidenceError(f"data/calibration/prior.toml has no prior for {name}; add one with its source")
        return self.centre[key], self.spread[key]

    def columns(self, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return centres and spreads of these coefficients."""
        pairs = [self.of(n) for n in names]
        return np.array([c for c, _ in pairs]), np.array([s for _, s in pairs])


def read_prior(text: str) -> Prior:
    """Read prior.toml: values are given as they are, kept as logarithms unless `linear`."""
    whole = tomllib.loads(text)
    table = whole["prior"]
    centre = {name: float(e["value"]) if e.get("linear") else math.log(e["value"]) for name, e in table.items()}
    spread = {name: float(e["spread"]) for name, e in table.items()}
    return Prior(centre=centre, spread=spread, noise={k: float(v) for k, v in whole["noise"].items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Fitted coefficients with their covariance, the sources that entered, and quantiles of left-out errors over sigma."""

    names: tuple[str, ...]
    theta: np.ndarray
    covariance: np.ndarray
    sources: frozenset[str]
    chips: frozenset[str]
    quantiles: Mapping[str, tuple[float, float]]
    rows: int
    date: str
    scores: Mapping[str, float]

    def coefficients(self) -> Mapping[str, float]:
        """Return the coefficients by name without those of single sources."""
        return {n: float(t) for n, t in zip(self.names, self.theta, strict=True) if not n.startswith("scale.source.")}

    def quantile(self, kind: str, architecture: str) -> tuple[float, float]:
        """Return the 10 % and 90 % quantiles for a known or new source, or a new chip, and an architecture."""
        return self.quantiles.get(f"{kind}.{architecture}", self.quantiles[f"{kind}.moe"])


def read_calibration(catalog: Catalog) -> Calibration:
    """Read data/calibration/training.toml and the covariance beside it."""
    table = tomllib.loads(catalog.text("calibration/training.toml"))
    names = tuple(table["coefficients"])
    flat = np.array([float(x) for line in catalog.text("calibration/training_covariance.csv").splitlines() for x in line.split(",")])
    covariance = np.zeros((len(names), len(names)))
    lower = np.tril_indices(len(names))
    covariance[lower] = flat
    covariance = covariance + covariance.T - np.diag(np.diag(covariance))
    return Calibration(
        names=names, theta=np.array([float(v) for v in table["coefficients"].values()]), covariance=covariance, sources=frozenset(table["sources"]), chips=frozenset(table["chips"]),
        quantiles={k: (float(v[0]), float(v[1])) for k, v in table["quantiles"].items()}, rows=int(table["rows"]), date=str(table["date"]),
        scores={k: float(v) for k, v in table["scores"].items()},
    )  # fmt: skip


def read_vendors(catalog: Catalog) -> Mapping[str, str]:
    """Return the usual framework of each vendor, by lower-case vendor."""
    table = tomllib.loads(catalog.text("calibration/vendors.toml"))["framework"]
    return {str(k): str(v) for k, v in table.items()}


def usual_framework(catalog: Catalog, vendor: str, named: str | None = None) -> Framework:
    """Return the framework of that name, or the usual one of a vendor."""
    return catalog.framework(named or read_vendors(catalog).get(vendor.lower(), "unknown"))
