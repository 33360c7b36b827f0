"""A constant added to each output channel is a bias."""

from __future__ import annotations

from dataclasses import replace

from ..program import Binary, Convolution, Level, View
from .graph import Graph


def add_to_bias(graph: Graph, index: int) -> None:
    """Make a constant that a linear or convolution without bias adds per output channel its bias."""
    op = graph[index]
    if not op.epilogue or len(op.inputs) != 2:
        return
    first = op.epilogue[0]
    if not isinstance(first, Binary) or first.function != "add" or not isinstance(first.operand, View):
        return
    added = first.operand
    if graph.buffers[added.buffer].level != Level.CONSTANT:
        return
    channel = len(added.dims) - (len(op.kind.strides) + 1 if isinstance(op.kind, Convolution) else 1)
    if all(stride <= 0 for dim, atoms in enumerate(added.dims) if dim != channel for _, stride in atoms):
        bias = View(added.buffer, added.offset, (added.dims[channel],))
        graph.set(index, replace(op, inputs=(*op.inputs, bias), epilogue=op.epilogue[1:]))
