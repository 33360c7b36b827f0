"""Which operand of an addition or multiplication is the main one."""

from __future__ import annotations

from dataclasses import replace

from ..program import Binary, Map, View
from .graph import Graph

_SWAPPED = {
    "add": "add",
    "multiply": "multiply",
    "maximum": "maximum",
    "minimum": "minimum",
    "subtract": "reverse_subtract",
    "reverse_subtract": "subtract",
    "divide": "reverse_divide",
    "reverse_divide": "divide",
}


def choose_main(graph: Graph, index: int) -> None:
    """Make the operand that can be fused with its writer the input of a map.

    A product of matrices or a convolution goes before a map, the later of two before the earlier, and a value that fills the shape
    before one that is repeated.
    """
    op = graph[index]
    if not op.prologue:
        return
    first = op.prologue[0]
    if not isinstance(first, Binary) or not isinstance(first.operand, View) or first.function not in _SWAPPED:
        return
    x, y = op.inputs[0], first.operand
    if _rank(graph, y, index) > _rank(graph, x, index):
        graph.set(index, replace(op, inputs=(y,), prologue=(Binary(_SWAPPED[first.function], x), *op.prologue[1:])))


def _rank(graph: Graph, view: View, reader: int) -> tuple[int, int]:
    if any(stride == 0 for dim in view.dims for _, stride in dim):
        return 0, 0
    writers = graph.private(view, reader)
    if not writers:
        return 1, 0
    return (2, 0) if any(isinstance(graph[writer].kind, Map) for writer in writers) else (3, writers[-1])
