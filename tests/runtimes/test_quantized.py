"""A graph in int8 computes the sum of products of integers that Jacob et al. 2018 write; bfloat16 keeps the time."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import diffuse_fast as df
from diffuse_fast.artifact.document import Quantization
from diffuse_fast.errors import ArgumentError, ArtifactError, UnavailableError
from diffuse_fast.onnx.graph import Graph
from diffuse_fast.rewrites import passes
from diffuse_fast.rewrites.insert_qdq import quantizable_layers, quantize_weight, scale_and_zero_point
from diffuse_fast.runtimes import network

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

OVER = {"a": (-0.5, 2.0), "b": (-2.0, 3.1)}
RNG = np.random.default_rng(0)
WEIGHT = (RNG.standard_normal((4, 4, 1, 1)) * np.array([1.0, 10.0, 0.1, 3.0])[:, None, None, None]).astype(np.float32)
BIAS = RNG.standard_normal(4).astype(np.float32)


@pytest.fixture
def small_int8(tmp_path, document):
    """x -> a -> b -> output by three convolutions of 1x1, of which the ends change nothing and the middle one is in int8."""
    from onnx import TensorProto, helper, numpy_helper

    eye = np.eye(4, dtype=np.float32)[:, :, None, None]
    nodes = [
        helper.make_node("Conv", ["x", "eye"], ["a"]),
        helper.make_node("Conv", ["a", "w", "bias"], ["b"], auto_pad="VALID"),
        helper.make_node("Conv", ["b", "eye"], ["c"]),
        helper.make_node("Cast", ["t"], ["tf"], to=TensorProto.FLOAT),  # OpenVINO loses an input that nothing reads
        helper.make_node("Unsqueeze", ["tf", "axes"], ["column"]),
        helper.make_node("Add", ["c", "column"], ["output"]),
    ]
    values = [("x", TensorProto.FLOAT, ["B", 4, 3, 3]), ("t", TensorProto.INT64, ["B"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*v) for v in values],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["B", 4, 3, 3])],
        [
            numpy_helper.from_array(eye, "eye"),
            numpy_helper.from_array(WEIGHT, "w"),
            numpy_helper.from_array(BIAS, "bias"),
            numpy_helper.from_array(np.array([1, 2, 3], np.int64), "axes"),
        ],
    )

    def write(layer="b", ranges=OVER, weights=()):
        changed = onnx.GraphProto()
        changed.CopyFrom(graph)
        for name, array in dict(weights).items():
            next(w for w in changed.initializer if w.name == name).CopyFrom(numpy_helper.from_array(array, name))
        file = helper.make_model(changed, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        found = Quantization(layers=(layer,), ranges=ranges, relative_error={"onnx": 0.01}).to_json()
        document["sample"]["shape"] = [4, 3, 3]
        told = {**document, "conditioning": [], "version": 3, "plans": [], "quantization": found}
        helper.set_model_props(file, {"diffuse_fast": json.dumps(told)})
        (tmp_path / "int8.onnx").write_bytes(file.SerializeToString())
        return df.load(tmp_path / "int8.onnx")

    return write


def expected(x):
    """The middle layer in int8, written down: integers, two scales, one zero point."""
    low, high = OVER["a"]
    scale = (high - low) / 255
    zero = round(-low / scale)
    q = np.clip(np.rint(x.astype(np.float64) / scale) + zero, 0, 255) - zero
    largest = np.abs(WEIGHT).reshape(4, 4).max(axis=1, keepdims=True).astype(np.float64)
    levels = np.rint(WEIGHT.reshape(4, 4) / (largest / 127))
    return np.einsum("oc,bchw->bohw", levels * largest / 127, q) * scale + BIAS[:, None, None]


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_layer_in_int8_is_the_product_of_integers(small_int8, runtime):
    pytest.importorskip({"onnx": "onnxruntime"}.get(runtime, runtime))
    model = small_int8()
    # Odd parts of 64: exact in bfloat16, never half of a step; some are below the range, and clipped.
    x = ((2 * np.random.default_rng(1).integers(-32, 16, (2, 4, 3, 3)) + 1) / 64).astype(np.float32)
    call = network(model, runtime, threads=1, precision="int8").bind(2, (4, 3, 3), {})
    call.x[...] = x
    got, want = call(0.0), expected(x)
    if runtime == "openvino":  # whose results are bfloat16 where the CPU has it
        assert (np.abs(got - want) <= 2**-8 * np.abs(want) + 1e-6).all()
    else:  # whose outputs are rounded to 8 bits of their range as well
        scale = (OVER["b"][1] - OVER["b"][0]) / 255
        assert np.abs(got - np.clip(want, -100 * scale, 155 * scale)).max() <= 0.51 * scale
    network32 = network(model, runtime, threads=1).bind(2, (4, 3, 3), {})
    network32.x[...] = x
    exact = np.einsum("oc,bchw->bohw", WEIGHT.reshape(4, 4), x) + BIAS[:, None, None]
    assert np.abs(network32(0.0) - exact).max() <= 1e-5 * np.abs(exact).max()


def test_the_bias_of_a_channel_with_next_to_no_weights(small_int8):
    """It is all that the channel gives. In the product's scale it was 0 beside no weights, and beyond int32 beside tiny ones."""
    weight, bias = WEIGHT.copy(), np.array([0.7, 1.7, -1.5, 0.0], np.float32)
    weight[0], weight[1:3] = 0, weight[1:3] * np.array([1e-10, 1e-36], np.float32)[:, None, None, None]
    model = small_int8(weights={"w": weight, "bias": bias})
    call = network(model, "onnx", threads=1, precision="int8").bind(2, (4, 3, 3), {})
    call.x[...] = np.random.default_rng(1).uniform(-0.5, 2, call.x.shape)
    scale = (OVER["b"][1] - OVER["b"][0]) / 255  # of the output, which is rounded to 8 bits as well
    assert np.abs(call(0.0)[:, :3] - bias[:3, None, None]).max() <= 0.51 * scale
    made = onnx.load_from_string(passes.rewritten(model, "onnxruntime", "int8")).graph
    arrays = {w.name: onnx.numpy_helper.to_array(w) for w in made.initializer}
    pairs = [[arrays.get(name) for name in node.input[:2]] for node in made.node if node.op_type == "DequantizeLinear"]
    ((levels, scales),) = [(levels, scales) for levels, scales in pairs if levels is not None and levels.dtype == np.int32]
    np.testing.assert_allclose(levels * scales.astype(np.float64), bias, rtol=1e-6)  # about as exact as float32
    assert np.abs(levels[:3].astype(np.int64)).max() <= 2**29 + 64  # to which the products are added


def test_the_graph_is_one(small_int8):
    made = onnx.load_from_string(passes.rewritten(small_int8(), "onnxruntime", "int8"))
    onnx.checker.check_model(made, full_check=True)
    assert "w" not in [i.name for i in made.graph.initializer]  # the weight is there once
    assert {a.name: a.s for n in made.graph.node for a in n.attribute if a.name == "auto_pad"} == {"auto_pad": b"VALID"}


@pytest.mark.parametrize("change", [{"layer": "nowhere"}, {"ranges": {"a": (0.0, 1.0)}}])
def test_a_document_that_names_what_is_not_there(small_int8, change):
    with pytest.raises(ArtifactError, match="quantization"):
        network(small_int8(**change), "onnx", precision="int8")


def test_without_ranges_the_command_is_named(small):
    with pytest.raises(ArgumentError, match="diffuse-fast quantize"):
        network(df.load(small()), precision="int8")
    session = ort.InferenceSession(small(), providers=["CPUExecutionProvider"])
    with pytest.raises(ArgumentError, match=r"'int8'.*\(onnx: float32\)"):
        network(session, precision="int8")


def test_the_layers_of_a_network():
    found = quantizable_layers(Graph(df.load("digits").path))
    assert {node.op for node in found} == {"Conv", "Gemm"} and len(found) == 51


@example(0.0, 1.8356825969051256e-41)
@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_zero_is_exact_and_the_range_is_covered(one, other):
    low, high = min(one, other), max(one, other)
    scale, zero = (float(v) for v in scale_and_zero_point((low, high)))
    assert zero == int(zero) and 0 <= zero <= 255
    ends = (0 - zero) * scale, (255 - zero) * scale
    assert ends[0] <= min(low, 0) + scale and ends[1] >= max(high, 0) - scale


def test_weights_round_by_half_a_step_of_their_channel():
    weight = np.random.default_rng(0).standard_normal((5, 3, 2)).astype(np.float32)
    weight[2] = 0
    scales, levels = quantize_weight(weight, 0)
    assert levels.dtype == np.int8 and np.abs(levels.astype(int)).max() == 127
    error = np.abs(levels * scales[:, None, None] - weight)
    assert (error <= 0.501 * scales[:, None, None]).all() and not levels[2].any()


def _in_bfloat16(tmp_path, document, shape, weights, nodes):
    """A call of one sample in bfloat16 on OpenVINO of the nodes, each an operator, its inputs, its output and its attributes."""
    openvino = pytest.importorskip("openvino")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bfloat16")
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node(op, inputs.split(), [output], **attributes) for op, inputs, output, attributes in nodes],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", *shape]),
            helper.make_tensor_value_info("t", TensorProto.INT64, ["B"]),
        ],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["B", *shape])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    document["sample"]["shape"] = list(shape)
    helper.set_model_props(file, {"diffuse_fast": json.dumps({**document, "conditioning": []})})
    (tmp_path / "model.onnx").write_bytes(file.SerializeToString())
    return network(df.load(tmp_path / "model.onnx"), "openvino", precision="bfloat16").bind(1, shape, {})


EYE = np.eye(6, dtype=np.float32)


def test_bfloat16_keeps_the_time(tmp_path, document):
    """sin(999) through a product: in bfloat16 999 is 1000, whose sine is another number."""
    frequencies = np.linspace(0.5, 1, 6, dtype=np.float32)
    call = _in_bfloat16(
        tmp_path,
        document,
        (6,),
        {"one": np.array([1]), "eye": EYE, "frequencies": frequencies},
        [
            ("Cast", "t", "tf", {"to": 1}),
            ("Unsqueeze", "tf one", "column", {}),
            ("Mul", "column frequencies", "angles", {}),
            ("Sin", "angles", "sines", {}),
            ("MatMul", "sines eye", "mixed", {}),
            ("MatMul", "mixed eye", "again", {}),
            ("Add", "x again", "output", {}),
        ],
    )
    assert np.abs(call(999.0) - np.sin(999 * np.linspace(0.5, 1, 6))).max() <= 2**-7


def test_bfloat16_keeps_the_sample(tmp_path, document):
    """A first layer that takes differences of numbers near 1: in bfloat16 most of them are 0."""
    difference = (np.eye(6) - np.eye(6, k=1)).astype(np.float32)
    call = _in_bfloat16(
        tmp_path,
        document,
        (6,),
        {"one": np.array([1]), "eye": EYE, "difference": difference},
        [
            ("MatMul", "x difference", "differences", {}),
            ("MatMul", "differences eye", "same", {}),
            ("Cast", "t", "tf", {"to": 1}),
            ("Unsqueeze", "tf one", "column", {}),
            ("Add", "same column", "output", {}),
        ],
    )
    x = 1 + np.random.default_rng(0).uniform(-1e-3, 1e-3, (1, 6)).astype(np.float32)
    call.x[...] = x
    want = x @ difference
    assert (np.abs(call(0.0) - want) <= 2**-7 * np.abs(want)).all()


def test_bfloat16_takes_a_network_whose_first_layer_is_added_to_another(tmp_path, document):
    """As a shortcut past the first layer is. One that is told to keep its precision is not compiled there by OpenVINO."""
    random = np.random.default_rng(0)
    sizes = {"one": (64, 2), "two": (64, 64), "past": (64, 2), "last": (2, 64)}
    weights = {name: random.standard_normal((*size, 3)).astype(np.float32) for name, size in sizes.items()}
    weights |= {f"{name}_bias": random.standard_normal(size[0]).astype(np.float32) for name, size in sizes.items()}
    weights["ones"] = np.array([1, 2])
    pads = {"pads": [1, 1]}
    call = _in_bfloat16(
        tmp_path,
        document,
        (2, 16),
        weights,
        [
            ("Conv", "x one one_bias", "a", pads),
            ("Conv", "a two two_bias", "b", pads),
            ("Mish", "b", "c", {}),
            ("Conv", "x past past_bias", "d", pads),
            ("Add", "c d", "e", {}),
            ("Conv", "e last last_bias", "f", pads),
            ("Cast", "t", "tf", {"to": 1}),
            ("Unsqueeze", "tf ones", "column", {}),
            ("Add", "f column", "output", {}),
        ],
    )
    call.x[...] = x = random.standard_normal((1, 2, 16)).astype(np.float32)

    def convolved(x, name):
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1))), 3, axis=2)
        return np.einsum("oik,bilk->bol", weights[name], windows) + weights[f"{name}_bias"][:, None]

    b = convolved(convolved(x, "one"), "two")
    want = convolved(b * np.tanh(np.logaddexp(0, b)) + convolved(x, "past"), "last")
    assert np.linalg.norm(call(0.0) - want) <= 0.02 * np.linalg.norm(want)


def test_a_module_in_bfloat16(monkeypatch):
    torch = pytest.importorskip("torch")
    if not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        pytest.skip("this CPU has no bfloat16")
    torch.manual_seed(0)

    class Linear(torch.nn.Module):
        def __init__(self, allowed):
            super().__init__()
            self.layer, self.allowed = torch.nn.Linear(64, 64), allowed

        def forward(self, x, t):
            with torch.autocast("cpu", torch.bfloat16, enabled=self.allowed and torch.is_autocast_enabled("cpu")):
                return self.layer(x)

    def output(module, precision):
        call = network(module, precision=precision).bind(3, (64,), {})
        call.x[...] = np.random.default_rng(0).standard_normal((3, 64))
        return call(1.0).copy()

    module = Linear(True).eval()
    error = np.abs(output(module, "bfloat16") - output(module, "float32")).max()
    assert 2**-16 < error < 2**-5  # it is not float32, and it is near
    with pytest.raises(UnavailableError, match="does not reach"):
        output(Linear(False).eval(), "bfloat16")
    with pytest.raises(ArgumentError, match=r"module\.float\(\)"):
        output(module.half(), "bfloat16")
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    with pytest.raises(UnavailableError, match="this CPU"):
        output(module.float(), "bfloat16")
