"""A verdict made by hand: invented values in the shape of the founding question."""

from __future__ import annotations

from chipscale.evidence import Belief, Fact, Hypothesis, Kind, Source
from chipscale.facts.chip import Chip
from chipscale.facts.job import Job
from chipscale.verdict.nouns import HypothesisShare, Interval, JobVerdict, Sensitivity, Side, Verdict

H100, D910 = "nvidia-h100-sxm-80gb", "huawei-ascend-910d"
TRAIN_PARTS = ("gemm", "experts", "attention", "elementwise", "head", "recompute", "tp", "ep", "pp", "bubble", "dp", "optimizer", "fixed")


def around(median: float, factor: float) -> Interval:
    return Interval(median=median, low=median / factor, high=median * factor)


def side(chip: str, seconds: float, precision: str, weights: tuple[float, ...], hypothesis: str = "") -> Side:
    total = sum(weights)
    parts = tuple((name, seconds * w / total) for name, w in zip(TRAIN_PARTS, weights, strict=False))
    plan = "tp=8,pp=16,ep=64,dp=16,mb=1,zero1,recompute=selective"
    return Side(chip=chip, cluster="dgx-h100" if chip == H100 else "atlas-950-superpod", hypothesis=hypothesis, plan=plan,
                precision=precision, seconds=around(seconds, 1.15), rate=around(15360 * 4096 / 2048 / seconds, 1.15), mfu=0.31,
                memory_bytes=61e9, memory_capacity=80e9, parts=parts, fits=1.0 if hypothesis == "known" else 0.97)  # fmt: skip


def job_verdict(job: Job, median: float, factor: float, seconds: float, precisions: tuple[str, str]) -> JobVerdict:
    r = around(median, factor)
    weights = (30.0, 22.0, 9.0, 6.0, 2.0, 5.0, 8.0, 11.0, 1.0, 7.0, 3.0, 1.0, 0.5)
    return JobVerdict(
        job=job, ratio=r, p_at_least=0.06 if median < 0.6 else 0.41, a=side(D910, seconds / median, precisions[0], weights[::-1], "950-32"),
        b=side(H100, seconds, precisions[1], weights, "known"), a_per_1000_b=Interval(median=1000 / median, low=1000 / r.high, high=1000 / r.low),
        power_ratio=around(1.4 / median / 2, 1.3), cost_ratio=None, call="less" if median < 0.6 else "too close to call",
        contributions=(("compute", 0.61), ("memory", 0.97), ("fabric", 1.02), ("capacity", 1.0), ("precision", 0.88)),
        sensitivities=(Sensitivity(fact=f"{D910}:peak", test="bf16 matmul on one card", share=0.7, narrows=0.61),
                       Sensitivity(fact=f"belief:{D910}", test="HBM copy", share=0.2, narrows=0.14)),
        by_hypothesis=(("950-32", around(median, 1.2)), ("quad-die", around(median * 1.8, 1.4))), histogram=((0.4, 0.5), (0.6, 0.5)),
    )  # fmt: skip


def jobs() -> tuple[JobVerdict, ...]:
    v3, big = "deepseek-ai/DeepSeek-V3", "meta-llama/Llama-3.1-405B"
    pre = ("bf16", "fp8")
    return (
        job_verdict(Job(id="train-deepseek-v3", title="train DeepSeek-V3", phase="train", model=v3, chips=2048, length=4096, batch=15360,
                        tokens=14.8e12), 0.51, 1.6, 9.4, pre),
        job_verdict(Job(id="train-llama-3.1-405b", title="train Llama 3.1 405B", phase="train", model=big, chips=8192, length=8192,
                        batch=2048, tokens=15.6e12), 0.44, 1.55, 12.1, ("bf16", "bf16")),
        job_verdict(Job(id="train-llama-3.1-8b", title="train Llama 3.1 8B", phase="train", model=big, chips=64, length=8192, batch=128,
                        tokens=15e12), 0.47, 1.5, 2.1, ("bf16", "bf16")),
        job_verdict(Job(id="prefill-deepseek-v3", title="prefill DeepSeek-V3, 4,096 tokens", phase="prefill", model=v3, chips=32, length=4096,
                        batch=32), 0.58, 1.7, 0.31, ("mxfp8", "fp8")),
        job_verdict(Job(id="decode-deepseek-v3", title="decode DeepSeek-V3, 32 a chip", phase="decode", model=v3, chips=32, length=4096,
                        batch=1024), 0.93, 1.8, 0.021, ("mxfp8", "fp8")),
    )  # fmt: skip


def verdict() -> Verdict:
    shares = (
        HypothesisShare(key="950-28", title="an Ascend 950 of 28 subsystems under an older name", weight=0.2, reason="a lower bin"),
        HypothesisShare(key="950-32", title="an Ascend 950 of 32 subsystems under an older name", weight=0.5, reason="the SuperPoD figure"),
        HypothesisShare(key="quad-die", title="four dies of the 910B class in one package", weight=0.2, reason="a packaging patent"),
        HypothesisShare(key="press-2pf", title="the chip of the press tables", weight=0.1, reason="figures without a source"),
    )
    return Verdict(
        question="Can the Ascend 910D replace the H100?", a="Ascend 910D", b="H100 SXM5 80GB", match="chips", jobs=jobs(), seed=0, draws=1024,
        headline="Not one for one. Likely 1.5 to 3 of them, if it is what the evidence suggests.",
        hypotheses=((D910, shares),), evidence=((D910, (("vendor-talk", 12), ("press", 9), ("rumour", 2))), (H100, (("measured", 26), ("datasheet", 14)))),
        settle=(Sensitivity(fact=f"{D910}:peak", test="bf16 matmul on one card", share=0.7, narrows=0.61),
                Sensitivity(fact=f"belief:{D910}", test="HBM copy", share=0.2, narrows=0.14)),
        wrongness=("training, unseen Ascend chips: 12 % (n = 139)", "training, unseen NVIDIA chips: 9 % (n = 395)"),
    )  # fmt: skip


SOURCE = Source(key="white-paper", where="https://example.org/950.pdf, table 2", kind=Kind.VENDOR_TALK, date="2025-09")


def fact(quantity: str, value: float, unit: str, source: Source = SOURCE, rejected: str = "", sense: str = "") -> Fact:
    return Fact(quantity=quantity, value=value, low=value * 0.9, high=value * 1.1, unit=unit, source=source, rejected=rejected, sense=sense)


def chip(id: str, name: str, scale: float = 1.0) -> Chip:
    press = Source(key="press", where="<b>a newspaper</b>", kind=Kind.PRESS, date="2025")
    facts = {
        "peak_bf16": (fact("peak_bf16", 989.4e12 * scale, "FLOP/s", sense="dense"), fact("peak_bf16", 1979e12 * scale, "FLOP/s", press, "the sparse figure", "sparse")),
        "peak_fp8": (fact("peak_fp8", 1979e12 * scale, "FLOP/s", sense="dense"), fact("peak_fp8", 1600e12 * scale, "FLOP/s", press)),
        "memory_bandwidth": (fact("memory_bandwidth", 3.35e12 * scale, "B/s"),),
        "memory_bytes": (fact("memory_bytes", 80e9, "B"),),
        "power": (fact("power", 700, "W"),),
    }
    return Chip(id=id, name=name, vendor="V", family="f", facts=facts)


def belief() -> Belief[Chip]:
    one, two = chip(f"{D910}=950-32", "Ascend 910D (950-32)", 0.44), chip(f"{D910}=quad-die", "Ascend 910D (quad-die)", 1.2)
    return Belief(hypotheses=(Hypothesis(key="950-32", title="an Ascend 950", weight=0.7, reason="the figure", value=one),
                              Hypothesis(key="quad-die", title="four dies", weight=0.3, reason="a patent", value=two)))  # fmt: skip
