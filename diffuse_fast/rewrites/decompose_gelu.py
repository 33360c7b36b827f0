"""Replace Gelu (opset 20) by older operators, for a runtime that lacks or approximates it."""

from __future__ import annotations

import math

import numpy as np

from ..onnx.graph import Graph, Node


def decompose_gelu(graph: Graph) -> bool:
    """Replace Gelu (Hendrycks & Gimpel 2016) by x/2·(1 + erf(x/√2)).

    With ``approximate="tanh"`` it becomes x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))). Returns True if the graph changed.
    """

    def replacement(node: Node) -> list[Node] | None:
        if node.op != "Gelu" or node.domain:
            return None
        x, y = node.inputs[0], node.outputs[0]
        half, inner, curve, one_plus = (graph.new_name(y) for _ in range(4))
        if node.attributes.get("approximate", "none") == "tanh":
            square, cube, scaled, total = (graph.new_name(y) for _ in range(4))
            nodes = [
                Node("Mul", (x, x), (square,)),
                Node("Mul", (square, x), (cube,)),
                Node("Mul", (cube, _scalar(graph, y, 0.044715)), (scaled,)),
                Node("Add", (x, scaled), (total,)),
                Node("Mul", (total, _scalar(graph, y, math.sqrt(2 / math.pi))), (inner,)),
                Node("Tanh", (inner,), (curve,)),
            ]
        else:
            nodes = [Node("Div", (x, _scalar(graph, y, math.sqrt(2))), (inner,)), Node("Erf", (inner,), (curve,))]
        return [
            *nodes,
            Node("Add", (_scalar(graph, y, 1), curve), (one_plus,)),
            Node("Mul", (x, _scalar(graph, y, 0.5)), (half,)),
            Node("Mul", (half, one_plus), (y,)),
        ]

    return graph.replace(replacement)


def _scalar(graph: Graph, like: str, number: float) -> str:
    return graph.add_constant(like, np.array(number, np.float32))
