"""Source, Fact, Belief: who says what, and how far it may be off."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Generic, Literal, TypeVar

T = TypeVar("T")


class Kind(StrEnum):
    """How a value became known, most trusted first."""

    MEASURED = "measured"
    DATASHEET = "datasheet"
    PAPER = "paper"
    CODE = "code"
    VENDOR_TALK = "vendor-talk"
    ANALYST = "analyst"
    PRESS = "press"
    RUMOUR = "rumour"
    ASSUMED = "assumed"


#: log-scale half width of an 80 % interval that a value of this kind deserves when nobody states one
SPREAD: Mapping[Kind, float] = {
    Kind.MEASURED: 0.01,
    Kind.DATASHEET: 0.01,
    Kind.PAPER: 0.03,
    Kind.CODE: 0.03,
    Kind.VENDOR_TALK: 0.06,
    Kind.ANALYST: 0.10,
    Kind.PRESS: 0.20,
    Kind.RUMOUR: 0.40,
    Kind.ASSUMED: 0.25,
}

Per = Literal["die", "package", "board", "node"]


class EvidenceError(ValueError):
    """Bad input: one message that names the file, the field and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a fact was read: `key` is cited, `where` locates it, `date` is ISO (may be partial)."""

    key: str
    where: str
    kind: Kind
    date: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        if not self.key or not self.where:
            raise EvidenceError("a source needs a key and a place (where); add both")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One value of one quantity in SI units, `low <= value <= high`, with its source.

    `sense` says how it is to be read: dense or sparse, one-way or two-way. `rejected` is the reason why a known error
    does not count; it stays visible.
    """

    quantity: str
    value: float
    low: float
    high: float
    unit: str
    source: Source
    per: Per = "package"
    sense: str = ""
    note: str = ""
    rejected: str = ""

    def __post_init__(self) -> None:
        if not (0 <= self.low <= self.value <= self.high < float("inf")):
            raise EvidenceError(
                f"{self.quantity}: needs 0 <= low <= value <= high, got {self.low:g} <= {self.value:g} <= {self.high:g}; correct the three numbers"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis(Generic[T]):
    """One way the world may be: a thing, the weight that it deserves, and the stated reason."""

    key: str
    title: str
    weight: float
    reason: str
    value: T


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief(Generic[T]):
    """Weighted hypotheses, never averaged into one; the weights sum to 1."""

    hypotheses: tuple[Hypothesis[T], ...]

    def __post_init__(self) -> None:
        total = sum(h.weight for h in self.hypotheses)
        if not self.hypotheses or any(h.weight <= 0 for h in self.hypotheses) or abs(total - 1) > 1e-9:
            raise EvidenceError(f"the weights of a belief are positive and sum to 1, these sum to {total:g}; correct them")

    def pinned(self, key: str) -> Belief[T]:
        """Return the belief that one hypothesis, `key`, is true."""
        for h in self.hypotheses:
            if h.key == key:
                return Belief(hypotheses=(Hypothesis(key=h.key, title=h.title, weight=1.0, reason="assumed by the user", value=h.value),))
        known = ", ".join(h.key for h in self.hypotheses)
        raise EvidenceError(f"no hypothesis {key!r}; choose one of: {known}")


#: how a kind ranks, most trusted first
RANK = {kind: i for i, kind in enumerate(Kind)}


def chosen_first(facts: Iterable[tuple[bool, Fact]]) -> tuple[Fact, ...]:
    """Order facts: chosen by hand, then by class, then newest; the first one's range spans the credible others."""
    facts = list(facts)
    order = sorted((f for _, f in facts), key=lambda f: f.source.date, reverse=True)
    by_hand = [f for chosen, f in facts if chosen]
    order.sort(key=lambda f: (bool(f.rejected), f not in by_hand, RANK[f.source.kind]))
    return (widened(order[0], order[1:]), *order[1:])


def widened(fact: Fact, others: Iterable[Fact]) -> Fact:
    """Return a fact whose range spans the credible others and at least the spread of its class; counts are exact.

    A spread that somebody stated is kept as it is.
    """
    spread = 1.0 if fact.unit == "1" else math.exp(SPREAD[fact.source.kind])
    stated = fact.low < fact.value or fact.high > fact.value
    low, high = (fact.low, fact.high) if stated else (fact.value / spread, fact.value * spread)
    credible = [o.value for o in others if not o.rejected]
    return replace(fact, low=min([low, *credible]), high=max([high, *credible]))
