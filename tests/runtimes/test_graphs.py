"""The graph made for a runtime computes what the file computes: checked by onnx's checker, and against the file as it is."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.artifact.nodes import Nodes
from diffuse_fast.runtimes import graphs, network
from diffuse_fast.runtimes.tokens import attention_over_tokens

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


def test_attention_over_tokens(model):
    file, made = model.path.read_bytes(), graphs.for_openvino(model)
    assert count(made, "Attention") == count(file, "Attention") == 1
    assert count(made, "Conv") == count(file, "Conv") - 1 and count(made, "MatMul") == 1
    onnx.checker.check_model(onnx.load_from_string(made), full_check=True)


@pytest.mark.parametrize(
    ("node", "name", "value"), [("Attention", "is_causal", 1), ("Split", "axis", 2), ("Conv", "strides", [2, 2])]
)
def test_attention_of_another_form_is_left(model, tmp_path, node, name, value):
    """Each of these changes what is computed: were it overlooked, the rewritten graph would be another function."""
    graph = onnx.load(model.path)
    split = next(n for n in graph.graph.node if n.op_type == "Split")
    for n in graph.graph.node:
        if n.op_type == node and (node != "Conv" or n.output[0] == split.input[0]):
            old = next(a for a in n.attribute if a.name == name)
            n.attribute.remove(old)
            n.attribute.append(onnx.helper.make_attribute(name, value))
    path = tmp_path / "other.onnx"
    onnx.save(graph, path)
    nodes = Nodes(path)
    assert not attention_over_tokens(nodes)
    assert onnx.load_from_string(nodes.to_bytes()) == graph


def test_attention_whose_parts_are_read_elsewhere_is_left(model, tmp_path):
    graph = onnx.load(model.path)
    split = next(n for n in graph.graph.node if n.op_type == "Split")
    graph.graph.node.append(onnx.helper.make_node("Identity", [split.output[1]], ["seen"]))
    path = tmp_path / "seen.onnx"
    onnx.save(graph, path)
    assert not attention_over_tokens(Nodes(path))


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
@pytest.mark.parametrize("batch", [1, 5])
def test_equal_within_rounding(model, runtime, batch):
    rng = np.random.default_rng(batch)
    inputs = {
        "x": rng.standard_normal((batch, 1, 8, 8)).astype(np.float32),
        "t": np.full(batch, 321),
        "label": rng.integers(0, 11, batch),
    }
    (expected,) = ort.InferenceSession(model.path, providers=["CPUExecutionProvider"]).run(["output"], inputs)
    pytest.importorskip({"onnx": "onnxruntime"}.get(runtime, runtime))
    call = network(model, runtime, threads=1).bind(batch, (1, 8, 8), {"label": inputs["label"]})
    call.x[...] = inputs["x"]
    # Some forty layers, each rounding by 6e-8 of its scale.
    assert np.abs(call(321.0) - expected).max() <= 5e-6 * np.abs(expected).max()


def test_a_file_without_norms_is_opened_as_it_is(small):
    assert graphs.for_onnxruntime(df.load(small())) is None
