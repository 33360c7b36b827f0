"""A convolution of a doubled picture, taken apart: the same numbers, with 4/9 of the products."""

from __future__ import annotations

import json

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.artifact.document import Quantization
from diffuse_fast.onnx.graph import Graph
from diffuse_fast.rewrites import passes
from diffuse_fast.rewrites.split_upsample_conv import split_upsample_conv, split_upsample_convs
from diffuse_fast.runtimes import network

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

RNG = np.random.default_rng(0)
WEIGHT, BIAS = RNG.standard_normal((3, 3, 3, 3)).astype(np.float32), RNG.standard_normal(3).astype(np.float32)
LIKE_TORCH = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


@pytest.fixture
def doubling(tmp_path, document):
    """x (3, 8, 12) -> halved -> doubled -> convolution, and the time added."""
    from onnx import TensorProto, helper, numpy_helper

    def write(*, told=LIKE_TORCH, scales=(1, 1, 2, 2), conv=None, more=(), quantization=None):
        nodes = [
            helper.make_node("AveragePool", ["x"], ["small"], kernel_shape=[2, 2], strides=[2, 2]),
            helper.make_node("Resize", ["small", "", "scales"], ["doubled"], **told),
            helper.make_node("Conv", ["doubled", "w", "bias"], ["y"], **({"pads": [1, 1, 1, 1]} if conv is None else conv)),
            *(helper.make_node(*node) for node in more),
            helper.make_node("Cast", ["t"], ["tf"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["tf", "axes"], ["column"]),
            helper.make_node("Add", ["y", "column"], ["output"]),
        ]
        values = [("x", TensorProto.FLOAT, ["B", 3, 8, 12]), ("t", TensorProto.INT64, ["B"])]
        sizes = ("H", "W") if quantization is None else (8, 12)
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info(*v) for v in values],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["B", 3, *sizes])],
            [
                numpy_helper.from_array(WEIGHT, "w"),
                numpy_helper.from_array(BIAS, "bias"),
                numpy_helper.from_array(np.array(scales, np.float32), "scales"),
                numpy_helper.from_array(np.array([1, 2, 3], np.int64), "axes"),
            ],
        )
        file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        path = tmp_path / "doubling.onnx"
        document["sample"]["shape"] = [3, 8, 12]
        told = {**document, "conditioning": []}
        if quantization is not None:
            told |= {"version": 3, "plans": [], "quantization": quantization.to_json()}
        helper.set_model_props(file, {"diffuse_fast": json.dumps(told)})
        path.write_bytes(file.SerializeToString())
        return path

    return write


def run(file, x):
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x, "t": np.zeros(len(x), np.int64)})[0]


def expected(x, weight=WEIGHT):
    """Every pixel of the halved picture twice, then the nine products at every place."""
    small = x.reshape(len(x), 3, 4, 2, 6, 2).mean(axis=(3, 5), dtype=np.float64)
    doubled = np.pad(small.repeat(2, axis=2).repeat(2, axis=3), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(doubled, (3, 3), axis=(2, 3))
    return np.einsum("oiuv,bihwuv->bohw", weight.astype(np.float64), windows) + BIAS[:, None, None]


@pytest.mark.parametrize(
    "told", [LIKE_TORCH, {}, {**LIKE_TORCH, "coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_floor"}]
)
def test_the_same_numbers(doubling, told):
    graph = Graph(doubling(told=told))
    split = split_upsample_convs(graph)["y"]
    assert (split.upsampled, split.small) == ("doubled", "small")
    made = onnx.load_from_string(graph.to_bytes())
    onnx.checker.check_model(made, full_check=True)
    assert "w" not in [i.name for i in made.graph.initializer]  # the weight is there once
    kernels = [i for i in made.graph.initializer if list(i.dims)[:2] == [3, 3]]
    assert [list(k.dims)[2:] for k in kernels] == [[2, 2]] * 4  # of 9 products 4 are left
    x = np.random.default_rng(1).standard_normal((2, 3, 8, 12)).astype(np.float32)
    want = expected(x)
    assert np.abs(run(graph.to_bytes(), x) - want).max() <= 1e-5 * np.abs(want).max()


@pytest.mark.parametrize(
    "other",
    [
        {"told": {**LIKE_TORCH, "mode": "linear"}}, {"told": {**LIKE_TORCH, "nearest_mode": "ceil"}},
        {"told": {**LIKE_TORCH, "coordinate_transformation_mode": "align_corners"}}, {"scales": (1, 1, 3, 3)},
        {"scales": (1, 1, 2, 1)}, {"conv": {"pads": [1, 1, 1, 1], "strides": [2, 2]}}, {"conv": {"pads": [0, 0, 0, 0]}},
        {"conv": {"pads": [2, 2, 2, 2], "dilations": [2, 2]}}, {"conv": {"auto_pad": "SAME_UPPER"}},
        {"more": [("Relu", ["doubled"], ["unread"])]},
    ],
)  # fmt: skip
def test_others_stay_as_they_are(doubling, other):
    path = doubling(**other)
    graph = Graph(path)
    before = [node.outputs for node in graph.nodes]
    assert not split_upsample_conv(graph)
    assert [node.outputs for node in graph.nodes] == before
    x = np.random.default_rng(1).standard_normal((1, 3, 8, 12)).astype(np.float32)
    np.testing.assert_array_equal(run(graph.to_bytes(), x), run(path.read_bytes(), x))


def widened(path, change):
    """The file with more to it: ``change`` gets its message."""
    file = onnx.load(path)
    change(file.graph, onnx.helper)
    path.write_bytes(file.SerializeToString())
    return path


def also_outputs(graph, helper):
    more = {"doubled": ["B", 3, 8, 12], "w": WEIGHT.shape}
    graph.output.extend([helper.make_tensor_value_info(name, 1, dims) for name, dims in more.items()])


def also_inputs(graph, helper):
    """As files of old write their weights."""
    graph.input.extend([helper.make_tensor_value_info("w", 1, WEIGHT.shape), helper.make_tensor_value_info("scales", 1, [4])])


def in_branches(graph, helper, node):
    """y += what a node computes in a branch."""
    branch = helper.make_graph([node], "branch", [], [helper.make_tensor_value_info("within", 1, None)])
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "yes"))
    graph.node.insert(3, helper.make_node("If", ["yes"], ["other"], then_branch=branch, else_branch=branch))
    graph.node.insert(4, helper.make_node("Add", ["y", "other"], ["sum"]))
    graph.node[-1].input[0] = "sum"


def weight_in_branches(graph, helper):
    in_branches(graph, helper, helper.make_node("Conv", ["x", "w", "bias"], ["within"], pads=[1, 1, 1, 1]))


def doubled_in_branches(graph, helper):
    in_branches(graph, helper, helper.make_node("Relu", ["doubled"], ["within"]))


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
@pytest.mark.parametrize("change", [also_outputs, also_inputs, weight_in_branches, doubled_in_branches])
def test_what_others_rely_on_stays(doubling, runtime, change):
    """What is an output, can be given as an input, or is read in a branch is not taken away."""
    pytest.importorskip({"onnx": "onnxruntime"}.get(runtime, runtime))
    path = widened(doubling(), change)
    x = np.random.default_rng(1).standard_normal((2, 3, 8, 12)).astype(np.float32)
    want = run(path.read_bytes(), x)
    call = network(df.load(path), runtime, threads=1).bind(2, (3, 8, 12), {})
    call.x[...] = x
    assert np.abs(call(0.0) - want).max() <= 1e-5 * np.abs(want).max()


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_in_int8_the_parts_are(doubling, runtime):
    """The layer is named as the file has it; its parts take its ranges."""
    pytest.importorskip({"onnx": "onnxruntime"}.get(runtime, runtime))
    quantization = Quantization(layers=("y",), ranges={"doubled": (-1.0, 1.0), "y": (-8.0, 8.0)}, relative_error={"onnx": 0.01})
    model = df.load(doubling(quantization=quantization))
    made = onnx.load_from_string(passes.int8_graph(model, "openvino").to_bytes())
    assert [n.op_type for n in made.graph.node].count("Conv") == 4
    assert [i.data_type for i in made.graph.initializer if list(i.dims)[2:] == [2, 2]] == [onnx.TensorProto.INT8] * 4
    x = np.random.default_rng(1).uniform(-1, 1, (2, 3, 8, 12)).astype(np.float32)
    call = network(model, runtime, threads=1, precision="int8").bind(2, (3, 8, 12), {})
    call.x[...] = x
    want = expected(x)
    error = np.linalg.norm(call(0.0) - want) / np.linalg.norm(want)
    assert 1e-4 < error < 0.02
    exact = network(model, runtime, threads=1).bind(2, (3, 8, 12), {})
    exact.x[...] = x
    assert np.abs(exact(0.0) - want).max() <= 1e-5 * np.abs(want).max()
