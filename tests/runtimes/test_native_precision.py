"""The precisions of the native runtime: their algorithms, their errors, and the rule where the error is too large."""

from __future__ import annotations

import json

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.cli import lowering
from diffuse_fast.errors import ArgumentError
from diffuse_fast.program.lower import lower_file, lower_model
from diffuse_fast.runtimes import network
from diffuse_fast.runtimes.native import algorithms, error, error_cache, identity, instruction_set, load
from diffuse_fast.runtimes.native.error import LEVELS, LIMIT, inputs_of, inputs_of_file, measure, multiply_adds

onnx = pytest.importorskip("onnx")

PRECISIONS = ("float32", "float32-fast")


@pytest.fixture(scope="module")
def digits():
    return df.load("digits")


def test_algorithms_of_digits(digits):
    """The rule of csrc/network/products/convolution.h, layer by layer."""
    program = lower_model(digits)
    found = {precision: algorithms(program, precision) for precision in PRECISIONS}
    assert set(found["float32"].values()) == {"direct", "F(2,3)"}
    assert set(found["float32-fast"].values()) == {"direct", "F(2,3)", "F(4,3)"}
    for index, algorithm in found["float32"].items():
        op = program.operations[index]
        channels, (outputs, *size) = op.inputs[0].shape[0], op.output.shape
        three = op.inputs[1].shape[2:] == (3, 3) and op.kind.strides == (1, 1)
        enough = min(channels, outputs) >= 16 and (size[0] * size[1] >= 36 or channels * outputs <= 8192)
        assert algorithm == ("F(2,3)" if three and enough else "direct")
        tiles = -(-size[0] // 4) * -(-size[1] // 4)
        faster = algorithm == "F(2,3)" and tiles >= 4 and channels * outputs <= 4096 * tiles
        assert found["float32-fast"][index] == ("F(4,3)" if faster else algorithm)


def test_float32_fast_is_what_is_asked_for(digits):
    called = {}
    for precision in PRECISIONS:
        bound = network(digits, "native", precision=precision).bind(3, (1, 8, 8), {"label": np.array([1, 2, 3])})
        bound.x[...] = np.random.default_rng(0).normal(size=bound.x.shape)
        called[precision] = bound(500.0).copy()
        alone = network(digits, "native", precision=precision).bind(1, (1, 8, 8), {"label": np.array([2])})
        alone.x[...] = bound.x[1:2]
        assert alone(500.0).tobytes() == called[precision][1:2].tobytes()
    difference = np.abs(called["float32"] - called["float32-fast"]).max()
    assert 0 < difference <= LIMIT * np.abs(called["float32"]).max()
    assert identity(digits, "float32-fast")["algorithms"].count("F(4,3)") == 11
    with pytest.raises(ArgumentError, match="native: float32, float32-fast"):
        network(digits, "native", precision="bfloat16")


def test_layers_that_compute_as_in_float32(digits):
    """With all of them the bits are those of float32."""
    program = lower_model(digits)
    inputs = inputs_of(digits, program)
    layers = [program.buffers[program.operations[i].inputs[1].buffer].initializer for i in algorithms(program, "float32")]
    isa = instruction_set()
    exact, back, half = (
        error.evaluate(load(program, digits.path, isa, precision, names), inputs)
        for precision, names in (("float32", ()), ("float32-fast", layers), ("float32-fast", layers[::2]))
    )
    assert back.tobytes() == exact.tobytes() != half.tobytes()


def test_the_errors_of_digits(digits):
    found = measure(lower_model(digits), digits.path, inputs_of(digits, lower_model(digits)))
    assert found.reference == "float64" and found.float32_layers == ()
    assert found.times == (0.0, 249.0, 499.0, 749.0, 999.0)
    assert 1e-8 < max(found.errors["float32"]) < 3e-6
    assert 1e-8 < max(found.errors["float32-fast"]) < 1e-5


@pytest.fixture
def cancelling(tmp_path):
    """A file of four layers. The second subtracts large numbers, and F(4,3) loses most of the digits of what remains."""
    models = pytest.importorskip("tests.program.models")
    rng = np.random.default_rng(0)
    weights = {f"w{i}": (rng.normal(size=(16, 16, 3, 3)) / 12).astype(np.float32) for i in range(4)}
    weights["w1"] -= weights["w1"].mean((1, 2, 3), keepdims=True)
    weights["large"] = np.full((1, 16, 1, 1), 200, np.float32)
    weights |= {"zeros": np.zeros((1, 16, 1, 1), np.float32), "axes": np.array([1, 2, 3])}
    nodes = models.steps(
        "Conv x w0 -> a; pads=[1, 1, 1, 1]",
        "Tanh a -> b",
        "Add b large -> c",
        "Conv c w1 -> d; pads=[1, 1, 1, 1]",
        "Tanh d -> e",
        "Conv e w2 -> f; pads=[1, 1, 1, 1]",
        "Tanh f -> g",
        "Conv g w3 -> h; pads=[1, 1, 1, 1]",
        "Cast t -> u; to=1",
        "Unsqueeze u axes -> v",
        "Mul v zeros -> w",
        "Add h w -> y",
    )
    path = models.write(tmp_path / "cancelling.onnx", nodes, (16, 16, 16), weights)
    proto = onnx.load(path)
    proto.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 16, 16, 16]))
    onnx.save(proto, path)
    return path


def test_the_rule_takes_back_the_layers_with_the_largest_errors(cancelling, monkeypatch):
    program = lower_file(cancelling)
    inputs = inputs_of_file(cancelling, program)
    found = measure(program, cancelling, inputs)
    assert found.float32_layers == ("w1",)
    assert max(found.errors["float32-fast"]) <= LIMIT
    monkeypatch.setattr(error, "LIMIT", 1.0)
    assert max(measure(program, cancelling, inputs).errors["float32-fast"]) > LIMIT


def test_a_large_network_is_compared_with_float32(cancelling, monkeypatch):
    program = lower_file(cancelling)
    assert multiply_adds(program) == 4 * 16 * 16 * 9 * 16 * 16
    monkeypatch.setattr(error, "MAX_REFERENCE", multiply_adds(program) - 1)
    found = measure(program, cancelling, inputs_of_file(cancelling, program))
    assert found.reference == "float32"
    assert found.errors["float32"] == (0.0,) * LEVELS and found.float32_layers == ("w1",)


def test_doctor_stores_what_it_measured_of_a_foreign_file(cancelling, tmp_path, monkeypatch, caplog):
    mapping = {"sample": "x", "time": "t", "schedule": df.Schedule.linear(), "prediction_type": "epsilon"}
    assert identity(df.load(cancelling, mapping), "float32-fast")["algorithms"].count("F(4,3)") == 4
    monkeypatch.setenv("DIFFUSE_FAST_CACHE", str(tmp_path / "cache"))
    assert error_cache.measured(df.load(cancelling, mapping)) is None
    shown = lowering.of_name(str(cancelling))
    found = error_cache.measured(df.load(cancelling, mapping))
    assert found.to_json() == shown["measured"] and found.float32_layers == ("w1",)
    assert identity(df.load(cancelling, mapping), "float32-fast")["algorithms"].count("F(4,3)") == 3
    monkeypatch.setattr(error, "measure", None)  # not again
    assert lowering.of_name(str(cancelling))["measured"] == shown["measured"]

    (file,) = (tmp_path / "cache").iterdir()
    raw = json.loads(file.read_text(encoding="utf-8"))
    for broken in ("{", "[]", json.dumps({**raw, "native": 3}), json.dumps({**raw, "sha256": "other"})):
        file.write_text(broken, encoding="utf-8")
        assert error_cache.measured(df.load(cancelling, mapping)) is None
    raw["native"]["program_version"] += 1
    file.write_text(json.dumps(raw), encoding="utf-8")
    assert error_cache.measured(df.load(cancelling, mapping)) is None
    assert "are ignored" in caplog.text


def test_a_folder_that_cannot_be_written_is_logged(cancelling, tmp_path, monkeypatch, caplog):
    (tmp_path / "taken").write_text("a file", encoding="utf-8")
    monkeypatch.setenv("DIFFUSE_FAST_CACHE", str(tmp_path / "taken"))
    assert lowering.of_name(str(cancelling))["measured"]["float32_layers"] == ["w1"]
    assert "cannot be stored" in caplog.text
