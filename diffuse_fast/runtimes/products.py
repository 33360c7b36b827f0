"""Attention (opset 23) and Mish (opset 18) as products of older operations, for a runtime that does not know them."""

from __future__ import annotations

import math

import numpy as np

from ..artifact.nodes import Node, Nodes


def attention_products(graph: Nodes) -> bool:
    """Attention (Vaswani et al. 2017, eq. 1) of 4-D values with as many heads each as softmax(q·scale·kᵀ)·v. Whether there
    was any."""
    changed: list[Node] = []
    for node in graph.nodes:
        if node.op != "Attention" or node.domain or not _plain(node, graph):
            changed.append(node)
            continue
        (q, k, v), y = node.inputs[:3], node.outputs[0]
        scale = node.attributes.get("scale", 1 / math.sqrt(graph.values[q].shape[3]))  # type: ignore[index,arg-type]  # _plain asked
        scaled, turned, logits, weights = (graph.fresh(y) for _ in range(4))
        changed += [
            Node("Mul", (q, graph.constant(y, np.array(scale, np.float32))), (scaled,)),
            Node("Transpose", (k,), (turned,), {"perm": (0, 1, 3, 2)}),
            Node("MatMul", (scaled, turned), (logits,)),
            Node("Softmax", (logits,), (weights,), {"axis": -1}),
            Node("MatMul", (weights, v), (y,)),
        ]
    found = len(changed) > len(graph.nodes)
    graph.nodes[:] = changed
    return found


def mish_products(graph: Nodes) -> bool:
    """Mish (Misra 2019) as x·tanh(softplus(x)). Whether there was any."""
    changed: list[Node] = []
    for node in graph.nodes:
        if node.op != "Mish" or node.domain:
            changed.append(node)
            continue
        (x,), (y,) = node.inputs, node.outputs
        plus, tanh = graph.fresh(y), graph.fresh(y)
        changed += [Node("Softplus", (x,), (plus,)), Node("Tanh", (plus,), (tanh,)), Node("Mul", (x, tanh), (y,))]
    found = len(changed) > len(graph.nodes)
    graph.nodes[:] = changed
    return found


def _plain(node: Node, graph: Nodes) -> bool:
    """Whether an Attention is that of three 4-D values with as many heads each, known to be, without mask, cache or cap."""
    if any(node.inputs[3:]) or any(node.outputs[1:]) or node.attributes.get("is_causal") or node.attributes.get("softcap"):
        return False
    shapes = [graph.values[name].shape or () for name in node.inputs[:3] if name in graph.values]
    if [len(s) for s in shapes] != [4, 4, 4]:
        return False
    heads = {s[1] for s in shapes}
    return len(heads) == 1 and "" not in heads and isinstance(shapes[0][3], int)
