"""Merge linear layers that share an input, such as the time embedding layers of all blocks."""

from __future__ import annotations

import numpy as np

from ..onnx.graph import Graph, Node

_Layer = tuple[Node, np.ndarray, np.ndarray]  # with its weight and bias


def merge_gemms(graph: Graph) -> bool:
    """Merge Gemms x·Wᵀ + b that share x into one Gemm and a Split. Returns True if the graph changed."""
    by_input: dict[str, list[_Layer]] = {}
    for node in graph.nodes:
        if _is_linear_layer(node):
            weight, bias = (graph.weight(name) for name in node.inputs[1:])
            if weight is not None and bias is not None and bias.shape == weight.shape[:1]:
                by_input.setdefault(node.inputs[0], []).append((node, weight, bias))
    merged, budget = dict[int, list[_Layer]](), graph.constant_budget  # keyed by the id of the first layer of each group
    for layers in by_input.values():
        size = sum(weight.nbytes + bias.nbytes for _, weight, bias in layers)
        if len(layers) > 1 and size <= budget:
            merged[id(layers[0][0])], budget = layers, budget - size
    removed = {id(node) for layers in merged.values() for node, *_ in layers[1:]}

    def replacement(node: Node) -> list[Node] | None:
        if id(node) not in merged:
            return [] if id(node) in removed else None
        y, (nodes, weights, biases) = node.outputs[0], zip(*merged[id(node)], strict=True)
        parameters = [graph.add_constant(y, np.concatenate(arrays)) for arrays in (weights, biases)]
        sizes, product = graph.add_constant(y, np.array([len(bias) for bias in biases], np.int64)), graph.new_name(y)
        return [
            Node("Gemm", (node.inputs[0], *parameters), (product,), {"transB": 1}),
            Node("Split", (product, sizes), tuple(layer.outputs[0] for layer in nodes), {"axis": 1}),
        ]

    return graph.replace(replacement)


def _is_linear_layer(node: Node) -> bool:
    """Return whether a node is x·Wᵀ + b, as torch exports it."""
    attributes = node.attributes
    return (
        node.op == "Gemm"
        and not node.domain
        and len(node.inputs) == 3
        and attributes.get("transB") == 1
        and not attributes.get("transA")
        and attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0
    )
