"""Forms of operators that a runtime computes incorrectly: rejected by name, and wrong indeed."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArtifactError
from diffuse_fast.rewrites import unsupported_forms
from diffuse_fast.runtimes import network

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

SHAPE = (1, 5, 4)
RESIZED = {"scales": np.array([1, 1, 0.6, 1.5], np.float32)}
KERNEL = {"kernel": np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)}
WIDE = {"kernel": np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)}

REPEATED = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}

# Runtime, words of the message, opset, operator, its weights, its attributes.
WRONG = [
    ("mnn", "Conv with auto_pad='SAME_LOWER'", 20, "Conv", KERNEL, {"auto_pad": "SAME_LOWER"}),
    ("mnn", "Resize with", 20, "Resize", RESIZED, {"mode": "cubic"}),
    ("mnn", "Resize with antialias=1", 20, "Resize", RESIZED, {"mode": "linear", "antialias": 1, **REPEATED}),
    ("mnn", "Resize with nearest_mode='ceil'", 20, "Resize", RESIZED, {"mode": "nearest", **REPEATED, "nearest_mode": "ceil"}),
    ("mnn", "Softmax before opset 13", 12, "Softmax", {}, {}),
    ("mnn", "Softplus of inputs above 87", 20, "Softplus", {}, {}),
    ("mnn", "not known to compute Mod", 20, "Mod", {"two": np.array([2], np.float32)}, {"fmod": 1}),
    ("mnn", "not known to compute Round", 20, "Round", {}, {}),
    ("openvino", "Softmax of opset 11 and 12", 12, "Softmax", {}, {}),
    ("openvino", "Softmax of opset 11 and 12", 11, "Softmax", {}, {"axis": 2}),
    ("openvino", "ConvTranspose with auto_pad", 20, "ConvTranspose", WIDE, {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    ("openvino", "Resize with antialias", 20, "Resize", RESIZED, {"mode": "linear", "antialias": 1}),
]
RIGHT = [
    ("mnn", 12, "Softmax", {}, {"axis": 1}),
    ("mnn", 20, "Softmax", {}, {}),
    ("mnn", 20, "Resize", RESIZED, {"mode": "nearest", **REPEATED}),
    ("mnn", 20, "Conv", KERNEL, {"auto_pad": "SAME_UPPER"}),
    ("openvino", 10, "Softmax", {}, {}),
    ("openvino", 12, "Softmax", {}, {"axis": -1}),
    ("openvino", 13, "Softmax", {}, {"axis": 1}),
    ("openvino", 20, "Resize", RESIZED, {"mode": "cubic"}),
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


def apart(path, runtime):
    """The largest difference to onnxruntime on the untouched file, for whole numbers and halves."""
    x = np.random.default_rng(0).integers(-4, 5, (2, *SHAPE)).astype(np.float32)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    (want,) = session.run(["out"], {"sample": x, "timestep": np.ones(2, np.float32)})
    call = network(loaded(path), runtime, threads=1).bind(2, SHAPE, {})
    call.x[...] = x
    return float(np.abs(call(1.0) - want).max() / max(1, np.abs(want).max()))


def loaded(path):
    return df.load(path, {"convention": "sigma"})


def names(case):
    return " ".join(str(part) for part in case if not isinstance(part, dict))


@pytest.mark.parametrize("case", WRONG, ids=names)
def test_what_is_wrong_is_refused(tmp_path, monkeypatch, case):
    runtime, words, *form = case
    pytest.importorskip(runtime.upper() if runtime == "mnn" else runtime)
    path = saved(tmp_path / "m.onnx", *form)
    with pytest.raises(ArtifactError, match=f"{runtime}.*{words}.*runtime='onnx'"):
        network(loaded(path), runtime, threads=1)
    monkeypatch.setattr(unsupported_forms, "check", lambda *_: None)
    assert apart(path, runtime) > 1e-3, "it is right now: let it through"


@pytest.mark.parametrize("case", RIGHT, ids=names)
def test_what_is_right_is_not_refused(tmp_path, case):
    runtime, *form = case
    pytest.importorskip(runtime.upper() if runtime == "mnn" else runtime)
    assert apart(saved(tmp_path / "m.onnx", *form), runtime) < 1e-4


def test_softplus_within_mish_is_let_through(tmp_path):
    pytest.importorskip("MNN")
    path = saved(tmp_path / "m.onnx", 20, "Softplus", {}, {})
    model = onnx.load(path)
    model.graph.node[-1].output[0] = "plus"
    model.graph.node.append(onnx.helper.make_node("Tanh", ["plus"], ["out"]))
    path.write_bytes(model.SerializeToString())
    assert apart(path, "mnn") < 1e-5


@pytest.mark.parametrize("runtime", ["mnn", "openvino"])
def test_what_is_in_a_branch_is_refused(tmp_path, runtime):
    pytest.importorskip(runtime.upper() if runtime == "mnn" else runtime)
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
    words = {"mnn": "not known to compute ReduceMax", "openvino": "Resize with antialias"}[runtime]
    with pytest.raises(ArtifactError, match=words):
        network(loaded(path), runtime, threads=1)


@pytest.mark.parametrize(("domain", "words"), [("ai.onnx", "Softplus of inputs above 87"), ("own", "compute own.Softplus")])
def test_domains(tmp_path, domain, words):
    """MNN does not look at them."""
    pytest.importorskip("MNN")
    path = saved(tmp_path / "m.onnx", 20, "Softplus", {}, {})
    model = onnx.load(path)
    model.graph.node[-1].domain = domain
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match=words):
        network(loaded(path), "mnn", threads=1)
