"""Stepping: one candidate on a job that is a step repeated, from the best plans' steps over the draws."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from chipscale.cost.hardware import Hardware
from chipscale.facts.chip import Chip
from chipscale.facts.job import Job
from chipscale.facts.parameters import parameters
from chipscale.plan import degrees
from chipscale.step import CAUSES
from chipscale.verdict.contest import Option, options, precisions, swapped
from chipscale.verdict.draws import hardware_draws
from chipscale.verdict.nouns import Side
from chipscale.verdict.world import Candidate, World, interval

#: capacity first, since nothing runs where the job does not fit
STEPS = (("capacity", ("memory_bytes",)), ("compute", ("peak", "peak16", "power")), ("memory", ("memory_bandwidth",)),
         ("fabric", ("inner_size", "inner_bandwidth", "inner_latency", "outer_bandwidth", "outer_latency", "node", "mesh", "axes", "middle_size",
          "middle_bandwidth", "middle_latency")))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One candidate on one job over the draws: seconds by hypothesis, the options searched, and the mixture."""

    options: tuple[tuple[Option, ...], ...]
    hardware: tuple[Hardware, ...]
    by_hypothesis: tuple[np.ndarray, ...]
    seconds: np.ndarray
    power: np.ndarray
    price: np.ndarray
    best: tuple[int, int]


def run(world: World, c: Candidate, job: Job) -> Run:
    """Search and draw one candidate on one job."""
    searched, hardwares, each, errors = [], [], [], world.draws.normal(f"error:{c.key}:{job.id}")
    for h, cluster in zip(c.belief.hypotheses, c.clusters, strict=True):
        chip = h.value
        nominal = {p: world.constants(chip, job, p, nominal=True) for p in precisions(job, chip)}
        found = options(world.catalog, job, chip, cluster, nominal)
        drawn = [hardware_draws(o.hardware, chip, cluster, c.key, world.draws) for o in found]
        seconds = np.min([o.seconds(hw, world.constants(chip, job, o.precision, nominal=False)) for o, hw in zip(found, drawn, strict=True)], axis=0)
        each.append(seconds * np.exp(errors * world.sigma(chip, job)))
        searched.append(found)
        hardwares.append(drawn[0])
    which = np.searchsorted(np.cumsum([h.weight for h in c.belief.hypotheses])[:-1], world.draws.columns[f"belief:{c.key}"], side="right")
    power = np.stack([np.broadcast_to(np.asarray(hw.power), errors.shape) for hw in hardwares])
    price = [h.value.value("price") if h.value.has("price") else math.nan for h in c.belief.hypotheses]
    index = np.arange(len(errors))
    likely = int(np.argmax([h.weight for h in c.belief.hypotheses]))
    fastest = [
        float(np.median(o.seconds(o.hardware, world.constants(c.belief.hypotheses[likely].value, job, o.precision, nominal=True))))
        for o in searched[likely]
    ]
    return Run(options=tuple(searched), hardware=tuple(hardwares), by_hypothesis=tuple(each), seconds=np.stack(each)[which, index],
               power=power[which, index], price=np.array(price)[which], best=(likely, int(np.argmin(fastest))))  # fmt: skip


def side(world: World, c: Candidate, job: Job, r: Run) -> Side:
    """Describe one chip at its most likely hypothesis and best plan."""
    h, o = r.best
    hypothesis, option = c.belief.hypotheses[h], r.options[r.best[0]][o]
    plan, step = option.best(world.constants(hypothesis.value, job, option.precision, nominal=True))
    tokens = float(job.batch) * (1.0 if job.phase == "decode" else float(job.length))
    total = float(np.asarray(step.seconds))
    flop = 6.0 if job.phase == "train" else 2.0
    count = parameters(world.catalog.model(job.model))
    mfu = flop * count.active_without_embedding * tokens / (total * job.chips * float(np.asarray(option.hardware.peak)))
    held = float(np.asarray(option.runner.bytes(degrees(plan))))
    return Side(chip=hypothesis.value.id, cluster=c.clusters[h].id, hypothesis=hypothesis.key, plan=str(plan), precision=option.precision, seconds=interval(r.seconds),
                rate=interval(tokens / r.seconds / job.chips), mfu=mfu, memory_bytes=held, memory_capacity=hypothesis.value.value("memory_bytes"),
                parts=tuple((cause, float(np.asarray(p))) for cause, p in zip(CAUSES, step.parts, strict=True) if float(np.asarray(p)) > 0),
                fits=float(np.mean(np.isfinite(r.seconds))))  # fmt: skip


def contributions(world: World, job: Job, a: Candidate, b: Candidate, ra: Run, rb: Run) -> tuple[tuple[str, float], ...]:
    """Factor the nominal ratio: take B's chip and turn it into A's, one kind of number at a time, best plan each time.

    All are factors at 16 bit, and precision is what the narrow formats add on top; where 16 bit does not fit, all are at the
    narrow precision and precision stands inside compute.
    """
    oa, ob = ra.options[ra.best[0]], rb.options[rb.best[0]]
    chip_a, chip_b = a.belief.hypotheses[ra.best[0]].value, b.belief.hypotheses[rb.best[0]].value

    def alone(chip: Chip, o: Option) -> float:
        return float(o.seconds(o.hardware, world.constants(chip, job, o.precision, nominal=True)).min())

    times_a, times_b = [alone(chip_a, o) for o in oa], [alone(chip_b, o) for o in ob]
    wide = math.isfinite(times_a[0]) and math.isfinite(times_b[0])
    ia, ib = (0, 0) if wide else (int(np.argmin(times_a)), int(np.argmin(times_b)))
    ka, kb = world.constants(chip_a, job, oa[ia].precision, nominal=True), world.constants(chip_b, job, ob[ib].precision, nominal=True)
    hw, end, last = ob[ib].hardware, oa[ia].hardware, times_b[ib]
    factors: list[tuple[str, float]] = []
    for name, fields_ in STEPS:
        hw = swapped(hw, end, fields_)
        now = float(min(oa[ia].seconds(hw, kb).min(), ob[ib].seconds(hw, kb).min()))
        factors.append((name, last / now))
        last = now
    factors.append(("software", last / float(min(oa[ia].seconds(end, ka).min(), ob[ib].seconds(end, ka).min()))))
    if wide:
        factors.append(("precision", (times_a[0] / min(times_a)) / (times_b[0] / min(times_b))))
    return tuple(factors)
