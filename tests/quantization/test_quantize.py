"""``df.quantize``: what it writes runs in int8, says what that costs, and is in float32 what it was."""

from __future__ import annotations

import copy
import importlib

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.artifact import document as documents
from diffuse_fast.errors import ArgumentError, ArgumentTypeError, ArtifactError, OutputError
from diffuse_fast.quantization import calibrate
from diffuse_fast.quantization.choose import candidates, choose
from diffuse_fast.runtimes.quantized import parameters

pytest.importorskip("onnxruntime")

FEW = {"samples": 2, "steps": 4, "max_error": 1.0}


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    return df.quantize("digits", tmp_path_factory.mktemp("int8") / "digits.onnx", **FEW)


def test_float32_is_what_it_was(quantized):
    options = {"seed": 3, "cond": {"label": 7}, "runtime": "onnx"}
    np.testing.assert_array_equal(df.sample(quantized, 3, 4, **options), df.sample("digits", 3, 4, **options))


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_int8_is_near_and_says_how_near(quantized, runtime):
    pytest.importorskip({"onnx": "onnxruntime"}.get(runtime, runtime))
    told = quantized.quantization.relative_error[runtime]
    x = calibrate.trajectories(quantized, 2, 4, 9, None)
    measured = calibrate.relative_error(quantized, runtime, x)
    assert 1e-3 < told < 0.2
    assert min(measured) > 1e-3 and float(np.median(measured)) < 3 * told  # of other samples: of the same kind
    fine = df.sample(quantized, 4, 10, seed=1, cond={"label": 3}, runtime="onnx")
    coarse = df.sample(quantized, 4, 10, seed=1, cond={"label": 3}, runtime=runtime, precision="int8")
    assert 0 < np.sqrt(np.mean((fine - coarse) ** 2)) < 0.1


def test_the_document_holds_it(quantized):
    found = quantized.quantization
    assert quantized.to_json()["version"] == 3
    assert documents.build(quantized.to_json()).quantization == found == df.load(quantized.path).quantization
    assert len(found.layers) == 35 and found.frechet_distance is None
    assert not {"conv2d", "output"} & set(found.layers)  # the first and the last stay in float32,
    assert all(name.startswith("conv2d") for name in found.layers)  # and so do the linear layers, which embed the time
    without = df.load("digits").to_json()
    assert without["version"] < 3 and "quantization" not in without


def test_tune_takes_int8(quantized):
    tuning = df.tune(quantized, [2], precisions=["int8"], seconds=1e-3, max_error=0.3)
    assert tuning.best["int8"][2].precision == "int8"
    assert all(0 < c.error < 0.3 for c in tuning.candidates)
    with pytest.raises(ArgumentError, match="diffuse-fast quantize"):
        df.tune("digits", [1], precisions=["int8"], seconds=1e-3)


@pytest.mark.parametrize(
    "change, says",
    [
        ({"layers": []}, "layers"), ({"layers": ["a", "a"]}, "twice"), ({"layers": "a"}, "layers"),
        ({"ranges": {"a": [1, 0]}}, "ranges.a"), ({"ranges": {"a": None}}, "ranges.a"),
        ({"relative_error": 0.1}, "relative_error"), ({"relative_error": {"onnx": "x"}}, "onnx"),
        ({"frechet_distance": {"float32": 1.0}}, "int8"), ({"calibration": None}, "calibration"), ({"more": 1}, "more"),
    ],
)  # fmt: skip
def test_what_is_no_quantization(quantized, change, says):
    document = copy.deepcopy(quantized.to_json())
    document["quantization"].update(change)
    with pytest.raises(ArtifactError, match=says):
        documents.build(document)


def test_an_older_version_has_none(quantized):
    with pytest.raises(ArtifactError, match="unknown field 'quantization'"):
        documents.build({**quantized.to_json(), "version": 2})


@pytest.mark.parametrize(
    "options, error, says",
    [
        ({"samples": 0}, ArgumentError, "samples"), ({"max_error": "small"}, ArgumentTypeError, "max_error"),
        ({"max_error": -1.0}, ArgumentTypeError, "max_error"), ({"out": "digits.bin"}, ArgumentError, "onnx"),
        ({"out": "nowhere/digits.onnx"}, OutputError, "nowhere"), ({"out": None}, ArgumentTypeError, "out"),
    ],
)  # fmt: skip
def test_arguments_that_cannot_be_used(tmp_path, monkeypatch, options, error, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=says):
        df.quantize(**{"model": "digits", "out": "digits.onnx", **options})
    assert not list(tmp_path.iterdir())


def test_a_network_without_such_layers(small, tmp_path):
    with pytest.raises(ArgumentError, match="no layer"):
        df.quantize(small(), tmp_path / "out.onnx")


def test_layers_are_left_out_until_the_error_is_small(monkeypatch):
    """Of errors that add up in square, the largest go first, and no more than must."""
    model = df.load("digits")
    nodes = candidates(model)[:12]
    cost = {node.outputs[0]: float(c) for node, c in zip(nodes, np.random.default_rng(0).permutation(12) + 1, strict=True)}
    module = importlib.import_module("diffuse_fast.quantization.choose")
    monkeypatch.setattr(module, "relative_error", lambda m, *_: [np.sqrt(sum(cost[n] ** 2 for n in m.quantization.layers))])
    ranges = dict.fromkeys(module.values(nodes), (0.0, 1.0))
    limit = np.sqrt(sum(c**2 for c in range(1, 9))) + 1e-6
    found = choose(model, nodes, ranges, [None] * 5, "onnx", limit, lambda line: None)
    assert sorted(cost[node.outputs[0]] for node in found) == list(range(1, 9))
    assert choose(model, nodes, ranges, [None], "onnx", 0.5, lambda line: None) == []


def test_a_range_is_no_worse_than_the_whole():
    rng = np.random.default_rng(0)
    normal = rng.standard_normal(4000)
    for numbers in (normal, np.append(normal, 40.0), -rng.exponential(size=4000), np.zeros(3)):
        low, high = calibrate.best_range(numbers)
        assert low < high and low <= 0 <= high

        def error(over, numbers=numbers):
            scale, zero = (float(v) for v in parameters(over))
            return np.mean(((np.clip(np.rint(numbers / scale) + zero, 0, 255) - zero) * scale - numbers) ** 2)

        assert error((low, high)) <= error((min(numbers.min(), 0.0), max(numbers.max(), 0.0))) + 1e-12
