"""Linear layers of one value, as those of the time's embedding in all blocks are, as one product that is split."""

from __future__ import annotations

import numpy as np

from ..onnx.graph import Node, Nodes


def layers_as_one(graph: Nodes) -> bool:
    """Where several layers x·Wᵀ + b read one x. Whether there was any such x."""
    readers: dict[str, list[tuple[Node, np.ndarray, np.ndarray]]] = {}
    for node in graph.nodes:
        if _is_layer(node):
            weight, bias = (graph.weight(name) for name in node.inputs[1:])
            if weight is not None and bias is not None and bias.shape == weight.shape[:1]:
                readers.setdefault(node.inputs[0], []).append((node, weight, bias))
    several, room = dict[int, list[tuple[Node, np.ndarray, np.ndarray]]](), graph.room
    for layers in readers.values():
        size = sum(weight.nbytes + bias.nbytes for _, weight, bias in layers)
        if len(layers) > 1 and size <= room:
            several[id(layers[0][0])], room = layers, room - size
    others = {id(node) for layers in several.values() for node, *_ in layers[1:]}

    def made(node: Node) -> list[Node] | None:
        if id(node) not in several:
            return [] if id(node) in others else None
        y, (nodes, weights, biases) = node.outputs[0], zip(*several[id(node)], strict=True)
        joined = [graph.constant(y, np.concatenate(arrays)) for arrays in (weights, biases)]
        sizes, product = graph.constant(y, np.array([len(bias) for bias in biases], np.int64)), graph.fresh(y)
        return [
            Node("Gemm", (node.inputs[0], *joined), (product,), {"transB": 1}),
            Node("Split", (product, sizes), tuple(one.outputs[0] for one in nodes), {"axis": 1}),
        ]

    return graph.replace(made)


def _is_layer(node: Node) -> bool:
    told = node.attributes
    plain = told.get("transB") == 1 and not told.get("transA") and told.get("alpha", 1.0) == told.get("beta", 1.0) == 1.0
    return node.op == "Gemm" and not node.domain and len(node.inputs) == 3 and plain
