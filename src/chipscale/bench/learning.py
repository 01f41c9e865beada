"""A small model, trained on the device in its own precision and on the processor in float32: both must learn the same."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

from chipscale.bench.record import Check, Measure, Setting
from chipscale.bench.settings import Settings
from chipscale.bench.timing import Bench, Event
from chipscale.bench.transformer import Layer, Linear, forward, parameters
from chipscale.facts.model import MLP, Attention, Block

TEST = "learning"
WORDS, LENGTH, BATCH, WIDTH = 32, 32, 8, 64
#: share of what the reference learnt by which the loss may differ: rounding of the weights' products, seen with bfloat16 on processors to stay below 1 %
APART = 0.02
LAYER = Layer(d_model=WIDTH, block=Block(mixer=Attention(heads=4, kv_heads=4, head_dim=16, v_head_dim=16), feed=MLP(d_ff=128), repeat=1))


def text(step: int) -> Any:
    """Return a batch of sequences in which each word follows from the one before but for one in eight, the same on every machine."""
    import torch

    draw = torch.Generator().manual_seed(step)
    rows = torch.randint(WORDS, (BATCH, LENGTH + 1), generator=draw)
    noise = torch.rand(BATCH, LENGTH + 1, generator=draw) < 0.125
    for i in range(1, LENGTH + 1):
        rows[:, i] = torch.where(noise[:, i], rows[:, i], (5 * rows[:, i - 1] + 3) % WORDS)
    return rows


def losses(device: str, dtype: Any, linear: Linear) -> Iterator[float]:
    """Train from the same start on the same text with AdamW, products in `dtype`, weights in float32; yield the loss of each step."""
    import torch

    draw = torch.Generator().manual_seed(1)
    weights = parameters(LAYER, device, torch.float32)
    table = (torch.randn(WORDS, WIDTH, generator=draw) / WIDTH**0.5).to(device).requires_grad_()
    optimizer = torch.optim.AdamW([table, *weights.values()], lr=1e-2)

    def cast(x: Any, weight: Any) -> Any:
        return linear(x.to(dtype), weight.to(dtype)).float()

    for step in count():
        rows = text(step).to(device)
        hidden = forward(LAYER, table[rows[:, :-1]], weights, cast)
        loss = torch.nn.functional.cross_entropy(cast(hidden, table).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        yield float(loss.detach())


def run(bench: Bench, settings: Settings) -> Iterator[Event]:
    """Train in bfloat16 on the device and in float32 on the processor, which takes one thread: products this small lose by being shared."""
    import torch
    from torch.nn.functional import linear

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield from compared(bench.device.name, torch.bfloat16, settings.integer("steps"), bench.budget, linear)
    torch.set_num_threads(threads)


def compared(device: str, dtype: Any, steps: int, seconds: float, linear: Linear) -> Iterator[Event]:
    """Train with `linear` as every product of the device, step by step beside float32 on the processor; compare the mean loss of the last tenth.

    Fewer steps where the time is over, but not fewer than ten.
    """
    import torch
    from torch.nn.functional import linear as plain

    start, mine, right = time.perf_counter(), list[float](), list[float]()
    for here, there in zip(losses(device, dtype, linear), losses("cpu", torch.float32, plain), strict=False):
        mine.append(here)
        right.append(there)
        if len(right) == steps or (len(right) >= 10 and time.perf_counter() - start > seconds):
            break
    tail = max(len(right) // 10, 1)
    last, reference = sum(mine[-tail:]) / tail, sum(right[-tail:]) / tail
    said: dict[str, Setting] = {"steps": len(right), "first": right[0], "reference": reference, "dtype": str(dtype).removeprefix("torch.")}
    difference = abs(last - reference) / max(right[0] - reference, 1e-9)
    yield Check(
        test=TEST,
        case="loss against float32",
        value=difference if math.isfinite(difference) else 1e9,
        limit=APART,
        unit="of what was learnt",
        settings=said,
    )
    yield Measure(test=TEST, case="loss reached", unit="1", samples=(last,) if math.isfinite(last) else (), settings=said)
