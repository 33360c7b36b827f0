"""Reductions and softmax."""

from __future__ import annotations

from .. import views
from ..call import Call
from ..lowering import Tensor, Value
from ..program import Reduce, Softmax, View
from .registry import handles

_FUNCTIONS = {"ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "max", "ReduceMin": "min"}


def reduce(call: Call, x: View, function: str, axes: tuple[int, ...]) -> View:
    """Reduce dimensions to size 1."""
    kept = View(x.buffer, x.offset, tuple(() if i in axes else dim for i, dim in enumerate(x.dims)))
    return call.lowering.emit(Reduce(function, axes), (x,), views.dims_like(kept))


@handles("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare")
def reduction(call: Call) -> Value:
    x = call.view(0)
    axes, keep = reduced_axes(call, len(x.dims)), call.integer("keepdims", 1)
    if not axes:
        return Tensor(x)
    operator = call.node.op
    if operator in _FUNCTIONS:
        result = reduce(call, x, _FUNCTIONS[operator], axes)
    elif operator == "ReduceL1":
        result = reduce(call, call.lowering.unary("abs", x), "sum", axes)
    else:
        result = reduce(call, call.lowering.binary("multiply", x, x), "sum", axes)
        result = call.lowering.unary("sqrt", result) if operator == "ReduceL2" else result
    return Tensor(result if keep else views.squeeze(result, axes))


def reduced_axes(call: Call, rank: int) -> tuple[int, ...]:
    """The axes of a reduction, rising; empty if it does nothing."""
    given = call.integers_of(1) if call.has(1) else call.integers("axes") or ()
    nothing = call.integer("noop_with_empty_axes")
    if not given:
        return () if nothing else tuple(range(rank))
    return tuple(sorted({call.axis(a, rank) for a in given}))


@handles("Softmax", "LogSoftmax")
def softmax(call: Call) -> Value:
    x = call.view(0)
    axis = call.axis(call.integer("axis", -1), len(x.dims))
    result = call.lowering.emit(Softmax(axis), (x,), views.dims_like(x))
    return Tensor(result if call.node.op == "Softmax" else call.lowering.unary("log", result))
