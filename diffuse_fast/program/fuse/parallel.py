"""Linears with one input, such as q, k and v, or the projections of the time of all blocks, are one product."""

from __future__ import annotations

import math
from dataclasses import replace

from ..draft import ROW
from ..program import Level, Linear, Operation, View
from .graph import Graph
from .route import Follow, follower


def merge_parallel(graph: Graph, index: int) -> None:
    """Merge all linears that read what this one reads. Their results are slices of a wide buffer.

    Outside the step only linears of single rows are merged: the results of many blocks side by side would lie far apart.
    """
    op = graph[index]
    if not _mergeable(graph, index, op):
        return
    found = [i for i in graph.readers(op.inputs[0].buffer) if _mergeable(graph, i, graph[i]) and _together(op, graph[i])]
    if len(found) < 2:
        return
    operations = [graph[i] for i in found]
    op = operations[0]
    widths = [one.output.shape[-1] for one in operations]
    narrow, wide = widths[0], sum(widths)
    buffer = graph.add_buffer(graph.buffers[op.output.buffer].size // narrow * wide, graph.buffers[op.output.buffer].level)
    rows = tuple(tuple((n, s if s == ROW else s // narrow * wide) for n, s in dim) for dim in op.output.dims[:-1])
    follow: dict[int, Follow] = {}
    start = 0
    for one, width in zip(operations, widths, strict=True):
        part = View(buffer, start, (*rows, ((width, 1),) if width > 1 else ()))
        follow[one.output.buffer] = follower(one.output, part)
        start += width
    if not graph.redirect(follow):
        return
    merged = replace(
        op,
        kind=Linear(sum(_parts(one) for one in operations)),
        inputs=(
            op.inputs[0],
            *(view for one in operations for view in one.inputs[1 : 1 + _parts(one)]),
            *(view for one in operations for view in one.inputs[1 + _parts(one) :]),
        ),
        output=View(buffer, 0, (*rows, ((wide, 1),))),
        source=", ".join(one.source for one in operations if one.source),
    )
    for i in found[1:]:
        graph.set(i, None)
    graph.set(found[0], merged)


def _mergeable(graph: Graph, index: int, op: Operation) -> bool:
    """Whether it has no epilogue, and alone fills a buffer with rows that have no gaps."""
    if not isinstance(op.kind, Linear) or op.epilogue:
        return False
    buffer, (*rows, last) = op.output.buffer, op.output.dims
    width = op.output.shape[-1]
    if buffer == graph.output or graph.writer(buffer) != index or last not in (((width, 1),), ()):
        return False
    count = math.prod(size for dim in rows for size, stride in dim if stride != ROW)
    if graph.stage(index) != Level.SAMPLE and count > 1:
        return False
    return count * width == graph.buffers[buffer].size and all(s == ROW or s % width == 0 for dim in rows for _, s in dim)


def _together(a: Operation, b: Operation) -> bool:
    return a.inputs[0] == b.inputs[0] and a.prologue == b.prologue and _biased(a) == _biased(b)


def _parts(op: Operation) -> int:
    assert isinstance(op.kind, Linear)
    return op.kind.parts


def _biased(op: Operation) -> bool:
    return len(op.inputs) > 1 + _parts(op)
