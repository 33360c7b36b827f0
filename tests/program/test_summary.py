"""The size of a program, counted by hand."""

from __future__ import annotations

import numpy as np

from diffuse_fast.program.program import Buffer, Input, Level, Linear, Map, Operation, Program, View
from diffuse_fast.program.summary import summarize


def test_operations_and_bytes_are_counted_by_level():
    """y = w x + t' with t' = t once per time."""
    row = lambda buffer, size: View(buffer, 0, (((size, 1),),))  # noqa: E731
    buffers = (
        Buffer(3),
        Buffer(5, Level.TIME),
        Buffer(15, Level.CONSTANT, initializer="w"),
        Buffer(5, Level.CONSTANT, values=np.zeros(5, np.float32)),
        Buffer(5, Level.TIME),
        Buffer(5),
        Buffer(5),
    )
    operations = (
        Operation(Map(), (row(1, 5),), row(4, 5)),
        Operation(Linear(), (row(0, 3), View(2, 0, (((5, 3),), ((3, 1),))), row(3, 5)), row(5, 5)),
        Operation(Map(), (row(5, 5),), row(6, 5), (), ()),
        Operation(Map(), (row(4, 5),), row(6, 5), (), ()),
    )
    program = Program(buffers, (Input("x", 0, (3,)), Input("t", 1, (5,))), row(6, 5), operations)
    found = summarize(program)
    assert found.kinds == {"map": 2, "linear": 1}
    assert found.prepared == {"load": 0, "time": 1, "condition": 0, "pair": 0}
    assert (found.weight_bytes, found.activation_bytes) == (4 * 20, 4 * 10)
    assert found.row_bytes == {"time": 4 * 5, "condition": 0, "pair": 0}
