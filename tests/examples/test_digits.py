"""The digits recipe, and the bundled model that it made."""

from __future__ import annotations

import functools
import json
from importlib import resources

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("safetensors")
import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, OutputError
from diffuse_fast.learning.task import Task
from diffuse_fast.training.data import digits
from diffuse_fast.training.evaluation import evaluate
from diffuse_fast.training.evaluation.classifier import train_classifier
from examples.digits import train as recipe

BUNDLED = resources.files("diffuse_fast") / "bundled"


@pytest.fixture(scope="module")
def report():
    return json.loads((BUNDLED / "digits.json").read_text(encoding="utf-8"))


def test_the_bundled_artifact_is_small_and_says_what_it_is(report):
    size = len((BUNDLED / "digits.onnx").read_bytes())
    assert size < 5_000_000
    assert size == report["bytes"]
    model = df.load("digits")
    assert model.shape == (1, 8, 8)
    assert [c.name for c in model.conditioning] == ["label"]
    assert model.schedule.to_json() == report["schedule"]
    assert model.prediction_type == report["recipe"]["config"]["prediction_type"]


def test_the_card_is_made_of_the_figures(report):
    text = (BUNDLED / "digits.md").read_text(encoding="utf-8")
    assert text == recipe.card(report)
    assert recipe.table(report["quality"]) in text


def test_the_figures_are_good_enough_to_bundle(report):
    figures = report["quality"]
    plain = next(g for g in figures["generated"] if g["guidance_scale"] == 1.0)
    assert figures["steps"] == 20
    assert plain["samples"] == recipe.SETS * figures["set_size"]
    assert plain["accuracy"] > figures["held_out"]["accuracy"] - 1.5
    assert plain["frechet_distance"] < 1.5 * figures["held_out"]["frechet_distance"]
    assert plain["copies"] < 0.01 * plain["samples"]


@pytest.mark.slow  # trains a classifier
@pytest.mark.filterwarnings("ignore")
def test_the_bundled_model_generates_the_digits_asked_for():
    pytest.importorskip("onnxruntime")
    split = digits()
    classifier = train_classifier(split.images, split.labels, passes=6)
    _, figures = evaluate("digits", split, steps=[20], seed=1, classifier=classifier)
    # The card has exact figures; 360 digits and a classifier of six passes know it to about three points.
    assert figures.accuracy > 93


def test_the_settings_are_those_of_the_bundled_model(report):
    trained = report["recipe"]
    assert {name: getattr(recipe.CONFIG, name) for name in trained["config"]} | {"warmup_steps": recipe.CONFIG.warmup} == {
        **trained["config"]
    }
    network = {name: value for name, value in trained["network"].items() if name not in ("in_channels", "num_classes")}
    assert recipe.SETTINGS["network"] == network
    assert recipe.SCHEDULE.to_json() == report["schedule"]
    assert (recipe.COMMAND, recipe.SETTINGS["artifact"]["license"]) == (trained["command"], report["license"])


def test_settings_and_folders_that_do_not_fit_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "run", lambda *_args, **_options: pytest.fail("trained"))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file"):
        recipe.train_digits(tmp_path / "file")
    (tmp_path / "out" / "digits.md").mkdir(parents=True)  # found at once, not after the training
    with pytest.raises(OutputError, match="not a file"):
        recipe.train_digits(tmp_path / "out")
    with pytest.raises(ArgumentError, match="steps is 0"):
        recipe.train_digits(tmp_path, steps=0)


@pytest.fixture
def quick(monkeypatch):
    """The recipe with a few steps, one set and one learned plan."""
    monkeypatch.setattr(recipe, "SETS", 1)
    monkeypatch.setattr(recipe, "GUIDANCE_SCALES", (1.0, 1.5))
    monkeypatch.setattr(recipe, "LEARNED_STEPS", (1,))
    options = {"samples": 16, "held_out": 16, "reference_steps": 10, "iterations": 1}
    monkeypatch.setattr(recipe, "learn_each", functools.partial(recipe.learn_each, **options))
    monkeypatch.setitem(recipe.SETTINGS, "train", {**recipe.SETTINGS["train"], "batch_size": 8, "warmup_steps": 1})


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
def test_the_recipe_from_data_to_card(tmp_path, quick):
    model = recipe.train_digits(tmp_path, steps=3, progress=False)
    assert model.prediction_type == "v_prediction"
    assert [plan.steps for plan in model.plans] == [1]
    assert {"digits.json", "digits.md", "digits.onnx", "checkpoint-00000003.safetensors"} < {p.name for p in tmp_path.iterdir()}
    first = json.loads((tmp_path / "digits.json").read_text())
    assert (tmp_path / "digits.md").read_text(encoding="utf-8") == recipe.card(first)
    assert len(first["recipe"]["losses"]) == 3
    recipe.train_digits(tmp_path, steps=3, progress=False)  # trains nothing
    assert json.loads((tmp_path / "digits.json").read_text()) == first
    with pytest.raises(ArgumentError, match="seed was 0 and is 1"):
        recipe.train_digits(tmp_path, steps=3, seed=1, progress=False)


def test_the_bundled_plans_are_those_of_the_card(report):
    model = df.load("digits")
    assert [plan.steps for plan in model.plans] == [row["steps"] for row in report["learned"]] == list(recipe.LEARNED_STEPS)
    for row in report["learned"]:
        best = {"5": 0.75, "6": 0.95, "8": 0.95}[str(row["steps"])]
        assert row["learned"] <= best * row["best"]["distance"]
        assert row["learned"] <= 0.5 * row["best_default"]["distance"]


@pytest.mark.slow  # runs the fine solver
@pytest.mark.timeout(1800)
def test_the_bundled_plans_land_where_the_card_says(report):
    pytest.importorskip("onnxruntime")
    model = df.load("digits")
    task = Task(
        model,
        schedule=model.schedule,
        prediction_type=model.prediction_type,
        clip=model.clip,
        shape=model.shape,
        samples=256,
        held_out=512,
        seed=0,
        cond=None,
        reference_steps=200,
        batch_size=64,
        runtime="auto",
        report=lambda line: None,
    )
    for plan, row in zip(model.plans, report["learned"], strict=True):
        assert task.distance(plan, held_out=True) == pytest.approx(row["learned"], rel=0.02)
