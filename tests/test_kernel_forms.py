"""Laws of the forms of collectives and of kernels that move bytes."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from chipscale.catalog import load
from chipscale.cost.kernels.allreduce import ALLREDUCE, AllReduce
from chipscale.cost.kernels.collective import BUS, COLLECTIVE, collective_of, links_used
from chipscale.cost.kernels.elementwise import ELEMENTWISE, Elementwise
from chipscale.cost.kernels.form import Form, Silicon
from chipscale.evidence import EvidenceError
from chipscale.operators.readers import ascend_910c_die_profiled, collective, collective_nodes, custom_allreduce, elementwise
from chipscale.operators.reading import part, read_prior

COUNT = 4096
RANDOM = np.random.default_rng(7)
SECONDS = ("start", "step", "setup", "sync", "hop", "launch", "row")


def between(low: float, high: float) -> np.ndarray:
    return np.exp(RANDOM.uniform(np.log(low), np.log(high), COUNT))


def chips() -> Silicon:
    return Silicon(peak=between(1e14, 1e16), peak16=between(1e14, 1e16), memory_bandwidth=between(3e11, 2e13), cache_bytes=between(1e6, 3e8),
                   cores=between(10, 300), link_bandwidth=between(1e9, 2e12), link_size=RANDOM.choice([2.0, 8.0, 72.0], COUNT), node=8.0,
                   mesh=RANDOM.choice([0.0, 1.0], COUNT), outer_bandwidth=between(1e9, 2e11))  # fmt: skip


def constants(form: Form) -> Any:
    return form.constants(**{f.name: between(1e-8, 1e-4) if f.name in SECONDS else between(0.01, 3.0) for f in fields(form.constants)})


def calls() -> list[tuple[Form, Any, tuple[str, ...]]]:
    ranks = RANDOM.choice([2.0, 4.0, 8.0, 16.0, 64.0], COUNT)
    node = np.minimum(ranks, RANDOM.choice([1.0, 2.0, 8.0], COUNT))
    found: list[tuple[Form, Any, tuple[str, ...]]] = [(COLLECTIVE, collective_of(k, ranks, node, between(1, 1e12)), ("bytes",)) for k in BUS]
    found.append((ALLREDUCE, AllReduce(ranks=ranks, bytes=between(1, 1e12)), ("bytes",)))
    found.append((ELEMENTWISE, Elementwise(read=between(1, 1e12), written=between(1, 1e12), rows=between(1, 1e7)), ("read", "written", "rows")))
    return found


@pytest.mark.parametrize(("form", "call", "sizes"), calls(), ids=lambda v: v.id if isinstance(v, Form) else "")
def test_forms_keep_the_laws(form: Form, call: Any, sizes: tuple[str, ...]) -> None:
    silicon, k = chips(), constants(form)
    seconds = form.seconds(call, silicon, k)
    assert np.all(seconds >= form.floor(call, silicon))
    for size in sizes:
        assert np.all(form.seconds(replace(call, **{size: getattr(call, size) * 1.7}), silicon, k) >= seconds * (1 - 1e-12)), size
    for better in ("memory_bandwidth", "link_bandwidth", "outer_bandwidth", "cores", "peak"):
        faster = replace(silicon, **{better: getattr(silicon, better) * 1.7})
        assert np.all(form.seconds(call, faster, k) <= seconds * (1 + 1e-12)), better


def test_a_mesh_lends_a_small_group_few_links() -> None:
    mesh = replace(chips(), link_size=8.0, mesh=1.0)
    assert links_used(2.0, mesh) == pytest.approx(1 / 7)
    assert links_used(8.0, mesh) == 1.0


def test_a_die_has_its_share_of_the_package() -> None:
    package = chips()
    die = part(package, 0.5)
    assert np.all(die.peak == package.peak / 2)
    assert np.all(die.link_size == package.link_size)


@pytest.mark.parametrize("form", [COLLECTIVE, ALLREDUCE, ELEMENTWISE], ids=lambda f: f.id)
def test_priors_name_every_constant(form: Form) -> None:
    assert set(read_prior(load(None), form.id).centre) == {f.name for f in fields(form.constants)}


ROWS = {
    collective: {"chip": "x", "collective": "all_gather", "chips": "8", "bytes": "1024", "dtype": "fp16", "engine": "nccl 2.29.2", "seconds": "1e-5"},
    collective_nodes: {"chip": "x", "collective": "all_reduce", "chips": "16", "chips_per_node": "8", "bytes": "1024", "seconds": "1e-5"},
    custom_allreduce: {"chip": "x", "chips": "2", "elements": "128", "dtype": "bf16", "engine": "vLLM 0.24.0", "kernel": "graph", "seconds": "5e-6"},
    elementwise: {"chip": "x", "operator": "add", "num_tokens": "1", "tp": "1", "hidden_size": "8192", "dtype": "fp16", "seconds": "2e-6"},
    ascend_910c_die_profiled: {"chip": "x", "operator": "add", "shape_raw": "256,7168;256,7168", "dtype": "bf16", "measured_us": "12", "per": "die"},
}


@pytest.mark.parametrize(("reader", "row"), list(ROWS.items()), ids=lambda v: getattr(v, "__name__", "").split(".")[-1])
def test_readers_refuse_what_they_cannot_read(reader: Any, row: dict[str, str]) -> None:
    row = {"_line": "3", "n": "", **row}
    assert reader.read(row).seconds > 0
    for column in row:
        if column in ("chip", "engine", "_line", "n"):
            continue
        for broken in ("",) if column == "kernel" else ("", "nan", "-1"):
            with pytest.raises(EvidenceError, match=r"row 3.*column"):
                reader.read({**row, column: broken})


def test_attention_of_the_die_is_left_to_its_own_form() -> None:
    with pytest.raises(EvidenceError, match="attention-prefill"):
        ascend_910c_die_profiled.read({"_line": "1", "operator": "attention-prefill"})
