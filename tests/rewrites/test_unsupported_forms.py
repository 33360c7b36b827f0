"""Forms of operators that OpenVINO computes incorrectly: rejected by name, and wrong indeed."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArtifactError
from diffuse_fast.rewrites import unsupported_forms
from diffuse_fast.runtimes import network

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

SHAPE = (1, 5, 4)
RESIZED = {"scales": np.array([1, 1, 0.6, 1.5], np.float32)}
KERNEL = {"kernel": np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)}
WIDE = {"kernel": np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)}

REPEATED = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}

# Words of the message, opset, operator, its weights, its attributes.
WRONG = [
    ("Softmax of opset 11 and 12", 12, "Softmax", {}, {}),
    ("Softmax of opset 11 and 12", 11, "Softmax", {}, {"axis": 2}),
    ("ConvTranspose with auto_pad", 20, "ConvTranspose", WIDE, {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    ("Resize with antialias", 20, "Resize", RESIZED, {"mode": "linear", "antialias": 1}),
]
RIGHT = [
    (10, "Softmax", {}, {}),
    (12, "Softmax", {}, {"axis": -1}),
    (13, "Softmax", {}, {"axis": 1}),
    (20, "Resize", RESIZED, {"mode": "cubic"}),
]


def saved(path, opset, op, weights, attributes):
    """A model of that operator, on halves and numbers above 87; what has another size goes back to the sample's by a product."""
    node, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    resized, doubled = op == "Resize", "strides" in attributes
    names = ["wide", *([""] if resized and opset > 10 else []), *weights]
    nodes = [node("Mul", ["sample", "much"], ["wide"]), node(op, names, ["y" if resized or doubled else "out"], **attributes)]
    weights = {**weights, "much": np.array(60.5, np.float32)}
    if doubled:
        nodes += [node("AveragePool", ["y"], ["out"], kernel_shape=[2, 2], strides=[2, 2])]
    if resized:
        back = np.random.default_rng(0).standard_normal((3 * 6, 5 * 4)).astype(np.float32)
        weights = {**weights, "flat": np.array([0, -1]), "back": back, "shape": np.array([0, *SHAPE])}
        nodes += [node("Reshape", ["y", "flat"], ["row"]), node("MatMul", ["row", "back"], ["z"])]
        nodes += [node("Reshape", ["z", "shape"], ["out"])]
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
    values = [value("sample", 1, ["B", *SHAPE]), value("timestep", 1, ["B"])]
    graph = onnx.helper.make_graph(nodes, "g", values, [value("out", 1, None)], tensors)
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
    made = onnx.shape_inference.infer_shapes(made, strict_mode=True)
    path.write_bytes(made.SerializeToString())
    return path


def apart(path):
    """The largest difference to onnxruntime on the untouched file, for whole numbers and halves."""
    x = np.random.default_rng(0).integers(-4, 5, (2, *SHAPE)).astype(np.float32)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    (want,) = session.run(["out"], {"sample": x, "timestep": np.ones(2, np.float32)})
    call = network(loaded(path), "openvino", threads=1).bind(2, SHAPE, {})
    call.x[...] = x
    return float(np.abs(call(1.0) - want).max() / max(1, np.abs(want).max()))


def loaded(path):
    return df.load(path, {"convention": "sigma"})


def names(case):
    return " ".join(str(part) for part in case if not isinstance(part, dict))


@pytest.mark.parametrize("case", WRONG, ids=names)
def test_what_is_wrong_is_refused(tmp_path, monkeypatch, case):
    words, *form = case
    path = saved(tmp_path / "m.onnx", *form)
    with pytest.raises(ArtifactError, match=f"'openvino'.*{words}.*runtime='onnx'"):
        network(loaded(path), "openvino", threads=1)
    monkeypatch.setattr(unsupported_forms, "_FORMS", ())
    assert apart(path) > 1e-3, "it is right now: let it through"


@pytest.mark.parametrize("case", RIGHT, ids=names)
def test_what_is_right_is_not_refused(tmp_path, case):
    assert apart(saved(tmp_path / "m.onnx", *case)) < 1e-4


def test_what_is_in_a_branch_is_refused(tmp_path):
    node, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    wrong = node("Resize", ["sample", "", "scales"], ["small"], mode="linear", antialias=1)
    branches = [
        onnx.helper.make_graph([wrong, node("Expand", ["small", "size"], ["a"])], "then", [], [value("a", 1, None)]),
        onnx.helper.make_graph([node("Identity", ["sample"], ["b"])], "else", [], [value("b", 1, None)]),
    ]
    nodes = [
        node("ReduceMax", ["timestep"], ["time"], keepdims=0), node("Greater", ["time", "zero"], ["late"]),
        node("If", ["late"], ["out"], then_branch=branches[0], else_branch=branches[1]),
    ]  # fmt: skip
    weights = {**RESIZED, "size": np.array([1]), "zero": np.array(0, np.float32)}
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
    inputs = [value("sample", 1, ["B", *SHAPE]), value("timestep", 1, ["B"])]
    graph = onnx.helper.make_graph(nodes, "g", inputs, [value("out", 1, ["B", *SHAPE])], tensors)
    path = tmp_path / "m.onnx"
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=8)
    path.write_bytes(made.SerializeToString())
    with pytest.raises(ArtifactError, match="Resize with antialias"):
        network(loaded(path), "openvino", threads=1)


@pytest.mark.parametrize("domain", ["ai.onnx", "own"])
def test_domains(tmp_path, domain):
    """ONNX's own domain has two names. An operator of another one is another operator."""
    path = saved(tmp_path / "m.onnx", 12, "Softmax", {}, {})
    model = onnx.load(path)
    model.graph.node[-1].domain = domain
    path.write_bytes(model.SerializeToString())
    words = "Softmax of opset 11 and 12" if domain == "ai.onnx" else "OpenVINO rejects"
    with pytest.raises(ArtifactError, match=words):
        network(loaded(path), "openvino", threads=1)
