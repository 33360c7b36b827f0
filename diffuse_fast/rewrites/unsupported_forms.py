"""What a runtime computes otherwise than ONNX says and does not tell: refused when the network is made, by name.

Found by holding some 600 forms of operators against onnxruntime, with MNN 3.6.1 and OpenVINO 2026.4.1; the tests show that each is
still wrong, and so when a refusal can go. What the runtimes refuse themselves is not in here, nor what is right within rounding.
So many of MNN's are wrong that its operators that are right are listed (:mod:`.mnn_operators`); here are the forms that are not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..errors import ArtifactError
from ..onnx.graph import Attribute, Node, Nodes
from . import mnn_operators

# A form of an operator: its name, what of it is meant in words, and whether a node of a graph of that opset is one.
_Form = tuple[str, str, Callable[[Node, Nodes, int], bool]]


_Listed = Mapping[str, Mapping[str, tuple[Attribute, ...] | None]]

_LISTED: dict[str, _Listed] = {"mnn": mnn_operators.MNN}  # the forms that are right, where these are listed


def refuse(graph: Nodes, opset: int, runtime: str) -> None:
    """Refuse a graph, in the operations that the runtime is given, subgraphs included.

    Raises:
        ArtifactError: the runtime would compute something else than the file says, or is not known to compute the same.
    """
    listed = _LISTED.get(runtime)
    for node in (*graph.nodes, *graph.inner):
        here = f"(here {node.outputs[0] if node.outputs else ''!r}); runtime='onnx' computes it as it should be."
        if listed is not None and (form := _unlisted(node, listed)):
            raise ArtifactError(f"the runtime {runtime!r} is not known to compute {form} as ONNX says {here}")
        for op, form, is_meant in _FORMS[runtime]:
            if node.op == op and not node.domain and is_meant(node, graph, opset):
                raise ArtifactError(f"the runtime {runtime!r} computes {op}{form} otherwise than ONNX says {here}")


def _unlisted(node: Node, listed: _Listed) -> str:
    """What of a node is not listed; empty where all is."""
    name = f"{node.domain}.{node.op}" if node.domain else node.op
    if node.domain or node.op not in listed:
        return name
    for attribute, value in {**mnn_operators.DEFAULTS.get(node.op, {}), **node.attributes}.items():
        allowed = listed[node.op].get(attribute, ())
        if allowed is not None and value not in allowed:
            return f"{name} with {attribute}={value!r}"
    if node.op != "Split" and any(node.outputs[1:]):
        return f"{name} with {len(node.outputs)} outputs"
    return ""


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


def _antialiased(node: Node, graph: Nodes, opset: int) -> bool:
    return bool(node.attributes.get("antialias"))


def _not_forward(node: Node, graph: Nodes, opset: int) -> bool:
    """Steps that are negative, by which MNN writes outside of its memory, or not in the file."""
    if len(node.inputs) < 5 or not node.inputs[4]:
        return False
    steps = graph.constant_integers(node.inputs[4])
    return steps is None or min(steps, default=1) < 1


def _unless_sequence_or_picture(node: Node, graph: Nodes, opset: int) -> bool:
    return len(graph.shape(node.inputs[0]) or ()) not in (3, 4)


def _unless_picture(node: Node, graph: Nodes, opset: int) -> bool:
    return len(graph.shape(node.inputs[0]) or ()) != 4


def _one_number_first(node: Node, graph: Nodes, opset: int) -> bool:
    """A constant of one number in several dimensions, which MNN reads as a block of four channels."""
    shape = graph.shape(node.inputs[0])
    return graph.is_constant(node.inputs[0]) and (shape is None or (len(shape) > 1 and set(shape) <= {1}))


def _another_power(node: Node, graph: Nodes, opset: int) -> bool:
    """An exponent that is not in the file, or none of those that were held."""
    exponent = graph.weight(node.inputs[1])
    return exponent is None or exponent.size != 1 or exponent.item() not in (0.5, 2.0, 3.0)


def _axes_untold(node: Node, graph: Nodes, opset: int) -> bool:
    """Axes that are not in the file, or not said."""
    return len(node.inputs) < 2 or not node.inputs[1] or graph.constant_integers(node.inputs[1]) is None


def _unsaid_mode(node: Node, graph: Nodes, opset: int) -> bool:
    return "mode" not in node.attributes


def _region(node: Node, graph: Nodes, opset: int) -> bool:
    """Other inputs than scales: a region, or sizes."""
    return any(node.inputs[1:2]) or any(node.inputs[3:]) or opset < 11


def _sparse_or_text(node: Node, graph: Nodes, opset: int) -> bool:
    return any(word in (node.raw or b"") for word in (b"sparse_value", b"value_string"))


def _unequal(node: Node, graph: Nodes, opset: int) -> bool:
    """Parts by their number, of a length that it may not divide."""
    if not isinstance(parts := node.attributes.get("num_outputs"), int):
        return False
    axis, shape = node.attributes.get("axis", 0), graph.shape(node.inputs[0])
    length = shape[axis] if shape is not None and isinstance(axis, int) and -len(shape) <= axis < len(shape) else ""
    return not isinstance(length, int) or length % parts != 0


def _spreads_batches(node: Node, graph: Nodes, opset: int) -> bool:
    """Products of several matrices by fewer: MNN reads what lies behind the fewer. One for all is right."""
    a, b = (graph.shape(name) for name in node.inputs)
    if 2 in (len(a or ()), len(b or ())):
        return False
    return a is None or b is None or a[:-2] != b[:-2] or "" in a[:-2]  # "" is a length that is not known


def _gelu_is_approximated(node: Node, graph: Nodes, opset: int) -> bool:
    """The sum within a Gelu, in the order in which MNN puts its approximation for it, unless :mod:`.decompose` turned it around."""
    y = node.outputs[0]
    made = next((other.op for other in graph.nodes if node.inputs[0] in other.outputs), "")
    return made in ("Erf", "Tanh") and any(other.op == "Mul" and y in other.inputs for other in graph.nodes)


def _reaches_more_than_a_tanh(node: Node, graph: Nodes, opset: int) -> bool:
    """Above 87 MNN gives 87, which a Tanh, as in Mish, does not see."""
    y = node.outputs[0]
    return y in graph.elsewhere or any(other.op != "Tanh" for other in graph.nodes if y in other.inputs)


_FORMS: dict[str, tuple[_Form, ...]] = {
    "mnn": (
        *((op, " with a constant of one number in several dimensions first", _one_number_first)
          for op in ("Add", "Sub", "Mul", "Div")),
        ("Add", " in a Gelu of a file with external data", _gelu_is_approximated),
        ("Pow", " by another number than 0.5, 2 or 3", _another_power),
        *((op, " of anything but sequences and pictures", _unless_sequence_or_picture)
          for op in ("Conv", "ConvTranspose", "GlobalAveragePool", "Resize")),
        ("AveragePool", " of anything but pictures", _unless_picture),
        ("Resize", " without mode, which is nearest,", _unsaid_mode),
        ("Resize", " by anything but scales", _region),
        *((op, " along axes that are not in the file", _axes_untold) for op in ("ReduceMean", "Squeeze", "Unsqueeze")),
        ("Softmax", " before opset 13 without an axis", _along_several_untold),
        ("Softplus", " of numbers above 87", _reaches_more_than_a_tanh),
        ("Slice", " by steps that are negative or not in the file", _not_forward),
        ("MatMul", " of values that are not known to have as many matrices each, or one", _spreads_batches),
        ("Split", " into parts that are not known to be equal", _unequal),
        ("Constant", " of texts or sparse numbers", _sparse_or_text),
    ),
    "openvino": (
        ("Softmax", " of opset 11 and 12 along several axes", _along_several_since_11),
        ("Resize", " with antialias", _antialiased),
        ("ConvTranspose", " with auto_pad SAME_LOWER", _pads_first),
    ),
}  # fmt: skip
