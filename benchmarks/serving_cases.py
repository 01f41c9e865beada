"""Random replicas under random loads: weights, kernels and host over the decades that chips span, lengths and users that benchmarks use."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from chipscale.serving.apart import apart
from chipscale.serving.load import Closed, Lengths, Load
from chipscale.serving.pace import Pace
from chipscale.serving.rules import Rules, Speculation
from chipscale.serving.served import Served
from chipscale.serving.server import simulate
from chipscale.serving.service import Pool, Service, Transfer
from chipscale.serving.steady import Steady, steady


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A random replica under a random closed load of ten turns."""

    pace: Pace
    rules: Rules
    speculation: Speculation
    lengths: Lengths
    load: Load
    users: int


def draw_case(rng: np.random.Generator) -> Case:
    """Draw weights, kernels and host over the decades that chips span, and the lengths and users that benchmarks use."""

    def between(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    tokens, running, weights = np.array([1.0, 64, 512, 1024, 4096, 16384]), np.array([1.0, 16, 64, 256, 1024]), between(2e-3, 2e-2)
    pace = Pace(
        tokens=tokens, flow=np.maximum(weights, between(1e-6, 4e-5) * tokens) + 0.1 * weights, running=running, settle=between(1e-4, 2e-3) * (1.0 + running / 200.0),
        reach=np.array([2.0, 1.2, 1.0, 1.0, 1.0]) * between(1e-9, 3e-8), chunk=between(1e-5, 2e-3), pair=between(1e-12, 2e-10), step=between(1e-4, 4e-3), sequence=between(1e-7, 2e-5),
    )  # fmt: skip
    nominal = [(1024, 1024), (8192, 1024), (1024, 8192), (2048, 256), (512, 128)][rng.integers(5)]
    users, drafts, low = int(2 ** rng.integers(0, 9)), int(rng.choice([0, 0, 0, 1, 3])), float(rng.choice([0.8, 0.8, 0.5, 1.0]))
    rule = Rules(
        tokens=max(int(rng.choice([2048, 8192, 16384])), 2 * (1 + drafts) * users), sequences=int(rng.choice([64, 256, 1024])), shared=bool(rng.random() < 0.65),
        stream=int(rng.choice([1, 1, 2, 20])), cached=float(rng.choice([0.0, 0.0, 0.3])),
    )  # fmt: skip
    lengths = Lengths(input=nominal[0], output=nominal[1], low=low)
    load = Load(arrival=Closed(users=users), requests=10 * users, lengths=lengths, seed=int(rng.integers(1000)))
    return Case(
        pace=pace,
        rules=rule,
        speculation=Speculation(drafts=drafts, accepted=drafts * rng.uniform(0.3, 0.9)),
        lengths=lengths,
        load=load,
        users=users,
    )


def closed_form(case: Case, users: int | np.ndarray) -> Steady:
    """Answer a case in closed form."""
    return steady(
        case.pace,
        case.rules,
        users=users,
        requests=10 * users,
        input=case.lengths.input,
        output=case.lengths.output,
        low=case.lengths.low,
        speculation=case.speculation,
    )


def draw_apart(rng: np.random.Generator) -> tuple[Service, Case]:
    """Draw a service of a prefill and a decode pool, and its load."""
    case, other = draw_case(rng), draw_case(rng)
    decode = Pool(pace=case.pace, rules=replace(case.rules, cached=0.0), replicas=int(2 ** rng.integers(0, 3)))
    prefill = Pool(pace=other.pace, rules=Rules(tokens=case.rules.tokens, sequences=1024), replicas=int(2 ** rng.integers(0, 4)))
    transfer = Transfer(fixed=rng.uniform(0.0, 0.05), token=rng.uniform(0.0, 3e-5), early=bool(rng.integers(2)))
    return Service(pool=decode, prefill=prefill, transfer=transfer, speculation=case.speculation), case


def misses_apart(seed: int) -> tuple[float, float, float]:
    """Return what `misses` does, of two pools."""
    service, case = draw_apart(np.random.default_rng(seed))
    lengths = case.lengths
    formed = apart(service, users=case.users, requests=10 * case.users, input=lengths.input, output=lengths.output, low=lengths.low)
    return _missed(simulate(service, case.load), formed)


def misses(seed: int) -> tuple[float, float, float]:
    """Return how far the closed form is above the simulation: mean TTFT, mean TPOT, requests a second."""
    case = draw_case(np.random.default_rng(seed))
    return _missed(
        simulate(Service(pool=Pool(pace=case.pace, rules=case.rules), speculation=case.speculation), case.load), closed_form(case, case.users)
    )


def _missed(served: Served, formed: Steady) -> tuple[float, float, float]:
    ttft, tpot = np.mean(served.first - served.arrival), np.mean((served.end - served.first) / (served.output - 1))
    return float(formed.ttft / ttft) - 1.0, float(formed.tpot / tpot) - 1.0, float(formed.requests * served.end.max() / len(served.end)) - 1.0
