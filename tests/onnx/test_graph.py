"""What a graph says of its values, against what onnx wrote."""

from __future__ import annotations

import numpy as np
import pytest

from diffuse_fast.onnx.graph import Graph

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402  # only where onnx is installed


@pytest.fixture
def graph(tmp_path):
    """Constants of every kind, and a subgraph within a subgraph."""

    def branch(name, nodes):
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(f"{name}.y", TensorProto.FLOAT, None)])

    node = helper.make_node
    innermost = branch("c", [node("Tanh", ["x"], ["c.y"], domain="ai.onnx")])
    beside = branch("d", [node("Sin", ["x"], ["d.y"])])
    inner = branch("a", [node("If", ["yes"], ["a.y"], then_branch=innermost, else_branch=beside)])
    nodes = [
        node("Constant", [], ["tensor"], value=numpy_helper.from_array(np.array([[1, -2]]))),
        node("Constant", [], ["ints"], value_ints=[3, -1]), node("Constant", [], ["int"], value_int=-5),
        node("Constant", [], ["float"], value_float=0.5),
        node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
        node("If", ["yes"], ["y"], then_branch=inner, else_branch=branch("b", [node("Cos", ["x"], ["b.y"])])),
    ]  # fmt: skip
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weights = [
        numpy_helper.from_array(np.array([-1, 2, 3]), "raw"), helper.make_tensor("packed", TensorProto.INT64, [2], [-7, 8]),
        numpy_helper.from_array(np.ones((2, 3), np.float32), "floats"), numpy_helper.from_array(np.ones(2, np.int32), "other"),
    ]  # fmt: skip
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(helper.make_graph(nodes, "g", [x], [y], weights)).SerializeToString())
    return Graph(path)


def test_constants(graph):
    numbers = {"raw": (-1, 2, 3), "packed": (-7, 8), "tensor": (1, -2), "ints": (3, -1), "int": (-5,)}
    others = dict.fromkeys(("floats", "other", "float", "x", "nothing"))
    assert {name: graph.constant_integers(name) for name in (*numbers, *others)} == {**numbers, **others}
    assert all(graph.is_constant(name) for name in (*numbers, "floats", "float"))
    assert not graph.is_constant("x")
    assert graph.constant_integers(graph.add_constant("x", np.array([4, 5]))) == (4, 5)


def test_shapes(graph):
    shapes = {"raw": (3,), "packed": (2,), "floats": (2, 3), "tensor": (1, 2), "int": (), "float": ()}
    shapes |= {"x": ("B", 4), "nothing": None}
    assert {name: graph.shape(name) for name in shapes} == shapes
    assert graph.shape(graph.add_constant("x", np.zeros((4, 5), np.float32))) == (4, 5)


def test_subgraphs(graph):
    assert sorted(node.op for node in graph.subgraph_nodes) == ["Cos", "If", "Sin", "Tanh"]
    assert all(node.domain == "" for node in graph.subgraph_nodes)
