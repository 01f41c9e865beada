"""Work: what an operator asks of a chip, free of any chip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Num: TypeAlias = "npt.NDArray[np.floating[Any]] | float"

#: the form that costs it (see cost/roofline.py)
Form = Literal["gemm", "grouped", "attention", "memory"]
#: who waits for it; the columns of a Step
Cause = Literal["gemm", "experts", "attention", "elementwise", "head"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One operator of one micro-batch on one rank; every number may be an array over plans.

    `flop` and `bytes` (read and written) are for one pass over `calls` equal layers.
    `rows`, `columns`, `depth` are the GEMM's m, n, k (1 where the form has none). `narrow` work runs at the
    plan's matmul precision, the rest at 16 bit. `forward` and `backward` say how often it runs in each
    direction without recompute; `core` marks what selective recompute repeats, `weights` a weight gradient, which nothing waits for
    but the optimizer.
    """

    name: str
    form: Form
    cause: Cause
    flop: Num
    bytes: Num
    rows: Num = 1.0
    columns: Num = 1.0
    depth: Num = 1.0
    calls: float = 1.0
    narrow: bool = False
    backward: bool = False
    core: bool = False
    weights: bool = False
