"""Peak memory of measured rows: what each guess holds, and the one figure that is set against the measurement."""

from __future__ import annotations

import numpy as np

from chipscale.cost.hardware import WIDTH
from chipscale.memory import Need, by_stage, holds, need
from chipscale.plan import degrees, table
from chipscale.rows import Measured


def needs(row: Measured) -> Need:
    """Return what the fullest chip holds under each guess of a row, in their order."""
    assert row.model is not None
    plan = degrees(table([g.plan for g in row.guesses]))
    held = holds(row.model, operand=min(2.0, max(1.0, WIDTH[row.precision])), scores=0.0 if row.fused else row.length)
    sp = plan.tp if row.sequence_parallel else 1.0 + 0.0 * plan.tp
    batches = np.ceil(row.batch / (plan.dp * plan.micro_batch))
    return need(by_stage(held, plan, plan.micro_batch * row.length / plan.cp, batches, row.keeping, sp), row.keeping)


def peak_memory(row: Measured) -> float:
    """Return a row's peak memory (B): the median over its guesses, each with its weight.

    Holds when the settings that a row leaves blank do not depend on whether they fit.
    Source: docs/decisions/0002-guessing-policy.md.
    """
    total = np.broadcast_to(np.asarray(needs(row).total, dtype=np.float64), (len(row.guesses),))
    weight = np.array([g.weight for g in row.guesses])
    return float(np.quantile(total, 0.5, weights=weight, method="inverted_cdf"))
