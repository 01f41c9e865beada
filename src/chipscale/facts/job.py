"""Job: what is to be done, fully stated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from chipscale.evidence import EvidenceError

Phase = Literal["train", "prefill", "decode", "serve"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A workload on a stated number of chips.

    train: `batch` sequences of `length` tokens a step, `tokens` in all. prefill: `batch` prompts of
    `length` tokens in flight on the whole cluster. decode: `batch` sequences in flight, each with
    `length` tokens of context. serve: requests of `length` tokens in and `output` out, as many as keep
    the mean time to the first token within `ttft` and that of a token after it within `tpot` (s), on `engine`. `precisions` are those that the job allows, each chip takes its best.
    """

    id: str
    title: str
    phase: Phase
    model: str
    chips: int
    length: int
    batch: int
    tokens: float = 0.0
    precisions: tuple[str, ...] = ("bf16",)
    source: str = ""
    output: int = 0
    ttft: float = math.inf
    tpot: float = math.inf
    engine: str = ""

    def __post_init__(self) -> None:
        if min(self.chips, self.length, self.batch) < 1:
            raise EvidenceError(f"job {self.id}: chips, length and batch must be at least 1")
        if self.phase == "train" and not self.tokens > 0:
            raise EvidenceError(f'job {self.id}: a training job needs a positive number of tokens; write it as in tokens = "15T"')
        if self.phase == "serve" and not (self.output >= 1 and self.ttft > 0 and 0 < self.tpot < math.inf and self.engine):
            raise EvidenceError(
                f'job {self.id}: a serving job needs output of 1 token or more, ttft and tpot above 0 and an engine; write them as in ttft = "2 s"'
            )
