"""``diffuse-fast quantize``, and what ``inspect`` says of what it wrote."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("onnxruntime")


def test_quantize_then_inspect(run, tmp_path):
    out = str(tmp_path / "digits.onnx")
    done = run("quantize", "digits", "--out", out, "--samples", "1", "--steps", "2", "--max-error", "1")
    assert done.exit_code == 0, done.output
    assert "relative error" in done.stdout and "not measured" in done.stdout
    assert "int8" in run("inspect", out).stdout
    told = json.loads(run("inspect", out, "--json").stdout)["document"]["quantization"]
    assert told["calibration"]["samples"] == 1 and len(told["layers"]) == 35
