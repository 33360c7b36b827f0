"""The recipe, and the bundled model that came from it."""

from __future__ import annotations

import functools
import json
from importlib import resources

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")
pytest.importorskip("safetensors")
import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, OutputError
from diffuse_fast.learning.task import Task
from diffuse_fast.training import TrainConfig, quality
from diffuse_fast.training import digits as recipe
from diffuse_fast.training.data import digits
from diffuse_fast.training.evaluation.classifier import train_judge
from diffuse_fast.training.quality import measure, table

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
    assert table(report["quality"]) in text


def test_the_figures_are_good_enough_to_bundle(report):
    figures = report["quality"]
    plain = next(g for g in figures["generated"] if g["guidance_scale"] == 1.0)
    assert figures["steps"] == 20
    assert plain["samples"] == quality.SETS * figures["set_size"]
    assert plain["accuracy"] > figures["held_out"]["accuracy"] - 1.5
    assert plain["frechet_distance"] < 1.5 * figures["held_out"]["frechet_distance"]
    assert plain["copies"] < 0.01 * plain["samples"]


@pytest.mark.slow  # trains a judge
@pytest.mark.filterwarnings("ignore")
def test_the_bundled_model_draws_what_it_is_asked_for():
    pytest.importorskip("onnxruntime")
    split = digits()
    judge = train_judge(split.images, split.labels, passes=6)
    labels = np.arange(200) % 10
    images = df.sample("digits", 200, 20, seed=1, cond={"label": labels})
    figures = measure(images, labels, split, judge, set_size=200)
    # The card says more; 200 digits and a judge of six passes know it to about three points.
    assert figures.accuracy > 93


def test_weights_come_back_with_their_record(tmp_path):
    torch.manual_seed(0)
    network = recipe.UNet(**recipe.NETWORK).eval()
    torch.nn.init.normal_(network.last.weight)
    recipe.save_weights(tmp_path / "w.safetensors", network, {"seconds": 1.5})
    again, record = recipe.load_weights(tmp_path / "w.safetensors")
    assert record == {"seconds": 1.5}
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([1, 2])
    assert torch.equal(network(x, t), again(x, t))
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_foreign_weights_and_unwritable_folders_are_refused(tmp_path):
    (tmp_path / "digits.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(ArgumentError, match=r"digits\.safetensors"):
        recipe.train_digits(tmp_path, reuse=True)
    with pytest.raises(ArgumentError, match="Train without reuse"):
        recipe.train_digits(tmp_path / "empty", reuse=True)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file"):
        recipe.train_digits(tmp_path / "file")


def test_the_weights_of_an_earlier_run_are_not_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "train", lambda *_args, **_options: pytest.fail("trained"))
    (tmp_path / "digits.safetensors").write_bytes(b"weights")
    with pytest.raises(OutputError, match="earlier run; reuse them"):
        recipe.train_digits(tmp_path)
    assert (tmp_path / "digits.safetensors").read_bytes() == b"weights"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
def test_the_whole_recipe(tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "SETS", 1)
    monkeypatch.setattr(recipe, "LEARNED_STEPS", (1,))
    quick = {"samples": 16, "held_out": 16, "reference_steps": 10, "iterations": 1}
    monkeypatch.setattr(recipe, "learn_each", functools.partial(recipe.learn_each, **quick))
    config = TrainConfig(steps=3, batch_size=8, warmup_steps=1, prediction_type="v_prediction")
    model = recipe.train_digits(tmp_path, config=config, progress=False)
    assert model.prediction_type == "v_prediction"
    assert [plan.steps for plan in model.plans] == [1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["digits.json", "digits.md", "digits.onnx", "digits.safetensors"]
    first = json.loads((tmp_path / "digits.json").read_text())
    recipe.train_digits(tmp_path, reuse=True)
    assert json.loads((tmp_path / "digits.json").read_text()) == first


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
