"""Models that are only believed: read from a file, answered per hypothesis, never averaged, refused where one model is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chipscale.catalog import Catalog, load
from chipscale.evidence import EvidenceError
from chipscale.facts.parameters import parameters
from chipscale.planning import taken_as, train
from chipscale.runs import run
from chipscale.verdict import weigh

CATALOG = load()
R2 = "deepseek-ai/DeepSeek-R2"
FILE = """
id = "me/Maybe"
name = "Maybe"
[[hypothesis]]
key = "small"
title = "a small one"
weight = 0.25
reason = "somebody said so"
model = "Qwen/Qwen3-0.6B"
source = "mine"
[[hypothesis]]
key = "large"
title = "a large one"
weight = 0.75
reason = "somebody else said so"
model = "meta-llama/Meta-Llama-3.1-8B"
source = "mine"
"""


def catalog(folder: Path, text: str = FILE) -> Catalog:
    for name in ("models", "sources"):
        (folder / name).mkdir()
    (folder / "sources" / "mine.toml").write_text('[mine]\nwhere = "heard"\nkind = "rumour"\n', encoding="utf-8")
    (folder / "models" / "me--Maybe.toml").write_text(text, encoding="utf-8")
    return load(folder)


def test_r2_is_what_its_hypotheses_claim() -> None:
    held = {h.key: parameters(h.value) for h in CATALOG.believed_model(R2).hypotheses}
    assert held["1.2T-A78B"].total / 1e12 == pytest.approx(1.2, rel=0.01)
    assert held["1.2T-A78B"].active / 1e9 == pytest.approx(78, rel=0.01)
    assert 1.2 <= held["v3-doubled"].total / 1e12 <= 2.0
    assert held["v3-doubled"].active_without_embedding == pytest.approx(parameters(CATALOG.model("DeepSeek-V3")).active_without_embedding, rel=0.01)
    assert held["v4-pro"] == parameters(CATALOG.model("DeepSeek-V4-Pro"))


def test_a_known_model_is_its_only_hypothesis() -> None:
    (only,) = CATALOG.believed_model("DeepSeek-V3").hypotheses
    assert (only.key, only.weight, only.value) == ("known", 1.0, CATALOG.model("DeepSeek-V3"))


def test_train_answers_each_hypothesis_as_if_its_model_were_named(tmp_path: Path) -> None:
    known = catalog(tmp_path)
    sides = train(known, "Maybe", "h100", 16, top=2)
    assert [s.hypothesis for s in sides] == ["large", "large", "small", "small"]  # the likeliest first
    for key, model in (("large", "Meta-Llama-3.1-8B"), ("small", "Qwen3-0.6B")):
        alone = train(known, model, "h100", 16, top=2)
        assert [(s.plan, s.seconds, s.memory_bytes) for s in sides if s.hypothesis == key] == [(s.plan, s.seconds, s.memory_bytes) for s in alone]


def test_hypotheses_of_chip_and_model_are_crossed_by_weight(tmp_path: Path) -> None:
    known = catalog(tmp_path)
    sides = train(known, "Maybe", "910d", 16)
    assert len({s.hypothesis for s in sides}) == len(sides) == 10
    assert sides[0].hypothesis == "large, 950-32"
    pinned = train(known, "Maybe", "910d", 16, assume={"910d": "quad-die", "Maybe": "small"})
    assert [s.hypothesis for s in pinned] == ["small, quad-die"]


def test_a_run_of_a_believed_model_has_days_for_each_hypothesis(tmp_path: Path) -> None:
    answer = run(catalog(tmp_path), "Maybe", "h100", 16, 1e12)
    small, large = sorted(zip(answer.plans, answer.runs, strict=True), key=lambda pair: pair[1].days.median)
    assert (small[0].hypothesis, large[0].hypothesis) == ("small", "large")
    for side, one in (small, large):
        assert one.ideal_days.median == pytest.approx(1e12 / (side.rate.median * 16) / 86400.0)
        assert one.days.low < one.days.median < one.days.high


@pytest.mark.parametrize("call", ["model", "weigh"])
def test_where_one_model_is_needed_a_belief_is_refused(call: str, tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "r2.toml").write_text(
        f'id = "r2"\ntitle = "train R2"\nphase = "train"\nmodel = "{R2}"\nchips = 1024\nlength = 4096\nbatch = 1024\n'
        'tokens = "14.8T"\nprecisions = ["bf16"]\n',
        encoding="utf-8",
    )
    ask = {"model": lambda: CATALOG.model("DeepSeek-R2"), "weigh": lambda: weigh(load(tmp_path), "h100", "a100", ("r2",))}[call]
    with pytest.raises(EvidenceError, match=r"DeepSeek-R2 is a belief.*name one of its models: deepseek-ai/DeepSeek-V4-Pro or rumour/"):
        ask()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('model = "Qwen/Qwen3-0.6B"', 'model = "Qwen/Qwen9"', ("me--Maybe.toml: field hypothesis", "unknown model 'Qwen/Qwen9'")),
        ('model = "Qwen/Qwen3-0.6B"', f'model = "{R2}"', ("names deepseek-ai/DeepSeek-R2, itself a belief", "name a model")),
        ("weight = 0.25", "weight = 0.5", ("sum to 1.25", "correct them")),
        ('key = "small"', 'key = "large"', ("large stands twice", "rename one")),
        ('source = "mine"', 'source = "yours"', ("'yours' is not in sources", "add it there")),
        ('reason = "somebody said so"', 'reason = ""', ("hypothesis.0.reason",)),
        ('id = "me/Maybe"', 'id = "Maybe"', ("field id is 'Maybe'", "make them equal")),
    ],
)
def test_a_file_with_a_mistake_is_named(tmp_path: Path, old: str, new: str, words: tuple[str, ...]) -> None:
    with pytest.raises(EvidenceError) as refused:
        catalog(tmp_path, FILE.replace(old, new, 1)).believed_model("me/Maybe")
    for word in ("me--Maybe.toml", *words):
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("assume", "words"),
    [({"h200": "x"}, "'h200' is neither the model"), ({"deepseek-r2": "x"}, "no hypothesis 'x'; choose one of: v4-pro")],
)
def test_an_assumption_that_fits_nothing_is_refused(assume: dict[str, str], words: str) -> None:
    with pytest.raises(EvidenceError, match=words):
        train(CATALOG, R2, "h100", 4096, assume=assume)


@given(model=st.sampled_from(["known", "a", "b"]), chip=st.sampled_from(["known", "c"]))
def test_a_name_of_hypotheses_holds_what_is_not_known(model: str, chip: str) -> None:
    named = taken_as(model, chip).split(", ")
    assert named == [key for key in (model, chip) if key != "known"] or named == ["known"]


def test_every_belief_is_json_of_models_that_are_shipped() -> None:
    for id in CATALOG.believed_models():
        for h in CATALOG.believed_model(id).hypotheses:
            assert h.value.id in CATALOG.models()
            assert json.dumps(h.title)
