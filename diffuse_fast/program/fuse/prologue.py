"""Maps before an operation: norm, scale, bias and activation are applied to its input while it is read."""

from __future__ import annotations

from dataclasses import replace

from ..program import Map, Norm
from .graph import Graph, stays_dense
from .route import follow_stages


def fuse_prologue(graph: Graph, index: int) -> None:
    """Move the stages of the map that writes an operation's input into the operation, if nothing else reads that map.

    The operation may read the map transposed, regrouped, in part, or with its elements repeated. A map with several readers stays:
    its stages, moments of a norm among them, would be computed for each.
    """
    op = graph[index]
    writers = graph.private(op.inputs[0], index)
    if len(writers) != 1 or any(isinstance(stage, Norm) for stage in op.prologue):  # a norm is the first stage
        return
    before = graph[writers[0]]
    if not isinstance(before.kind, Map) or not before.prologue:
        return
    x, stages = follow_stages(before.output, before.inputs[0], before.prologue, op.inputs[0])
    source = f"{before.source}, {op.source}" if before.source and op.source else before.source or op.source
    fused = replace(op, inputs=(x, *op.inputs[1:]), prologue=(*stages, *op.prologue), source=source)
    if stays_dense(op, fused):
        graph.set(writers[0], None)
        graph.set(index, fused)
