"""What a transformer is made of, one kernel at a time: attention, norms, experts, gathers, and what a launch costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from chipscale.bench.device import Call, out_of_memory
from chipscale.bench.matmul import first_line
from chipscale.bench.record import Note, Setting
from chipscale.bench.settings import Settings
from chipscale.bench.timing import Bench, Event, flagged, measure, rotation, timed

TEST = "layers"


def element(bench: Bench) -> Any:
    """Return bfloat16 on accelerators; float32 on a processor, where few have the narrow arithmetic."""
    import torch

    return torch.float32 if bench.device.kind == "cpu" else torch.bfloat16


def run(bench: Bench, settings: Settings) -> Iterator[Event]:
    """Measure each kernel within its share of the budget; one that the device lacks is noted and passed over."""
    parts: tuple[tuple[str, Callable[[Bench, Settings, float], Iterator[Event]]], ...] = (
        ("attention", attention),
        ("norms", norms),
        ("experts", experts),
        ("gathers", gathers),
        ("launch", launch),
    )
    for name, part in parts:
        try:
            yield from part(bench, settings, bench.budget / len(parts))
        except (RuntimeError, NotImplementedError, MemoryError) as problem:
            bench.device.empty_cache()
            yield Note(kind="out-of-memory" if out_of_memory(problem) else "unsupported", case=name, text=first_line(problem))


def attention(bench: Bench, settings: Settings, seconds: float) -> Iterator[Event]:
    """Measure causal scaled dot-product attention, forward and forward with backward.

    FLOP: half of 4 b h l^2 d, that the mask leaves; forward with backward 3.5 times that (five products more, two and a half times the forward).

    Source: dao-2023, section 4.1 (FLOP of a benchmark of attention).
    """
    import torch
    from torch.nn.functional import scaled_dot_product_attention as sdpa

    shapes = settings.shapes("attention", 4)
    for batch, heads, length, dim in shapes:
        each = 3 * batch * heads * length * dim * 4
        sets = [
            [torch.randn(batch, heads, length, dim, device=bench.device.name, dtype=element(bench), requires_grad=True) for _ in range(3)]
            for _ in range(rotation(each, bench))
        ]

        def forward(qkv: list[Any]) -> Call:
            q, k, v = (x.detach() for x in qkv)
            return lambda: sdpa(q, k, v, is_causal=True)

        def both(qkv: list[Any]) -> Call:
            q, k, v = qkv
            return lambda: torch.autograd.grad(sdpa(q, k, v, is_causal=True).sum(), qkv)

        work = 2.0 * batch * heads * length**2 * dim
        said: dict[str, Setting] = {"batch": batch, "heads": heads, "length": length, "head_dim": dim, "dtype": _name(sets[0][0]), "causal": 1}
        for case, call, factor in (("attention forward", forward, 1.0), ("attention forward + backward", both, 3.5)):
            found = timed([call(qkv) for qkv in sets], bench.device, seconds / 2 / len(shapes))
            made = measure(TEST, case, "FLOP/s", found, work=work * factor, settings=said, bound=_peak(bench), bound_source=bench.bounds.source)
            yield made
            yield from flagged(made)


def _peak(bench: Bench) -> float | None:
    return bench.bounds.peaks.get("fp32" if bench.device.kind == "cpu" else "bf16")


def _name(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def norms(bench: Bench, settings: Settings, seconds: float) -> Iterator[Event]:
    """Measure RMS norm, layer norm and softmax over rows; bytes are those of one read and one write."""
    import torch
    from torch.nn.functional import layer_norm, rms_norm

    ((rows, width),) = settings.shapes("norm", 2)
    size = rows * width * element(bench).itemsize
    inputs = [torch.randn(rows, width, device=bench.device.name, dtype=element(bench)) for _ in range(rotation(2 * size, bench))]
    weight = torch.ones(width, device=bench.device.name, dtype=element(bench))
    ways: dict[str, Callable[[Any], object]] = {
        "RMS norm": lambda x: rms_norm(x, (width,), weight),
        "layer norm": lambda x: layer_norm(x, (width,), weight),
        "softmax": lambda x: torch.softmax(x, -1),
    }
    for case, call in ways.items():
        found = timed([lambda x=x, call=call: call(x) for x in inputs], bench.device, seconds / len(ways))  # type: ignore[misc]
        made = measure(TEST, case, "B/s", found, work=2.0 * size, settings={"rows": rows, "width": width, "dtype": _name(inputs[0])},
                       bound=bench.bounds.memory, bound_source=bench.bounds.source)  # fmt: skip
        yield made
        yield from flagged(made)


def experts(bench: Bench, settings: Settings, seconds: float) -> Iterator[Event]:
    """Measure a grouped product of a mixture of experts, every expert with its own number of tokens, beside the same in a loop; FLOP are 2 tokens n k."""
    import torch

    ((count, tokens, n, k),) = settings.shapes("experts", 4)
    dtype = torch.bfloat16 if bench.device.kind != "cpu" else torch.float32
    share = torch.softmax(torch.randn(count, generator=torch.Generator().manual_seed(0)), 0)
    sizes = torch.floor(share * tokens).long()
    sizes[0] += tokens - int(sizes.sum())
    ends = sizes.cumsum(0).to(torch.int32).to(bench.device.name)
    x = torch.randn(tokens, k, device=bench.device.name, dtype=dtype)
    weights = torch.randn(count, k, n, device=bench.device.name, dtype=dtype)
    parts, own = x.split(sizes.tolist()), list(weights.unbind())

    def loop() -> object:
        return [part @ w for part, w in zip(parts, own, strict=True)]

    said: dict[str, Setting] = {"experts": count, "tokens": tokens, "n": n, "k": k, "dtype": _name(x), "largest_share": float(sizes.max()) / tokens}
    ways: dict[str, Call] = {"experts, one by one": loop}
    grouped = getattr(torch, "_grouped_mm", None)
    try:
        if grouped is None:
            raise NotImplementedError("this build has no grouped product")
        grouped(x, weights, offs=ends)
        ways["experts, grouped"] = lambda: grouped(x, weights, offs=ends)
    except (RuntimeError, NotImplementedError) as problem:
        yield Note(kind="unsupported", case="experts, grouped", text=first_line(problem))
    for case, call in ways.items():
        made = measure(TEST, case, "FLOP/s", timed([call], bench.device, seconds / 2), work=2.0 * tokens * n * k, settings=said, bound=_peak(bench),
                       bound_source=bench.bounds.source)  # fmt: skip
        yield made
        yield from flagged(made)


def gathers(bench: Bench, settings: Settings, seconds: float) -> Iterator[Event]:
    """Measure reading rows of a table in random order, as embeddings and dispatched tokens are; bytes are those of one read and one write of each row."""
    import torch

    ((rows, width, picked),) = settings.shapes("gather", 3)
    table = torch.randn(rows, width, device=bench.device.name, dtype=element(bench))
    order = [torch.randint(rows, (picked,), device=bench.device.name) for _ in range(4)]
    found = timed([lambda i=i: table.index_select(0, i) for i in order], bench.device, seconds)  # type: ignore[misc]
    size = 2.0 * picked * width * table.itemsize
    made = measure(TEST, "gather", "B/s", found, work=size, settings={"rows": rows, "width": width, "picked": picked, "dtype": _name(table)},
                   bound=bench.bounds.memory, bound_source=bench.bounds.source)  # fmt: skip
    yield made
    yield from flagged(made)


def launch(bench: Bench, _settings: Settings, seconds: float) -> Iterator[Event]:
    """Measure what one operation on one element costs: queued one after the other, and each waited for."""
    import torch

    x = torch.zeros(1, device=bench.device.name)

    def waited() -> None:
        x.add_(1.0)
        bench.device.synchronize()

    for case, call in (("launch, queued", lambda: x.add_(1.0)), ("launch, waited for", waited)):
        yield measure(TEST, case, "s", timed([call], bench.device, seconds / 2), work=0.0, settings={"elements": 1})
