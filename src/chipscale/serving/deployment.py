"""Deployment: how a replica of a model lies on its chips, and in which number formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chipscale.cost.kernels.gemm import Gemm
from chipscale.evidence import EvidenceError
from chipscale.facts.chip import Chip
from chipscale.ops.work import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A number format of matrix products: the engine's precision, bytes an element of weights (scales included) and of activations.

    `quantised` is 1 where 16-bit activations are made narrow first.
    """

    id: str
    precision: str
    weight: float
    activation: float
    quantised: float

    def product(self, m: Num, n: Num, k: Num) -> Gemm:
        """Return the call of a product in this format."""
        return Gemm(m=m, n=n, k=k, a=self.activation, b=self.weight, out=2.0, quantised=self.quantised)


#: ocp-mx-2023, table 1 (blocks of 32, 8-bit scales); nvidia-nvfp4 (blocks of 16); deepseek-v3, section 3.3.2 (fp8 blocks); marlin-2024, section 2
FORMATS = {
    f.id: f
    for f in (
        Format(id="bf16", precision="bf16", weight=2.0, activation=2.0, quantised=0.0),
        Format(id="fp16", precision="fp16", weight=2.0, activation=2.0, quantised=0.0),
        Format(id="fp8", precision="fp8", weight=1.0, activation=1.0, quantised=1.0),
        Format(id="fp8_block", precision="fp8", weight=1.03, activation=1.0, quantised=1.0),
        Format(id="int8", precision="int8", weight=1.0, activation=1.0, quantised=0.0),
        Format(id="nvfp4", precision="nvfp4", weight=0.5625, activation=0.5, quantised=1.0),
        Format(id="w4a8_mxfp4_mxfp8", precision="mxfp8", weight=0.53125, activation=1.03, quantised=1.0),
        Format(id="w4a16_mxfp4", precision="bf16", weight=0.53125, activation=2.0, quantised=0.0),
        Format(id="w4a16", precision="bf16", weight=0.53, activation=2.0, quantised=0.0),
        Format(id="w8a16", precision="bf16", weight=1.0, activation=2.0, quantised=0.0),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One replica: `tp` ranks share each attention head group, `dp` such groups share the requests, `moe_tp` x `moe_ep` ranks share the experts.

    `dense` and `experts` are formats of weights, `kv` bytes an element of the cache. `pp` stages follow one another.
    """

    tp: int
    dp: int = 1
    pp: int = 1
    moe_tp: int = 1
    moe_ep: int = 1
    dense: Format
    experts: Format
    kv: float = 2.0

    def __post_init__(self) -> None:
        if min(self.tp, self.dp, self.pp, self.moe_tp, self.moe_ep) < 1:
            raise EvidenceError("a deployment's degrees must be at least 1")
        if not 0.25 <= self.kv <= 4:
            raise EvidenceError(f"kv = {self.kv:g}: an element of the cache takes from 0.25 to 4 bytes")

    @property
    def chips(self) -> int:
        """The chips of a replica."""
        return self.tp * self.dp * self.pp


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployments:
    """Many deployments of one replica in the same formats: degrees as columns, arrays of shape (rows, 1)."""

    tp: np.ndarray
    dp: np.ndarray
    moe_tp: np.ndarray
    moe_ep: np.ndarray
    dense: Format
    experts: Format
    kv: float


def table(rows: Sequence[Deployment]) -> Deployments:
    """Write deployments in the same formats one below the other."""
    first = rows[0]
    if any((d.dense, d.experts, d.kv) != (first.dense, first.experts, first.kv) for d in rows):
        raise EvidenceError("deployments of one table share their number formats; make a table for each")
    columns = {name: np.array([[float(getattr(d, name))] for d in rows]) for name in ("tp", "dp", "moe_tp", "moe_ep")}
    return Deployments(dense=first.dense, experts=first.experts, kv=first.kv, **columns)


def runnable(format: Format, chip: Chip) -> Format:
    """Return a format as a chip runs it: 4-bit weights are widened to 16 bit where its matrix engine has no 4-bit numbers.

    Errors: a precision that the chip lacks otherwise.
    """
    if chip.has(f"peak_{format.precision}"):
        return format
    if format.precision in ("nvfp4", "mxfp8") and format.weight < 1.0:
        return FORMATS["w4a16_mxfp4" if format.precision == "mxfp8" else "w4a16"]
    if format.precision == "bf16" and chip.has("peak_fp16"):
        return FORMATS["fp16"]
    known = ", ".join(f for f, v in FORMATS.items() if chip.has(f"peak_{v.precision}")) or "none"
    raise EvidenceError(f"{chip.id} has no {format.precision} matrix products, which {format.id} needs; choose one of {known}")
