"""Arithmetic: how far results are from float64 on kind and on hostile inputs, and what becomes of subnormals, NaN and infinity."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

from chipscale.bench.matmul import Kernel, first_line, kernels
from chipscale.bench.record import Check, Note, Setting
from chipscale.bench.settings import Settings
from chipscale.bench.timing import Bench, Event

TEST = "arithmetic"
#: half the distance between 1 and the next number
HALF_ULP = {"fp32": 2.0**-24, "tf32": 2.0**-24, "fp16": 2.0**-11, "bf16": 2.0**-8, "fp8": 2.0**-8}
#: what the inputs lose before they are multiplied
INPUT = {"tf32": 2.0**-10}
#: rounding of the accumulator: float32, but 14 bits for FP8 on Hopper (deepseek-v3, section 3.3.2)
ACCUMULATOR = {"fp8": 2.0**-14}
#: precisions with the range and the digits for operands of many magnitudes
WIDE = ("fp32", "tf32", "bf16", "fp16")
REPEATS = 10
#: multiples of the rounding error that elementwise functions and good sums may be off
SLACK = 8.0


def run(bench: Bench, settings: Settings) -> Iterator[Event]:
    """Check products in every precision of the suite, then functions over rows and sums in float32."""
    known = kernels(bench.device.name)
    for name in settings.texts("precisions"):
        yield from product(known[name], settings.integer("size"))
    yield from over_rows(bench, settings.integer("width"))
    yield from sums(bench, settings.integer("length"))
    yield from special(bench)


def _finite(value: float) -> float:
    """Return the value, or the largest float where it is none, so that it fails any limit."""
    return value if math.isfinite(value) else sys.float_info.max


def hostile(a: Any, b: Any) -> tuple[Any, Any]:
    """Return operands of magnitudes from 2^-6 to 2^6 whose products nearly cancel: the second half of k repeats the first with the other sign."""
    import torch

    k = a.shape[1] // 2
    steps = 2.0 ** (torch.arange(k, device=a.device) % 13 - 6)
    left, right = a[:, :k].float() * steps, b[:k].float() / steps[:, None]
    nearly = (left * (1 + 2.0**-5)).to(a.dtype)
    return torch.cat([left.to(a.dtype), nearly], 1), torch.cat([right, -right], 0).to(b.dtype)


def product(kernel: Kernel, size: int) -> Iterator[Event]:
    """Hold a product against float64: |C - C64| over |A||B|, elementwise, the largest.

    At most u_out + 2 u_in + k u_acc: rounding of the result, of the inputs, of k sums in the accumulator. Integers must be exact.

    Source: higham-2002, section 3.5 (error of an inner product).
    """
    import torch

    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high" if kernel.reduced else "highest")
    name = kernel.precision
    try:
        a, b, *scales = kernel.operands(size, size, size)
        for case, (left, right) in {"random": (a, b), **({"cancelling": hostile(a, b)} if name in WIDE else {})}.items():
            yield against(kernel, case, kernel.call(left, right, *scales), left, right)
        yield repeated(f"{name} product", lambda: kernel.call(a, b, *scales))
    except (RuntimeError, AttributeError, NotImplementedError, TypeError, ValueError) as problem:
        yield Note(kind="unsupported", case=f"{name} product", text=first_line(problem))
    finally:
        torch.set_float32_matmul_precision("highest")


def against(kernel: Kernel, case: str, out: Any, left: Any, right: Any) -> Check:
    """Hold one product against float64; integers must be exact."""
    name, size = kernel.precision, left.shape[1]
    x, y = left.cpu().double(), right.cpu().double()
    error = (out.cpu().double() - x @ y).abs()
    said: dict[str, Setting] = {"precision": name, "size": size}
    if name not in HALF_ULP:
        return Check(test=TEST, case=f"{name} product, {case}", value=float((error != 0).sum()), limit=0.0, unit="wrong elements", settings=said)
    limit = HALF_ULP[name] + 2 * INPUT.get(name, 0.0) + size * ACCUMULATOR.get(name, 2.0**-24)
    value = _finite(float((error / (x.abs() @ y.abs())).max()))
    return Check(test=TEST, case=f"{name} product, {case}", value=value, limit=limit, unit="of |A||B|", settings=said)


def repeated(case: str, call: Callable[[], Any]) -> Check:
    """Count repeats of a call whose result differs in any bit from the first; observed, since some kernels add in any order on purpose."""
    import torch

    first = call()
    differ = sum(not torch.equal(call(), first) for _ in range(REPEATS))
    return Check(test=TEST, case=f"{case}, repeated", value=float(differ), limit=None, unit="repeats that differ", settings={"repeats": REPEATS})


def held(case: str, out: Any, right: Any, scale: float, limit: float) -> Check:
    """Hold a result against float64: the largest difference over `scale`."""
    error = (out.cpu().double() - right).abs().max() / scale
    return Check(test=TEST, case=case, value=_finite(float(error)), limit=limit, unit="of the largest", settings={"scale": scale})


def over_rows(bench: Bench, width: int) -> Iterator[Event]:
    """Hold softmax and norms against float64, on random rows, on large logits, and on rows whose mean is far larger than their spread.

    A variance as E[x^2] - E[x]^2 loses (mean / spread)^2 roundings and fails; one about the mean loses mean / spread and passes.

    Source: higham-2002, section 1.9 (computing the sample variance).
    """
    import torch
    from torch.nn.functional import layer_norm, rms_norm

    torch.manual_seed(0)
    u = 2.0**-24
    kind = torch.randn(256, width)
    steep, offset = kind * 1e3, kind + 1e3
    for case, x in (("random", kind), ("large logits", steep)):
        right = torch.softmax(x.double(), -1)
        yield held(f"softmax, {case}", torch.softmax(x.to(bench.device.name), -1), right, 1.0, SLACK * u * max(float(x.abs().max()), 1.0))
    for case, x, ratio in (("random", kind, 1.0), ("mean 1000 times the spread", offset, 1e3)):
        right = layer_norm(x.double(), (width,))
        yield held(f"layer norm, {case}", layer_norm(x.to(bench.device.name), (width,)), right, float(right.abs().max()), SLACK * u * ratio)
    right = rms_norm(kind.double(), (width,), eps=1e-6)
    yield held("RMS norm, random", rms_norm(kind.to(bench.device.name), (width,), eps=1e-6), right, float(right.abs().max()), SLACK * u)
    there = kind.to(bench.device.name)
    yield repeated("softmax", lambda: torch.softmax(there, -1))


def sums(bench: Bench, length: int) -> Iterator[Event]:
    """Hold sums against float64, relative to the sum of magnitudes: at most 8 sqrt(n) roundings, which pairwise sums keep and running ones lose.

    Source: higham-2002, section 4.2 (error of summation).
    """
    import torch

    torch.manual_seed(0)
    limit = 8 * math.sqrt(length) * 2.0**-24
    third = length // 3
    cases = {
        "random": torch.randn(length),
        "equal": torch.full((length,), 0.1),
        "cancelling": torch.cat([torch.full((third,), 1e8), torch.ones(third), torch.full((third,), -1e8)]),
    }
    for case, x in cases.items():
        out = x.to(bench.device.name).sum()
        yield held(f"sum, {case}", out, x.double().sum(), float(x.double().abs().sum()), limit)
    index = torch.randint(64, (length,)).to(bench.device.name)
    values = cases["random"].to(bench.device.name)
    yield repeated("scattered sum", lambda: torch.zeros(64, device=bench.device.name).index_add_(0, index, values))


def special(bench: Bench) -> Iterator[Event]:
    """Count elements where NaN or infinity did not come out as IEEE 754 has it; observe the share of subnormals that become zero."""
    import torch

    here = bench.device.name
    nan, inf = float("nan"), float("inf")
    a, b = torch.ones(64, 64, device=here), torch.ones(64, 64, device=here)
    a[3, 5], a[7, 5] = nan, inf
    out = a @ b
    ordinary = torch.cat([out[:3], out[4:7], out[8:]])
    wrong = {
        "NaN through a product": int((~torch.isnan(out[3])).sum()) + int((ordinary != 64).sum()),
        "infinity through a product": int((out[7] != inf).sum()),
        "NaN through a sum, a maximum, a softmax": sum(
            int(not bool(torch.isnan(f(a[3])).all())) for f in (torch.sum, torch.amax, lambda x: torch.softmax(x, 0))
        ),
        "infinity minus infinity": int(not bool(torch.isnan(a[7, 5] - a[7, 5]))),
        "one over zero": int(float(1.0 / torch.zeros((), device=here)) != inf),
    }
    for case, count in wrong.items():
        yield Check(test=TEST, case=case, value=float(count), limit=0.0, unit="wrong elements", settings={})
    small = torch.full((1024,), 2.0**-149).to(here) * torch.arange(1, 1025, device=here)
    flushed = float(((small * 1.0) == 0).double().mean())
    yield Check(test=TEST, case="subnormals that become zero", value=flushed, limit=None, unit="share", settings={})
