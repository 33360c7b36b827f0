"""Make a program of a draft: remove the batch from the views, and what no result needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from ..errors import UnsupportedError
from .draft import ROW, Draft
from .program import Binary, Input, Norm, Operation, Program, Reduce, Resize, Softmax, Stage, View
from .views import batch_place, merged


def finish(draft: Draft) -> Program | None:
    """The program of a draft; None if a size has the factor that stands for the batch, so that another must be taken."""
    assert draft.output is not None
    operations = _live(draft)
    sizes = {
        size for op in operations for view in (op.output, *op.reads) for dim in view.dims for size, stride in dim if stride != ROW
    }
    if any(size % draft.batch == 0 for size in sizes):
        return None
    numbers: dict[int, int] = {}

    def number(buffer: int) -> int:
        return numbers.setdefault(buffer, len(numbers))

    def row(view: View) -> View:
        one = _row(view)
        if one.offset < 0 or one.last >= draft.buffers[view.buffer].size:
            raise UnsupportedError("a view is outside of its buffer.")
        return View(number(view.buffer), one.offset, one.dims)

    inputs = tuple(Input(i.name, number(i.buffer), i.shape) for i in draft.inputs)
    finished = tuple(_without_batch(op, row) for op in operations)
    output = row(draft.output)
    return Program(tuple(draft.buffers[old] for old in numbers), inputs, output, finished)


def _live(draft: Draft) -> list[Operation]:
    assert draft.output is not None
    wanted = {draft.output.buffer}
    out = []
    for op in reversed(draft.operations):
        if op.output.buffer in wanted:
            wanted.update(view.buffer for view in op.reads)
            out.append(op)
    out.reverse()
    return out


def _row(view: View) -> View:
    """A view without the batch."""
    place = batch_place(view)
    if place is None:
        return view
    i, dims = place[0], view.dims
    rest = merged(atom for atom in dims[i] if atom[1] != ROW) if len(dims[i]) > 1 else ()
    return View(view.buffer, view.offset, (*dims[:i], rest, *dims[i + 1 :]) if rest else (*dims[:i], *dims[i + 1 :]))


def _without_batch(op: Operation, row: Callable[[View], View]) -> Operation:
    x = op.inputs[0]
    place = batch_place(x)
    gone = place[0] if place is not None and len(x.dims[place[0]]) == 1 else None

    def axes(given: tuple[int, ...]) -> tuple[int, ...]:
        return given if gone is None else tuple(a - (a > gone) for a in given)

    def stage(one: Stage) -> Stage:
        if isinstance(one, Binary) and isinstance(one.operand, View):
            return Binary(one.function, row(one.operand))
        return Norm(one.kind, axes(one.axes), one.groups, one.epsilon) if isinstance(one, Norm) else one

    kind = op.kind
    if isinstance(kind, Reduce):
        kind = dataclasses.replace(kind, axes=axes(kind.axes))
    elif isinstance(kind, Softmax | Resize):
        kind = dataclasses.replace(kind, axis=axes((kind.axis,))[0])
    return Operation(
        kind, tuple(map(row, op.inputs)), row(op.output), tuple(map(stage, op.prologue)), tuple(map(stage, op.epilogue)), op.source
    )
