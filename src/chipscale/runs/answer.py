"""run(MODEL, CHIP, N, tokens): plans, and what a token budget takes on each; with a deadline, on the fewest chips that meet it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache

from chipscale.catalog import Catalog
from chipscale.evidence import EvidenceError
from chipscale.plan import OFFLOAD
from chipscale.planning import train
from chipscale.runs.accounting import account, accounts
from chipscale.runs.deadline import fewest, round_counts
from chipscale.runs.nouns import Answer, Terms, check_tokens
from chipscale.space import spreads
from chipscale.verdict.nouns import Side
from chipscale.verdict.world import candidate

#: tensor parallelism that some plan of a feasible count may use at most
WIDEST = 64


def run(catalog: Catalog, model: str, chip: str, chips: int, tokens: float, *, terms: Terms | None = None, length: int | None = None,
        batch: int | None = None, precision: str | None = None, framework: str | None = None, plan: str | None = None, top: int = 1,
        assume: Mapping[str, str] | None = None, offloads: Sequence[str] = OFFLOAD[:1]) -> Answer:  # fmt: skip
    """Return the best plans and what `tokens` tokens take on each: days with failures, energy, money.

    With `terms.days`, `chips` is how many there may be, and the answer is for the fewest that meet it at the likeliest hypothesis.
    Errors: those of `train`; a budget that cannot be; a deadline that cannot be met; a stated plan with a deadline.
    """
    terms = terms or Terms()
    check_tokens(tokens)

    def plans(n: int, best: int) -> tuple[Side, ...]:
        return train(catalog, model, chip, n, length=length, batch=batch, tokens=tokens, precision=precision, framework=framework, plan=plan,
                     top=best, assume=assume, offloads=offloads)  # fmt: skip

    if terms.days is not None:
        if plan is not None:
            raise EvidenceError("--days seeks a number of chips, but --plan fixes it; leave one out")
        counts = feasible_counts(catalog, model, chip, chips, batch, assume)
        plans(counts[-1], 1)  # says what is wrong before the search

        @cache
        def days(n: int) -> float:
            try:
                return account(catalog, model, chip, plans(n, 1)[0], n, tokens, terms).days.median
            except EvidenceError:  # nothing fits so few chips
                return math.inf

        chips = fewest(days, counts, terms.days)
    sides = plans(chips, top)
    return Answer(plans=sides, runs=accounts(catalog, model, chip, sides, chips, tokens, terms))


def feasible_counts(catalog: Catalog, model: str, chip: str, most: int, batch: int | None, assume: Mapping[str, str] | None) -> list[int]:
    """List the numbers of chips, up to `most`, that a run may take: whole nodes of the likeliest hypothesis that share out the batch.

    Errors: not one number of chips is left.
    """
    found = max(catalog.believed_model(model).hypotheses, key=lambda h: h.weight).value
    c = candidate(catalog, chip, {k: v for k, v in (assume or {}).items() if catalog.aliases().get(k.lower()) == catalog.aliases().get(chip.lower())})
    cluster = max(zip(c.belief.hypotheses, c.clusters, strict=True), key=lambda pair: pair[0].weight)[1]
    counts = [n for n in round_counts(cluster.node, min(most, cluster.size)) if batch is None or any(spreads(found, n, batch, WIDEST))]
    if not counts:
        raise EvidenceError(
            f"--days: no whole number of nodes of {cluster.node} chips up to {most:,} chips makes a plan; allow more in --on, or another --batch"
        )
    return counts
