"""One forward pass over a cluster: prefill and decode at roofline level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chipscale.cost.constants import Constants
from chipscale.cost.hardware import WIDTH, Hardware
from chipscale.facts.job import Job
from chipscale.facts.model import CompressedAttention, Experts, LatentAttention, Model
from chipscale.graph import Shard, build
from chipscale.ops.work import Num
from chipscale.plan import Degrees, Plan, PlanTable, table
from chipscale.simulators.closed_form import expert_seconds, tensor_seconds, times
from chipscale.step import CAUSES, Sizes, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """A serving job's single pass: `batch` prompts of `length` tokens, or one token of `batch` sequences."""

    model: Model
    job: Job
    precision: str
    sizes: Sizes

    def step(self, plan: Degrees, hardware: Hardware, constants: Constants) -> Step:
        """Return the seconds of one pass by cause: dp groups share the batch, experts spread over ep ranks.

        Holds when the batch is full and nothing waits (no queue, no scheduling).
        Source: roofline-2009, equation 1; megatron-2021, section 3 (traffic).
        """
        decode = self.job.phase == "decode"
        each = self.job.batch / plan.dp
        tokens = each * (1.0 if decode else float(self.job.length))
        shard = Shard(length=float(self.job.length), tokens=tokens, tp=plan.tp, sp=plan.tp, ep=plan.ep, etp=plan.etp, width=WIDTH[self.precision],
                      train=False, decode=decode)  # fmt: skip
        t = times(build(self.model, shard), hardware, constants)
        host = constants.host / 3.0 * self.sizes.layers
        tp = constants.tp * tensor_seconds(self.sizes, plan, tokens, 1.0, hardware, constants)
        ep = constants.ep * expert_seconds(self.sizes, plan, tokens, 1.0, hardware, constants)
        found: dict[str, Num] = {"gemm": t.gemm, "experts": t.experts, "attention": t.attention, "elementwise": t.elementwise, "head": t.head,
                                 "host": host, "tp": tp, "ep": ep}  # fmt: skip
        return Step(parts=tuple(constants.scale * found.get(cause, 0.0) for cause in CAUSES))

    def bytes(self, plan: Degrees) -> Num:
        """Count weights at the matmul precision, the cache of the batch in flight (2 bytes an element) and one layer's activations.

        w P / shards + 2 T_cache w_kv.

        Holds when latent caches are held whole on each tensor-parallel rank and others are split by heads.
        Source: deepseek-v3, section 2.1.1.
        """
        s = self.sizes
        width = WIDTH[self.precision]
        weights = width * (s.dense / plan.tp + s.experts / (plan.ep * plan.etp)) + 2.0 * s.ends / plan.tp
        split = np.where(np.asarray(_latent(self.model)), 1.0, plan.tp)
        cache = 2.0 * self.job.batch / plan.dp * self.job.length * s.kv_width / split
        live = 8.0 * self.job.batch / plan.dp * (1.0 if self.job.phase == "decode" else min(self.job.length, 8192)) * s.d_model / plan.tp
        return weights + cache + live


def _latent(model: Model) -> bool:
    return isinstance(model.blocks[0].mixer, LatentAttention | CompressedAttention)


def deployments(model: Model, chips: int, batch: int) -> PlanTable:
    """List the deployments of one replica over `chips`: tp inside, dp over the rest, experts over all ranks or some."""
    experts = max((b.feed.count for b in model.blocks if isinstance(b.feed, Experts)), default=0)
    heads = getattr(model.blocks[0].mixer, "heads", 1)
    rows: list[Plan] = []
    for tp in (t for t in range(1, min(chips, 64) + 1) if chips % t == 0 and heads % t == 0):
        dp = chips // tp
        for ep in [e for e in range(1, chips + 1) if chips % e == 0 and experts % e == 0] if experts else [1]:
            if batch >= dp:
                rows.append(Plan(tp=tp, ep=ep, dp=dp, sharding=0))
    return table(rows)
