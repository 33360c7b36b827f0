"""Keep MNN from replacing a decomposed Gelu by its own approximation."""

from __future__ import annotations

from ..onnx.graph import Graph


def unfuse_gelu(graph: Graph) -> bool:
    """Turn erf(..) + 1 into 1 + erf(..), and tanh(..) + 1 likewise. Returns True if the graph changed.

    MNN fuses the first order into its own Gelu, which has an error of 1e-4.
    """
    curves = {name for node in graph.nodes if node.op in ("Erf", "Tanh") and not node.domain for name in node.outputs}
    changed = False
    for i, node in enumerate(graph.nodes):
        if node.op == "Add" and not node.domain and node.inputs[0] in curves and graph.is_constant(node.inputs[1]):
            graph.nodes[i] = graph.rewired(node, node.inputs[::-1], node.outputs)
            changed = True
    return changed
