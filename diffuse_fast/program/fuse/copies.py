"""Copies: maps without stages. A reader reads the source instead, or the writers of the source write to the target."""

from __future__ import annotations

from .graph import Graph
from .route import follower


def remove_copy(graph: Graph, index: int) -> None:
    """Let the readers of a copy read its source.

    A copy stays if it makes channels dense for an operation that reads them as vectors.
    """
    op = graph[index]
    buffer = op.output.buffer
    if not op.prologue and buffer != graph.output and graph.writer(buffer) == index:
        graph.redirect({buffer: follower(op.output, op.inputs[0])}, drop=(index,))


def place(graph: Graph, index: int) -> None:
    """Let the writers of a copy's source write where the copy would put it, and their other readers read it there.

    This is how a concatenation costs nothing, how the output is written row-major, and how the heads of an attention come to lie
    side by side.
    """
    op = graph[index]
    source = op.inputs[0].buffer
    if op.prologue or source == graph.output:
        return
    writers = graph.writers(source)
    if not writers or any(graph.stage(writer) != graph.stage(index) for writer in writers):
        return
    graph.move(source, follower(op.inputs[0], op.output), drop=(index,))
