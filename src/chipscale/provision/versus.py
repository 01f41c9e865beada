"""How many chips of one kind serve what so many of another serve."""

from __future__ import annotations

import math
from collections.abc import Mapping

from chipscale.catalog import Catalog
from chipscale.evidence import EvidenceError
from chipscale.facts.job import Job
from chipscale.provision.nouns import Wish
from chipscale.verdict import Verdict, weigh

#: precisions that chips may choose from where none is named
USUAL = ("bf16", "fp8", "int8")


def job_of(model: str, chips: int, wish: Wish) -> Job:
    """State a wish as a job that two chips can be weighed on.

    Errors: a load or a deployment that is pinned, speculation, a prefix cache: a weighed job is as much load as the limits admit on the best deployment.
    """
    for option, given in (("concurrency", wish.concurrency), ("rate", wish.rate), ("trace", wish.trace), ("plan", wish.plan), ("drafts", wish.drafts or None), ("prefix-hit", wish.prefix or None),
                          ("kv", wish.kv)):  # fmt: skip
        if given is not None:
            raise EvidenceError(
                f"--{option} {given} does not go with --versus, which gives both chips as much load as they bear on their best deployments; leave one out"
            )
    ttft, tpot = wish.bound
    if not math.isfinite(tpot):
        raise EvidenceError("--versus needs a pace that users are owed; state --slo-tpot, as in --slo-tpot 50ms")
    title = f"serve {model.rpartition('/')[2]}, {wish.input:,} in, {wish.output:,} out, {1e3 * tpot:g} ms"
    return Job(id=f"serve {model}", title=title, phase="serve", model=model, chips=chips, length=wish.input, batch=1, precisions=wish.formats or USUAL, output=wish.output,
               ttft=ttft, tpot=tpot, engine=wish.engine)  # fmt: skip


def versus(
    catalog: Catalog, model: str, a: str, chips: int, b: str, wish: Wish | None = None, *, assume: Mapping[str, str] | None = None, draws: int = 1024
) -> Verdict:
    """Weigh chip A against chip B on serving a model, `chips` of either: `a_per_1000_b` of its one job says how many A serve what 1,000 B serve.

    Errors: as `weigh`; a model that does not fit on so many chips of either kind, limits that one of them cannot keep.
    """
    wish = wish or Wish()
    catalog.model(model)
    return weigh(catalog, a, b, (job_of(model, chips, wish),), seed=wish.seed, draws=draws, assume=assume)
