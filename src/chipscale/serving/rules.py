"""Rules: how an engine shares its steps and its memory among requests; what it drafts ahead; all of it data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from chipscale.evidence import EvidenceError


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The scheduling rule of an engine.

    `tokens` may be computed in a step and `sequences` be under way at once. `chunked`: a prompt may be cut where the budget ends. `shared`: prompts fill what the decodes leave
    of a step; else they have steps of their own while decodes pause. The cache has `blocks` blocks of `block` tokens. `reserve`: a request is admitted when its prompt and
    whole answer fit, and never stopped; else it grows block by block, and when none is left the newest request is stopped and computed anew. `cached` is the share of each prompt
    that the prefix cache holds already (its blocks are counted for each request). The client sees the first token when `stream` tokens are there.
    """

    tokens: int
    sequences: int
    chunked: bool = True
    shared: bool = True
    block: int = 16
    blocks: float = math.inf
    reserve: bool = False
    cached: float = 0.0
    stream: int = 1

    def __post_init__(self) -> None:
        for name in ("tokens", "sequences", "block", "blocks", "stream"):
            if not np.all(np.asarray(getattr(self, name)) >= 1):
                raise EvidenceError(f"scheduling rule: {name} = {np.min(getattr(self, name)):g}; give at least 1")
        if not 0.0 <= self.cached <= 1.0:
            raise EvidenceError(f"scheduling rule: cached = {self.cached:g} is not a share; give 0 to 1 of each prompt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Speculation:
    """`drafts` tokens guessed ahead in each step, of which `accepted` are right on average (0 to `drafts`)."""

    drafts: int = 0
    accepted: float = 0.0

    def __post_init__(self) -> None:
        if self.drafts < 0 or not 0.0 <= self.accepted <= self.drafts:
            raise EvidenceError(
                f"speculation accepts {self.accepted:g} of {self.drafts} drafts a step; give 0 drafts or more, and between 0 and all of them accepted"
            )

    @property
    def chance(self) -> float:
        """Return the chance alpha that a draft is right where all before it are.

        accepted = alpha + alpha^2 + ... + alpha^drafts.

        Holds when drafts are right independently of each other and of their place.
        Source: leviathan-2023, equation 1.

        >>> Speculation(drafts=3, accepted=0.875).chance
        0.5
        """
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if sum(middle**i for i in range(1, self.drafts + 1)) < self.accepted else (low, middle)
        return 0.5 * (low + high) if self.accepted < self.drafts else 1.0


def decode_steps(output: np.ndarray, speculation: Speculation, seed: int) -> np.ndarray:
    """Return how many steps after its prompt each request takes: one a token, or fewer as drafts are drawn to be right (shape (requests,))."""
    if not speculation.accepted:
        return output - 1
    rng, alpha = np.random.default_rng([seed, speculation.drafts]), speculation.chance
    ended = 1 + speculation.drafts
    found = np.empty(len(output), dtype=int)
    for i, tokens in enumerate(output - 1):
        yielded = np.minimum(rng.geometric(1.0 - alpha, int(tokens)), ended) if alpha < 1.0 else np.full(int(tokens), ended)
        found[i] = np.searchsorted(np.cumsum(yielded), tokens) + 1 if tokens else 0
    return found
