"""The graph as a runtime wants it, made when its session is: the same function, in the operations that it runs fastest.

What pays was measured, not assumed; ``docs/runtimes.md`` has the figures, and what was tried and dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..artifact.graph import Value
from ..artifact.nodes import Node, Nodes
from ..model import Model


def for_onnxruntime(model: Model) -> bytes | None:
    """The file with GroupNormalization as InstanceNormalization; None where there is nothing to change."""
    return _changed(model, instance_norms)


def for_openvino(model: Model) -> bytes | None:
    """The file with Attention as its three operations; None where there is nothing to change."""
    return _changed(model, attention_products)


def _changed(model: Model, change: Callable[[Nodes], bool]) -> bytes | None:
    if model.external or model.opset < 21:  # the weights may be more than one message holds; operators were others
        return None
    nodes = Nodes(model.path)
    # A graph within a node may use any value of this one.
    return nodes.to_bytes() if not nodes.nested and change(nodes) else None


def instance_norms(graph: Nodes) -> bool:
    """GroupNormalization (Wu & He 2018, opset 21: a scale and bias per channel) as what onnxruntime has a quick kernel for:
    each group as one channel of an InstanceNormalization, then scale and bias. Whether there was any."""
    changed: list[Node] = []
    for node in graph.nodes:
        one = graph.values.get(node.inputs[0]) if node.op == "GroupNormalization" and not node.domain else None
        if one is None or not _known(one) or not isinstance(node.attributes.get("num_groups"), int):
            changed.append(node)
            continue
        groups, y = int(node.attributes["num_groups"]), node.outputs[0]  # type: ignore[arg-type]  # an int, as asked
        x, scale, bias = node.inputs
        inner = tuple(one.shape[1:])  # type: ignore[index]  # known, as asked
        column = graph.constant(y, np.array([-1] + [1] * (len(inner) - 1), np.int64))
        names = [graph.fresh(y) for _ in range(6)]
        changed += [
            Node("Reshape", (x, graph.constant(y, np.array([0, groups, -1], np.int64))), (names[0],)),
            Node(
                "InstanceNormalization",
                (names[0], graph.constant(y, np.ones(groups, np.float32)), graph.constant(y, np.zeros(groups, np.float32))),
                (names[1],), {"epsilon": float(node.attributes.get("epsilon", 1e-5))},  # type: ignore[arg-type]  # a number
            ),
            Node("Reshape", (names[1], graph.constant(y, np.array([0, *inner], np.int64))), (names[2],)),
            # Of constants, so that the session folds them.
            Node("Reshape", (scale, column), (names[3],)),
            Node("Reshape", (bias, column), (names[4],)),
            Node("Mul", (names[2], names[3]), (names[5],)),
            Node("Add", (names[5], names[4]), (y,)),
        ]  # fmt: skip
    found = len(changed) > len(graph.nodes)
    graph.nodes[:] = changed
    return found


def attention_products(graph: Nodes) -> bool:
    """Attention (opset 23; Vaswani et al. 2017, eq. 1) as softmax(q·scale·kᵀ)·v, without a transposition that was only made to
    have the rows that the operator takes. Whether there was any."""
    made_by = {name: node for node in graph.nodes for name in node.outputs}
    users: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in node.inputs:
            users.setdefault(name, []).append(node)
    changed: list[Node] = []
    gone: set[int] = set()
    found = False
    for node in graph.nodes:
        if id(node) in gone:
            continue
        if node.op != "Attention" or node.domain or not _plain(node, graph):
            changed.append(node)
            continue
        found = True
        (q, k, v), y = node.inputs[:3], node.outputs[0]
        scale = node.attributes.get("scale", 1 / math.sqrt(graph.values[q].shape[3]))  # type: ignore[index,arg-type]  # _plain asked
        scaled, turned, logits, weights = (graph.fresh(y) for _ in range(4))
        changed.append(Node("Mul", (q, graph.constant(y, np.array(scale, np.float32))), (scaled,)))
        if _turns(made_by.get(k)):
            turned = made_by[k].inputs[0]
        else:
            changed.append(Node("Transpose", (k,), (turned,), {"perm": (0, 1, 3, 2)}))
        changed.append(Node("MatMul", (scaled, turned), (logits,)))
        changed.append(Node("Softmax", (logits,), (weights,), {"axis": -1}))
        after = users.get(y, [])
        if y not in graph.outputs and len(after) == 1 and _turns(after[0]) and _turns(made_by.get(v)):
            flipped = graph.fresh(y)  # (w·v)ᵀ = vᵀ·wᵀ, and vᵀ is there
            changed.append(Node("Transpose", (weights,), (flipped,), {"perm": (0, 1, 3, 2)}))
            changed.append(Node("MatMul", (made_by[v].inputs[0], flipped), after[0].outputs))
            gone.add(id(after[0]))
        else:
            changed.append(Node("MatMul", (weights, v), (y,)))
    graph.nodes[:] = changed
    return found


def _known(one: Value) -> bool:
    """Whether all of a float32 value's shape is known but its batch."""
    shape = one.shape or ()
    return one.dtype == "float32" and len(shape) > 2 and all(isinstance(n, int) for n in shape[1:])


def _plain(node: Node, graph: Nodes) -> bool:
    """Whether an Attention is that of three 4-D values with as many heads each, without mask, cache or cap."""
    if any(node.inputs[3:]) or any(node.outputs[1:]) or node.attributes.get("is_causal") or node.attributes.get("softcap"):
        return False
    shapes = [graph.values[n].shape for n in node.inputs[:3] if n in graph.values and _known(graph.values[n])]
    return len(shapes) == 3 and all(s is not None and len(s) == 4 for s in shapes) and len({s[1] for s in shapes}) == 1  # type: ignore[index]  # not None, as asked


def _turns(node: Node | None) -> bool:
    """Whether a node exchanges the last two of four dimensions."""
    return node is not None and node.op == "Transpose" and node.attributes.get("perm") == (0, 1, 3, 2)
