"""The graph as a runtime wants it, made when its session is: the same function, in the operations that it runs fastest.

What pays was measured, not assumed; ``docs/runtimes.md`` has the figures, and what was tried and dropped.
"""

from __future__ import annotations

import numpy as np

from ..errors import ArtifactError
from ..model import Model
from ..onnx.graph import Node, Nodes
from ..onnx.header import Value
from . import insert_qdq, split_upsample_conv, unsupported_forms
from .decompose import attention_products, gelu_products, mish_products, unfuse_gelu
from .merge_gemms import layers_as_one


def for_onnxruntime(model: Model, precision: str = "float32") -> bytes | None:
    """The file with GroupNormalization as InstanceNormalization, convolutions of doubled pictures taken apart, and linear layers of
    one value as one; or in int8. None where there is nothing to change."""
    if precision == "int8":
        nodes = in_int8(model, outputs=True)
        instance_norms(nodes, model.opset)
        return nodes.to_bytes()
    if model.external or model.opset < 21:  # the weights may be more than one message holds; operators were others
        return None
    nodes = model.nodes()
    changes = instance_norms(nodes, model.opset), split_upsample_conv.take_apart(nodes), layers_as_one(nodes)
    return nodes.to_bytes() if any(changes) else None


def for_openvino(model: Model, precision: str = "float32") -> bytes | None:
    """The file with convolutions of doubled pictures taken apart, in int8 if asked; None where there is nothing to change.

    Raises:
        ArtifactError: OpenVINO would compute something else than the file says.
    """
    nodes = in_int8(model, outputs=False) if precision == "int8" else model.nodes()
    unsupported_forms.refuse(nodes, model.opset, "openvino")
    if precision == "int8":
        return nodes.to_bytes()
    return nodes.to_bytes() if not model.external and split_upsample_conv.take_apart(nodes) else None


def for_mnn(model: Model) -> bytes | None:
    """The file in operations that MNN's converter knows; None where there is nothing to change.

    Raises:
        ArtifactError: MNN would compute something else than the file says.
    """
    nodes = model.nodes()
    # A file whose weights lie beside it is converted as it is: what is not in it is not found from elsewhere.
    changes = (
        ()
        if model.external
        else (
            instance_norms(nodes, model.opset),
            attention_products(nodes),
            mish_products(nodes),
            gelu_products(nodes),
            unfuse_gelu(nodes),
        )
    )
    unsupported_forms.refuse(nodes, model.opset, "mnn")
    return nodes.to_bytes() if any(changes) else None


def in_int8(model: Model, *, outputs: bool) -> Nodes:
    """The graph with the layers in int8 that its document names; ``outputs`` as :func:`.quantized.quantize` has it.

    Raises:
        ArtifactError: the document names a layer that the graph does not have, or lacks a range.
    """
    nodes, found = model.nodes(), model.quantization
    if found is None:
        raise ArtifactError(f"the artifact {model.name!r} has no field 'quantization'.")
    layers, ranges = list(found.layers), dict(found.ranges)
    for name, apart in split_upsample_conv.take_apart(nodes).items():
        if name in layers:
            at = layers.index(name)
            layers[at : at + 1] = apart.parts
            for part, whole in ((apart.small, apart.doubled), *((part, name) for part in apart.parts)):
                if whole in ranges:
                    ranges.setdefault(part, ranges[whole])
    try:
        insert_qdq.quantize(nodes, layers, ranges, outputs=outputs)
    except KeyError as error:
        raise ArtifactError(f"the model's field 'quantization' lacks the range or layer {error}.") from None
    return nodes


def instance_norms(graph: Nodes, opset: int) -> bool:
    """GroupNormalization (Wu & He 2018) as what onnxruntime has quick kernels for: each group as one channel of an
    InstanceNormalization, then scale and bias in one pass, as a BatchNormalization of mean 0 and variance 1. Whether there was
    any."""
    if opset < 21:  # a scale and bias for a group, not a channel: another operation, which no exporter wrote
        return False
    made_before: dict[tuple[int, int], str] = {}  # so that constants take no more memory than the file's own scales

    def constant(like: str, count: int, number: int) -> str:
        if (count, number) not in made_before:
            made_before[count, number] = graph.constant(like, np.full(count, number, np.float32))
        return made_before[count, number]

    def made(node: Node) -> list[Node] | None:
        one = graph.values.get(node.inputs[0]) if node.op == "GroupNormalization" and not node.domain else None
        if one is None or not _known(one) or not isinstance(groups := node.attributes.get("num_groups"), int):
            return None
        x, scale, bias, y = *node.inputs, node.outputs[0]
        inner: tuple[int, ...] = tuple(one.shape[1:])  # type: ignore[index,arg-type]  # known, as asked
        if groups < 1 or inner[0] % groups:
            raise ArtifactError(f"GroupNormalization {y!r} has num_groups {groups}; it must divide its {inner[0]} channels.")
        weight = graph.weight(scale)  # as large as the file says that the value is: what is made below is bounded by it
        if weight is None or weight.shape != inner[:1]:
            return None
        grouped, normed, picture = (graph.fresh(y) for _ in range(3))
        of_groups, of_channels = ([constant(y, count, number) for number in (1, 0)] for count in (groups, inner[0]))
        return [
            Node("Reshape", (x, graph.constant(y, np.array([0, groups, -1], np.int64))), (grouped,)),
            Node(
                "InstanceNormalization", (grouped, *of_groups), (normed,),
                {"epsilon": float(node.attributes.get("epsilon", 1e-5))},  # type: ignore[arg-type]  # a number
            ),
            Node("Reshape", (normed, graph.constant(y, np.array([0, *inner], np.int64))), (picture,)),
            Node("BatchNormalization", (picture, scale, bias, *of_channels[::-1]), (y,), {"epsilon": 0.0}),
        ]  # fmt: skip

    return graph.replace(made)


def _known(one: Value) -> bool:
    """Whether all of a float32 value's shape is known but its batch."""
    shape = one.shape or ()
    return one.dtype == "float32" and len(shape) > 2 and all(isinstance(n, int) for n in shape[1:])
