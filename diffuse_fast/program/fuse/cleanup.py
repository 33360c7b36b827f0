"""Operations that nobody reads, operations that are computed twice, and stages that change nothing."""

from __future__ import annotations

from dataclasses import replace

from ..program import Binary, Operation, Stage
from .graph import Graph
from .numbers import joined
from .route import follower

_NEUTRAL = {"add": 0.0, "subtract": 0.0, "multiply": 1.0, "divide": 1.0, "power": 1.0}


def remove_dead(graph: Graph, index: int) -> None:
    """Remove an operation whose result is not read."""
    if graph.reads(graph[index].output.buffer) == 0:
        graph.set(index, None)


def simplify_numbers(graph: Graph, index: int) -> None:
    """Multiply numbers that follow each other, and remove ``+ 0``, ``* 1``, ``/ 1`` and the like."""
    op = graph[index]
    if not op.prologue and not op.epilogue:
        return
    prologue, epilogue = (tuple(s for s in joined(stages) if not _neutral(s)) for stages in (op.prologue, op.epilogue))
    if len(prologue) < len(op.prologue) or len(epilogue) < len(op.epilogue):
        graph.set(index, replace(op, prologue=prologue, epilogue=epilogue))


def _neutral(stage: Stage) -> bool:
    return isinstance(stage, Binary) and _NEUTRAL.get(stage.function) == stage.operand


def remove_duplicate(graph: Graph, index: int) -> None:
    """Let the readers of an operation read an earlier one that computes the same."""
    op = graph[index]
    buffer = op.output.buffer
    if buffer == graph.output or graph.writer(buffer) != index:
        return
    for other in graph.readers(op.inputs[0].buffer):
        if other >= index:
            return
        first = graph[other]
        if _same(first, op):
            graph.redirect({buffer: follower(op.output, first.output)}, drop=(index,))
            return


def _same(a: Operation, b: Operation) -> bool:
    computed = a.kind == b.kind and a.inputs == b.inputs and a.prologue == b.prologue and a.epilogue == b.epilogue
    return computed and a.output.shape == b.output.shape
