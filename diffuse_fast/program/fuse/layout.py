"""The memory order of values whose readers would gather channels one by one."""

from __future__ import annotations

from ..program import View
from ..views import memory_order, new_dims
from .graph import Graph, channels, dense
from .route import follower


def make_channels_dense(graph: Graph, index: int) -> None:
    """Store the input of a linear or convolution with its channels next to each other, if no reader is worse off.

    So the heads of an attention come to lie side by side, as the projection behind it reads them.
    """
    op = graph[index]
    dim = channels(op)
    x = op.inputs[0]
    if dim is None or dense(x, dim) or x.buffer == graph.output:
        return
    if not graph.writers(x.buffer):
        return
    channel = len(x.dims) + dim
    placed, size = new_dims([*(i for i in memory_order(x) if i != channel), channel], x.dims)
    if size == graph.buffers[x.buffer].size:
        level = graph.buffers[x.buffer].level
        graph.move(x.buffer, follower(x, View(graph.add_buffer(size, level), 0, placed)))
