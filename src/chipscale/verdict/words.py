"""The verdict in words."""

from __future__ import annotations

from collections.abc import Sequence

from chipscale.verdict.nouns import JobVerdict

TESTS = {
    "peak": "16-bit matmul on one card", "memory_bandwidth": "HBM copy on one card", "memory_bytes": "memory that one card shows",
    "power": "power of one card under load", "inner": "all-reduce inside a node", "outer": "all-reduce across nodes",
}  # fmt: skip


def settle_test(column: str) -> str:
    """Name the test that would settle a column of the draws."""
    kind, _, rest = column.partition(":")
    if kind == "belief":
        return f"which chip the {short(rest)} is: one card, opened or identified by its driver"
    if kind == "error":
        return f"the job itself on a few nodes of {short(rest.split(':')[0])}"
    return f"{TESTS[rest]}, {short(kind)}"


#: what a ratio is per, where the two sides are not matched in chips
MATCHED = {"power": "watt for watt", "cost": "for the same money"}


def short(id: str) -> str:
    """Return a chip id as people say it: without its vendor, and without the family where a number tells.

    >>> short("huawei-ascend-910d"), short("nvidia-h100-sxm-80gb"), short("my-chip")
    ('910D', 'H100', 'my-chip')
    """
    name = id.split("-", 1)[-1]
    if not any(c.isdigit() for c in name):
        return id
    return (name.removeprefix("ascend-") if name.startswith("ascend-") else name.split("-sxm")[0]).upper()


def headline(jobs: Sequence[JobVerdict], a: str, match: str = "chips") -> str:
    """Say the answer in one line: yes, no with how many, or too close to call."""
    if match in MATCHED:
        return _matched(jobs, MATCHED[match])
    low = min(j.a_per_1000_b.median for j in jobs) / 1000.0
    high = max(j.a_per_1000_b.median for j in jobs) / 1000.0
    chances = [j.p_at_least for j in jobs]
    if all(j.ratio.low == j.ratio.high == 1.0 for j in jobs):
        return "They weigh the same."
    span = f"{low:.1f} to {high:.1f}" if high - low > 0.15 else f"{high:.1f}"
    if min(chances) >= 0.8:
        return f"Yes, on every job weighed. {span} of the {a} do the work of one."
    if max(chances) <= 0.2:
        return f"Not one for one. Likely {span} of the {a} for one, if it is what the evidence suggests."
    if all(0.2 < p < 0.8 for p in chances):
        return f"Too close to call. Likely {span} of the {a} for one."
    return f"It depends on the job. Likely {span} of the {a} for one."


def _matched(jobs: Sequence[JobVerdict], per: str) -> str:
    """Say the answer in one line where power or cost is made equal."""
    low, high = min(j.ratio.median for j in jobs), max(j.ratio.median for j in jobs)
    chances = [j.p_at_least for j in jobs]
    if all(j.ratio.low == j.ratio.high == 1.0 for j in jobs):
        return f"They weigh the same, {per}."
    span = f"{low:.2f} to {high:.2f}" if high - low > 0.015 else f"{high:.2f}"
    if min(chances) >= 0.8:
        return f"Yes, {per}, on every job weighed: it does {span} times the work."
    if max(chances) <= 0.2:
        return f"No, not {per}: it likely does {span} of the work, if it is what the evidence suggests."
    if all(0.2 < p < 0.8 for p in chances):
        return f"Too close to call: {per}, it likely does {span} of the work."
    return f"It depends on the job: {per}, it likely does {span} of the work."
