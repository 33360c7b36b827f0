"""One graph of every operator that MNN is trusted with, held against onnxruntime, and forms of them that are wrong and refused."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArtifactError, NetworkError
from diffuse_fast.runtimes import network, operators, otherwise

pytest.importorskip("MNN")
onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

node = onnx.helper.make_node
rng = np.random.default_rng(0)
SHAPE = (4, 8, 8)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def number(x):
    return np.array(x, np.float32)


def whole(*numbers):
    return np.array(numbers, np.int64)


def unary(op, **attributes):
    return [node(op, ["x"], ["y"], **attributes)], {}


def of_positive(op):
    return [node("Exp", ["x"], ["e"]), node("Add", ["e", "w0"], ["p"]), node(op, ["p"], ["y"])], {"w0": number(1)}


def within_one(op):
    return [node("Softsign", ["x"], ["s"]), node(op, ["s"], ["y"])], {}


def weighted(op, *weights, **attributes):
    return [node(op, ["x", *(f"w{i}" for i in range(len(weights)))], ["y"], **attributes)], dict(enumerated(weights))


def enumerated(weights):
    return ((f"w{i}", w) for i, w in enumerate(weights))


def compared(op):
    """As a mask of numbers, between values that are equal now and then."""
    nodes = [node("Floor", ["x"], ["f"]), node(op, ["f", "w0"], ["c"]), node("Where", ["c", "x", "w0"], ["y"])]
    return nodes, {"w0": number(0)}


def both(op):
    nodes = [node("Greater", ["x", "w0"], ["a"]), node("GreaterOrEqual", ["w1", "x"], ["b"])]
    nodes += [node(op, ["a", "b"], ["c"]), node("Cast", ["c"], ["y"], to=1)]
    return nodes, {"w0": number(0), "w1": number(0.5)}


def measured(*nodes, **weights):
    """x times a number that is computed from its shape ``s``, as ``n``."""
    return [node("Shape", ["x"], ["s"]), *nodes, node("Cast", ["n"], ["nf"], to=1), node("Mul", ["x", "nf"], ["y"])], weights


UNARY = [
    "Abs", "Asinh", "Atan", "Ceil", "Celu", "Cos", "Cosh", "Dropout", "Elu", "Erf", "Exp", "Flatten", "Floor", "GlobalAveragePool",
    "GlobalMaxPool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Neg", "Relu", "Selu", "Sigmoid", "Sign",
    "Sin", "Sinh", "Softmax", "Softsign", "Tan", "Tanh", "ThresholdedRelu",
]  # fmt: skip
BINARY = ["Add", "Div", "Max", "Min", "Mul", "Sub"]
REDUCED = ["ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"]

# Nodes from x to y, and weights.
CASES = {
    **{op: unary(op) for op in UNARY},
    **{op: weighted(op, np.abs(normal(4, 1, 1)) + number(0.5)) for op in BINARY},
    **{op: weighted(op, whole(1, 2)) for op in REDUCED},
    **{op: of_positive(op) for op in ("Acosh", "Log", "Reciprocal", "Sqrt")},
    **{op: within_one(op) for op in ("Acos", "Asin", "Atanh")},
    **{op: compared(op) for op in ("Greater", "GreaterOrEqual", "LessOrEqual")},
    **{op: both(op) for op in ("And", "Or", "Xor")},
    "AveragePool": unary("AveragePool", kernel_shape=[2, 2], strides=[2, 2]),
    "BatchNormalization": weighted("BatchNormalization", normal(4), normal(4), normal(4), np.abs(normal(4)) + number(0.5)),
    "Cast": ([node("Cast", ["x"], ["i"], to=7), node("Cast", ["i"], ["y"], to=1)], {}),
    "Clip": weighted("Clip", number(-0.3), number(0.4)),
    "Concat": ([node("Tanh", ["x"], ["z"]), node("Concat", ["x", "z", "x"], ["y"], axis=1)], {}),
    "Constant": (
        [node("Constant", [], ["c"], value=onnx.numpy_helper.from_array(normal(4, 1, 1))), node("Mul", ["x", "c"], ["y"])], {},
    ),
    "ConstantOfShape": measured(node("ConstantOfShape", ["s"], ["n"], value=onnx.numpy_helper.from_array(whole(3)))),
    "Conv": weighted("Conv", normal(8, 4, 3, 3), normal(8), pads=[1, 1, 1, 1], strides=[2, 2]),
    "ConvTranspose": weighted("ConvTranspose", normal(4, 8, 4, 4), normal(8), pads=[1, 1, 1, 1], strides=[2, 2]),
    "CumSum": weighted("CumSum", np.array(2)),
    "DepthToSpace": unary("DepthToSpace", blocksize=2),
    "Einsum": weighted("Einsum", normal(4, 5), equation="bchw,cd->bdhw"),
    "Expand": (
        [node("ReduceMean", ["x", "w0"], ["m"]), node("Expand", ["m", "w1"], ["y"])], {"w0": whole(1), "w1": whole(1, 4, 1, 1)},
    ),
    "Gather": weighted("Gather", whole(2, 0, -1), axis=1),
    "Gemm": (
        [node("Flatten", ["x"], ["r"]), node("Gemm", ["r", "w0", "w1"], ["y"], transB=1)], {"w0": normal(6, 256), "w1": normal(6)},
    ),
    "InstanceNormalization": weighted("InstanceNormalization", normal(4), normal(4)),
    "LayerNormalization": weighted("LayerNormalization", normal(8), normal(8)),
    "LogSoftmax": unary("LogSoftmax", axis=1),
    "MatMul": (
        [node("Tanh", ["x"], ["z"]), node("MatMul", ["x", "z"], ["n"]), node("MatMul", ["n", "w0"], ["y"])], {"w0": normal(8, 3)},
    ),
    "MaxPool": unary("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    "Not": (
        [node("Greater", ["x", "w0"], ["c"]), node("Not", ["c"], ["n"]), node("Where", ["n", "x", "w0"], ["y"])], {"w0": number(0)},
    ),
    "PRelu": weighted("PRelu", normal(4, 1, 1)),
    "Pad": weighted("Pad", whole(0, 0, 1, 2, 0, 0, 3, 0), number(2)),
    "Pow": weighted("Pow", number(3)),
    "Range": measured(node("Range", ["w0", "w1", "w2"], ["n"]), w0=np.array(0), w1=np.array(8), w2=np.array(1)),
    "Reshape": weighted("Reshape", whole(0, 8, -1)),
    "Resize": ([node("Resize", ["x", "", "w0"], ["y"], mode="linear")], {"w0": np.array([1, 1, 0.6, 1.5], np.float32)}),
    "Shape": measured(node("Gather", ["s", "w0"], ["n"]), w0=np.array(1)),
    "Size": measured(node("Size", ["x"], ["n"])),
    "Slice": weighted("Slice", whole(1, 0), whole(7, 100), whole(2, 3), whole(2, 1)),
    "Softplus": ([node("Softplus", ["x"], ["p"]), node("Tanh", ["p"], ["y"])], {}),
    "SpaceToDepth": unary("SpaceToDepth", blocksize=2),
    "Split": ([node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2), node("Concat", ["b", "a"], ["y"], axis=2)], {}),
    "Squeeze": ([node("ReduceMean", ["x", "w0"], ["m"]), node("Squeeze", ["m", "w0"], ["y"])], {"w0": whole(2)}),
    "Tile": weighted("Tile", whole(1, 2, 1, 3)),
    "Transpose": unary("Transpose", perm=[0, 2, 3, 1]),
    "Trilu": unary("Trilu", upper=0),
    "Unsqueeze": weighted("Unsqueeze", whole(1, -1)),
    "Where": (
        [node("Greater", ["x", "w0"], ["c"]), node("Tanh", ["x"], ["z"]), node("Where", ["c", "x", "z"], ["y"])], {"w0": number(0)},
    ),
}  # fmt: skip
# Further forms that exporters write.
FORMS = {
    "PRelu of a picture": weighted("PRelu", normal(1, 4, 1, 1)),
    "PRelu of one slope": weighted("PRelu", normal(1)),
    "Where of a mask": ([node("Where", ["w0", "x", "w1"], ["y"])], {"w0": normal(8, 8) > 0, "w1": number(-1)}),
    "Where of means": (
        [node("Greater", ["x", "w0"], ["c"]), node("ReduceMean", ["x", "w1"], ["z"]), node("Where", ["c", "z", "x"], ["y"])],
        {"w0": number(0), "w1": whole(1)},
    ),
}
OPSET_9 = {"Upsample": ([node("Upsample", ["x", "w0"], ["y"], mode="nearest")], {"w0": np.array([1, 1, 2, 2], np.float32)})}
CASES |= OPSET_9


def test_every_operator_has_a_graph():
    assert set(CASES) == operators.MNN


WRONG = {
    "Slice by steps": weighted("Slice", whole(-1), whole(-100), whole(2), whole(-1)),
    "Pad of some axes": ([node("Pad", ["x", "w0", "", "w1"], ["y"])], {"w0": whole(2, 1), "w1": whole(2)}),
    "Pad by numbers that are negative": weighted("Pad", whole(0, 0, -1, 0, 0, 0, 0, -1)),
    "Gemm with transA": (
        [node("Reshape", ["x", "w0"], ["q"]), node("Transpose", ["q"], ["qt"]), node("Gemm", ["qt", "w1"], ["p"], transA=1),
         node("Reshape", ["p", "w2"], ["y"])],
        {"w0": whole(-1, 8), "w1": normal(8, 8), "w2": whole(-1, *SHAPE)},
    ),
    "MatMul of values": weighted("MatMul", normal(4, 8, 8)),
    "Where of arrays": (
        [node("Greater", ["x", "w0"], ["c"]), node("Where", ["c", "x", "w1"], ["y"])], {"w0": number(0), "w1": normal(8)},
    ),
    "PRelu with another slope": weighted("PRelu", normal(8)),
    "PRelu with another slope than": weighted("PRelu", normal(1, 8, 1)),
    "Cast to bool": ([node("Cast", ["x"], ["c"], to=9), node("Cast", ["c"], ["y"], to=1)], {}),
    "Cast to 16 bits": ([node("Cast", ["x"], ["c"], to=10), node("Cast", ["c"], ["y"], to=1)], {}),
    "Max of other than two": ([node("Max", ["x", "w0", "w1"], ["y"])], {"w0": number(0.2), "w1": normal(4, 1, 1)}),
    "Min of other than two": ([node("Min", ["x", "w0", "w1"], ["y"])], {"w0": number(0.2), "w1": normal(4, 1, 1)}),
    "Resize by the nearest pixel between": (
        [node("Resize", ["x", "", "w0"], ["y"], coordinate_transformation_mode="align_corners", nearest_mode="floor")],
        {"w0": np.array([1, 1, 3, 1.5], np.float32)},
    ),
    "MaxPool with auto_pad SAME_LOWER": unary("MaxPool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER"),
    "AveragePool with auto_pad SAME_LOWER": unary("AveragePool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER"),
    "ConvTranspose with auto_pad SAME_LOWER": weighted("ConvTranspose", normal(4, 4, 3, 3), strides=[2, 2], auto_pad="SAME_LOWER"),
    "ConvTranspose with output_shape": weighted("ConvTranspose", normal(4, 4, 3, 3), strides=[2, 2], output_shape=[17, 16]),
    "Split into parts": (
        [node("Split", ["x"], ["a", "b", "c"], axis=2, num_outputs=3), node("Concat", ["b", "a"], ["y"], axis=2)], {},
    ),
    "ReduceSum with noop": unary("ReduceSum", noop_with_empty_axes=1),
    "GlobalAveragePool of anything but": (
        [node("Reshape", ["x", "w0"], ["q"]), node("GlobalAveragePool", ["q"], ["y"])], {"w0": whole(0, 4, 2, 4, 8)},
    ),
    "Shrink": unary("Shrink", lambd=0.5, bias=0.1),
    "Sum": ([node("Sum", ["x", "w0", "x"], ["y"])], {"w0": normal(4, 8, 8)}),
    "ReduceLogSumExp": weighted("ReduceLogSumExp", whole(1, 2)),
    "Less": (
        [node("Floor", ["x"], ["f"]), node("Less", ["w0", "f"], ["c"]), node("Cast", ["c"], ["y"], to=1)], {"w0": normal(4, 8, 8)},
    ),
}  # fmt: skip
FATAL = {"Slice by steps", "Pad of some axes", "GlobalAveragePool of anything but"}  # they end the process


@pytest.mark.parametrize("before", ["Neg", "Conv"])  # what a convolution gives lies in memory otherwise
@pytest.mark.parametrize("op", sorted(CASES | FORMS))
def test_as_onnxruntime(tmp_path, op, before):
    artifact, x, want = made(tmp_path, (CASES | FORMS)[op], before, 9 if op in OPSET_9 else 20)
    # Sums of at most 36, 64 and 768 numbers, each rounded by half of 2^-23: their square roots, and as much again for the operator.
    assert np.abs(called(artifact, x) - want).max() <= 100 * 2.0**-24 * np.abs(want).max()


@pytest.mark.parametrize("words", WRONG)
def test_what_is_wrong_is_refused(tmp_path, monkeypatch, words):
    artifact, x, want = made(tmp_path, WRONG[words], "Neg")
    with pytest.raises(ArtifactError, match=f"'mnn'.*{words}.*runtime='onnx'"):
        network(artifact, "mnn", threads=1)
    if words in FATAL:
        return
    monkeypatch.setattr(otherwise, "refuse", lambda *_: None)
    try:
        got = called(artifact, x)
    except NetworkError:  # the output has another shape, which another network might not show
        return
    assert not np.abs(got - want).max() <= 1e-4 * np.abs(want).max(), "it is right now: let it through"


def called(artifact, x):
    call = network(artifact, "mnn", threads=1).bind(2, SHAPE, {})
    call.x[...] = x
    return call(0.5)


def made(folder, case, before, opset=20):
    """A model of the case's nodes, its sample, and its output by onnxruntime."""
    nodes, weights = case
    first = node("Conv", ["sample", "kernel"], ["x"], pads=[1, 1, 1, 1]) if before == "Conv" else node("Neg", ["sample"], ["x"])
    draw = np.random.default_rng(1).standard_normal
    weights = {**weights, "kernel": draw((4, 4, 3, 3), np.float32) / 6}
    x = draw((2, *SHAPE), np.float32)
    numbers = run(model([first, *nodes], weights, opset, "y"), x).size // 2
    # Whatever y is, the output has the sample's shape; and the network has to read its time.
    weights |= {"row": whole(0, -1), "back": draw((numbers, 256), np.float32) / number(numbers**0.5)}
    weights |= {"times": whole(-1, 1), "shape": whole(0, *SHAPE)}
    last = [
        node("Reshape", ["y", "row"], ["rows"]), node("MatMul", ["rows", "back"], ["mixed"]),
        node("Reshape", ["timestep", "times"], ["added"]), node("Add", ["mixed", "added"], ["sum"]),
        node("Reshape", ["sum", "shape"], ["out"]),
    ]  # fmt: skip
    path = folder / "m.onnx"
    path.write_bytes(model([first, *nodes, *last], weights, opset, "out"))
    return df.load(path, {"convention": "sigma"}), x, run(path.read_bytes(), x)


def model(nodes, weights, opset, output):
    value, tensor = onnx.helper.make_tensor_value_info, onnx.numpy_helper.from_array
    inputs = [value("sample", 1, ["B", *SHAPE]), value("timestep", 1, ["B"])]
    tensors = [tensor(np.asarray(array), name) for name, array in weights.items()]
    graph = onnx.helper.make_graph(nodes, "g", inputs, [value(output, 1, None)], tensors)
    whole_model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(whole_model).SerializeToString()


def run(content, x):
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    inputs = {"sample": x, "timestep": np.full(2, 0.5, np.float32)}
    return session.run(None, {one.name: inputs[one.name] for one in session.get_inputs()})[0]
