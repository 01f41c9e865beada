"""Job: what is to be done, fully stated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from chipscale.evidence import EvidenceError

Phase = Literal["train", "prefill", "decode"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A workload on a stated number of chips.

    train: `batch` sequences of `length` tokens a step, `tokens` in all. prefill: `batch` prompts of
    `length` tokens in flight on the whole cluster. decode: `batch` sequences in flight, each with
    `length` tokens of context. `precisions` are those that the job allows, each chip takes its best.
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

    def __post_init__(self) -> None:
        if min(self.chips, self.length, self.batch) < 1:
            raise EvidenceError(f"job {self.id}: chips, length and batch must be at least 1")
        if self.phase == "train" and not self.tokens > 0:
            raise EvidenceError(f'job {self.id}: a training job needs a positive number of tokens; write it as in tokens = "15T"')
