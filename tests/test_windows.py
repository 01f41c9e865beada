"""Attention with a sliding window: exact counts, laws of the forms and of the estimates, rows of files."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chipscale
from chipscale.catalog import Catalog, load
from chipscale.cost.kernels.costing import Costing
from chipscale.cost.kernels.decode import DECODE, Decode
from chipscale.cost.kernels.form import Form, Silicon
from chipscale.cost.kernels.prefill import PREFILL, Prefill, causal_pairs, keys_seen
from chipscale.cost.silicon import silicon
from chipscale.evidence import EvidenceError
from chipscale.facts.chip import Chip
from chipscale.operators.corpus import load as load_samples
from chipscale.operators.corpus import shipped, tables
from chipscale.operators.estimate import costing_of, form_of
from chipscale.operators.readers import attention_decode, attention_prefill

CHIPS = ("h100", "b200", "a100", "mi300x", "910b2")
SECONDS = ("launch", "prologue", "cast", "step", "block")
SIZES = st.integers(1, 2**17).map(float)
WINDOWS = st.integers(1, 2**18).map(float)
HEADS = st.sampled_from([(1.0, 1.0), (8.0, 1.0), (32.0, 8.0), (64.0, 8.0)])


@st.composite
def prompts(draw: st.DrawFn) -> Prefill:
    heads, kv_heads = draw(HEADS)
    return Prefill(batch=draw(st.sampled_from([1.0, 7.0, 64.0])), new=draw(SIZES), past=draw(st.sampled_from([0.0, 100.0, 65536.0])), heads=heads, kv_heads=kv_heads,
                   head_dim=draw(st.sampled_from([64.0, 128.0, 256.0])), q=2.0, kv=draw(st.sampled_from([1.0, 2.0])), fused=draw(st.sampled_from([0.0, 1.0])))  # fmt: skip


@st.composite
def tokens(draw: st.DrawFn) -> Decode:
    heads, kv_heads = draw(HEADS)
    return Decode(batch=draw(st.sampled_from([1.0, 16.0, 256.0])), past=draw(SIZES), heads=heads, kv_heads=kv_heads,
                  head_dim=draw(st.sampled_from([64.0, 128.0, 256.0])), q=2.0, kv=draw(st.sampled_from([1.0, 2.0])))  # fmt: skip


CALLS = st.one_of(prompts(), tokens())


def length(call: Any) -> float:
    return float(call.past + getattr(call, "new", 0.0))


@cache
def catalog() -> Catalog:
    return load(None)


@cache
def priced(name: str, form: Form) -> tuple[Costing, Silicon]:
    chip = catalog().chip(name)
    assert isinstance(chip, Chip)
    return costing_of(catalog(), form, chip, "bf16"), silicon(chip, catalog(), "bf16")


@st.composite
def constants(draw: st.DrawFn, form: Form) -> Any:
    """Draw any constants of a form, fitted or not."""
    return form.constants(**{f.name: draw(st.floats(1e-8, 1e-4) if f.name in SECONDS else st.floats(0.01, 100.0)) for f in fields(form.constants)})


@given(new=st.integers(1, 60), past=st.integers(0, 60), window=st.integers(1, 140))
@settings(max_examples=300, deadline=None)
def test_pairs_and_keys_are_those_of_the_mask(new: int, past: int, window: int) -> None:
    query, key = np.arange(past, past + new)[:, None], np.arange(past + new)[None, :]
    mask = (key <= query) & (key > query - window)
    assert causal_pairs(float(new), float(past), float(window)) == mask.sum()
    assert keys_seen(float(new), float(past), float(new), float(window)) == mask.any(axis=0).sum()


@given(call=CALLS, window=WINDOWS, wider=st.floats(1.0, 100.0), chip=st.sampled_from(CHIPS), data=st.data())
@settings(max_examples=300, deadline=None)
def test_a_wider_window_never_takes_less_whatever_the_constants(call: Any, window: float, wider: float, chip: str, data: st.DataObject) -> None:
    form = form_of(call)
    _, numbers = priced(chip, form)
    k = data.draw(constants(form))
    narrow, wide = (float(form.seconds(replace(call, window=w), numbers, k)) for w in (window, window * wider))
    assert narrow <= wide * (1 + 1e-12)
    assert wide <= float(form.seconds(call, numbers, k)) * (1 + 1e-12)
    assert float(form.floor(replace(call, window=window), numbers)) <= float(form.floor(replace(call, window=window * wider), numbers))


@given(call=CALLS, window=WINDOWS, chip=st.sampled_from(CHIPS))
@settings(max_examples=300, deadline=None)
def test_a_window_never_makes_it_slower_nor_beats_the_roofline(call: Any, window: float, chip: str) -> None:
    costing, numbers = priced(chip, form_of(call))
    seconds = float(costing.seconds(replace(call, window=window), numbers))
    assert seconds <= float(costing.seconds(call, numbers))
    assert seconds >= float(costing.form.floor(replace(call, window=window), numbers))


@given(call=CALLS, beyond=st.integers(0, 2**17).map(float), chip=st.sampled_from(CHIPS))
@settings(max_examples=300, deadline=None)
def test_a_window_as_long_as_the_sequence_is_none(call: Any, beyond: float, chip: str) -> None:
    costing, numbers = priced(chip, form_of(call))
    assert float(costing.seconds(replace(call, window=length(call) + beyond), numbers)) == float(costing.seconds(call, numbers))


@given(call=tokens(), window=WINDOWS, chip=st.sampled_from(CHIPS))
@settings(max_examples=200, deadline=None)
def test_a_token_with_a_window_is_a_token_with_a_shorter_cache(call: Decode, window: float, chip: str) -> None:
    costing, numbers = priced(chip, DECODE)
    short = costing.seconds(replace(call, past=min(call.past, window)), numbers)
    assert float(costing.seconds(replace(call, window=window), numbers)) == min(float(short), float(costing.seconds(call, numbers)))


@pytest.mark.parametrize(("stem", "form"), [("attention_prefill", PREFILL), ("attention_decode", DECODE)])
def test_without_a_window_forms_floors_and_places_are_those_that_were_fitted(stem: str, form: Form) -> None:
    """All shipped rows have no window; their figures are, bit for bit, those of the equations that the coefficients were fitted with."""
    path = next(p for p in shipped(catalog()) if p.stem == stem)
    table = tables(load_samples([path], catalog()), catalog())[form.id][2]
    c, s = table.call, table.silicon
    assert np.all(np.isinf(c.window))
    if form is PREFILL:
        flop = 4.0 * c.batch * c.heads * c.head_dim * (c.new * c.past + c.new * (c.new + 1.0) / 2.0)
        moved = c.batch * c.head_dim * (c.new * c.heads * (c.q + 2.0) + (c.past + c.new) * 2.0 * c.kv_heads * c.kv)
        places = (np.log2(c.head_dim), np.log2(c.past + c.new), np.log2(c.batch * c.heads))
    else:
        flop = 4.0 * c.batch * c.past * c.heads * c.head_dim
        moved = c.batch * c.head_dim * (2.0 * c.past * c.kv_heads * c.kv + c.heads * (c.q + 2.0))
        places = (np.log2(c.head_dim), np.log2(c.past), np.log2(c.batch * c.kv_heads), np.log2(c.heads / c.kv_heads))
    assert np.array_equal(form.floor(c, s), np.maximum(flop / s.peak, np.maximum(moved - s.cache_bytes, 0.0) / s.memory_bandwidth))
    assert all(np.array_equal(a, b) for a, b in zip(form.coordinates(c, s), places, strict=True))


#: seconds on an H100 and on a B200 before windows were known, as bits
FITTED = (
    (
        Prefill(batch=4.0, new=2000.0, past=500.0, heads=32.0, kv_heads=8.0, head_dim=128.0, q=2.0, kv=2.0, fused=1.0),
        ("0x1.25fee5b177422p-11", "0x1.2bf5cbfa5fa3dp-12"),
    ),
    (Decode(batch=64.0, past=5000.0, heads=32.0, kv_heads=8.0, head_dim=128.0, q=2.0, kv=1.0), ("0x1.581dc757647ecp-12", "0x1.05fd418f5763fp-13")),
)


@pytest.mark.parametrize(("call", "seconds"), FITTED, ids=("prompt", "token"))
def test_without_a_window_estimates_are_what_they_were(call: Any, seconds: tuple[str, str]) -> None:
    for chip, was in zip(("h100", "b200"), seconds, strict=True):
        assert float(chipscale.estimate(catalog(), catalog().chip(chip), call).seconds) == pytest.approx(float.fromhex(was), rel=1e-13)  # type: ignore[arg-type]


@pytest.mark.parametrize("window", [0.0, -1.0, math.nan, 0.5])
def test_a_window_that_shows_nothing_is_refused(window: float) -> None:
    chip = catalog().chip("h100")
    assert isinstance(chip, Chip)
    with pytest.raises(EvidenceError, match=r"Decode\.window: .* from 1 to 2\^62, or infinite for none"):
        chipscale.estimate(catalog(), chip, replace(FITTED[1][0], window=window))
    with pytest.raises(EvidenceError, match=r"Decode\.past"):
        chipscale.estimate(catalog(), chip, replace(FITTED[1][0], past=math.inf))


def test_an_array_of_windows_is_each_window_alone() -> None:
    chip = catalog().chip("h100")
    assert isinstance(chip, Chip)
    windows = np.array([16.0, 1024.0, 2000.0, math.inf])
    for call, _ in FITTED:
        many = np.asarray(chipscale.estimate(catalog(), chip, replace(call, window=windows)).seconds)
        alone = [float(chipscale.estimate(catalog(), chip, replace(call, window=w)).seconds) for w in windows]
        assert many == pytest.approx(alone, rel=1e-12)
        assert np.all(np.diff(many) > 0)


def test_rows_may_state_a_window() -> None:
    row = {"_line": "1", "chip": "h100", "dtype": "bf16", "kv_dtype": "bf16", "batch_size": "1", "num_heads": "32", "num_kv_heads": "8", "head_dim": "128",
           "engine": "VLLM 0.24.0", "kernel": "fa3", "seconds": "5e-5", "new_tokens": "512", "past_tokens": "0", "kv_tokens": "4096"}  # fmt: skip
    for reader in (attention_prefill, attention_decode):
        assert reader.read(row).call.window == reader.read({**row, "window": "0"}).call.window == math.inf
        assert reader.read({**row, "window": "128"}).call.window == 128.0
        with pytest.raises(EvidenceError, match="column window"):
            reader.read({**row, "window": "wide"})
