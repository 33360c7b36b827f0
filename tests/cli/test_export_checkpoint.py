"""``diffuse-fast export`` of a run that was stopped: its checkpoint is enough."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
pytest.importorskip("PIL")
import torch
from PIL import Image

import diffuse_fast as df
from diffuse_fast.training import TrainConfig
from diffuse_fast.training.config import recipe
from diffuse_fast.training.config.recipe import export_checkpoint
from diffuse_fast.training.run import checkpoint


@pytest.fixture
def pictures(tmp_path):
    """Two classes of pictures, whose numbers alone would not say which is which."""
    rng = np.random.default_rng(0)
    for name in ("squares", "circles"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(rng.integers(0, 256, (4, 4), dtype=np.uint8)).save(tmp_path / "pictures" / name / f"{i}.png")
    return tmp_path / "pictures"


ARGUMENTS = (
    "--steps", 6, "--batch-size", 4, "--set", "data.labels=true", "--set", "network.channels=8", "--set", "network.multipliers=[1]",
    "--set", "network.blocks=1", "--set", "artifact.license=CC0-1.0",
)  # fmt: skip


# Ctrl-C in the third step. In a process of its own: where tests run side by side, they do not run in the main thread.
STOPPED = """
import signal

from diffuse_fast.cli import main
from diffuse_fast.training.run import loop

signal.signal(signal.SIGINT, signal.default_int_handler)  # a process started in the background ignores it
step = loop._Run.step

def stopped(self, number, rate):
    if number == 3:
        signal.raise_signal(signal.SIGINT)
    return step(self, number, rate)

loop._Run.step = stopped
main()
"""


@pytest.mark.filterwarnings("ignore")  # of torch, about itself
def test_from_a_stopped_run_to_samples_without_its_data(run, pictures, tmp_path, monkeypatch):
    done = subprocess.run(
        [sys.executable, "-c", STOPPED, "train", "--data", "pictures", "--out", "runs", *map(str, ARGUMENTS)],
        cwd=tmp_path, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode != 0, done.stderr
    assert [p.name for p in checkpoint.found(tmp_path / "runs")] == ["checkpoint-00000003.safetensors"]
    assert not list((tmp_path / "runs").glob("*.onnx"))
    pictures.rename(tmp_path / "gone")

    result = run("export", "runs/checkpoint-00000003.safetensors", "m.onnx")
    assert result.exit_code == 0, result.stderr
    model = df.load(tmp_path / "m.onnx")
    assert (model.shape, model.value_range, model.clip, model.license) == ((1, 4, 4), (-1, 1), (-1, 1), "CC0-1.0")
    assert model.conditioning[0].class_names == ("circles", "squares")
    assert (model.training["step"], model.training["config"]["steps"]) == (3, 6)

    # The averaged weights, in a network that was built by hand.
    kept = checkpoint.read(tmp_path / "runs" / "checkpoint-00000003.safetensors").tensors
    network = df.nn.UNet(1, channels=8, multipliers=(1,), blocks=1, num_classes=2).eval().requires_grad_(False)
    for name, own in network.named_parameters():
        own.copy_(kept[f"average.network.{name}"])
    x, t, label = torch.ones(3, 1, 4, 4), torch.tensor([3, 500, 999]), torch.tensor([0, 1, 2])
    said = {"seed": 0, "shape": (1, 4, 4), "schedule": model.schedule, "prediction_type": "epsilon", "clip": (-1, 1)}
    expected = df.sample(network, 2, 4, cond={"label": np.array([1, 1])}, **said)
    np.testing.assert_allclose(df.sample(model, 2, 4, seed=0, cond={"label": "squares"}), expected, atol=1e-4)
    assert not torch.equal(network(x, t, label), 0 * x)  # it has learned something to be compared

    # A folder is its last checkpoint; what exists is said where there is none.
    monkeypatch.setattr(recipe, "export", lambda network, path, **options: path.write_bytes(b"") or model)
    assert run("export", "runs", "n.onnx").exit_code == 0
    (tmp_path / "empty").mkdir()
    for name, message in (("empty", "there is no checkpoint in empty"), ("absent.safetensors", "absent.safetensors")):
        refused = run("export", name, "o.onnx")
        assert refused.exit_code == 1
        assert message in refused.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of one step."""
    path = tmp_path_factory.mktemp("run")
    np.save(path / "a.npy", np.zeros((4, 2), np.float32))
    settings = {"data": {"kind": "arrays", "path": str(path / "a.npy")}, "network": {"type": "MLP", "width": 8, "depth": 1}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "export", lambda *_, **__: None)
        recipe.run(recipe.recipe({**settings, "train": {"steps": 1, "batch_size": 4}}), path / "r", progress=False)
    return path / "r"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["m.pt"], "must end in '.onnx'"), (["absent/m.onnx"], "there is no folder"), (["m.onnx", "--opset", "17"], "opset is 17")],
)
def test_export_refuses_files_and_opsets(run, folder, tmp_path, arguments, message):
    refused = run("export", folder, *arguments)
    assert refused.exit_code == 1
    assert message in refused.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "more",
    [
        {"schedule": {"type": "learned"}, "objective": {"levels": 16}},
        {"objective": {"type": "hybrid"}},
        {"schedule": {"type": "edm"}, "train": {"prediction_type": "edm"}, "weighting": {"type": "edm"},
         "times": {"type": "log_normal"}},
    ],
    ids=["learned schedule", "learned variance", "edm"],
)  # fmt: skip
def test_every_objective_comes_back_from_its_checkpoint(tmp_path, monkeypatch, more):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).uniform(-1, 1, (32, 2)))
    written = []
    monkeypatch.setattr(recipe, "export", lambda network, path, **options: written.append((network, options)))
    settings = {
        "data": {"kind": "arrays", "path": str(tmp_path / "a.npy")}, "network": {"type": "MLP", "width": 8, "depth": 1}, **more,
        "train": {"steps": 2, "batch_size": 8, "learning_rate": 0.1, **more.get("train", {})},
    }  # fmt: skip
    recipe.run(recipe.recipe(settings), tmp_path / "r", progress=False)
    export_checkpoint(checkpoint.newest(tmp_path / "r"), tmp_path / "m.onnx")
    (first, told), (second, again) = written
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name
    assert json.dumps(again["schedule"].to_json()) == json.dumps(told["schedule"].to_json())
    same = ("name", "shape", "prediction_type", "conditioning", "convention", "variance", "value_range", "clip", "license")
    assert {name: again[name] for name in same} == {name: told[name] for name in same}


def test_a_checkpoint_of_a_call_in_python_says_what_to_do(run, tmp_path):
    data = np.random.default_rng(0).standard_normal((8, 2))
    config = TrainConfig(steps=2, batch_size=4)
    df.train(df.nn.MLP(2, width=8, depth=1), data, schedule=df.Schedule.linear(), config=config, folder=tmp_path / "r")
    refused = run("export", "r/checkpoint-00000002.safetensors", "m.onnx")
    assert refused.exit_code == 1
    assert "does not have its network's settings" in refused.stderr and "steps=2" in refused.stderr
