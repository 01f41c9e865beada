"""Constants: the few fitted coefficients that the forms read."""

from __future__ import annotations

from dataclasses import dataclass

from chipscale.ops.work import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """Coefficients of the forms, floats or arrays; their values come from data/calibration/, never from code.

    gemm, narrow_gemm: sustained fraction of the dense peak at 16 bit and below; gemm_size: elements lost at each edge of
    a product; grouped: further fraction of grouped products, grouped_size: further elements that they lose at each edge; attention: fraction of the 16-bit peak in fused attention, forward;
    attention_backward: slowdown of its backward; attention_start: tokens of context at which it
    reaches half its rate; memory: fraction of memory bandwidth; elementwise: multiplier on counted bytes;
    host: seconds a layer and micro-batch, forward and backward; host_expert: seconds a local expert, layer and micro-batch;
    permute: multiplier on counted dispatch bytes; inner, outer: fraction of link bandwidth; tp, ep, dp, cp: share of traffic
    exposed; fsdp: share exposed beside compute; fixed: seconds a step; scale: what all else multiplies.
    """

    gemm: Num
    narrow_gemm: Num
    gemm_size: Num
    grouped: Num
    grouped_size: Num
    attention: Num
    attention_backward: Num
    attention_start: Num
    memory: Num
    elementwise: Num
    host: Num
    host_expert: Num
    permute: Num
    inner: Num
    outer: Num
    tp: Num
    ep: Num
    dp: Num
    cp: Num
    fsdp: Num
    fixed: Num
    scale: Num
