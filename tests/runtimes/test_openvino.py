"""What OpenVINO's runtime has of its own: the names of a network's inputs, and the parts of a batch."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArtifactError, NetworkError
from diffuse_fast.runtimes import network
from diffuse_fast.runtimes.openvino import OpenVINOCall

pytest.importorskip("openvino")
onnx = pytest.importorskip("onnx")

node = onnx.helper.make_node

# What leaves an input as it is: an operation and its further inputs.
COPIES = {"Identity": ((), {}), "Cast": ((), {"to": 1}), "Slice": (("zero", "end"), {}), "Pad": (("none",), {})}
WEIGHTS = {"zero": [0], "end": [2**63 - 1], "none": [0, 0, 0, 0], "pair": [0, 0], "column": [-1, 1]}


def saved(path, first, name):
    """tanh(sample) + timestep, with ``first`` between the input ``name`` and what reads it."""
    value = onnx.helper.make_tensor_value_info
    of = {"sample": "sample", "timestep": "timestep", name: "copy"}
    nodes = [
        first, node("Tanh", [of["sample"]], ["tanh"]), node("Reshape", [of["timestep"], "column"], ["times"]),
        node("Add", ["tanh", "times"], ["out"]),
    ]  # fmt: skip
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [value("sample", 1, ["B", 3]), value("timestep", 1, ["B"])],
        [value("out", 1, ["B", 3])],
        [onnx.numpy_helper.from_array(np.array(array, np.int64), key) for key, array in WEIGHTS.items()],
    )
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    path.write_bytes(made.SerializeToString())
    return df.load(path, {"convention": "sigma"})


@pytest.mark.parametrize("name", ["sample", "timestep"])
@pytest.mark.parametrize("op", COPIES)
def test_an_input_that_is_copied_first(tmp_path, op, name):
    more, attributes = COPIES[op]
    if (op, name) == ("Pad", "timestep"):
        more = ("pair",)  # of one dimension
    first = node(op, [name, *more], ["copy"], **attributes)
    call = network(saved(tmp_path / "m.onnx", first, name), "openvino", threads=1).bind(2, (3,), {})
    call.x[...] = 0.5
    np.testing.assert_allclose(call(2.0), np.full((2, 3), np.tanh(0.5) + 2), rtol=1e-6)


@pytest.mark.parametrize("name", ["sample", "timestep"])
def test_an_input_that_openvino_renames_is_refused(tmp_path, name):
    model = saved(tmp_path / "m.onnx", node("Dropout", [name], ["copy"]), name)
    with pytest.raises(ArtifactError, match=r"renames.*'copy'.*Dropout.*runtime='onnx'"):
        network(model, "openvino", threads=1)


@pytest.mark.parametrize(("threads", "parts"), [(1, 1), (2, 2), (3, 3), (4, 2), (5, 1), (6, 6)])
def test_parts_of_a_batch(threads, parts, monkeypatch):
    """As many as divide the batch of 6 and the threads, each with its own samples, times and conditions."""
    model, rng = df.load("digits"), np.random.default_rng(0)
    x, label, times = rng.standard_normal((6, 1, 8, 8)), rng.integers(0, 10, 6), rng.integers(0, 1000, 6).astype(float)
    alone = network(model, "openvino", threads=1).bind(1, model.shape, {"label": label[:1]})
    net, streams = network(model, "openvino", threads=threads), []
    compiled = net._compiled
    monkeypatch.setattr(net, "_compiled", lambda shapes, n: streams.append((n, shapes["x"][0])) or compiled(shapes, n))
    call = net.bind(6, model.shape, {"label": label[::-1].copy()})
    assert streams == [(parts, 6 // parts)]
    call.x[...] = x
    call.condition({"label": label})
    got = call(times).copy()
    for i in range(6):
        alone.x[...] = x[i]
        alone.condition({"label": label[i : i + 1]})
        want = alone(float(times[i]))[0]
        np.testing.assert_allclose(got[i], want, rtol=0, atol=2e-6 * np.abs(want).max())


def test_all_parts_have_ended_when_one_fails():
    """None may write into the output after the call."""
    done = []

    class Request:
        def __init__(self):
            self.number = len(requests)
            requests.append(self)

        def set_tensor(self, name, tensor):
            pass

        def start_async(self):
            done.append(("start", self.number))

        def wait(self):
            done.append(("wait", self.number))
            if self.number == 1:
                raise RuntimeError("out of order")

    requests: list[Request] = []
    compiled = SimpleNamespace(inputs=[], output=lambda name: SimpleNamespace(shape=[2, 3]), create_infer_request=Request)
    inputs = {"x": np.zeros((6, 3), np.float32), "t": np.zeros(6, np.float32)}
    parts = [{name: array[i : i + 2] for name, array in inputs.items()} for i in (0, 2, 4)]
    call = OpenVINOCall(compiled, inputs, parts, "x", "t", "y", np.zeros((6, 3), np.float32))
    with pytest.raises(NetworkError, match=r"time 1\.0: RuntimeError: out of order"):
        call(1.0)
    assert sorted(done) == sorted((what, i) for what in ("start", "wait") for i in range(3))
