"""The graph made for a runtime computes what the file computes: checked by onnx's checker, and against the file as it is."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.artifact.nodes import Nodes
from diffuse_fast.runtimes import graphs, network

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

MADE = {"onnx": graphs.for_onnxruntime, "openvino": graphs.for_openvino}


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
    norms, attentions = count(file, "GroupNormalization"), count(file, "Attention")
    assert norms > 20 and attentions == 1
    made = {name: make(model) for name, make in MADE.items()}
    assert count(made["onnx"], "GroupNormalization") == 0 and count(made["onnx"], "InstanceNormalization") == norms
    assert count(made["openvino"], "Attention") == 0 and count(made["openvino"], "GroupNormalization") == norms
    for content in made.values():
        onnx.checker.check_model(onnx.load_from_string(content), full_check=True)


@pytest.mark.parametrize("runtime", MADE)
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


def attention(heads=2, turned=True, **attributes):
    """Attention between turned or given values, and behind it the turn back."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    inner = ["B", heads, 4, 5] if turned else ["B", heads, 5, 4]
    names = ["q", "k", "v"]
    nodes, values = [], []
    for name in names:
        if turned:
            nodes.append(helper.make_node("Transpose", [name], [name + "t"], perm=[0, 1, 3, 2]))
            values.append(helper.make_tensor_value_info(name + "t", kind, ["B", heads, 5, 4]))
    nodes.append(helper.make_node("Attention", [n + "t" if turned else n for n in names], ["y"], **attributes))
    nodes.append(helper.make_node("Transpose", ["y"], ["out"], perm=[0, 1, 3, 2]))
    inputs = [helper.make_tensor_value_info(n, kind, inner) for n in names]
    output = helper.make_tensor_value_info("out", kind, ["B", heads, 4, 5])
    graph = helper.make_graph(nodes, "g", inputs, [output], value_info=values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


@pytest.mark.parametrize("options", [{}, {"turned": False}, {"scale": 0.3}])
def test_attention_is_its_equation(tmp_path, options):
    path = tmp_path / "a.onnx"
    path.write_bytes(attention(**options).SerializeToString())
    nodes = Nodes(path)
    assert graphs.attention_products(nodes)
    session = ort.InferenceSession(nodes.to_bytes(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(2)
    given = {i.name: rng.standard_normal((3, *i.shape[1:])).astype(np.float32) for i in session.get_inputs()}
    q, k, v = (given[n].astype(np.float64) for n in "qkv")
    if options.get("turned", True):
        q, k, v = (a.swapaxes(2, 3) for a in (q, k, v))
    logits = q @ k.swapaxes(2, 3) * options.get("scale", 4**-0.5)
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(session.run(None, given)[0], (weights @ v).swapaxes(2, 3), atol=1e-6)


@pytest.mark.parametrize("options", [{"is_causal": 1}, {"softcap": 2.0}])
def test_other_attention_is_left_alone(tmp_path, options):
    path = tmp_path / "a.onnx"
    path.write_bytes(attention(**options).SerializeToString())
    assert not graphs.attention_products(Nodes(path))


def test_a_file_without_them_is_opened_as_it_is(small):
    model = df.load(small())
    assert [make(model) for make in MADE.values()] == [None, None]
