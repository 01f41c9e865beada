"""Laws of the forms of collectives and of kernels that move bytes."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from chipscale.catalog import load
from chipscale.cost.kernels.allreduce import ALLREDUCE, AllReduce
from chipscale.cost.kernels.collective import BUS, COLLECTIVE, collective_of, links_used
from chipscale.cost.kernels.decode import DECODE, Decode
from chipscale.cost.kernels.elementwise import ELEMENTWISE, Elementwise
from chipscale.cost.kernels.form import Form, Silicon
from chipscale.cost.kernels.gemm import GEMM, Gemm
from chipscale.cost.kernels.latent import LATENT_DECODE, LATENT_PREFILL, LatentDecode, LatentPrefill
from chipscale.cost.kernels.prefill import PREFILL, Prefill
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
                   cores=between(10, 300), exponentials=between(1e11, 1e13), pace=between(0.4, 1.3), link_bandwidth=between(1e9, 2e12), link_size=RANDOM.choice([2.0, 8.0, 72.0], COUNT), node=8.0,
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


def test_attention_of_the_die_is_a_prompt_and_a_token() -> None:
    row = {"_line": "1", "measured_us": "780", "per": "die", "operator": "attention-prefill", "phase": "prefill isl4096 graph",
           "shape_raw": "24624,4,128;24624,1,128;24624,1,128;;2048,2048;7;7"}  # fmt: skip
    prompt = ascend_910c_die_profiled.read(row).call
    assert (prompt.batch, prompt.new, prompt.heads, prompt.kv_heads, prompt.head_dim) == (7.0, 24624 / 7, 4.0, 1.0, 128.0)
    token = {**row, "operator": "attention-mla-decode", "phase": "decode isl4k", "shape_raw": "5,16,1,512;892,1,128,512"}
    assert ascend_910c_die_profiled.read(token).call.past == 4096.0
    with pytest.raises(EvidenceError, match="column phase"):
        ascend_910c_die_profiled.read({**token, "phase": "decode"})
    with pytest.raises(EvidenceError, match="column shape_raw"):
        ascend_910c_die_profiled.read({**row, "shape_raw": "3;4"})


def attention_calls() -> list[tuple[Form, Any, tuple[str, ...]]]:
    def whole(low: float, high: float) -> np.ndarray:
        return between(low, high).round()

    bits = RANDOM.choice([1.0, 2.0], COUNT)
    kv = RANDOM.choice([1.0, 2.0, 8.0], COUNT)
    heads = kv * RANDOM.choice([1.0, 4.0, 8.0], COUNT)
    width = RANDOM.choice([64.0, 128.0, 256.0], COUNT)
    return [
        (GEMM, Gemm(m=whole(1, 1e5), n=whole(1, 1e5), k=whole(1, 1e5), a=bits, b=bits, out=2.0, quantised=2.0 - bits), ("m", "n", "k")),
        (PREFILL, Prefill(batch=whole(1, 64), new=whole(1, 1e5), past=whole(1, 1e5), heads=heads, kv_heads=kv, head_dim=width, q=2.0, kv=bits, fused=0.0),
         ("batch", "new", "past")),
        (DECODE, Decode(batch=whole(1, 512), past=whole(1, 1e5), heads=heads, kv_heads=kv, head_dim=width, q=2.0, kv=bits), ("batch", "past")),
        (LATENT_PREFILL, LatentPrefill(batch=whole(1, 64), new=whole(1, 1e5), heads=heads, key=192.0, value=128.0, q=2.0, kv=bits), ("batch", "new", "heads")),
        (LATENT_DECODE, LatentDecode(batch=whole(1, 512), past=whole(1, 1e5), heads=heads, q=2.0, kv=bits), ("batch", "past", "heads")),
    ]  # fmt: skip


@pytest.mark.parametrize(("form", "call", "sizes"), attention_calls(), ids=lambda v: v.id if isinstance(v, Form) else "")
def test_products_and_attention_keep_the_laws_at_their_priors(form: Form, call: Any, sizes: tuple[str, ...]) -> None:
    silicon = replace(chips(), link_size=8.0, mesh=0.0)
    silicon = replace(silicon, peak=silicon.peak16)
    k = form.constants(**{name: np.exp(value) for name, value in read_prior(load(None), form.id).centre.items()})
    seconds = form.seconds(call, silicon, k)
    assert np.all(seconds >= form.floor(call, silicon) * (1 - 1e-9))
    for size in sizes:
        assert np.all(form.seconds(replace(call, **{size: getattr(call, size) * 2.0}), silicon, k) >= seconds * (1 - 1e-9)), size
    for better in ("memory_bandwidth", "cores", "exponentials", "pace"):
        faster = replace(silicon, **{better: getattr(silicon, better) * 1.7})
        assert np.all(form.seconds(call, faster, k) <= seconds * (1 + 1e-9)), better
    faster = replace(silicon, peak=silicon.peak * 1.7, peak16=silicon.peak16 * 1.7)
    assert np.all(form.seconds(call, faster, k) <= seconds * (1 + 1e-9))
