"""Operator forms that OpenVINO computes incorrectly without an error. They are rejected when the network is built.

Found by comparing some 600 forms of operators with onnxruntime (OpenVINO 2026.4.1). A test for each form shows that OpenVINO still
computes it incorrectly, and fails once the rejection can be removed. Forms that OpenVINO rejects itself are not listed.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import ArtifactError
from ..onnx.graph import Graph, Node


def check(graph: Graph) -> bool:
    """Check all nodes of a graph, also those of its subgraphs. Changes nothing and returns False.

    Raises:
        ArtifactError: OpenVINO computes a node incorrectly.
    """
    for node in (*graph.nodes, *graph.subgraph_nodes):
        for op, form, matches in _FORMS:
            if node.op == op and not node.domain and matches(node, graph):
                where = f"(output {node.outputs[0] if node.outputs else ''!r})"
                raise ArtifactError(
                    f"the runtime 'openvino' computes {op} {form} incorrectly {where}; use runtime='onnx' for this model."
                )
    return False


def _flattens_axes(node: Node, graph: Graph) -> bool:
    """Softmax of opset 11 and 12, which flattened all axes from the named one (default: the second) into one."""
    axis = node.attributes.get("axis", 1)
    value = graph.values.get(node.inputs[0])
    return graph.opset in (11, 12) and axis != -1 and (value is None or value.shape is None or axis != len(value.shape) - 1)


def _is_antialiased(node: Node, graph: Graph) -> bool:
    return bool(node.attributes.get("antialias"))


def _is_same_lower(node: Node, graph: Graph) -> bool:
    return node.attributes.get("auto_pad") == "SAME_LOWER"


# Operator, words that describe the form, and whether a node of a graph has that form.
_FORMS: tuple[tuple[str, str, Callable[[Node, Graph], bool]], ...] = (
    ("Softmax", "of opset 11 and 12 along several axes", _flattens_axes),
    ("Resize", "with antialias", _is_antialiased),
    ("ConvTranspose", "with auto_pad SAME_LOWER", _is_same_lower),
)
