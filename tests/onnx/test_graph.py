"""What a graph says of its values, against what onnx wrote."""

from __future__ import annotations

import numpy as np
import pytest

from diffuse_fast.onnx.graph import Graph

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402  # only where onnx is installed


@pytest.fixture
def graph(tmp_path):
    """Weights of several kinds, and a subgraph within a subgraph."""

    def branch(name, nodes):
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(f"{name}.y", TensorProto.FLOAT, None)])

    node = helper.make_node
    innermost = branch("c", [node("Tanh", ["x"], ["c.y"], domain="ai.onnx")])
    beside = branch("d", [node("Sin", ["x"], ["d.y"])])
    inner = branch("a", [node("If", ["yes"], ["a.y"], then_branch=innermost, else_branch=beside)])
    nodes = [
        node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
        node("If", ["yes"], ["y"], then_branch=inner, else_branch=branch("b", [node("Cos", ["x"], ["b.y"])])),
    ]  # fmt: skip
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weights = [
        numpy_helper.from_array(np.ones((2, 3), np.float32), "raw"), helper.make_tensor("packed", TensorProto.FLOAT, [2], [-7, 8]),
        numpy_helper.from_array(np.array([-1, 2, 3]), "integers"), numpy_helper.from_array(np.array(4, np.float32), "scalar"),
        TensorProto(name="short", data_type=TensorProto.FLOAT, dims=[2], raw_data=bytes(4)),
    ]  # fmt: skip
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(helper.make_graph(nodes, "g", [x], [y], weights)).SerializeToString())
    return Graph(path)


def test_weights(graph):
    for name, array in {"raw": np.ones((2, 3)), "packed": np.array([-7, 8]), "scalar": np.array(4)}.items():
        np.testing.assert_array_equal(graph.weight(name), array.astype(np.float32), strict=True)
    for name in ("integers", "short", "x", "nothing"):
        assert graph.weight(name) is None
    assert graph.weight(graph.add_constant("x", np.ones(2, np.float32))).tolist() == [1, 1]
    assert graph.weight(graph.add_constant("x", np.ones(2, np.int64))) is None


def test_subgraphs(graph):
    assert sorted(node.op for node in graph.subgraph_nodes) == ["Cos", "If", "Sin", "Tanh"]
    assert all(node.domain == "" for node in graph.subgraph_nodes)
