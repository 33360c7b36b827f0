"""Replace Attention (opset 23) by MatMul and Softmax, for a runtime without it."""

from __future__ import annotations

import math

import numpy as np

from ..onnx.graph import Graph, Node
from ..onnx.header import Value


def decompose_attention(graph: Graph) -> bool:
    """Replace Attention (Vaswani et al. 2017, eq. 1) by softmax(q·scale·kᵀ)·v.

    Only for 4-D inputs with equally many heads and without mask, cache or softcap. Returns True if the graph changed.
    """

    def replacement(node: Node) -> list[Node] | None:
        if node.op != "Attention" or node.domain or not _is_plain(node, graph):
            return None
        (q, k, v), y = node.inputs[:3], node.outputs[0]
        scale = node.attributes.get("scale", 1 / math.sqrt(graph.values[q].shape[3]))  # type: ignore[index,arg-type]  # _is_plain
        scaled, transposed, logits, weights = (graph.new_name(y) for _ in range(4))
        for name, shape in zip((scaled, transposed, weights), _shapes(graph, q, k), strict=True):
            graph.values[name] = Value(name, "float32", shape)
        return [
            Node("Mul", (q, graph.add_constant(y, np.array(scale, np.float32))), (scaled,)),
            Node("Transpose", (k,), (transposed,), {"perm": (0, 1, 3, 2)}),
            Node("MatMul", (scaled, transposed), (logits,)),
            Node("Softmax", (logits,), (weights,), {"axis": -1}),
            Node("MatMul", (weights, v), (y,)),
        ]

    return graph.replace(replacement)


def _shapes(graph: Graph, q: str, k: str) -> tuple[tuple[int | str, ...], ...]:
    """Return the shapes of the scaled queries, the transposed keys and the attention weights."""
    b, heads, queries, width = graph.values[q].shape or ()
    key_batch, _, keys, _ = graph.values[k].shape or ()
    return (b, heads, queries, width), (key_batch, heads, width, keys), (b, heads, queries, keys)


def _is_plain(node: Node, graph: Graph) -> bool:
    """Return whether q, k and v are known to be 4-D with equally many heads, and there is no mask, cache or softcap."""
    if any(node.inputs[3:]) or any(node.outputs[1:]) or node.attributes.get("is_causal") or node.attributes.get("softcap"):
        return False
    shapes = [graph.values[name].shape or () for name in node.inputs[:3] if name in graph.values]
    if [len(s) for s in shapes] != [4, 4, 4]:
        return False
    heads = {s[1] for s in shapes}
    return len(heads) == 1 and "" not in heads and isinstance(shapes[0][3], int)
