"""Pace: what one step of a serving replica costs, as tables that a scheduler can read a million times a second."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chipscale.evidence import EvidenceError
from chipscale.ops.work import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds of a step of one replica, chips and ranks inside it already counted.

    `flow[i]` is what `tokens[i]` tokens of any kind cost outside attention (products, experts, collectives, element-wise);
    `settle[i]` and `reach[i]` are the attention of `running[i]` sequences that each get one new position (or one and their drafts):
    seconds a step, and seconds a token that lies in their caches. `chunk` is what the attention of any prompt tokens adds to a step, `pair` seconds for each pair of
    a prompt token and a token that it sees. `step` is the host's part of every step, `sequence` its part for each sequence in it.

    Many replicas are one pace: tables with rows ahead of their knots and one chunk, pair, step and sequence a row; what is asked of them has rows first.
    """

    tokens: np.ndarray
    flow: np.ndarray
    running: np.ndarray
    settle: np.ndarray
    reach: np.ndarray
    chunk: Num
    pair: Num
    step: Num
    sequence: Num

    def __post_init__(self) -> None:
        for knots, values in ((self.tokens, (self.flow,)), (self.running, (self.settle, self.reach))):
            if len(knots) < 2 or np.any(np.diff(knots) <= 0) or any(v.shape[-1] != len(knots) or np.any(v < 0) for v in values):
                raise EvidenceError("a pace needs ascending knots and as many seconds, none negative")

    def seconds(self, prompt: Num, pairs: Num, running: Num, context: Num, drafts: Num = 0.0, chunks: Num = 0.0) -> Num:
        """Cost a step of `prompt` tokens that see `pairs` tokens, and of `running` sequences with `context` cached tokens in all.

        t = flow(prompt + running (1 + drafts)) + (chunk + pair pairs) [prompt > 0] + settle(running) + reach(running) context + step + sequence (running + chunks).

        Holds when the parts follow each other on the chip; tables are linear between their knots and beyond the last.
        Source: vllm-2023, section 4.3 (a step runs all scheduled tokens together); sarathi-2024, section 4 (chunks).
        """
        held = np.where(np.asarray(running) > 0, self.settled(running) + self.reached(running) * context, 0.0)
        asked: Num = prompt + running * (1.0 + drafts)
        chunk, pair, step, sequence = (_rows(x, asked) for x in (self.chunk, self.pair, self.step, self.sequence))
        prompted = np.where(np.asarray(prompt) > 0, chunk + pair * pairs, 0.0)
        return self.flowing(asked) + prompted + held + step + sequence * (running + chunks)

    def flowing(self, tokens: Num) -> Num:
        """Interpolate what `tokens` tokens cost outside attention."""
        return _linear(tokens, self.tokens, self.flow)

    def settled(self, running: Num) -> Num:
        """Interpolate the attention of `running` sequences without what they cached."""
        return _linear(running, self.running, self.settle)

    def reached(self, running: Num) -> Num:
        """Interpolate the seconds a cached token of `running` sequences costs."""
        return _linear(running, self.running, self.reach)


def _linear(at: Num, knots: np.ndarray, values: np.ndarray) -> Num:
    """Interpolate between knots, flat below the first, along the last slope beyond the last."""
    if values.ndim == 1:
        slope = (values[-1] - values[-2]) / (knots[-1] - knots[-2])
        inside: Num = np.interp(at, knots, values) + np.maximum(np.asarray(at) - knots[-1], 0.0) * slope
        return inside
    where = np.asarray(at, dtype=float)
    left = np.clip(np.searchsorted(knots, where, side="right") - 1, 0, len(knots) - 2)
    weight = np.maximum((where - knots[left]) / (knots[left + 1] - knots[left]), 0.0)
    rows = np.arange(len(values)).reshape((-1,) + (1,) * (where.ndim - 1))
    below = values[rows, left]
    found: Num = below + weight * (values[rows, left + 1] - below)
    return found


def _rows(value: Num, like: Num) -> Num:
    """Give one value a row as many axes as what it meets."""
    return np.reshape(value, np.shape(value) + (1,) * (np.ndim(like) - np.ndim(value))) if np.ndim(value) else value
