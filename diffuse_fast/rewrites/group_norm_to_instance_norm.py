"""Replace GroupNormalization by InstanceNormalization and BatchNormalization, for which onnxruntime has fast kernels.

It has none for GroupNormalization: digits took 1.9 times as long at batch 1. This matters for int8 and its calibration, and for
networks that the native runtime lacks.
"""

from __future__ import annotations

import numpy as np

from ..errors import ArtifactError
from ..onnx.graph import Graph, Node
from ..onnx.header import Value


def group_norm_to_instance_norm(graph: Graph) -> bool:
    """Replace GroupNormalization (Wu & He 2018) where the shape is known except for the batch.

    Each group becomes one channel of an InstanceNormalization. Scale and bias are applied in one pass, as a BatchNormalization of
    mean 0 and variance 1. Returns True if the graph changed.
    """
    if graph.opset < 21:  # until then scale and bias were per group: another operator, which no exporter wrote
        return False
    constants: dict[tuple[int, int], str] = {}  # shared, so that they take no more memory than the scales of the file

    def constant(like: str, count: int, number: int) -> str:
        if (count, number) not in constants:
            constants[count, number] = graph.add_constant(like, np.full(count, number, np.float32))
        return constants[count, number]

    def replacement(node: Node) -> list[Node] | None:
        value = graph.values.get(node.inputs[0]) if node.op == "GroupNormalization" and not node.domain else None
        if value is None or not _has_static_shape(value) or not isinstance(groups := node.attributes.get("num_groups"), int):
            return None
        x, scale, bias, y = *node.inputs, node.outputs[0]
        shape: tuple[int, ...] = tuple(value.shape[1:])  # type: ignore[index,arg-type]  # static, as checked
        if groups < 1 or shape[0] % groups:
            raise ArtifactError(f"GroupNormalization {y!r} has num_groups {groups}; it must divide its {shape[0]} channels.")
        weight = graph.weight(scale)  # its size in the file bounds the constants that are made below
        if weight is None or weight.shape != shape[:1]:
            return None
        grouped, normalized, ungrouped = (graph.new_name(y) for _ in range(3))
        group_parameters, channel_parameters = ([constant(y, count, n) for n in (1, 0)] for count in (groups, shape[0]))
        return [
            Node("Reshape", (x, graph.add_constant(y, np.array([0, groups, -1], np.int64))), (grouped,)),
            Node(
                "InstanceNormalization", (grouped, *group_parameters), (normalized,),
                {"epsilon": float(node.attributes.get("epsilon", 1e-5))},  # type: ignore[arg-type]  # a number
            ),
            Node("Reshape", (normalized, graph.add_constant(y, np.array([0, *shape], np.int64))), (ungrouped,)),
            Node("BatchNormalization", (ungrouped, scale, bias, *channel_parameters[::-1]), (y,), {"epsilon": 0.0}),
        ]  # fmt: skip

    return graph.replace(replacement)


def _has_static_shape(value: Value) -> bool:
    """Return whether a float32 value has a known shape, except for its batch."""
    shape = value.shape or ()
    return value.dtype == "float32" and len(shape) > 2 and all(isinstance(n, int) for n in shape[1:])
