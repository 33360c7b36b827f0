"""``diffuse-fast tune``, and what ``doctor`` says of it."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("onnxruntime")


def test_tune_then_doctor(run, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSE_FAST_CACHE", str(tmp_path))
    assert json.loads(run("doctor", "--json").stdout)["tuned"] == {"folder": str(tmp_path), "answers": []}
    done = run("tune", "digits", "--batch-size", "2", "--runtime", "onnx", "--seconds", "0.001")
    assert done.exit_code == 0, done.output
    assert "digits, batch 2, float32" in done.stdout and "→" in done.stdout and str(tmp_path) in done.stdout
    (answer,) = json.loads(run("doctor", "--json").stdout)["tuned"]["answers"]
    assert (answer["model"], answer["batch"], answer["runtime"], answer["precision"]) == ("digits", 2, "onnx", "float32")
    assert "the choices of auto" in run("doctor").stdout


def test_a_precision_that_is_not_there(run):
    done = run("sample", "digits", "--steps", "2", "--precision", "float64")
    assert done.exit_code == 1 and "onnx: float32" in done.stderr
