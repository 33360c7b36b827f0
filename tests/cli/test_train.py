"""``diffuse-fast train``: its flags, and what it and ``export`` refuse."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")
import torch
from safetensors.torch import save_file

from diffuse_fast.training import TrainConfig
from diffuse_fast.training.config import recipe

DATA = ("train", "--data", "a.npy", "--set", "network.type=MLP", "--out", "out")


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """The recipes that a command would have trained."""
    np.save(tmp_path / "a.npy", np.zeros((100, 2), np.float32))
    made = []
    monkeypatch.setattr(recipe, "run", lambda one, out, **options: made.append(one))
    return made


def test_flags_become_settings(run, trained):
    arguments = ("--steps", 30, "--warmup-steps", 5, "--learning-rate", 1e-4, "--seed", 9, "--prediction-type", "sample")
    more = ("--batch-size", 10, "--ema-decay", 0.5, "--condition-dropout", 0.25)
    assert run(*DATA).exit_code == 0
    assert run(*DATA, *arguments, *more).exit_code == 0
    plain, changed = (one.config for one in trained)
    assert plain == TrainConfig()
    assert changed == dataclasses.replace(
        plain, steps=30, warmup_steps=5, learning_rate=1e-4, seed=9, prediction_type="sample", batch_size=10, ema_decay=0.5,
        condition_dropout=0.25,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "steps is 0"),
        (["--steps", "50", "--warmup-steps", "50"], "warmup_steps is 50; it must be from 0 to below steps"),
        (["--prediction-type", "noise"], "epsilon"),
    ],
)
def test_train_refuses_settings(run, trained, tmp_path, arguments, message):
    result = run(*DATA, *arguments)
    assert result.exit_code == 1
    assert message in " ".join(result.stderr.split())
    assert not trained and not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [[], ["--resume"], ["--steps", "5"]])
def test_train_needs_a_configuration_or_data(run, tmp_path, arguments):
    result = run("train", "--out", "out", *arguments)
    assert result.exit_code == 2
    assert "give a configuration (CONFIG.toml) or --data" in " ".join(result.stderr.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []


def test_export_refuses_other_files(run, tmp_path):
    save_file({"w": torch.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "p.safetensors").write_bytes(b"\x80\x04pickle")
    before = sorted(p.name for p in tmp_path.iterdir())
    for name in ("absent.safetensors", "p.safetensors", "other.safetensors"):
        result = run("export", name, "m.onnx")
        assert result.exit_code == 1
        assert name in result.stderr and "Only safetensors files are read" in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == before
