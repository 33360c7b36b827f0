"""Operator forms that a runtime computes incorrectly without an error. They are rejected when the network is built.

Found by comparing some 600 forms of operators with onnxruntime, on MNN 3.6.1 and OpenVINO 2026.4.1. A test for each form shows that
the runtime still computes it incorrectly, and fails once the rejection can be removed. Forms that the runtimes reject themselves
are not listed. So many of MNN's operators are wrong that the correct ones are listed in :mod:`.mnn_operators`. The forms here
depend on more than attributes, such as shapes and constants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..errors import ArtifactError
from ..onnx.graph import Attribute, Graph, Node
from . import mnn_operators

# Operator, words that describe the form, and whether a node of a graph has that form.
_Form = tuple[str, str, Callable[[Node, Graph], bool]]

_Supported = Mapping[str, Mapping[str, tuple[Attribute, ...] | None]]

# Operators and attributes that are known to be correct. Everything else is rejected for these runtimes.
_SUPPORTED: dict[str, _Supported] = {"mnn": mnn_operators.MNN}


def reject_unsupported_forms(runtime: str) -> Callable[[Graph], bool]:
    """Return a pass that raises an error for a graph that a runtime would compute incorrectly, and changes nothing."""

    def run(graph: Graph) -> bool:
        check(graph, runtime)
        return False

    return run


def check(graph: Graph, runtime: str) -> None:
    """Check all nodes of a graph, also those of its subgraphs.

    Raises:
        ArtifactError: the runtime computes a node incorrectly, or is not known to compute it correctly.
    """
    supported = _SUPPORTED.get(runtime)
    for node in (*graph.nodes, *graph.subgraph_nodes):
        tail = f"(output {node.outputs[0] if node.outputs else ''!r}); use runtime='onnx' for this model."
        if supported is not None and (form := _unlisted(node, supported)):
            raise ArtifactError(f"the runtime {runtime!r} is not known to compute {form} correctly {tail}")
        for op, form, matches in _FORMS[runtime]:
            if node.op == op and not node.domain and matches(node, graph):
                raise ArtifactError(f"the runtime {runtime!r} computes {op}{form} incorrectly {tail}")


def _unlisted(node: Node, supported: _Supported) -> str:
    """Describe what of a node is not listed as correct; empty if all is."""
    name = f"{node.domain}.{node.op}" if node.domain else node.op
    if node.domain or node.op not in supported:
        return name
    for attribute, value in {**mnn_operators.DEFAULTS.get(node.op, {}), **node.attributes}.items():
        allowed = supported[node.op].get(attribute, ())
        if allowed is not None and value not in allowed:
            return f"{name} with {attribute}={value!r}"
    if node.op != "Split" and any(node.outputs[1:]):
        return f"{name} with {len(node.outputs)} outputs"
    return ""


def _flattens_axes(node: Node, graph: Graph) -> bool:
    """Softmax before opset 13, which flattened all axes from the named one (default: the second) into one."""
    axis = node.attributes.get("axis", 1)
    value = graph.values.get(node.inputs[0])
    return graph.opset < 13 and axis != -1 and (value is None or value.shape is None or axis != len(value.shape) - 1)


def _flattens_by_default(node: Node, graph: Graph) -> bool:
    return "axis" not in node.attributes and _flattens_axes(node, graph)


def _flattens_since_11(node: Node, graph: Graph) -> bool:
    return graph.opset >= 11 and _flattens_axes(node, graph)


def _is_same_lower(node: Node, graph: Graph) -> bool:
    return node.attributes.get("auto_pad") == "SAME_LOWER"


def _is_antialiased(node: Node, graph: Graph) -> bool:
    return bool(node.attributes.get("antialias"))


def _has_unknown_steps(node: Node, graph: Graph) -> bool:
    """Steps that are not in the file, or negative: then MNN writes outside its memory."""
    if len(node.inputs) < 5 or not node.inputs[4]:
        return False
    steps = graph.constant_integers(node.inputs[4])
    return steps is None or min(steps, default=1) < 1


def _not_1d_or_2d(node: Node, graph: Graph) -> bool:
    return len(graph.shape(node.inputs[0]) or ()) not in (3, 4)


def _not_2d(node: Node, graph: Graph) -> bool:
    return len(graph.shape(node.inputs[0]) or ()) != 4


def _has_scalar_first(node: Node, graph: Graph) -> bool:
    """A constant with one element and several dimensions, which MNN reads as a block of four channels."""
    shape = graph.shape(node.inputs[0])
    return graph.is_constant(node.inputs[0]) and (shape is None or (len(shape) > 1 and set(shape) <= {1}))


def _has_other_exponent(node: Node, graph: Graph) -> bool:
    """An exponent that is not in the file, or not one of those that are tested."""
    exponent = graph.weight(node.inputs[1])
    return exponent is None or exponent.size != 1 or exponent.item() not in (0.5, 2.0, 3.0)


def _has_unknown_axes(node: Node, graph: Graph) -> bool:
    """Axes that are not given, or not in the file."""
    return len(node.inputs) < 2 or not node.inputs[1] or graph.constant_integers(node.inputs[1]) is None


def _has_default_mode(node: Node, graph: Graph) -> bool:
    return "mode" not in node.attributes


def _has_sizes(node: Node, graph: Graph) -> bool:
    """Other inputs than scales: a region of interest, or sizes."""
    return any(node.inputs[1:2]) or any(node.inputs[3:]) or graph.opset < 11


def _is_sparse_or_string(node: Node, graph: Graph) -> bool:
    return any(word in (node.raw or b"") for word in (b"sparse_value", b"value_string"))


def _has_unequal_parts(node: Node, graph: Graph) -> bool:
    """A number of parts that may not divide the length of the axis."""
    if not isinstance(parts := node.attributes.get("num_outputs"), int):
        return False
    axis, shape = node.attributes.get("axis", 0), graph.shape(node.inputs[0])
    length = shape[axis] if shape is not None and isinstance(axis, int) and -len(shape) <= axis < len(shape) else ""
    return not isinstance(length, int) or length % parts != 0


def _broadcasts_batches(node: Node, graph: Graph) -> bool:
    """Batches of different sizes: MNN reads beyond the smaller one. A single matrix for all is correct."""
    a, b = (graph.shape(name) for name in node.inputs)
    if 2 in (len(a or ()), len(b or ())):
        return False
    return a is None or b is None or a[:-2] != b[:-2] or "" in a[:-2]  # "" is an unknown length


def _is_part_of_gelu(node: Node, graph: Graph) -> bool:
    """The sum inside a decomposed Gelu, in the order that MNN replaces by its approximation (:mod:`.unfuse_gelu`)."""
    y = node.outputs[0]
    producer = next((other.op for other in graph.nodes if node.inputs[0] in other.outputs), "")
    return producer in ("Erf", "Tanh") and any(other.op == "Mul" and y in other.inputs for other in graph.nodes)


def _is_read_beside_tanh(node: Node, graph: Graph) -> bool:
    """Softplus that is not only read by Tanh, as in Mish: MNN returns 87 for inputs above 87, which changes no tanh."""
    y = node.outputs[0]
    return y in graph.pinned or any(other.op != "Tanh" for other in graph.nodes if y in other.inputs)


_FORMS: dict[str, tuple[_Form, ...]] = {
    "mnn": (
        *((op, " with a constant of one element and several dimensions as first input", _has_scalar_first)
          for op in ("Add", "Sub", "Mul", "Div")),
        ("Add", " in a Gelu of a file with external data", _is_part_of_gelu),
        ("Pow", " with an exponent other than 0.5, 2 or 3", _has_other_exponent),
        *((op, " of inputs that are not 3-D or 4-D", _not_1d_or_2d)
          for op in ("Conv", "ConvTranspose", "GlobalAveragePool", "Resize")),
        ("AveragePool", " of inputs that are not 4-D", _not_2d),
        ("Resize", " without the attribute mode (nearest)", _has_default_mode),
        ("Resize", " with inputs other than scales", _has_sizes),
        *((op, " along axes that are not in the file", _has_unknown_axes) for op in ("ReduceMean", "Squeeze", "Unsqueeze")),
        ("Softmax", " before opset 13 without an axis", _flattens_by_default),
        ("Softplus", " of inputs above 87", _is_read_beside_tanh),
        ("Slice", " with steps that are negative or not in the file", _has_unknown_steps),
        ("MatMul", " of batches that are not known to have equal sizes, or size one", _broadcasts_batches),
        ("Split", " into parts that are not known to be equal", _has_unequal_parts),
        ("Constant", " of strings or sparse values", _is_sparse_or_string),
    ),
    "openvino": (
        ("Softmax", " of opset 11 and 12 along several axes", _flattens_since_11),
        ("Resize", " with antialias", _is_antialiased),
        ("ConvTranspose", " with auto_pad SAME_LOWER", _is_same_lower),
    ),
}  # fmt: skip
