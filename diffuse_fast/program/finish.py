"""Make a program of a draft: remove the batch from the views, and what no result needs."""

from __future__ import annotations

import dataclasses
import math

from ..errors import UnsupportedError
from .draft import ROW, Draft
from .program import Binary, Buffer, Input, Norm, Operation, Program, Reduce, Resize, Softmax, Stage, View
from .views import batch_place, merged


def finish(draft: Draft) -> Program | None:
    """The program of a draft; None if a size has the factor that stands for the batch, so that another must be taken."""
    assert draft.output is not None
    operations = _live(draft)
    if any(size % draft.batch == 0 for op in operations for view in (op.output, *op.reads) for size in _inner_sizes(view)):
        return None
    numbers: dict[int, int] = {}

    def number(buffer: int) -> int:
        return numbers.setdefault(buffer, len(numbers))

    inputs = tuple(Input(i.name, number(i.buffer), i.shape) for i in draft.inputs)
    finished = tuple(_without_batch(op, number) for op in operations)
    output = _row(draft.output, number)
    buffers = tuple(draft.buffers[old] for old in numbers)
    for op in finished:
        for view in (op.output, *op.reads):
            _check(view, buffers[view.buffer])
    return Program(buffers, inputs, output, finished)


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


def _inner_sizes(view: View) -> list[int]:
    return [size for dim in view.dims for size, stride in dim if stride != ROW]


def _row(view: View, number) -> View:  # type: ignore[no-untyped-def]
    """A view of one row."""
    place = batch_place(view)
    dims = view.dims
    if place is not None:
        i = place[0]
        rest = merged(atom for atom in dims[i] if atom[1] != ROW)
        dims = (*dims[:i], rest, *dims[i + 1 :]) if rest else (*dims[:i], *dims[i + 1 :])
    return View(number(view.buffer), view.offset, dims)


def _without_batch(op: Operation, number) -> Operation:  # type: ignore[no-untyped-def]
    x = op.inputs[0]
    place = batch_place(x)
    gone = place[0] if place is not None and all(stride == ROW for _, stride in x.dims[place[0]]) else None

    def axes(given: tuple[int, ...]) -> tuple[int, ...]:
        return given if gone is None else tuple(a - (a > gone) for a in given)

    def stage(one: Stage) -> Stage:
        if isinstance(one, Binary) and isinstance(one.operand, View):
            return Binary(one.function, _row(one.operand, number))
        return Norm(one.kind, axes(one.axes), one.groups, one.epsilon) if isinstance(one, Norm) else one

    kind = op.kind
    if isinstance(kind, Reduce):
        kind = dataclasses.replace(kind, axes=axes(kind.axes))
    elif isinstance(kind, Softmax | Resize):
        kind = dataclasses.replace(kind, axis=axes((kind.axis,))[0])
    return Operation(
        kind,
        tuple(_row(view, number) for view in op.inputs),
        _row(op.output, number),
        tuple(stage(one) for one in op.prologue),
        tuple(stage(one) for one in op.epilogue),
        op.source,
    )


def _check(view: View, buffer: Buffer) -> None:
    if view.offset < 0 or view.last >= buffer.size or math.prod(view.shape) >= 1 << 40:
        raise UnsupportedError("a view is outside of its buffer.")
