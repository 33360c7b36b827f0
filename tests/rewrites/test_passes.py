"""The graph made for a runtime computes what the file computes: checked by onnx's checker, and against the file as it is."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.onnx.graph import Graph
from diffuse_fast.rewrites import passes
from diffuse_fast.rewrites.group_norm_to_instance_norm import group_norm_to_instance_norm
from diffuse_fast.runtimes import network

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def model():
    return df.load("digits")


def test_an_unchanged_graph_is_the_same_message(model):
    again = onnx.load_from_string(Graph(model.path).to_bytes())
    assert again == onnx.load(model.path)


def count(content, op):
    return sum(node.op_type == op for node in onnx.load_from_string(content).graph.node)


def test_what_is_changed(model):
    file = model.path.read_bytes()
    norms, made = count(file, "GroupNormalization"), passes.rewritten(model, "onnxruntime")
    assert norms > 20
    assert [count(made, f"{kind}Normalization") for kind in ("Group", "Instance", "Batch")] == [0, norms, norms]
    onnx.checker.check_model(onnx.load_from_string(made), full_check=True)


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


def test_norms_of_an_older_opset_are_another_operation(model):
    """Until opset 21 a scale was that of a group."""
    nodes = Graph(model.path)
    before = list(nodes.nodes)
    nodes.opset = 20
    assert not group_norm_to_instance_norm(nodes) and nodes.nodes == before
    nodes.opset = 21
    assert group_norm_to_instance_norm(nodes) and nodes.nodes != before


def test_a_file_without_norms_is_opened_as_it_is(small):
    assert passes.rewritten(df.load(small()), "onnxruntime") is None


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_inputs_that_the_network_does_not_use(tmp_path, runtime):
    """A changed graph, whose time and condition lead nowhere: OpenVINO drops such inputs of what is no file."""
    pytest.importorskip({"onnx": "onnxruntime"}.get(runtime, runtime))
    helper, rng = onnx.helper, np.random.default_rng(0)
    scales, weight = np.array([1, 1, 2, 2], np.float32), rng.standard_normal((2, 2, 3, 3)).astype(np.float32)
    told = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}  # as torch exports it
    nodes = [
        helper.make_node("Resize", ["sample", "", "s"], ["doubled"], mode="nearest", **told),
        helper.make_node("Conv", ["doubled", "w"], ["large"], pads=[1, 1, 1, 1]),
        helper.make_node("AveragePool", ["large"], ["out"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    dims = {"sample": ["B", 2, 4, 4], "timestep": ["B"], "cond": ["B", 3]}
    tensors = [onnx.numpy_helper.from_array(scales, "s"), onnx.numpy_helper.from_array(weight, "w")]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, 1, shape) for name, shape in dims.items()],
        [helper.make_tensor_value_info("out", 1, dims["sample"])],
        tensors,
    )
    path = tmp_path / "m.onnx"
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    path.write_bytes(onnx.shape_inference.infer_shapes(made).SerializeToString())
    x, cond = rng.standard_normal((3, 2, 4, 4)).astype(np.float32), np.zeros((3, 3), np.float32)
    (want,) = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(
        None, {"sample": x, "timestep": np.zeros(3, np.float32), "cond": cond}
    )
    model = df.load(path, {"convention": "sigma"})
    assert passes.rewritten(model, "openvino") is not None
    call = network(model, runtime, threads=1).bind(3, (2, 4, 4), {"cond": cond})
    call.x[...] = x
    assert np.abs(call(2.0) - want).max() <= 1e-5 * np.abs(want).max()
