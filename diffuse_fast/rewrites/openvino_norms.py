"""What surrounds GroupNormalization (Wu & He 2018) on OpenVINO's CPU plugin: done over a picture as one row.

The plugin of 2026.4 makes kernels of elementwise operations that go by rows. Those of a small picture are shorter than a register,
which in bfloat16 took half the time of a network. Its own kernel for the norm is no faster, and where time scales and shifts the
norm (Improved DDPM) compiling it ended the process. ``docs/runtimes.md`` has the figures.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def norms_in_rows(graph: Any) -> None:
    """Change every GroupNormalization of a model of OpenVINO's whose shape is static, with an embedding of the time that is added
    before it, and with the scales, shifts and SiLUs that follow."""
    for op in list(graph.get_ordered_ops()):
        if op.get_type_name() == "GroupNormalization" and op.output(0).partial_shape.is_static:
            _in_rows(op)


def _in_rows(norm: Any) -> None:
    from openvino import opset13

    batch, channels, *picture = norm.output(0).shape

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
    rows, end = opset13.add(opset13.multiply(reshaped(normed, batch, channels, -1), scale), bias), norm
    while True:
        after = [target.get_node() for target in end.output(0).get_target_inputs()]
        if (silu := _silu(after)) is not None:
            rows, end = opset13.multiply(rows, opset13.sigmoid(rows)), silu
        elif len(after) == 1 and (found := _by_channel(after[0])) and _same(found[0].get_node(), end):
            rows, end = by_channel(after[0], rows, found[1]), after[0]
        else:
            break
    back = reshaped(rows, batch, channels, *picture)
    back.set_friendly_name(end.get_friendly_name())
    end.output(0).replace(back.output(0))


def _by_channel(op: Any) -> tuple[Any, Any] | None:
    """The two that an operation adds or multiplies where the second has one number for each channel; None where it is another."""
    if op.get_type_name() not in ("Add", "Multiply"):
        return None
    shape = list(op.output(0).shape)
    for x, other in ((op.input_value(0), op.input_value(1)), (op.input_value(1), op.input_value(0))):
        if list(x.get_shape()) == shape and list(other.get_shape())[1:] == [shape[1], *(1 for _ in shape[2:])]:
            return x, other
    return None


def _silu(after: list[Any]) -> Any | None:
    """The product x·sigmoid(x), of the operations that read x; None where there are others."""
    if sorted(op.get_type_name() for op in after) != ["Multiply", "Sigmoid"]:
        return None
    product, sigmoid = sorted(after, key=lambda op: op.get_type_name())
    readers = [target.get_node() for target in sigmoid.output(0).get_target_inputs()]
    return product if len(readers) == 1 and _same(readers[0], product) else None


def _constant(op: Any) -> bool:
    """Whether an operation gives the same in every call, as the bias of the layer before does, which is to stay with its layer."""
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
    """Whether two are one operation: the objects are made anew each time they are asked for, the names are a graph's own."""
    return bool(a.get_friendly_name() == b.get_friendly_name())
