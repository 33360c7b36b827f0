"""Attention over tokens: the 1x1 convolution to queries, keys and values as one product of tokens, which leaves each where
attention reads it.

OpenVINO transposes after a convolution (B, 3C, places) is split; a product gives (B, places, 3C), one transposition away from all
three. ``docs/runtimes.md`` has what that gains.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from ..artifact.nodes import Node, Nodes

_SWAP = (0, 1, 3, 2)


def attention_over_tokens(graph: Nodes) -> bool:
    """Rewrite every Attention (ONNX, opset 23) whose queries, keys and values are parts of one pointwise convolution. Whether there
    was any; one of another form is left as it is."""
    producers = {name: node for node in graph.nodes for name in node.outputs}
    uses = Counter(name for node in graph.nodes for name in node.inputs)
    gone: set[str] = set()
    made: dict[str, list[Node]] = {}
    for node in graph.nodes:
        chain = _chain(graph, node, producers, uses)
        if chain is None:
            continue
        conv, removed, heads, size = chain
        gone |= removed
        made[node.outputs[0]] = _over_tokens(graph, node, conv, heads, size)
    graph.nodes[:] = [
        new for node in graph.nodes if not gone.intersection(node.outputs) for new in made.get(node.outputs[0], [node])
    ]
    return bool(made)


def _chain(graph: Nodes, node: Node, producers: dict[str, Node], uses: Counter[str]) -> tuple[Node, set[str], int, int] | None:
    """The convolution behind an attention, the values that lie between, heads, and channels of a head: where each of the three
    inputs is Transpose(Reshape(its part of Split(Conv))), and nobody else reads what lies between."""
    if node.op != "Attention" or node.domain or len(node.inputs) != 3 or node.attributes.get("is_causal"):
        return None
    between: set[str] = set()
    parts = []
    for name in node.inputs:
        transpose = producers.get(name)
        reshape = producers.get(transpose.inputs[0]) if transpose is not None else None
        if transpose is None or reshape is None or (transpose.op, reshape.op) != ("Transpose", "Reshape"):
            return None
        if transpose.attributes.get("perm") != _SWAP:
            return None
        between |= {name, *reshape.outputs, reshape.inputs[0]}
        parts.append(reshape)
    split = producers.get(parts[0].inputs[0])
    if split is None or split.op != "Split" or tuple(part.inputs[0] for part in parts) != split.outputs or len(split.inputs) > 1:
        return None
    conv = producers.get(split.inputs[0])
    if split.attributes.get("axis") != 1 or conv is None or not _pointwise(graph, conv):
        return None
    between.add(split.inputs[0])
    inner = [graph.values[part.outputs[0]].shape if part.outputs[0] in graph.values else None for part in parts]
    if any(uses[name] != 1 for name in between) or inner[0] is None or inner.count(inner[0]) != 3 or len(inner[0]) != 4:
        return None
    heads, size = inner[0][1:3]
    if not isinstance(heads, int) or not isinstance(size, int):
        return None
    return conv, between, heads, size


def _pointwise(graph: Nodes, conv: Node) -> bool:
    """Whether a node is a convolution of single places, with a bias, on a value whose rank is known."""
    kernel = conv.attributes.get("kernel_shape")
    known = graph.values.get(conv.inputs[0])
    return (
        conv.op == "Conv" and not conv.domain and len(conv.inputs) == 3 and isinstance(kernel, tuple) and math.prod(kernel) == 1
        and conv.attributes.get("group", 1) == 1 and _only(conv, "strides", 1) and _only(conv, "pads", 0)
        and known is not None and known.dtype == "float32" and known.shape is not None and isinstance(known.shape[1], int)
    )  # fmt: skip


def _only(node: Node, name: str, number: int) -> bool:
    given = node.attributes.get(name, ())
    return isinstance(given, tuple) and all(n == number for n in given)


def _over_tokens(graph: Nodes, attention: Node, conv: Node, heads: int, size: int) -> list[Node]:
    y = attention.outputs[0]
    x, weight, bias = conv.inputs
    flat, tokens, matrix, turned, product, shifted, apart, ready = (graph.fresh(y) for _ in range(8))
    three, squeezed = ([graph.fresh(y) for _ in range(3)] for _ in range(2))

    def numbers(*values: int) -> str:
        return graph.constant(y, np.array(values, np.int64))

    first = numbers(0)
    return [
        Node("Reshape", (x, numbers(0, 0, -1)), (flat,)),
        Node("Transpose", (flat,), (tokens,), {"perm": (0, 2, 1)}),
        # Of constants, so that the session folds them.
        Node("Reshape", (weight, numbers(3 * heads * size, -1)), (matrix,)),
        Node("Transpose", (matrix,), (turned,), {"perm": (1, 0)}),
        Node("MatMul", (tokens, turned), (product,)),
        Node("Add", (product, bias), (shifted,)),
        Node("Reshape", (shifted, numbers(0, 0, 3, heads, size)), (apart,)),
        Node("Transpose", (apart,), (ready,), {"perm": (2, 0, 3, 1, 4)}),
        Node("Split", (ready,), tuple(three), {"axis": 0, "num_outputs": 3}),
        *(Node("Squeeze", (a, first), (b,)) for a, b in zip(three, squeezed, strict=True)),
        graph.rewired(attention, tuple(squeezed), attention.outputs),
    ]
