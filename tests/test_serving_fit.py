"""The fit of serving constants: design, steps and what a stranger takes."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

import chipscale
from chipscale.serving import calibration, fit, predict, rows
from chipscale.serving.constants import Constants, paced
from chipscale.serving.deployment import FORMATS, Deployment
from chipscale.serving.parts import Bench, parts
from chipscale.serving.validate import believed, shipped

CATALOG = chipscale.load()
PRIOR = fit.read_prior(CATALOG.text(calibration.PRIOR))


@pytest.fixture(scope="module")
def few() -> tuple[list[rows.Point], predict.Costs]:
    points = [p for p in shipped(CATALOG) if p.model.name.startswith(("Meta-Llama-3.1-70B", "gpt-oss"))][::9]
    return points, predict.Costs(CATALOG)


@pytest.fixture(scope="module")
def problem(few: tuple[list[rows.Point], predict.Costs]) -> fit.Problem:
    points, costs = few
    return fit.problem(points, predict.stack(points, [p.protocol for p in points if p.protocol], costs), PRIOR)


def test_the_fit_lowers_its_loss_and_the_errors(problem: fit.Problem) -> None:
    start = problem.design.centre
    found = fit.fit(problem, rounds=4)
    assert problem.loss(found) < problem.loss(start)
    before, after = (np.median(np.abs(problem.misses(t)[1])) for t in (start, found))
    assert after < before


def test_slopes_are_those_of_the_predictions(problem: fit.Problem) -> None:
    theta = problem.design.centre
    ttft, tpot = problem.slopes(theta)
    moved = theta.copy()
    moved[fit.NAMES.index("scale")] += 0.02
    change = [(b - a) / 0.02 for a, b in zip(problem.misses(theta), problem.misses(moved), strict=True)]
    assert np.median(np.abs(change[1] - tpot[:, fit.NAMES.index("scale")])) < 0.02
    assert np.median(np.abs(change[0] - ttft[:, fit.NAMES.index("scale")])) < 0.05


def test_rows_left_out_do_not_move_the_coefficients(problem: fit.Problem) -> None:
    theta = fit.fit(problem, rounds=3)
    out = np.zeros(len(problem.ttft), dtype=bool)
    out[::3] = True
    found = fit.without(problem, theta, out)
    spoiled = replace(problem, ttft=np.where(out, problem.ttft + 3.0, problem.ttft), tpot=np.where(out, problem.tpot - 3.0, problem.tpot))
    assert fit.without(spoiled, theta, out) == pytest.approx(found)


def test_a_stranger_takes_what_all_share() -> None:
    shared = {n: v for n, v in calibration.read(CATALOG).coefficients.items() if "." not in n}
    group = fit.members("nobody", "9.9", "no-model", Deployment(tp=1, dense=FORMATS["bf16"], experts=FORMATS["bf16"]), "")
    found = calibration.one(calibration.read(CATALOG).constants([group]))
    for name, log in shared.items():
        assert getattr(found, name) == pytest.approx(np.exp(log))


def test_points_alone_and_in_a_stack_are_the_same(few: tuple[list[rows.Point], predict.Costs]) -> None:
    points, costs = few
    known = calibration.read(CATALOG)
    together = believed(points[:12], known, CATALOG, costs, hide=False)
    apart = np.concatenate([believed([p], known, CATALOG, costs, hide=False) for p in points[:12]], axis=1)
    assert together == pytest.approx(apart)


def test_a_hidden_protocol_lies_between_the_protocols(few: tuple[list[rows.Point], predict.Costs]) -> None:
    points, costs = few
    known = calibration.read(CATALOG)
    hidden = believed(points[:20], known, CATALOG, costs, hide=True)
    each = [believed([replace(p, protocol=CATALOG.protocol(n)) for p in points[:20]], known, CATALOG, costs, hide=False) for n in CATALOG.protocols()]
    assert np.all(hidden >= np.minimum(*each) - 1e-9)
    assert np.all(hidden <= np.maximum(*each) + 1e-9)


def test_more_of_any_constant_never_makes_a_step_faster() -> None:
    bench = Bench(catalog=CATALOG, chip=CATALOG.chip("nvidia-h100-sxm-80gb"), engine=CATALOG.engine("vllm"))
    found = parts(bench, CATALOG.model("Meta-Llama-3.1-8B"), Deployment(tp=2, dense=FORMATS["bf16"], experts=FORMATS["bf16"]), 1024.0, 1536.0)
    k = calibration.one(
        calibration.read(CATALOG).constants([fit.members("vllm", "", "", Deployment(tp=2, dense=FORMATS["bf16"], experts=FORMATS["bf16"]), "")])
    )

    def step(constants: Constants) -> float:
        return float(paced(found, constants).seconds(1024.0, 1024.0 * 512.0, 32.0, 32.0 * 1024.0))

    for name in (f.name for f in fields(Constants)):
        more = step(replace(k, **{name: 1.5 * getattr(k, name)}))
        assert more <= step(k) if name == "start" else more >= step(k) - 1e-12


def test_test_chips_are_not_fitted() -> None:
    fitted = {c.split("|")[1] for c in calibration.read(CATALOG).cells}
    assert not fitted & {"nvidia-b300", "nvidia-gb300", "amd-mi355x", "google-tpu-v6e", "huawei-ascend-910c"}
