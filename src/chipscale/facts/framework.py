"""Framework: what software does, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Framework:
    """A training framework: how it is recognised in a measured row, and what it does by default.

    `matches` are lower-case substrings of a framework's stated name. `recompute` weighs the settings that a
    row without a stated recompute may have used; they sum to 1. `master_bytes` is optimizer state per parameter (B).
    `lacks` are features that it never had; `since` is the year in which a feature first shipped: an older result cannot have used it.
    """

    id: str
    name: str
    matches: tuple[str, ...]
    sharding: str
    recompute: tuple[tuple[str, float], ...]
    master_bytes: float
    gradient_bytes: float
    overlaps: tuple[str, ...]
    lacks: tuple[str, ...]
    since: tuple[tuple[str, int], ...]
    source: str
    date: str
