"""Replace Mish (opset 18) by older operators, for a runtime without it."""

from __future__ import annotations

from ..onnx.graph import Graph, Node


def decompose_mish(graph: Graph) -> bool:
    """Replace Mish (Misra 2019) by x·tanh(softplus(x)). Returns True if the graph changed."""

    def replacement(node: Node) -> list[Node] | None:
        if node.op != "Mish" or node.domain:
            return None
        x, y = node.inputs[0], node.outputs[0]
        softplus, tanh = graph.new_name(y), graph.new_name(y)
        return [Node("Softplus", (x,), (softplus,)), Node("Tanh", (softplus,), (tanh,)), Node("Mul", (x, tanh), (y,))]

    return graph.replace(replacement)
