"""What a runtime computes otherwise than ONNX says and does not tell: refused when the network is made, by name.

Found by holding some 80 forms of operators against onnxruntime, with MNN 3.6.1 and OpenVINO 2026.4.1; the tests show that each is
still wrong, and so when a refusal can go. What the runtimes refuse themselves is not in here, nor what is right within rounding.
"""

from __future__ import annotations

from collections.abc import Callable

from ..artifact.nodes import Node, Nodes
from ..errors import ArtifactError

# A form of an operator: its name, what of it is meant in words, and whether a node of a graph of that opset is one.
_Form = tuple[str, str, Callable[[Node, Nodes, int], bool]]


def refuse(graph: Nodes, opset: int, runtime: str) -> None:
    """
    Raises:
        ArtifactError: the runtime would compute something else than the file says.
    """
    for op, form, is_meant in _FORMS[runtime]:
        for node in graph.nodes:
            if node.op == op and not node.domain and is_meant(node, graph, opset):
                raise ArtifactError(
                    f"the runtime {runtime!r} computes {op}{form} otherwise than ONNX says (here {node.outputs[0]!r}); "
                    "runtime='onnx' computes it as it should be."
                )


def _always(node: Node, graph: Nodes, opset: int) -> bool:
    return True


def _along_several(node: Node, graph: Nodes, opset: int) -> bool:
    """Before opset 13 Softmax took all axes from the one named, by default the second, as one."""
    axis = node.attributes.get("axis", 1)
    known = graph.values.get(node.inputs[0])
    return opset < 13 and axis != -1 and (known is None or known.shape is None or axis != len(known.shape) - 1)


def _along_several_untold(node: Node, graph: Nodes, opset: int) -> bool:
    return "axis" not in node.attributes and _along_several(node, graph, opset)


def _along_several_since_11(node: Node, graph: Nodes, opset: int) -> bool:
    return opset >= 11 and _along_several(node, graph, opset)


def _pads_first(node: Node, graph: Nodes, opset: int) -> bool:
    return node.attributes.get("auto_pad") == "SAME_LOWER"


def _cubic(node: Node, graph: Nodes, opset: int) -> bool:
    return node.attributes.get("mode") == "cubic"


def _antialiased(node: Node, graph: Nodes, opset: int) -> bool:
    return bool(node.attributes.get("antialias"))


def _rounds_up(node: Node, graph: Nodes, opset: int) -> bool:
    told = node.attributes.get("mode", "nearest"), node.attributes.get("nearest_mode")
    return told in (("nearest", "ceil"), ("nearest", "round_prefer_ceil"))


def _reaches_more_than_a_tanh(node: Node, graph: Nodes, opset: int) -> bool:
    """Above 87 MNN gives 87, which a Tanh, as in Mish, does not see."""
    y = node.outputs[0]
    return y in graph.elsewhere or any(other.op != "Tanh" for other in graph.nodes if y in other.inputs)


_FORMS: dict[str, tuple[_Form, ...]] = {
    "mnn": (
        ("Conv", " with auto_pad SAME_LOWER", _pads_first),
        ("Resize", " of mode cubic", _cubic),
        ("Resize", " with antialias", _antialiased),
        ("Resize", " whose nearest pixel is rounded up", _rounds_up),
        ("Softmax", " before opset 13 without an axis", _along_several_untold),
        ("LogSoftmax", " before opset 13 along several axes", _along_several),
        ("Softplus", " of numbers above 87", _reaches_more_than_a_tanh),
        ("Mod", "", _always),
        ("Round", " of halves", _always),
    ),
    "openvino": (
        ("Softmax", " of opset 11 and 12 along several axes", _along_several_since_11),
        ("Resize", " with antialias", _antialiased),
    ),
}
