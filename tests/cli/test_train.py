"""``diffuse-fast train`` and ``export``: the recipe with what was given, and its weights as an artifact."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytest.importorskip("safetensors")
import torch

import diffuse_fast as df
from diffuse_fast.training import digits as recipe

RECORD = {"config": dataclasses.asdict(recipe.CONFIG), "seconds": 1.0, "versions": {}}


@pytest.fixture
def trained(monkeypatch):
    """Calls of the recipe, which is not run."""
    calls = []

    def train_digits(out, **options):
        calls.append((out, options))
        out.mkdir()
        (out / "digits.md").write_text("# the card")

    monkeypatch.setattr(recipe, "train_digits", train_digits)
    return calls


def test_train_takes_the_recipe_and_what_is_given(run, trained):
    assert "# the card" in run("train", "--out", "a").stdout
    arguments = ("--steps", 30, "--warmup-steps", 5, "--learning-rate", 1e-4, "--seed", 9, "--prediction-type", "epsilon")
    assert run("train", "--out", "b", *arguments).exit_code == 0
    (first, plain), (_, changed) = trained
    assert str(first) == "a"
    assert plain == {"config": recipe.CONFIG, "reuse": False}
    expected = dataclasses.replace(recipe.CONFIG, steps=30, warmup_steps=5, learning_rate=1e-4, seed=9, prediction_type="epsilon")
    assert changed["config"] == expected


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--steps", "0"], 1, "steps is 0"),
        (["--steps", "50", "--warmup-steps", "50"], 1, "warmup_steps is 50; it must be from 0 to below steps"),
        (["--prediction-type", "noise"], 1, "epsilon"),
        (["--reuse", "--seed", "1"], 2, "trains nothing"),
        (["--reuse"], 1, "Train without reuse"),
        ([], 1, "not a file"),
    ],
)
def test_train_refuses(run, tmp_path, arguments, status, message):
    if not arguments:
        (tmp_path / "out" / "digits.md").mkdir(parents=True)  # found at once, not after the training
    result = run("train", "--out", "out", *arguments)
    assert result.exit_code == status, result.output
    assert message in " ".join(result.stderr.split())
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


@pytest.mark.filterwarnings("ignore")  # of torch, about itself
def test_export_makes_the_artifact_of_a_checkpoint(run, tmp_path):
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    network = recipe.UNet(**recipe.NETWORK).eval()
    torch.nn.init.normal_(network.last.weight)
    recipe.save_weights(tmp_path / "w.safetensors", network, RECORD)
    result = run("export", "w.safetensors", "m.onnx")
    assert result.exit_code == 0, result.stderr
    model = df.load(tmp_path / "m.onnx")
    assert model.sha256 in result.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "w.safetensors"]
    options = {"seed": 1, "schedule": model.schedule, "prediction_type": model.prediction_type, "clip": model.clip}
    expected = df.sample(network.requires_grad_(False), 2, 3, shape=model.shape, cond={"label": 4}, **options)
    np.testing.assert_allclose(df.sample(model, 2, 3, seed=1, cond={"label": 4}), expected, atol=1e-3)


def test_export_refuses(run, tmp_path):
    recipe.save_weights(tmp_path / "other.safetensors", recipe.UNet(**recipe.NETWORK), {"seconds": 1.0})
    recipe.save_weights(tmp_path / "w.safetensors", recipe.UNet(**recipe.NETWORK), RECORD)
    (tmp_path / "p.safetensors").write_bytes(b"\x80\x04pickle")
    before = sorted(p.name for p in tmp_path.iterdir())
    for arguments, message in (
        (("absent.safetensors", "m.onnx"), "absent.safetensors"),
        (("p.safetensors", "m.onnx"), "no weights of this recipe"),
        (("other.safetensors", "m.onnx"), "lacks config, versions"),
        (("w.safetensors", "m.pt"), "must end in '.onnx'"),
        (("w.safetensors", "absent/m.onnx"), "there is no folder"),
        (("w.safetensors", "m.onnx", "--opset", 17), "opset is 17"),
    ):
        result = run("export", *arguments)
        assert result.exit_code == 1
        assert message in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == before
