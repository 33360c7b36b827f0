"""The graph made for a runtime computes what the file computes: checked by onnx's checker, and against the file as it is."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.artifact.nodes import Nodes
from diffuse_fast.runtimes import graphs, network

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def model():
    return df.load("digits")


def test_an_unchanged_graph_is_the_same_message(model):
    again = onnx.load_from_string(Nodes(model.path).to_bytes())
    assert again == onnx.load(model.path)


def count(content, op):
    return sum(node.op_type == op for node in onnx.load_from_string(content).graph.node)


def test_what_is_changed(model):
    file = model.path.read_bytes()
    norms, made = count(file, "GroupNormalization"), graphs.for_onnxruntime(model)
    assert norms > 20
    assert count(made, "GroupNormalization") == 0 and count(made, "InstanceNormalization") == norms
    onnx.checker.check_model(onnx.load_from_string(made), full_check=True)


@pytest.mark.parametrize("runtime", ["onnx", "openvino", "mnn"])
@pytest.mark.parametrize("batch", [1, 5])
def test_equal_within_rounding(model, runtime, batch):
    rng = np.random.default_rng(batch)
    inputs = {
        "x": rng.standard_normal((batch, 1, 8, 8)).astype(np.float32),
        "t": np.full(batch, 321),
        "label": rng.integers(0, 11, batch),
    }
    (expected,) = ort.InferenceSession(model.path, providers=["CPUExecutionProvider"]).run(["output"], inputs)
    pytest.importorskip({"onnx": "onnxruntime", "mnn": "MNN"}.get(runtime, runtime))
    call = network(model, runtime, threads=1).bind(batch, (1, 8, 8), {"label": inputs["label"]})
    call.x[...] = inputs["x"]
    # Some forty layers, each rounding by 6e-8 of its scale.
    assert np.abs(call(321.0) - expected).max() <= 5e-6 * np.abs(expected).max()


def test_a_file_without_norms_is_opened_as_it_is(small):
    assert graphs.for_onnxruntime(df.load(small())) is None
