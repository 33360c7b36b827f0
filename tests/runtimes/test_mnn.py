"""What MNN's runtime has of its own: its converter, its sessions, and convolutions that are exact to rounding."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, ArtifactError, NetworkError, OutputError
from diffuse_fast.runtimes import network

pytest.importorskip("MNN")
onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from diffuse_fast.rewrites import unsupported_forms  # noqa: E402  # after the packages it needs
from diffuse_fast.runtimes import mnn  # noqa: E402

SHAPE = (2, 3)


def bound(path, batch=2, **options):
    return network(df.load(path), "mnn", threads=1, **options).bind(batch, SHAPE, {"label": np.zeros(batch, int)})


def saved(path, nodes, inputs, output, weights=(), opset=23):
    """A model file of those nodes; ``inputs`` and ``output`` are names to shapes."""
    value = onnx.helper.make_tensor_value_info
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in weights]
    values = [value(name, 1, shape) for name, shape in inputs.items()]
    graph = onnx.helper.make_graph(nodes, "g", values, [value(*output)], tensors)
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)
    path.write_bytes(onnx.shape_inference.infer_shapes(made, strict_mode=True).SerializeToString())
    return df.load(path, {"convention": "sigma"})


def reference(model, **inputs):
    return ort.InferenceSession(model.path, providers=["CPUExecutionProvider"]).run(None, inputs)[0]


def test_the_operator_that_it_lacks_is_named(small):
    path = small()
    path.write_bytes(path.read_bytes().replace(b"Gather", b"Gathxx"))
    with pytest.raises(ArtifactError, match=r"Gathxx.*runtime='onnx'"):
        bound(path)


def test_the_operator_that_its_converter_lacks_is_named(small, monkeypatch):
    monkeypatch.setattr(unsupported_forms, "check", lambda *_: None)
    path = small()
    path.write_bytes(path.read_bytes().replace(b"Gather", b"Gathxx"))
    with pytest.raises(ArtifactError, match=r"converter rejects .*Gathxx"):
        bound(path)


def test_the_converter_has_a_time_limit(small, monkeypatch):
    monkeypatch.setattr(mnn, "_CONVERTER_TIMEOUT", 0.01)
    with pytest.raises(ArtifactError, match=r"did not finish .* within 0.01 s.*'onnx'"):
        bound(small())


@pytest.mark.parametrize("dims", [["B"], [1], []])
def test_forms_of_the_time(tmp_path, dims):
    node = onnx.helper.make_node
    nodes = [node("Reshape", ["timestep", "column"], ["tc"]), node("Mul", ["sample", "tc"], ["out"])]
    inputs = {"sample": ["B", 2], "timestep": dims}
    model = saved(tmp_path / "m.onnx", nodes, inputs, ("out", 1, ["B", 2]), [("column", np.array([-1, 1]))])
    call = network(model, "mnn", threads=1).bind(3, (2,), {})
    call.x[...] = 1
    np.testing.assert_array_equal(call(2.5), np.full((3, 2), 2.5))


def test_a_network_that_ends_with_a_convolution_of_sequences(tmp_path):
    weight = np.random.default_rng(3).standard_normal((2, 2, 3)).astype(np.float32)
    nodes = [onnx.helper.make_node("Conv", ["sample", "w"], ["out"], pads=[1, 1])]
    inputs = {"sample": ["B", 2, 16], "timestep": ["B"]}
    model = saved(tmp_path / "m.onnx", nodes, inputs, ("out", 1, ["B", 2, 16]), [("w", weight)])
    call = network(model, "mnn", threads=1).bind(3, (2, 16), {})
    call.x[...] = np.random.default_rng(4).standard_normal(call.x.shape)
    np.testing.assert_allclose(call(1.0), reference(model, sample=call.x, timestep=np.ones(3, np.float32)), atol=1e-6)


def test_an_input_that_the_network_does_not_use(tmp_path):
    nodes = [onnx.helper.make_node("Tanh", ["sample"], ["out"])]
    model = saved(tmp_path / "m.onnx", nodes, {"sample": ["B", 2], "timestep": ["B"]}, ("out", 1, ["B", 2]))
    call = network(model, "mnn", threads=1).bind(2, (2,), {})
    call.x[...] = 0.5
    np.testing.assert_allclose(call(1.0), np.full((2, 2), np.tanh(0.5)), rtol=1e-6)


def test_external_data(small, small_oracle):
    path = small()
    onnx.save_model(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=100)  # the table
    call = bound(path)
    call.x[...] = x = np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float32)
    np.testing.assert_allclose(call(30.0), small_oracle(x, np.full(2, 30), [0, 0]), rtol=0, atol=2e-6)


def test_an_output_of_another_shape_than_declared(small):
    with pytest.raises(NetworkError, match=r"\(2, 2, 3\).*\(2, 4, 3\)"):
        network(df.load(small()), "mnn", threads=1).bind(2, SHAPE, {"label": np.zeros(2, int)}, output_shape=(4, 3))


def test_no_other_precision(small):
    with pytest.raises(ArgumentError, match=r"'bfloat16'.*mnn: float32, float32-fast\)"):
        network(df.load(small()), "mnn", precision="bfloat16")


def test_attention_of_heads_that_the_file_does_not_number(tmp_path):
    """Two heads of queries and one of keys, in shapes that nobody knows: no product of theirs, but refused by name."""
    node = onnx.helper.make_node
    nodes = [
        node("Reshape", ["sample", "to_q"], ["q"]), node("Reshape", ["sample", "to_k"], ["k"]),
        node("Attention", ["q", "k", "k"], ["a"]), node("Reshape", ["a", "flat"], ["out"]), node("Identity", ["timestep"], ["t"]),
    ]  # fmt: skip
    value = onnx.helper.make_tensor_value_info
    shape = [("q", [None, None, None, 4]), ("k", [None, None, None, 4])]
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [value("sample", 1, ["B", 24]), value("timestep", 1, ["B"])],
        [value("out", 1, ["B", 24])],
        [
            onnx.numpy_helper.from_array(np.array(a), n)
            for n, a in (("to_q", [-1, 2, 3, 4]), ("to_k", [-1, 1, 6, 4]), ("flat", [-1, 24]))
        ],
        value_info=[value(n, 1, s) for n, s in shape],
    )
    path = tmp_path / "m.onnx"
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)], ir_version=10)
    path.write_bytes(made.SerializeToString())
    with pytest.raises(ArtifactError, match="Attention"):
        network(df.load(path, {"convention": "sigma"}), "mnn", threads=1)


@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_and_mish(tmp_path, scale):
    """Operations that MNN does not know; two heads, and another number of keys than of queries, both of two samples."""
    node = onnx.helper.make_node
    rng = np.random.default_rng(1)
    key, value = (rng.standard_normal((1, 2, 5, 4)).astype(np.float32) for _ in range(2))
    nodes = [
        node("Mish", ["sample"], ["q"]),
        node("ReduceMean", ["sample", "one"], ["each"]),
        node("Add", ["key", "each"], ["k"]), node("Sub", ["value", "each"], ["v"]),
        node("Attention", ["q", "k", "v"], ["a"], **({} if scale is None else {"scale": scale})),
        node("Add", ["a", "timestep"], ["out"]),
    ]  # fmt: skip
    weights = [("key", key), ("value", value), ("one", np.array([1, 2, 3]))]
    inputs = {"sample": ["B", 2, 3, 4], "timestep": [1]}
    model = saved(tmp_path / "m.onnx", nodes, inputs, ("out", 1, ["B", 2, 3, 4]), weights)
    call = network(model, "mnn", threads=1).bind(2, (2, 3, 4), {})
    call.x[...] = x = 3 * rng.standard_normal((2, 2, 3, 4)).astype(np.float32)
    expected = reference(model, sample=x, timestep=np.full(1, 0.5, np.float32))
    np.testing.assert_allclose(call(0.5), expected, rtol=0, atol=2e-6)


def test_convolutions(tmp_path):
    """Exact to rounding in float32. In float32-fast the transforms of large tiles cancel."""
    node = onnx.helper.make_node
    rng = np.random.default_rng(2)
    shape = (16, 48, 48)  # tiles of 6x6 divide it
    weights = [(f"w{i}", (rng.standard_normal((16, 16, 3, 3)) / 12).astype(np.float32)) for i in range(3)]
    names = ["sample", "a0", "a1", "a2"]
    nodes = [node("Conv", [names[i], f"w{i}"], [names[i + 1]], pads=[1, 1, 1, 1]) for i in range(3)]
    nodes.append(node("Mul", [names[-1], "timestep"], ["out"]))
    dims = ["B", *shape]
    model = saved(tmp_path / "m.onnx", nodes, {"sample": dims, "timestep": [1]}, ("out", 1, dims), weights)
    x = rng.standard_normal((2, *shape)).astype(np.float32)
    want = x.astype(np.float64)
    for _, weight in weights:
        padded = np.pad(want, [(0, 0), (0, 0), (1, 1), (1, 1)])
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        want = np.einsum("bchwij,ocij->bohw", windows, weight.astype(np.float64), optimize=True)
    errors = {}
    for precision in ("float32", "float32-fast"):
        call = network(model, "mnn", threads=1, precision=precision).bind(2, shape, {})
        call.x[...] = x
        errors[precision] = np.linalg.norm(call(1.0) - want) / np.linalg.norm(want)
    assert errors["float32"] < 1e-6  # three sums of 144 products
    assert errors["float32"] < errors["float32-fast"] < 1e-3


def test_sessions_are_shared_and_few_are_kept(small):
    model = df.load(small())
    net = network(model, "mnn", threads=1)
    for batch in (1, 1, 1, 2, 3, 4, 5, 6):
        net.bind(batch, SHAPE, {"label": np.zeros(batch, int)})
    made = mnn._models[model]
    assert list(made.sessions.idle().values()) == [1] * mnn._KEPT
    assert network(model, "mnn", threads=2)._made is made  # converted once


def test_a_bound_call_makes_no_session_again(small, monkeypatch):
    net = network(df.load(small()), "mnn", threads=1)
    calls = [net.bind(batch, SHAPE, {"label": np.zeros(batch, int)}) for batch in range(1, 2 * mnn._KEPT)]
    monkeypatch.setattr(mnn, "_Session", None)
    for _ in range(2):
        for call in calls:
            call(1.0)


def test_stdout_is_the_callers_and_a_forked_child_can_run(small, forked):
    code = """
def run(threads):
    return network(model, "mnn", threads=threads).bind(2, (2, 3), {"label": np.zeros(2, int)})(1.0)

run(2)

def child():
    return np.isfinite(run(1)).all()  # on several threads a network that is worth them would wait for those of its parent
"""
    assert forked(code, small()) == b""  # MNN tells of the processor when it is imported


def test_importing_it_prints_nothing_and_takes_nothing_from_others(small):
    """MNN prints a line about the processor on standard output when it is imported. What others print meanwhile stays there."""
    code = """
import importlib, os, sys
import diffuse_fast as df
from diffuse_fast.runtimes import network
importing = importlib.import_module

def beside(name, *rest):
    if name == "MNN":
        os.write(1, b"of another thread\\n")
    return importing(name, *rest)

importlib.import_module = beside
network(df.load(sys.argv[1]), "mnn")
print("after")
"""
    done = subprocess.run([sys.executable, "-c", code, str(small())], capture_output=True, text=True, timeout=280)
    assert (done.returncode, done.stdout, done.stderr) == (0, "of another thread\nafter\n", "")


def test_a_temporary_file_that_cannot_be_written(small, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with pytest.raises(OutputError, match=r"temporary file.*TMPDIR"):
        bound(small())


@pytest.mark.skipif(os.name != "posix", reason="closes a descriptor")
def test_without_standard_output(small):
    """As a service may run."""
    code = "import sys; import diffuse_fast as df; from diffuse_fast.runtimes import network; network(df.load(sys.argv[1]), 'mnn')"
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-c", code, str(small())]
    done = subprocess.run(command, stderr=subprocess.PIPE, timeout=280)
    assert done.returncode == 0, done.stderr.decode()


ERF = [("Div", "x root", "a"), ("Erf", "a", "b"), ("Add", "b one", "c"), ("Mul", "x c", "d"), ("Mul", "d half", "y")]
TANH = [
    ("Pow", "x three", "a"), ("Mul", "some a", "b"), ("Add", "x b", "c"), ("Mul", "slope c", "d"), ("Tanh", "d", "e"),
    ("Add", "e one", "f"), ("Mul", "f half", "g"), ("Mul", "x g", "y"),
]  # fmt: skip


@pytest.mark.parametrize("spelt", [ERF, TANH, "none", "tanh"], ids=["erf", "tanh", "Gelu", "Gelu tanh"])
def test_gelu(tmp_path, spelt):
    """MNN has an approximation, off by 1e-4, which it takes for the operator and for what it was exported as before opset 20."""
    node = onnx.helper.make_node
    if isinstance(spelt, str):
        nodes, opset = [node("Gelu", ["x"], ["y"], approximate=spelt)], 20
    else:
        nodes, opset = [node(op, inputs.split(), [y]) for op, inputs, y in spelt], 17
    numbers = {"root": 2**0.5, "one": 1, "half": 0.5, "three": 3, "some": 0.044715, "slope": (2 / np.pi) ** 0.5}
    weights = [(name, np.array(number, np.float32)) for name, number in numbers.items()]
    nodes = [node("Mul", ["sample", "timestep"], ["x"]), *nodes]
    model = saved(tmp_path / "m.onnx", nodes, {"sample": ["B", 400], "timestep": [1]}, ("y", 1, ["B", 400]), weights, opset)
    call = network(model, "mnn", threads=1).bind(2, (400,), {})
    call.x[...] = x = np.linspace(-8, 8, 800, dtype=np.float32).reshape(2, 400)
    np.testing.assert_allclose(call(1.0), reference(model, sample=x, timestep=np.ones(1, np.float32)), rtol=0, atol=1e-6)


def test_gelu_beside_weights_that_lie_in_another_file(tmp_path):
    """Nothing is rewritten there, so the order that MNN takes for its own is refused."""
    node = onnx.helper.make_node
    nodes = [node(op, inputs.split(), [y]) for op, inputs, y in ERF]
    nodes = [node("MatMul", ["sample", "w"], ["m"]), node("Mul", ["m", "timestep"], ["x"]), *nodes]
    weights = [(name, np.array(n, np.float32)) for name, n in (("root", 2**0.5), ("one", 1), ("half", 0.5))]
    weights.append(("w", np.eye(40, dtype=np.float32)))
    path = tmp_path / "m.onnx"
    saved(path, nodes, {"sample": ["B", 40], "timestep": [1]}, ("y", 1, ["B", 40]), weights, 20)
    onnx.save_model(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=100)
    with pytest.raises(ArtifactError, match="Gelu of a file with external data"):
        network(df.load(path, {"convention": "sigma"}), "mnn", threads=1)
