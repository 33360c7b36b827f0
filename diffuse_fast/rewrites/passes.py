"""The passes that a model's graph goes through for onnxruntime and OpenVINO, and the function that applies them.

The native runtime reads the file as it is. The others run what it does not: int8, bfloat16, and networks with an operation that it
lacks. Each pass is there for one of these (``docs/runtimes.md`` has the figures, and what was tried and dropped).
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import ArtifactError
from ..model import Model
from ..onnx.graph import Graph
from .group_norm_to_instance_norm import group_norm_to_instance_norm
from .insert_qdq import insert_qdq
from .split_upsample_conv import split_upsample_conv
from .unsupported_forms import check

Pass = Callable[[Graph], bool]  # edits the graph in place; True if it changed it

# For every precision but int8, in the order in which they run.
PASSES: dict[str, tuple[Pass, ...]] = {"onnxruntime": (group_norm_to_instance_norm,), "openvino": (check, split_upsample_conv)}

# For int8, after QuantizeLinear and DequantizeLinear were inserted.
INT8_PASSES: dict[str, tuple[Pass, ...]] = {"onnxruntime": (group_norm_to_instance_norm,), "openvino": (check,)}


def rewritten(model: Model, runtime: str, precision: str = "float32") -> bytes | None:
    """Return the model file rewritten for a runtime; None if the file can be used as it is.

    Args:
        model: The model.
        runtime: A key of :data:`PASSES`.
        precision: ``"int8"`` inserts the quantization of the model's document.

    Raises:
        ArtifactError: the runtime would compute the model incorrectly, or the document has no quantization, or one that names a
            layer that the graph does not have or lacks a range.
    """
    if precision == "int8":
        return int8_graph(model, runtime).to_bytes()
    passes = PASSES[runtime]
    if model.external:  # the runtime has to open the file itself to find the weights beside it
        passes = tuple(one for one in passes if one is check)
    if not passes:
        return None
    graph = model.graph()
    changes = [one(graph) for one in passes]
    return graph.to_bytes() if any(changes) else None


def int8_graph(model: Model, runtime: str) -> Graph:
    """Return the graph with the layers that the model's document names in int8; raises as :func:`rewritten`."""
    if model.quantization is None:
        raise ArtifactError(f"the artifact {model.name!r} has no field 'quantization'.")
    graph = model.graph()
    for one in (insert_qdq(model.quantization, quantize_outputs=runtime == "onnxruntime"), *INT8_PASSES[runtime]):
        one(graph)
    return graph
