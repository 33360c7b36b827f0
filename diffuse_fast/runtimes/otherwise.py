"""What a runtime computes otherwise than ONNX says and does not tell: refused when the network is made, by name.

Found by holding some 600 forms of operators against onnxruntime, with MNN 3.6.1 and OpenVINO 2026.4.1; the tests show that each is
still wrong, and so when a refusal can go. What the runtimes refuse themselves is not in here, nor what is right within rounding.
So many of MNN's are wrong that its operators that are right are listed (:mod:`.operators`); here are the forms that are not.
"""

from __future__ import annotations

from collections.abc import Callable

from ..artifact.nodes import Node, Nodes
from ..errors import ArtifactError
from . import operators

# A form of an operator: its name, what of it is meant in words, and whether a node of a graph of that opset is one.
_Form = tuple[str, str, Callable[[Node, Nodes, int], bool]]


_RIGHT = {"mnn": operators.MNN}  # where they are listed


def refuse(graph: Nodes, opset: int, runtime: str) -> None:
    """Refuse a graph, in the operations that the runtime is given, subgraphs included.

    Raises:
        ArtifactError: the runtime would compute something else than the file says, or is not known to compute the same.
    """
    right = _RIGHT.get(runtime)
    for node in (*graph.nodes, *graph.inner):
        here = f"(here {node.outputs[0] if node.outputs else ''!r}); runtime='onnx' computes it as it should be."
        if right is not None and (node.domain or node.op not in right):
            name = f"{node.domain}.{node.op}" if node.domain else node.op
            raise ArtifactError(f"the runtime {runtime!r} is not known to compute {name} as ONNX says {here}")
        for op, form, is_meant in _FORMS[runtime]:
            if node.op == op and not node.domain and is_meant(node, graph, opset):
                raise ArtifactError(f"the runtime {runtime!r} computes {op}{form} otherwise than ONNX says {here}")


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


def _old(node: Node, graph: Nodes, opset: int) -> bool:
    return opset < 11


def _corners(node: Node, graph: Nodes, opset: int) -> bool:
    told = node.attributes.get("mode", "nearest"), node.attributes.get("coordinate_transformation_mode")
    return told == ("nearest", "align_corners") or told[1] in ("half_pixel_symmetric", "tf_crop_and_resize")


def _keeps_the_ratio(node: Node, graph: Nodes, opset: int) -> bool:
    return node.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch"


def _not_forward(node: Node, graph: Nodes, opset: int) -> bool:
    """Steps that are negative, by which MNN writes outside of its memory, or not in the file."""
    if len(node.inputs) < 5 or not node.inputs[4]:
        return False
    steps = graph.constant_integers(node.inputs[4])
    return steps is None or min(steps, default=1) < 1


def _crops(node: Node, graph: Nodes, opset: int) -> bool:
    pads = graph.constant_integers(node.inputs[1]) if opset >= 11 else node.attributes.get("pads", ())
    return not isinstance(pads, tuple) or min(pads, default=0) < 0


def _pads_axes(node: Node, graph: Nodes, opset: int) -> bool:
    return len(node.inputs) > 3 and bool(node.inputs[3])


def _pads_with_a_number(node: Node, graph: Nodes, opset: int) -> bool:
    return opset < 11 and node.attributes.get("value", 0.0) != 0.0


def _turns_a(node: Node, graph: Nodes, opset: int) -> bool:
    return bool(node.attributes.get("transA"))


def _to_bool(node: Node, graph: Nodes, opset: int) -> bool:
    return node.attributes.get("to") == 9


def _to_half(node: Node, graph: Nodes, opset: int) -> bool:
    return node.attributes.get("to") in (10, 16)


def _of_three(node: Node, graph: Nodes, opset: int) -> bool:
    return len(node.inputs) != 2


def _has_output_shape(node: Node, graph: Nodes, opset: int) -> bool:
    return "output_shape" in node.attributes


def _unless_sequence_or_picture(node: Node, graph: Nodes, opset: int) -> bool:
    return len(graph.shape(node.inputs[0]) or ()) not in (3, 4)


def _all_as_they_are(node: Node, graph: Nodes, opset: int) -> bool:
    return bool(node.attributes.get("noop_with_empty_axes"))


def _unequal(node: Node, graph: Nodes, opset: int) -> bool:
    """Parts by their number, of a length that it may not divide."""
    if not isinstance(parts := node.attributes.get("num_outputs"), int):
        return False
    axis, shape = node.attributes.get("axis", 0), graph.shape(node.inputs[0])
    length = shape[axis] if shape is not None and isinstance(axis, int) and -len(shape) <= axis < len(shape) else ""
    return not isinstance(length, int) or length % parts != 0


def _not_of_channels(node: Node, graph: Nodes, opset: int) -> bool:
    """A slope that is neither one number nor one for each channel, the second axis."""
    x, slope = (graph.shape(name) for name in node.inputs)
    if slope is None or set(slope) <= {1}:
        return slope is None
    return x is None or any(n != 1 for axis, n in enumerate(slope, len(x) - len(slope)) if axis != 1)


def _spreads_batches(node: Node, graph: Nodes, opset: int) -> bool:
    """Products of several matrices by fewer: MNN reads what lies behind the fewer. One for all is right."""
    a, b = (graph.shape(name) for name in node.inputs)
    if 2 in (len(a or ()), len(b or ())):
        return False
    return a is None or b is None or a[:-2] != b[:-2] or "" in a[:-2]  # "" is a length that is not known


def _chooses_constants(node: Node, graph: Nodes, opset: int) -> bool:
    """Values to choose from that are neither one number nor of a length that only a call tells, and so may be constants."""
    shapes = [graph.shape(name) for name in node.inputs[1:]]
    return any(shape is None or (not set(shape) <= {1} and all(isinstance(n, int) for n in shape)) for shape in shapes)


def _draws(node: Node, graph: Nodes, opset: int) -> bool:
    return len(node.inputs) > 2 and bool(node.inputs[2])


def _gelu_is_approximated(node: Node, graph: Nodes, opset: int) -> bool:
    """The sum within a Gelu, in the order in which MNN puts its approximation for it, unless :mod:`.products` turned it around."""
    y = node.outputs[0]
    made = next((other.op for other in graph.nodes if node.inputs[0] in other.outputs), "")
    return made in ("Erf", "Tanh") and any(other.op == "Mul" and y in other.inputs for other in graph.nodes)


def _reaches_more_than_a_tanh(node: Node, graph: Nodes, opset: int) -> bool:
    """Above 87 MNN gives 87, which a Tanh, as in Mish, does not see."""
    y = node.outputs[0]
    return y in graph.elsewhere or any(other.op != "Tanh" for other in graph.nodes if y in other.inputs)


_FORMS: dict[str, tuple[_Form, ...]] = {
    "mnn": (
        *((op, " with auto_pad SAME_LOWER", _pads_first) for op in ("Conv", "ConvTranspose", "MaxPool", "AveragePool")),
        ("ConvTranspose", " with output_shape", _has_output_shape),
        *((op, " of anything but sequences and pictures", _unless_sequence_or_picture)
          for op in ("GlobalAveragePool", "GlobalMaxPool")),
        ("Resize", " of mode cubic", _cubic),
        ("Resize", " with antialias", _antialiased),
        ("Resize", " whose nearest pixel is rounded up", _rounds_up),
        ("Resize", " of opset 10", _old),
        ("Resize", " by the nearest pixel between aligned corners, by symmetric halves or of a crop", _corners),
        ("Resize", " that keeps the ratio", _keeps_the_ratio),
        ("Softmax", " before opset 13 without an axis", _along_several_untold),
        ("LogSoftmax", " before opset 13 along several axes", _along_several),
        ("Softplus", " of numbers above 87", _reaches_more_than_a_tanh),
        ("Slice", " by steps that are negative or not in the file", _not_forward),
        ("Pad", " by numbers that are negative or not in the file", _crops),
        ("Pad", " of some axes", _pads_axes),
        ("Pad", " before opset 11 with a number other than 0", _pads_with_a_number),
        ("Gemm", " with transA", _turns_a),
        ("MatMul", " of values that are not known to have as many matrices each, or one", _spreads_batches),
        ("Where", " of arrays that may be constants", _chooses_constants),
        ("PRelu", " with another slope than one for all or for each channel", _not_of_channels),
        ("Cast", " to bool", _to_bool),
        ("Cast", " to 16 bits", _to_half),
        ("Max", " of other than two values", _of_three),
        ("Min", " of other than two values", _of_three),
        ("Split", " into parts that are not known to be equal", _unequal),
        *((f"Reduce{op}", " with noop_with_empty_axes", _all_as_they_are) for op in ("Max", "Mean", "Min", "Prod", "Sum")),
        ("Dropout", " with training_mode", _draws),
        ("Add", " in a Gelu of a file with external data", _gelu_is_approximated),
    ),
    "openvino": (
        ("Softmax", " of opset 11 and 12 along several axes", _along_several_since_11),
        ("Resize", " with antialias", _antialiased),
        ("ConvTranspose", " with auto_pad SAME_LOWER", _pads_first),
    ),
}  # fmt: skip
