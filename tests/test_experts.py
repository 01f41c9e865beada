"""Laws of the forms of expert layers and exchanges, without their surfaces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from chipscale.catalog import load as load_catalog
from chipscale.cost.kernels.costing import names_of
from chipscale.cost.kernels.exchange import EXCHANGE, Exchange, ExchangeConstants
from chipscale.cost.kernels.experts import EXPERTS, Experts, ExpertsConstants, load
from chipscale.cost.kernels.form import Form, Silicon
from chipscale.evidence import EvidenceError
from chipscale.operators.readers import expert_alltoall, moe
from chipscale.operators.reading import read_prior

H100 = Silicon(
    peak=989e12,
    peak16=989e12,
    memory_bandwidth=3.35e12,
    cache_bytes=50e6,
    cores=132.0,
    exponentials=3.9e12,
    pace=0.9,
    link_bandwidth=450e9,
    link_size=8.0,
    node=8.0,
)
TOKENS = np.geomspace(1.0, 65536.0, 120)


def middle(form: Form) -> dict[str, float]:
    """Return the constants at the centre of their prior."""
    prior = read_prior(load_catalog(None), form.id)
    return {name: float(np.exp(prior.centre[name])) for name in names_of(form)}


def grid() -> Experts:
    """Return layers of many shapes; the tokens run along the last axis."""
    shapes = np.array([(4096, 14336, 2, 8), (7168, 2048, 8, 256), (2880, 2880, 4, 32), (4096, 2688, 22, 512), (5120, 8192, 1, 16)], dtype=float)
    hidden, inter, top_k, experts = (shapes[:, i, None, None, None, None] for i in range(4))
    moe_ep = np.minimum(np.array([1.0, 2.0, 8.0, 64.0, 512.0])[None, :, None, None, None], experts)
    moe_tp = np.array([1.0, 16.0])[None, None, :, None, None]
    skew = np.array([0.0, 0.6, 1.0, 1.01, 1.2, 2.0])[None, None, None, :, None]
    return Experts(
        tokens=TOKENS, hidden=hidden, inter=inter, top_k=top_k, experts=experts, moe_tp=moe_tp, moe_ep=moe_ep, matrices=3.0, w=2.0, a=2.0, skew=skew
    )


def exchange() -> Exchange:
    """Return exchanges of both kinds over the tokens."""
    once = np.array([0.0, 1.0])[:, None]
    return Exchange(tokens=TOKENS, hidden=7168.0, top_k=8.0, experts=256.0, ranks=8.0, width=2.0, once=once)


CASES = [(grid(), EXPERTS, ExpertsConstants(**middle(EXPERTS))), (exchange(), EXCHANGE, ExchangeConstants(**middle(EXCHANGE)))]


@pytest.mark.parametrize(("call", "form", "constants"), CASES, ids=["experts", "exchange"])
class TestLaws:
    def test_never_beats_the_roofline(self, call, form, constants):
        assert np.all(form.seconds(call, H100, constants) >= form.floor(call, H100))

    def test_more_tokens_are_never_faster(self, call, form, constants):
        took = form.seconds(call, H100, constants)
        assert np.all(np.diff(took, axis=-1) >= -1e-9 * took[..., 1:])

    def test_more_silicon_is_never_slower(self, call, form, constants):
        took = form.seconds(call, H100, constants)
        for name in ("peak", "memory_bandwidth", "cores", "link_bandwidth", "cache_bytes"):
            better = replace(H100, **{name: 1.5 * getattr(H100, name)})
            assert np.all(form.seconds(call, better, constants) <= took * (1.0 + 1e-12)), name


def test_the_busiest_rank_has_at_least_the_mean_and_no_idle_expert_counts():
    call = grid()
    on = load(call)
    mean = call.tokens * call.top_k / call.moe_ep
    assert np.all(on.assigned >= np.minimum(mean, 1.0) - 1e-9)
    assert np.all(on.assigned >= mean - 1e-9)
    assert np.all((on.active >= 1.0) & (on.active <= np.maximum(call.experts / call.moe_ep, 1.0) + 1e-9))


def test_readers_name_row_column_and_remedy():
    layer = {
        **{"row": "7", "chip": "nvidia-h200-sxm", "dtype": "bf16", "num_tokens": "8", "hidden_size": "4096", "inter_size": "2048"},
        **{"topk": "2", "num_experts": "8", "moe_tp_size": "1", "moe_ep_size": "1", "distribution": "balanced"},
        **{"engine": "E 1", "kernel": "triton", "seconds": "1e-4"},
    }
    sent = {
        **{"row": "9", "chip": "nvidia-h200-sxm", "phase": "dispatch", "dtype": "bf16", "chips": "8", "nodes": "1", "hidden_size": "4096"},
        **{"topk": "2", "num_experts": "8", "num_tokens": "8", "backend": "x_ll", "engine": "E 1", "seconds": "1e-4"},
    }
    assert moe.read(layer).seconds == expert_alltoall.read(sent).seconds == 1e-4
    for bad in (
        {"dtype": "int3"},
        {"distribution": "zipf"},
        {"distribution": "power_law_99"},
        {"topk": "9"},
        {"moe_ep_size": "16"},
        {"num_tokens": "nan"},
        {"seconds": "-1"},
    ):
        with pytest.raises(EvidenceError, match=f"row 7, column {next(iter(bad))}"):
            moe.read({**layer, **bad})
    for bad in ({"dtype": "int3"}, {"phase": "both"}, {"topk": "9"}, {"chips": "1"}, {"nodes": "9"}, {"num_tokens": "0"}):
        with pytest.raises(EvidenceError, match=f"row 9, column {next(iter(bad))}"):
            expert_alltoall.read({**sent, **bad})
