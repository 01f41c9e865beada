"""A real block, forward, backward and one step of AdamW: tokens a second and peak memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from chipscale.bench.layers import element
from chipscale.bench.record import Measure, Note, Setting
from chipscale.bench.settings import Settings
from chipscale.bench.timing import Bench, Event, measure, shrinking, timed
from chipscale.bench.transformer import Layer, forward, layer_of, parameters
from chipscale.facts.model import Experts, Model

TEST = "block"


def run(bench: Bench, settings: Settings) -> Iterator[Event]:
    """Measure a block of every model of the suite."""
    from chipscale.catalog import load

    catalog, names = load(None), settings.texts("models")
    for name in names:
        yield from steps(bench, catalog.model(name), settings, bench.budget / len(names))


def steps(bench: Bench, model: Model, settings: Settings, seconds: float) -> Iterator[Event]:
    """Measure forward, forward with backward, and the whole step; where memory does not suffice the sequences are halved, then the experts.

    Widths are divided by `shrink`, which is 1 on accelerators; a record says what was run.
    """
    shrink, length = settings.integer("shrink"), settings.integer("length")
    last = model.blocks[-1].feed
    experts = min(settings.integer("experts"), last.count) if isinstance(last, Experts) else 1
    start = _held(bench)
    while True:
        layer = layer_of(model, shrink, experts)
        made, notes = shrinking(partial(_tried, bench, layer, length), settings.integer("batch"), 1, model.name, bench.device)
        yield from notes
        if made is not None or experts == 1:
            break
        experts //= 2
        yield Note(kind="reduced", case=model.name, text=f"{experts} experts instead, as if the others were on other devices")
    if made is None:
        return
    if shrink > 1:
        yield Note(kind="reduced", case=model.name, text=f"widths and heads are 1/{shrink} of the model's, so that a processor can run it")
    yield from _measured(bench, model, layer, made, shrink, seconds, start)


def _tried(bench: Bench, layer: Layer, length: int, batch: int) -> Made:
    made = Made(bench, layer, batch, length)
    made.step()
    bench.device.synchronize()
    return made


class Made:
    """A block with its parameters, optimizer and input on the device; its methods are what is timed."""

    def __init__(self, bench: Bench, layer: Layer, batch: int, length: int) -> None:
        import torch
        from torch.nn.functional import linear

        self.layer, self.linear, dtype = layer, linear, element(bench)
        self.parameters = parameters(layer, bench.device.name, dtype)
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=1e-4)
        self.x = torch.randn(batch, length, layer.d_model, device=bench.device.name, dtype=dtype)
        self.count = sum(p.numel() for p in self.parameters.values())

    def forward(self) -> Any:
        """Run the block without keeping anything for backward."""
        import torch

        with torch.no_grad():
            return forward(self.layer, self.x, self.parameters, self.linear)

    def backward(self) -> None:
        """Run the block and its backward pass."""
        self.optimizer.zero_grad(set_to_none=True)
        forward(self.layer, self.x, self.parameters, self.linear).float().square().mean().backward()

    def step(self) -> None:
        """Run the block, its backward pass and the optimizer."""
        self.backward()
        self.optimizer.step()


def _measured(bench: Bench, model: Model, layer: Layer, made: Made, shrink: int, seconds: float, start: int) -> Iterator[Event]:
    batch, length, width = made.x.shape
    said: dict[str, Setting] = {"model": model.id, "batch": batch, "length": length, "d_model": width, "shrink": shrink, "parameters": made.count,
                                "dtype": str(made.x.dtype).removeprefix("torch."), "mixer": type(layer.block.mixer).__name__}  # fmt: skip
    feed = layer.block.feed
    if isinstance(feed, Experts):
        said |= {"experts": feed.count, "top_k": feed.top_k, "experts_how": "one by one"}
    for case, call, share in (("forward", made.forward, 0.2), ("forward + backward", made.backward, 0.3), ("step", made.step, 0.5)):
        found = timed([call], bench.device, seconds * share)
        yield measure(TEST, f"{model.name}, {case}", "tokens/s", found, work=float(batch * length), settings=said)
    yield Measure(test=TEST, case=f"{model.name}, peak memory", unit="B", samples=(float(max(_highest(bench) - start, 0)),), settings=said)


def _status(field: str) -> int:
    with suppress(OSError):
        found = re.search(rf"^{field}:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE)
        return int(found.group(1)) * 1024 if found else 0
    return 0


def _held(bench: Bench) -> int:
    """Begin to watch the peak; return what a processor's process holds already (of an accelerator, all that is allocated is the block's)."""
    if bench.device.kind != "cpu":
        bench.device.backend.reset_peak_memory_stats()
        return 0
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return _status("VmRSS")


def _highest(bench: Bench) -> int:
    return int(bench.device.backend.max_memory_allocated()) if bench.device.kind != "cpu" else _status("VmHWM")
