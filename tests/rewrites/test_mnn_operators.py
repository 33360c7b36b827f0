"""A graph of every form of an operator that MNN is trusted with, held against onnxruntime; any other form is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArtifactError, NetworkError
from diffuse_fast.rewrites import mnn_operators, unsupported_forms
from diffuse_fast.runtimes import network

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


def measured(*nodes, **weights):
    """x times a number that is computed from its shape ``s``, as ``n``."""
    return [node("Shape", ["x"], ["s"]), *nodes, node("Cast", ["n"], ["nf"], to=1), node("Mul", ["x", "nf"], ["y"])], weights


UNARY = [
    "Abs", "Asinh", "Atan", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor", "GlobalAveragePool", "HardSwish", "Identity", "Neg",
    "Relu", "Sigmoid", "Sign", "Sin", "Sinh", "Softsign", "Tanh",
]  # fmt: skip
REPEATED = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
BINARY = ["Add", "Div", "Mul", "Sub"]


def as_sequence(op, *weights, **attributes):
    nodes = [node("Reshape", ["x", "size"], ["q"])]
    nodes.append(node(op, ["q", *(f"w{i}" for i in range(len(weights)))], ["y"], **attributes))
    return nodes, {"size": whole(0, 0, 64), **dict(enumerated(weights))}


def of_means(op, *names):
    """With what has one number for each channel of a sample, as either operand."""
    return [node("ReduceMean", ["x", "axes"], ["m"]), node(op, names, ["y"])], {"axes": whole(2, 3)}


def integers(op, *weights):
    """Of whole numbers below and above 0."""
    nodes = [node("Mul", ["x", "five"], ["x5"]), node("Cast", ["x5"], ["i"], to=7)]
    nodes += [node(op, ["i", *(f"w{i}" for i in range(len(weights)))], ["n"]), node("Cast", ["n"], ["y"], to=1)]
    return nodes, {"five": number(5), **dict(enumerated(weights))}


def constant(**value):
    nodes = [node("Constant", [], ["c"], **value), node("Cast", ["c"], ["f"], to=1), node("Mul", ["x", "f"], ["y"])]
    return nodes, {}


def cases(c):
    """Nodes from x, which has c channels, to y, and weights: by the operator and words for its form."""
    above = np.abs(normal(c, 1, 1)) + number(0.5)
    found = {
        **{op: unary(op) for op in UNARY},
        **{op: weighted(op, above) for op in BINARY},
        **{f"{op} of one number": weighted(op, number(0.7)) for op in BINARY},
        **{f"{op} of rows": weighted(op, np.abs(normal(8)) + number(0.5)) for op in BINARY},
        **{f"{op} of a sample": weighted(op, np.abs(normal(1, c, 8, 8)) + number(0.5)) for op in BINARY},
        **{f"{op} by means": of_means(op, "x", "m") for op in ("Add", "Mul", "Sub")},
        **{f"{op} of means": of_means(op, "m", "x") for op in ("Add", "Mul", "Sub")},
        **{f"{op} of integers": integers(op, np.array(2)) for op in BINARY},
        **{f"{op} after a constant": ([node("Exp", ["x"], ["e"]), node(op, ["w0", "e"], ["y"])], {"w0": above}) for op in BINARY},
        **{op: of_positive(op) for op in ("Acosh", "Log", "Reciprocal", "Sqrt")},
        **{op: within_one(op) for op in ("Acos", "Asin", "Atanh", "Tan")},
        **{f"{op} of integers": integers(op) for op in ("Abs", "Neg", "Sign", "Identity")},
        "AveragePool": unary("AveragePool", kernel_shape=[2, 2], strides=[2, 2]),
        "AveragePool that counts": unary("AveragePool", kernel_shape=[2, 2], strides=[2, 2], count_include_pad=1),
        "BatchNormalization": weighted(
            "BatchNormalization", normal(c), normal(c), normal(c), np.abs(normal(c)) + number(0.5), epsilon=0.1, momentum=0.5
        ),
        "BatchNormalization of sequences": as_sequence(
            "BatchNormalization", normal(c), normal(c), normal(c), np.abs(normal(c)) + number(0.5)
        ),
        **{f"Cast to {to}": ([node("Cast", ["x"], ["i"], to=to), node("Cast", ["i"], ["y"], to=1)], {}) for to in (1, 6, 7)},
        **{f"Concat {axis}": ([node("Tanh", ["x"], ["z"]), node("Concat", ["x", "z", "x"], ["y"], axis=axis)], {})
           for axis in (1, 2, 3, -1, -3)},
        "Concat of integers": (
            [node("Cast", ["x"], ["i"], to=7), node("Concat", ["i", "i"], ["n"], axis=1), node("Cast", ["n"], ["y"], to=1)], {},
        ),
        "Constant": (
            [node("Constant", [], ["c"], value=onnx.numpy_helper.from_array(above)), node("Mul", ["x", "c"], ["y"])], {},
        ),
        "Constant of a number": constant(value_float=0.5),
        "Constant of numbers": constant(value_floats=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]),
        "Constant of an integer": constant(value_int=3),
        "Constant of integers": constant(value_ints=[1, 2, 3, 4, 5, 6, 7, 8]),
        "Conv": weighted("Conv", normal(8, c, 3, 3), normal(8), pads=[1, 1, 1, 1], strides=[2, 2]),
        "Conv without bias": weighted("Conv", normal(8, c, 3, 3), pads=[1, 0, 2, 1], kernel_shape=[3, 3]),
        "Conv dilated": weighted("Conv", normal(8, c, 3, 3), normal(8), dilations=[2, 2], pads=[2, 2, 2, 2]),
        "Conv of groups": weighted("Conv", normal(8, c // 2, 3, 3), normal(8), group=2, pads=[1, 1, 1, 1]),
        "Conv of each channel": weighted("Conv", normal(c, 1, 3, 3), normal(c), group=c, pads=[1, 1, 1, 1]),
        "Conv padded below": weighted("Conv", normal(8, c, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER"),
        "Conv not padded": weighted("Conv", normal(8, c, 3, 3), auto_pad="VALID"),
        "Conv of pixels": weighted("Conv", normal(8, c, 1, 1), normal(8)),
        "Conv of sequences": as_sequence("Conv", normal(8, c, 3), normal(8), pads=[1, 1], strides=[2]),
        "Conv dilated of sequences": as_sequence("Conv", normal(8, c // 2, 3), group=2, dilations=[2], pads=[2, 2]),
        "ConvTranspose": weighted("ConvTranspose", normal(c, 8, 4, 4), normal(8), pads=[1, 1, 1, 1], strides=[2, 2]),
        "ConvTranspose without bias": weighted("ConvTranspose", normal(c, 8, 3, 3), dilations=[2, 2], kernel_shape=[3, 3]),
        "ConvTranspose of groups": weighted("ConvTranspose", normal(c, 2, 3, 3), group=2, strides=[2, 2], output_padding=[1, 1]),
        "ConvTranspose of sequences": as_sequence("ConvTranspose", normal(c, 8, 4), normal(8), pads=[1, 1], strides=[2]),
        "Gather": weighted("Gather", whole(2, 0, -1), axis=1),
        "Gather of one": weighted("Gather", np.array(1), axis=-1),
        "Gather of a table": (
            [node("ReduceMean", ["x", "axes"], ["m"], keepdims=0), node("Abs", ["m"], ["a"]), node("Cast", ["a"], ["i"], to=7),
             node("Gather", ["w0", "i"], ["y"])],
            {"axes": whole(1, 2, 3), "w0": normal(9, 4)},
        ),
        **{f"Gemm {' '.join(map(str, told.values()))} with {shape}": (
            [node("Reshape", ["x", "size"], ["r"]), node("Gemm", ["r", "w0", *(["w1"] if shape else [])], ["y"], **told)],
            {"size": whole(0, -1), "w0": normal(*((6, 64 * c) if told.get("transB") else (64 * c, 6))) / number(16),
             "w1": normal(*shape)},
        ) for told, shape in (({"transB": 1}, (6,)), ({"transB": 1, "alpha": 0.5}, ()), ({"alpha": 0.5, "beta": 2.0}, (1, 6)))},
        "GlobalAveragePool of sequences": as_sequence("GlobalAveragePool"),
        "InstanceNormalization": weighted("InstanceNormalization", normal(c), normal(c), epsilon=0.1),
        "InstanceNormalization of sequences": as_sequence("InstanceNormalization", normal(c), normal(c)),
        "LayerNormalization": weighted("LayerNormalization", normal(8), normal(8), epsilon=0.1),
        "LayerNormalization without bias": weighted("LayerNormalization", normal(8)),
        "MatMul": (
            [node("Tanh", ["x"], ["z"]), node("MatMul", ["x", "z"], ["n"]), node("MatMul", ["n", "w0"], ["y"])],
            {"w0": normal(8, 3)},
        ),
        "MatMul of one by all": ([node("MatMul", ["w0", "x"], ["y"])], {"w0": normal(3, 8)}),
        **{f"Pow {n}": ([node("Abs", ["x"], ["a"]), node("Pow", ["a", "w0"], ["y"])], {"w0": number(n)}) for n in (0.5, 2, 3)},
        "Pow 3 of negatives": weighted("Pow", number(3)),
        "ReduceMean": weighted("ReduceMean", whole(1, 2)),
        **{f"ReduceMean {axes}": weighted("ReduceMean", whole(*axes), keepdims=0)
           for axes in ((1,), (2,), (3,), (2, 3), (1, 2, 3))},
        "Reshape": weighted("Reshape", whole(0, 8, -1)),
        "Reshape as it is said": weighted("Reshape", whole(-1, c, 64), allowzero=1),
        "Reshape to more": weighted("Reshape", whole(0, 2, c // 2, 8, 8)),
        **{f"Resize by {' '.join(map(str, by))}": (
            [node("Resize", ["x", "", "w0"], ["y"], **REPEATED)],
            {"w0": np.array([1, 1, *by], np.float32)},
        ) for by in ((2, 2), (0.6, 1.5), (1, 3))},
        "Resize of sequences": (
            [node("Reshape", ["x", "w0"], ["q"]), node("Resize", ["q", "", "w1"], ["y"], **REPEATED)],
            {"w0": whole(0, 0, 64), "w1": np.array([1, 1, 2], np.float32)},
        ),
        "Shape": measured(node("Gather", ["s", "w0"], ["n"]), w0=np.array(1)),
        "Slice": weighted("Slice", whole(1, 0), whole(7, 100), whole(2, 3), whole(2, 1)),
        "Slice from the end": weighted("Slice", whole(-3), whole(2**63 - 1), whole(-1)),
        "Slice of channels": weighted("Slice", whole(1), whole(3), whole(1)),
        "Softmax": unary("Softmax"),
        **{f"Softmax {axis}": unary("Softmax", axis=axis) for axis in (1, 2, -3)},
        "Softplus": ([node("Softplus", ["x"], ["p"]), node("Tanh", ["p"], ["y"])], {}),
        **{f"Split {axis}": (
            [node("Split", ["x"], ["a", "b"], axis=axis, num_outputs=2), node("Concat", ["b", "a"], ["y"], axis=2)], {},
        ) for axis in (1, 2, -1)},
        "Split by sizes": (
            [node("Split", ["x", "w0"], ["a", "b"], axis=1), node("Concat", ["b", "a"], ["y"], axis=1)], {"w0": whole(1, c - 1)},
        ),
        **{f"Squeeze {axis}": ([node("ReduceMean", ["x", "w0"], ["m"]), node("Squeeze", ["m", "w0"], ["y"])], {"w0": whole(axis)})
           for axis in (1, 2, -1)},
        **{f"Transpose {perm}": unary("Transpose", perm=perm) for perm in ((0, 2, 3, 1), (0, 3, 1, 2), (0, 1, 3, 2), (0, 2, 1, 3))},
        "Transpose of five": (
            [node("Reshape", ["x", "w0"], ["q"]), node("Transpose", ["q"], ["y"], perm=[0, 2, 4, 1, 3])],
            {"w0": whole(0, 2, c // 2, 8, 8)},
        ),
        "Transpose of sequences": as_sequence("Transpose", perm=[0, 2, 1]),
        **{f"Unsqueeze {axes}": weighted("Unsqueeze", whole(*axes)) for axes in ((1,), (2,), (1, -1))},
    }  # fmt: skip
    return found


CASES = {channels: cases(channels) for channels in (4, 6)}  # MNN keeps channels in blocks of four


def test_every_form_has_a_graph():
    """Every operator, and every value of an attribute that is let through, or one that is no default where all are."""
    nodes = [n for found, _ in CASES[4].values() for n in found]
    said: dict = {}
    for n in nodes:
        for one in n.attribute:
            said.setdefault((n.op_type, one.name), []).append(onnx.helper.get_attribute_value(one))
    told = {
        key: [v.decode() if isinstance(v, bytes) else tuple(v) if isinstance(v, list) else v for v in values]
        for key, values in said.items()
    }
    assert {n.op_type for n in nodes} == set(mnn_operators.MNN)
    for op, attributes in mnn_operators.MNN.items():
        schema = onnx.defs.get_schema(op, 20)
        for name, values in attributes.items():
            if op == "Resize" and values is None:
                continue  # of modes that are refused
            default = schema.attributes[name].default_value
            usual = onnx.helper.get_attribute_value(default) if default.name else None
            usual = usual.decode() if isinstance(usual, bytes) else usual
            held = told.get((op, name), [])
            if values is None:
                assert [v for v in held if v != usual], (op, name)
            else:
                assert set(values) <= {*held, usual} | ({(1, 1), (0, 0, 0, 0)} if op == "AveragePool" else set()), (op, name)


@pytest.mark.parametrize(("before", "channels"), [("Neg", 4), ("Conv", 6)])  # a convolution's lies in memory otherwise
@pytest.mark.parametrize("form", sorted(CASES[4]))
def test_as_onnxruntime(tmp_path, form, before, channels):
    artifact, x, want = made(tmp_path, CASES[channels][form], before, channels=channels)
    net = network(artifact, "mnn", threads=1)
    for batch in (2, 1):
        # Sums of up to 54, 96 and some 2000 numbers, each rounded by half of 2^-23: their roots, and as much for the operator.
        assert np.abs(called(net, x[:batch]) - want[:batch]).max() <= 200 * 2.0**-24 * np.abs(want[:batch]).max()


WRONG = {
    **{f"{op} with a constant of one element": ([node(op, ["w0", "x"], ["y"])], {"w0": normal(1, 1, 1, 1)}) for op in BINARY},
    "Einsum": (
        [node("Reshape", ["x", "w1"], ["q"]), node("Einsum", ["q", "w0"], ["y"], equation="bts,bcs->bct")],
        {"w0": normal(2, 16, 16), "w1": whole(0, 16, 16)},
    ),
    "Greater": ([node("Greater", ["w0", "x"], ["c"]), node("Cast", ["c"], ["y"], to=1)], {"w0": normal(4, 8, 8)}),
    "MaxPool": (
        [node("MaxPool", ["x"], ["m", "i"], kernel_shape=[2, 2], strides=[2, 2]), node("Cast", ["i"], ["y"], to=1)], {},
    ),
    "Slice with steps": weighted("Slice", whole(-1), whole(-100), whole(2), whole(-1)),
    "Gemm with transA": (
        [node("Reshape", ["x", "w0"], ["q"]), node("Transpose", ["q"], ["qt"], perm=[1, 0]),
         node("Gemm", ["qt", "w1"], ["p"], transA=1), node("Reshape", ["p", "w2"], ["y"])],
        {"w0": whole(-1, 8), "w1": normal(8, 8), "w2": whole(-1, *SHAPE)},
    ),
    "MatMul of batches": weighted("MatMul", normal(4, 8, 8)),
    "Cast with to=9": ([node("Cast", ["x"], ["c"], to=9), node("Cast", ["c"], ["y"], to=1)], {}),
    "Cast with to=10": ([node("Cast", ["x"], ["c"], to=10), node("Cast", ["c"], ["y"], to=1)], {}),
    "Resize with coordinate_transformation_mode='half_pixel'": (
        [node("Resize", ["x", "", "w0"], ["y"], nearest_mode="ceil")], {"w0": np.array([1, 1, 3, 1.5], np.float32)},
    ),
    "AveragePool with auto_pad='SAME_LOWER'": unary("AveragePool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER"),
    "Resize without the attribute mode": (
        [node("Resize", ["x", "", "w0"], ["y"], coordinate_transformation_mode="asymmetric", nearest_mode="floor")],
        {"w0": np.array([1, 1, 2, 2], np.float32)},
    ),
    "ConvTranspose with auto_pad='SAME_LOWER'": weighted(
        "ConvTranspose", normal(4, 4, 3, 3), strides=[2, 2], auto_pad="SAME_LOWER"
    ),
    "ConvTranspose with output_shape=": weighted("ConvTranspose", normal(4, 4, 3, 3), strides=[2, 2], output_shape=[17, 16]),
    "Split into parts": (
        [node("Split", ["x"], ["a", "b", "c"], axis=2, num_outputs=3), node("Concat", ["b", "a"], ["y"], axis=2)], {},
    ),
    "ReduceMean with noop_with_empty_axes=1": unary("ReduceMean", noop_with_empty_axes=1),
    "GlobalAveragePool of inputs that are not": (
        [node("Reshape", ["x", "w0"], ["q"]), node("GlobalAveragePool", ["q"], ["y"])], {"w0": whole(0, 4, 2, 4, 8)},
    ),
    "Pow with an exponent": weighted("Pow", number(-3)),
}  # fmt: skip
FATAL = {"Slice with steps", "GlobalAveragePool of inputs that are not"}  # they end the process


@pytest.mark.parametrize("words", WRONG)
def test_what_is_wrong_is_refused(tmp_path, monkeypatch, words):
    artifact, x, want = made(tmp_path, WRONG[words], "Conv")
    with pytest.raises(ArtifactError, match=f"'mnn'.*{re.escape(words)}.*runtime='onnx'"):
        network(artifact, "mnn", threads=1)
    if words in FATAL:
        return
    monkeypatch.setattr(unsupported_forms, "check", lambda *_: None)
    try:
        got = called(network(artifact, "mnn", threads=1), x)
    except (ArtifactError, NetworkError):  # the output has another shape, which another network might not show
        return
    assert not np.abs(got - want).max() <= 1e-5 * np.abs(want).max(), "it is right now: let it through"


@pytest.mark.parametrize("op", ["Celu", "Expand", "Max", "Pad", "PRelu", "ReduceSum", "Where"])
def test_what_has_no_test_is_refused(tmp_path, op):
    weights = {"Pad": [whole(0, 0, 1, 1, 0, 0, 1, 1)], "Expand": [whole(1, 1, 1, 1)], "PRelu": [normal(4, 1, 1)],
               "ReduceSum": [whole(1)], "Max": [number(0)], "Celu": []}  # fmt: skip
    case = ([node("Where", ["w0", "x", "w1"], ["y"])], {"w0": normal(8) > 0, "w1": number(0)})
    artifact, *_ = made(tmp_path, weighted(op, *weights[op]) if op in weights else case, "Neg")
    with pytest.raises(ArtifactError, match=f"not known to compute {op} correctly"):
        network(artifact, "mnn", threads=1)


def called(net, x):
    call = net.bind(len(x), x.shape[1:], {})
    call.x[...] = x
    return call(0.5)


def made(folder, case, before, opset=20, channels=4):
    """A model of the case's nodes, its sample, and its output by onnxruntime."""
    nodes, weights = case
    first = node("Conv", ["sample", "kernel"], ["x"], pads=[1, 1, 1, 1]) if before == "Conv" else node("Neg", ["sample"], ["x"])
    draw = np.random.default_rng(1).standard_normal
    weights = {**weights, "kernel": draw((channels, channels, 3, 3), np.float32) / 6}
    shape = (channels, 8, 8)
    x = draw((2, *shape), np.float32)
    numbers = run(model([first, *nodes], weights, opset, "y", shape), x).size // 2
    # Whatever y is, the output has the sample's shape; and the network has to read its time.
    weights |= {"row": whole(0, -1), "back": draw((numbers, 64 * channels), np.float32) / number(numbers**0.5)}
    weights |= {"times": whole(-1, 1), "shape": whole(0, *shape)}
    last = [
        node("Reshape", ["y", "row"], ["rows"]), node("MatMul", ["rows", "back"], ["mixed"]),
        node("Reshape", ["timestep", "times"], ["added"]), node("Add", ["mixed", "added"], ["sum"]),
        node("Reshape", ["sum", "shape"], ["out"]),
    ]  # fmt: skip
    path = folder / "m.onnx"
    path.write_bytes(model([first, *nodes, *last], weights, opset, "out", shape))
    return df.load(path, {"convention": "sigma"}), x, run(path.read_bytes(), x)


def model(nodes, weights, opset, output, shape):
    used = {name for one in nodes for name in one.input}
    value, tensor = onnx.helper.make_tensor_value_info, onnx.numpy_helper.from_array
    inputs = [value("sample", 1, ["B", *shape]), value("timestep", 1, ["B"])]
    tensors = [tensor(np.asarray(array), name) for name, array in weights.items() if name in used]
    graph = onnx.helper.make_graph(nodes, "g", inputs, [value(output, 1, None)], tensors)
    whole_model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(whole_model).SerializeToString()


def run(content, x):
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    inputs = {"sample": x, "timestep": np.full(2, 0.5, np.float32)}
    return session.run(None, {one.name: inputs[one.name] for one in session.get_inputs()})[0]
