"""Maps behind an operation: bias, activation, time, gate and residual are applied to its result before it is stored."""

from __future__ import annotations

from dataclasses import replace

from ..program import Map, Norm, Operation
from .graph import Graph, stays_dense
from .route import follow_stages


def fuse_epilogue(graph: Graph, index: int) -> None:
    """Move the stages of a map behind the operation that writes its input, or those that write its parts, if nothing else reads it.

    A norm is not moved: it needs all of the result first. So a norm is always the first stage of a prologue.
    """
    op = graph[index]
    if not op.prologue or any(isinstance(stage, Norm) for stage in op.prologue):
        return
    writers = graph.private(op.inputs[0], index)
    fused = [_fused(graph[writer], op) for writer in writers]
    if not fused or not all(stays_dense(graph[writer], new) for writer, new in zip(writers, fused, strict=True)):
        return
    if len(writers) == 1:  # in the place of the map, where all that its stages read is there
        places = [index]
    else:
        read = (before for stage in op.reads if stage.buffer != op.inputs[0].buffer for before in graph.writers(stage.buffer))
        if max(read, default=-1) > writers[0]:
            return
        places = writers
    for at in (index, *writers):
        graph.set(at, None)
    for at, new in zip(places, fused, strict=True):
        graph.set(at, new)


def _fused(before: Operation, op: Operation) -> Operation:
    """``before`` with the stages of the map ``op`` behind it, writing what the map writes."""
    output, stages = follow_stages(op.inputs[0], op.output, op.prologue, before.output)
    source = f"{before.source}, {op.source}" if before.source and op.source else before.source or op.source
    if isinstance(before.kind, Map):
        return replace(before, output=output, prologue=(*before.prologue, *stages), source=source)
    return replace(before, output=output, epilogue=(*before.epilogue, *stages), source=source)
