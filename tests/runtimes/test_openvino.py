"""What OpenVINO's runtime has of its own: the names of a network's inputs."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArtifactError
from diffuse_fast.runtimes import network

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
