"""Run GroupNormalization (Wu & He 2018) and the elementwise operations around it on images flattened to one row.

OpenVINO's CPU plugin 2026.4 generates elementwise kernels that process rows. The rows of a small image are shorter than a vector
register, which in bfloat16 took half the time of a network. The plugin's own GroupNormalization is no faster, and compiling it with
a scale and shift from the time (Improved DDPM) crashed the process. ``docs/runtimes.md`` has the figures.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def flatten_group_norms(graph: Any) -> bool:
    """Flatten every GroupNormalization with a static shape in an ``openvino.Model``.

    A time embedding that is added before it and the scales, shifts and SiLUs that follow are flattened with it. Returns True if the
    graph changed.
    """
    norms = [
        op for op in graph.get_ordered_ops() if op.get_type_name() == "GroupNormalization" and op.output(0).partial_shape.is_static
    ]
    for norm in norms:
        _flatten(norm)
    return bool(norms)


def _flatten(norm: Any) -> None:
    from openvino import opset13

    batch, channels, *spatial = norm.output(0).shape

    def reshaped(x: Any, *shape: int) -> Any:
        return opset13.reshape(x, np.array(shape, np.int64), False)

    def by_channel(op: Any, x: Any, other: Any) -> Any:
        make = opset13.add if op.get_type_name() == "Add" else opset13.multiply
        return make(x, reshaped(other, other.get_shape()[0], channels, 1))

    x, attributes = norm.input_value(0), norm.get_attributes()
    before = x.get_node()
    if len(x.get_target_inputs()) == 1 and (found := _by_channel(before)) and not _constant(found[1].get_node()):
        x = by_channel(before, reshaped(found[0], batch, channels, -1), found[1])
    normed = opset13.mvn(
        reshaped(x, batch, attributes["num_groups"], -1), np.array([2], np.int64), True, attributes["epsilon"], "inside_sqrt"
    )
    scale, bias = (reshaped(norm.input_value(i), channels, 1) for i in (1, 2))
    y, end = opset13.add(opset13.multiply(reshaped(normed, batch, channels, -1), scale), bias), norm
    while True:
        after = [target.get_node() for target in end.output(0).get_target_inputs()]
        if (silu := _silu(after)) is not None:
            y, end = opset13.multiply(y, opset13.sigmoid(y)), silu
        elif len(after) == 1 and (found := _by_channel(after[0])) and _same(found[0].get_node(), end):
            y, end = by_channel(after[0], y, found[1]), after[0]
        else:
            break
    back = reshaped(y, batch, channels, *spatial)
    back.set_friendly_name(end.get_friendly_name())
    end.output(0).replace(back.output(0))


def _by_channel(op: Any) -> tuple[Any, Any] | None:
    """Return the operands of an Add or Multiply whose second operand has one value per channel; None for other operations."""
    if op.get_type_name() not in ("Add", "Multiply"):
        return None
    shape = list(op.output(0).shape)
    for x, other in ((op.input_value(0), op.input_value(1)), (op.input_value(1), op.input_value(0))):
        if list(x.get_shape()) == shape and list(other.get_shape())[1:] == [shape[1], *(1 for _ in shape[2:])]:
            return x, other
    return None


def _silu(after: list[Any]) -> Any | None:
    """Return the product x·sigmoid(x), if these two are the only operations that read x; None otherwise."""
    if sorted(op.get_type_name() for op in after) != ["Multiply", "Sigmoid"]:
        return None
    product, sigmoid = sorted(after, key=lambda op: op.get_type_name())
    readers = [target.get_node() for target in sigmoid.output(0).get_target_inputs()]
    return product if len(readers) == 1 and _same(readers[0], product) else None


def _constant(op: Any) -> bool:
    """Return whether an operation depends on constants only. Such a summand is the bias of the layer before, and stays there."""
    waiting, seen = [op], set[str]()
    while waiting:
        one = waiting.pop()
        inputs = [one.input_value(i).get_node() for i in range(one.get_input_size())]
        if not inputs and one.get_type_name() != "Constant":
            return False
        waiting += [x for x in inputs if x.get_friendly_name() not in seen]
        seen.update(x.get_friendly_name() for x in inputs)
    return True


def _same(a: Any, b: Any) -> bool:
    """Return whether two Python objects stand for the same operation. OpenVINO makes a new object per access; names are unique."""
    return bool(a.get_friendly_name() == b.get_friendly_name())
