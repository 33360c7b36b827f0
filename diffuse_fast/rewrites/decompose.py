"""Attention (opset 23), Gelu (20) and Mish (18) as products of older operations, for a runtime that lacks them or approximates."""

from __future__ import annotations

import math

import numpy as np

from ..onnx.graph import Node, Nodes
from ..onnx.header import Value


def attention_products(graph: Nodes) -> bool:
    """Attention (Vaswani et al. 2017, eq. 1) of 4-D values with as many heads each as softmax(q·scale·kᵀ)·v. Whether there
    was any."""

    def made(node: Node) -> list[Node] | None:
        if node.op != "Attention" or node.domain or not _plain(node, graph):
            return None
        (q, k, v), y = node.inputs[:3], node.outputs[0]
        scale = node.attributes.get("scale", 1 / math.sqrt(graph.values[q].shape[3]))  # type: ignore[index,arg-type]  # _plain asked
        scaled, turned, logits, weights = (graph.fresh(y) for _ in range(4))
        for name, shape in zip((scaled, turned, weights), _shapes(graph, q, k), strict=True):
            graph.values[name] = Value(name, "float32", shape)
        return [
            Node("Mul", (q, graph.constant(y, np.array(scale, np.float32))), (scaled,)),
            Node("Transpose", (k,), (turned,), {"perm": (0, 1, 3, 2)}),
            Node("MatMul", (scaled, turned), (logits,)),
            Node("Softmax", (logits,), (weights,), {"axis": -1}),
            Node("MatMul", (weights, v), (y,)),
        ]

    return graph.replace(made)


def mish_products(graph: Nodes) -> bool:
    """Mish (Misra 2019) as x·tanh(softplus(x)). Whether there was any."""

    def made(node: Node) -> list[Node] | None:
        if node.op != "Mish" or node.domain:
            return None
        x, y = node.inputs[0], node.outputs[0]
        plus, tanh = graph.fresh(y), graph.fresh(y)
        return [Node("Softplus", (x,), (plus,)), Node("Tanh", (plus,), (tanh,)), Node("Mul", (x, tanh), (y,))]

    return graph.replace(made)


def gelu_products(graph: Nodes) -> bool:
    """Gelu (Hendrycks & Gimpel 2016) as x/2·(1 + erf(x/√2)), or x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))) where that is asked for.
    Whether there was any."""

    def made(node: Node) -> list[Node] | None:
        if node.op != "Gelu" or node.domain:
            return None
        x, y = node.inputs[0], node.outputs[0]
        half, inner, odd, more = (graph.fresh(y) for _ in range(4))
        if node.attributes.get("approximate", "none") == "tanh":
            square, cube, small, wide = (graph.fresh(y) for _ in range(4))
            curve = [
                Node("Mul", (x, x), (square,)),
                Node("Mul", (square, x), (cube,)),
                Node("Mul", (cube, _number(graph, y, 0.044715)), (small,)),
                Node("Add", (x, small), (wide,)),
                Node("Mul", (wide, _number(graph, y, math.sqrt(2 / math.pi))), (inner,)),
                Node("Tanh", (inner,), (odd,)),
            ]
        else:
            curve = [Node("Div", (x, _number(graph, y, math.sqrt(2))), (inner,)), Node("Erf", (inner,), (odd,))]
        return [
            *curve,
            Node("Add", (_number(graph, y, 1), odd), (more,)),
            Node("Mul", (x, _number(graph, y, 0.5)), (half,)),
            Node("Mul", (half, more), (y,)),
        ]

    return graph.replace(made)


def unfuse_gelu(graph: Nodes) -> bool:
    """erf(..) + 1 as 1 + erf(..), and so with tanh: in the first order MNN takes a Gelu that is spelt out for its own, which is off
    by 1e-4. Whether there was any."""
    curves = {name for node in graph.nodes if node.op in ("Erf", "Tanh") and not node.domain for name in node.outputs}
    found = False
    for i, node in enumerate(graph.nodes):
        if node.op == "Add" and not node.domain and node.inputs[0] in curves and graph.is_constant(node.inputs[1]):
            graph.nodes[i] = graph.rewired(node, node.inputs[::-1], node.outputs)
            found = True
    return found


def _number(graph: Nodes, like: str, number: float) -> str:
    return graph.constant(like, np.array(number, np.float32))


def _shapes(graph: Nodes, q: str, k: str) -> tuple[tuple[int | str, ...], ...]:
    """Of the queries, the keys transposed, and the weights of all values for each query."""
    b, heads, queries, width = graph.values[q].shape or ()
    other, _, keys, _ = graph.values[k].shape or ()
    return (b, heads, queries, width), (other, heads, width, keys), (b, heads, queries, keys)


def _plain(node: Node, graph: Nodes) -> bool:
    """Whether an Attention is that of three 4-D values with as many heads each, known to be, without mask, cache or cap."""
    if any(node.inputs[3:]) or any(node.outputs[1:]) or node.attributes.get("is_causal") or node.attributes.get("softcap"):
        return False
    shapes = [graph.values[name].shape or () for name in node.inputs[:3] if name in graph.values]
    if [len(s) for s in shapes] != [4, 4, 4]:
        return False
    heads = {s[1] for s in shapes}
    return len(heads) == 1 and "" not in heads and isinstance(shapes[0][3], int)
