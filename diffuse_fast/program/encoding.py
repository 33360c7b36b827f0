"""A program as 64-bit words, for the compiled core: ``csrc/network/program.cpp`` reads and checks them.

Everything is an int64; a float64 is stored by its bits. Lists are preceded by their length. Layout::

    program    MAGIC VERSION [buffer...] [input...] view(output) [operation...]
    buffer     size level source          source: 0 memory, 1 initializer, 2 values
    input      buffer                     the sample, the time, then the conditioning inputs
    view       buffer offset [dim...]
    dim        [size stride ...]          the length counts atoms
    stage      0 function parameter | 1 function number | 2 function view | 3 kind groups epsilon [axis...]
    operation  kind fields... [view...](inputs) view(output) [stage...](prologue) [stage...](epilogue)

Functions, norms and kinds are indices into the tables of :mod:`.program` and :data:`KINDS`. The fields of a kind follow in the
order of its class: a tuple as a list, pairs flattened, a flag as 0 or 1, a name as an index into the table below. Initializers and
folded constants travel beside the words, in the order of their buffers.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from .program import (
    BINARY,
    NORMS,
    UNARY,
    VERSION,
    Attention,
    Binary,
    Buffer,
    Convolution,
    Gather,
    Linear,
    Map,
    Operation,
    Pool,
    Product,
    Program,
    Reduce,
    Resize,
    Softmax,
    Stage,
    Unary,
    View,
)

MAGIC = 0x4446_5052_4F47  # "DFPROG"
KINDS = (Map, Convolution, Linear, Attention, Product, Softmax, Reduce, Pool, Resize, Gather)
REDUCTIONS = ("sum", "mean", "max", "min")  # of Reduce and Pool


def encode(program: Program) -> np.ndarray:
    """Return the program as int64 words."""
    words = [MAGIC, VERSION]
    words += [len(program.buffers), *(w for buffer in program.buffers for w in _buffer(buffer))]
    words += [len(program.inputs), *(i.buffer for i in program.inputs)]
    words += _view(program.output)
    words += [len(program.operations), *(w for op in program.operations for w in _operation(op))]
    return np.array(words, np.int64)


def _bits(number: float) -> int:
    return int(struct.unpack("<q", struct.pack("<d", number))[0])


def _buffer(buffer: Buffer) -> list[int]:
    source = 1 if buffer.initializer is not None else 2 if buffer.values is not None else 0
    return [buffer.size, int(buffer.level), source]


def _view(view: View) -> Iterator[int]:
    yield from (view.buffer, view.offset, len(view.dims))
    for dim in view.dims:
        yield len(dim)
        for atom in dim:
            yield from atom


def _stage(stage: Stage) -> list[int]:
    if isinstance(stage, Unary):
        return [0, UNARY.index(stage.function), _bits(stage.parameter)]
    if isinstance(stage, Binary):
        function = BINARY.index(stage.function)
        return [2, function, *_view(stage.operand)] if isinstance(stage.operand, View) else [1, function, _bits(stage.operand)]
    return [3, NORMS.index(stage.kind), stage.groups, _bits(stage.epsilon), len(stage.axes), *stage.axes]


def _field(content: Any) -> list[int]:
    if isinstance(content, str):
        return [REDUCTIONS.index(content)]
    if isinstance(content, float):
        return [_bits(content)]
    if isinstance(content, tuple):
        return [len(content), *(n for item in content for n in (item if isinstance(item, tuple) else (item,)))]
    return [int(content)]


def _operation(op: Operation) -> Iterator[int]:
    yield KINDS.index(type(op.kind))
    for field in dataclasses.fields(op.kind):
        yield from _field(getattr(op.kind, field.name))
    yield len(op.inputs)
    for view in op.inputs:
        yield from _view(view)
    yield from _view(op.output)
    for stages in (op.prologue, op.epilogue):
        yield len(stages)
        for stage in stages:
            yield from _stage(stage)
