"""Calls built by name, narrow products, and kernels inside networks."""

from __future__ import annotations

import math
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chipscale
from chipscale.catalog import Catalog, load
from chipscale.cost.kernels import passes
from chipscale.cost.kernels.collective import collective_of
from chipscale.cost.kernels.costing import size_class
from chipscale.cost.kernels.elementwise import Elementwise
from chipscale.cost.kernels.gemm import Gemm, plain, weight_only
from chipscale.evidence import EvidenceError
from chipscale.facts.chip import Chip
from chipscale.operators.calibration import read, usable
from chipscale.operators.context import factors, pairs_of, written
from chipscale.operators.corpus import load as load_samples
from chipscale.operators.corpus import shipped
from chipscale.operators.readers import ascend_910c_die_profiled, elementwise
from chipscale.operators.readers import gemm as gemm_rows
from chipscale.ops.optimizer import adam_bytes

N = np.array([1.0, 16.0, 4096.0])
CALLS = {
    "residual_add": passes.residual_add(N * 4096.0, 2.0),
    "norm": passes.norm(N, 4096.0, 2.0),
    "gated_activation": passes.gated_activation(N, 4096.0, 2.0),
    "rope": passes.rope(N, 40.0, 128.0, 2.0),
    "softmax": passes.softmax(N, 4096.0, 4.0),
    "embedding": passes.embedding(N, 4096.0, 2.0),
    "cross_entropy": passes.cross_entropy(N, 128256.0, 2.0),
    "cross_entropy_with_gradient": passes.cross_entropy_with_gradient(N, 128256.0, 2.0),
    "adam_step": passes.adam_step(N * 1e6),
    "quantise": passes.quantise("fp8_block", N, 4096.0, 2.0),
    "permute": passes.permute(N, 8.0, 7168.0, 2.0),
    "unpermute": passes.unpermute(N, 8.0, 7168.0, 2.0),
    "gather": passes.gather(N, 7168.0, 2.0),
}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load(None)


def chip_of(catalog: Catalog, name: str) -> Chip:
    chip = catalog.chip(name)
    assert isinstance(chip, Chip)
    return chip


@pytest.mark.parametrize("name", list(CALLS))
def test_bytes_grow_in_proportion_and_every_call_is_answered(name: str, catalog: Catalog) -> None:
    call = CALLS[name]
    for field in ("read", "written"):
        assert np.asarray(getattr(call, field)) == pytest.approx(np.asarray(getattr(call, field))[0] * N)
    e = chipscale.estimate(catalog, chip_of(catalog, "h100"), call)
    assert np.asarray(e.seconds)[-1] > np.asarray(e.seconds)[0]
    assert np.all((np.asarray(e.low) < e.seconds) & (np.asarray(e.seconds) < e.high))


def test_a_softmax_moves_less_than_its_safe_form_and_a_fused_loss_reads_logits_twice() -> None:
    """online-softmax-2018, section 2: four accesses an element in the safe form, two where a row stays on the core."""
    call = passes.softmax(1.0, 1000.0, 1.0)
    assert (call.read + call.written) / 1000.0 == 2.0
    forward, both = passes.cross_entropy(1.0, 1e6, 2.0), passes.cross_entropy_with_gradient(1.0, 1e6, 2.0)
    assert both.read - forward.read == both.written - forward.written == 2e6


def test_the_optimizer_step_is_counted_once() -> None:
    call = passes.adam_step(1e9)
    assert call.read + call.written == adam_bytes(1e9) == 30e9
    narrow = passes.adam_step(1.0, gradient=2.0, master=0.0, momentum=1.0, variance=1.0, weight=2.0)
    assert (narrow.read, narrow.written) == (4.0, 4.0)


@pytest.mark.parametrize(("format", "written"), [("fp8_static", 7168), ("fp8", 7172), ("int8", 7172), ("fp8_block", 7168 + 56 * 4), ("mxfp8", 7168 + 224),
                                                 ("mxfp4", 3584 + 224), ("nvfp4", 3584 + 448)])  # fmt: skip
def test_a_narrow_row_brings_its_scales(format: str, written: int) -> None:
    assert float(passes.quantise(format, 1.0, 7168.0, 2.0).written) == written


def test_an_unknown_narrow_format_is_refused() -> None:
    with pytest.raises(EvidenceError, match=r"'fp5' is no narrow number format; use one of fp8, "):
        passes.quantise("fp5", 1.0, 7168.0, 2.0)


VIDUR = {"_line": "1", "num_tokens": "32", "tp": "4", "hidden_size": "8192", "inter_size": "24576", "n_head": "64", "n_kv_head": "8", "dtype": "fp16",
         "seconds": "1e-5"}  # fmt: skip
ASCEND = {"_line": "1", "measured_us": "10", "per": "die", "n": "", "dtype": "bf16"}


@pytest.mark.parametrize(("operator", "call"), [
    ("add", passes.residual_add(32.0 * 8192.0, 2.0)), ("input_layernorm", passes.norm(32.0, 8192.0, 2.0)), ("emb", passes.embedding(32.0, 8192.0, 2.0)),
    ("mlp_act", passes.gated_activation(32.0, 6144.0, 2.0)), ("attn_rope", passes.rope(32.0, 18.0, 128.0, 2.0)),
])  # fmt: skip
def test_rows_count_what_callers_count(operator: str, call: Elementwise) -> None:
    assert elementwise.read({**VIDUR, "operator": operator}).call == call


@pytest.mark.parametrize(("operator", "shape", "dtype", "call"), [
    ("add-rmsnorm", "16,5120;16,5120;5120", "bf16", passes.norm(16.0, 5120.0, 2.0, residuals=1.0)), ("swiglu", "8,4608", "bf16", passes.gated_activation(8.0, 2304.0, 2.0)),
    ("rope", "5,16,1,64;5,1,1,64;5,1,1,64", "bf16", passes.rope(5.0, 16.0, 64.0, 2.0, angles=128.0)), ("softmax", "16,151936", "fp32", passes.softmax(16.0, 151936.0, 4.0)),
    ("dynamic-quant", "8,2304", "bf16->int8", passes.quantise("int8", 8.0, 2304.0, 2.0)), ("quant", "9,2048;2048;2048", "bf16->int8", passes.quantise("int8_static", 9.0, 2048.0, 2.0)),
])  # fmt: skip
def test_rows_of_a_die_count_the_same(operator: str, shape: str, dtype: str, call: Elementwise) -> None:
    assert ascend_910c_die_profiled.read({**ASCEND, "operator": operator, "shape_raw": shape, "dtype": dtype}).call == call


def test_a_call_without_products_takes_the_coefficients_of_its_rows(catalog: Catalog) -> None:
    """Rows of element-wise kernels name no precision of products; an estimate finds their cell all the same."""
    chip, call = chip_of(catalog, "h100"), passes.norm(4096.0, 8192.0, 2.0)
    named = chipscale.estimate(catalog, chip, call, kernel="input_layernorm")
    assert "nvidia-h100-sxm-80gb|/input_layernorm:" in read(catalog, "elementwise").cells
    assert math.log(float(named.high) / float(named.low)) < 0.5
    assert named == chipscale.estimate(catalog, chip, call, kernel="input_layernorm", precision="fp8")


# narrow products


def test_eight_bit_products_are_a_prior_where_none_was_measured(catalog: Catalog) -> None:
    call = plain(4096.0, 4096.0, 4096.0, 1.0)
    known = read(catalog, "gemm")
    for name in ("h100", "a100", "b200"):
        e = chipscale.estimate(catalog, chip_of(catalog, name), call, precision="int8")
        assert e.tier == "prior"
        for low, high in (known.quantiles[case][int(size_class(e.seconds))] for case in ("chip", "engine")):
            assert float(e.low) <= float(e.seconds) * math.exp(low) * (1 + 1e-12)
            assert float(e.high) >= float(e.seconds) * math.exp(high) * (1 - 1e-12)
        assert float(e.seconds) < float(chipscale.estimate(catalog, chip_of(catalog, name), plain(4096.0, 4096.0, 4096.0, 2.0)).seconds)
    assert chipscale.estimate(catalog, chip_of(catalog, "910c"), call, precision="int8").tier == "calibrated"


@pytest.mark.parametrize("name", ["nvidia-v100-sxm-32gb", "huawei-ascend-950pr", "aws-trainium2"])
def test_eight_bit_products_are_refused_where_the_chip_has_none(name: str, catalog: Catalog) -> None:
    with pytest.raises(EvidenceError, match="has no int8"):
        chipscale.estimate(catalog, chip_of(catalog, name), plain(1.0, 4096.0, 4096.0, 1.0), precision="int8")


@pytest.mark.parametrize("bits", [8.0, 4.0])
def test_narrow_weights_save_memory_and_no_products(bits: float, catalog: Catalog) -> None:
    chip = chip_of(catalog, "h100")

    def seconds(call: Gemm) -> float:
        return float(chipscale.estimate(catalog, chip, call).seconds)

    few, many = (16.0, 8192.0, 8192.0), (8192.0, 8192.0, 8192.0)
    assert seconds(weight_only(*few, bits, 128.0)) < 0.75 * seconds(plain(*few, 2.0))
    assert seconds(weight_only(*many, bits, 128.0)) == pytest.approx(seconds(plain(*many, 2.0)), rel=0.02)
    assert seconds(weight_only(*many, bits)) > 1.2 * float(chipscale.estimate(catalog, chip, plain(*many, 1.0), precision="int8").seconds)


@pytest.mark.parametrize(
    ("dtype", "call"),
    [
        ("int8", plain(16.0, 64.0, 128.0, 1.0)),
        ("int8_wo", weight_only(16.0, 64.0, 128.0, 8.0)),
        ("int4_wo", weight_only(16.0, 64.0, 128.0, 4.0, 128.0)),
    ],
)
def test_rows_of_narrow_products_are_the_same_calls(dtype: str, call: Gemm) -> None:
    row = {"_line": "1", "dtype": dtype, "m": "16", "n": "64", "k": "128", "engine": "", "kernel": "x", "seconds": "1e-5"}
    found = gemm_rows.read(row).call
    assert [getattr(found, f.name) for f in fields(call)] == [pytest.approx(getattr(call, f.name), abs=0.002) for f in fields(call)]


# kernels inside networks

GATHER = collective_of("all_gather", 16.0, 16.0, 4e6)


def test_the_shipped_factors_are_those_of_the_shipped_rows(catalog: Catalog) -> None:
    samples = usable(load_samples([p for p in shipped(catalog) if p.stem == "ascend_910c_die_profiled"], catalog), catalog)
    assert catalog.text("calibration/operators/context.toml") == written(pairs_of(samples, catalog))
    (collectives,) = [f for f in factors(catalog) if not f.inside]
    assert (collectives.arch, collectives.form, collectives.pairs) == ("davinci-a3", "collective", 11)


def test_a_network_multiplies_and_widens(catalog: Catalog) -> None:
    chip = chip_of(catalog, "910c")
    alone, inside = chipscale.estimate(catalog, chip, GATHER), chipscale.estimate(catalog, chip, GATHER, context="network")
    (f,) = [f for f in factors(catalog) if f.form == "collective"]
    assert float(inside.seconds) == pytest.approx(float(alone.seconds) * math.exp(f.mean))
    assert float(inside.low / inside.seconds) < float(alone.low / alone.seconds)
    assert float(inside.high / inside.seconds) > float(alone.high / alone.seconds)
    assert inside.tier == alone.tier
    assert chipscale.estimate(catalog, chip, GATHER, context="alone") == alone


def test_kernels_that_were_measured_in_networks_stay_as_they_are(catalog: Catalog) -> None:
    chip, call = chip_of(catalog, "910c"), plain(4096.0, 4096.0, 4096.0, 2.0)
    a, b = chipscale.estimate(catalog, chip, call), chipscale.estimate(catalog, chip, call, context="network")
    assert (float(b.seconds), float(b.low), float(b.high)) == pytest.approx((float(a.seconds), float(a.low), float(a.high)))


@pytest.mark.parametrize(
    ("chip", "context", "says"),
    [("h100", "network", "context: no collective kernel on hopper was measured"), ("910c", "busy", "context: 'busy' is unknown")],
)
def test_a_context_without_rows_is_refused(chip: str, context: str, says: str, catalog: Catalog) -> None:
    with pytest.raises(EvidenceError, match=says):
        chipscale.estimate(catalog, chip_of(catalog, chip), GATHER, context=context)


# the documentation


def test_examples_of_the_operators_page_run() -> None:
    page = Path(__file__).parents[1] / "docs" / "operators.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(page), "exec"), names)
    assert len(blocks) >= 4
    assert float(names["e"].seconds) > 0
