"""Maps behind an operation: bias, activation, time, gate and residual are applied to its result before it is stored."""

from __future__ import annotations

from dataclasses import replace

from ..program import Map, Norm
from .graph import Graph, stays_dense
from .route import follow_stages


def fuse_epilogue(graph: Graph, index: int) -> None:
    """Move the stages of a map behind the operation that writes its input, if nothing else reads that.

    A norm is not moved: it needs all of the result first. So a norm is always the first stage of a prologue.
    """
    op = graph[index]
    if not op.prologue or any(isinstance(stage, Norm) for stage in op.prologue):
        return
    writer = graph.private(op.inputs[0], index)
    if writer is None:
        return
    before = graph[writer]
    output, stages = follow_stages(op.inputs[0], op.output, op.prologue, before.output)
    source = f"{before.source}, {op.source}" if before.source and op.source else before.source or op.source
    if isinstance(before.kind, Map):
        fused = replace(before, output=output, prologue=(*before.prologue, *stages), source=source)
    else:
        fused = replace(before, output=output, epilogue=(*before.epilogue, *stages), source=source)
    if stays_dense(before, fused):
        graph.set(writer, None)
        graph.set(index, fused)
