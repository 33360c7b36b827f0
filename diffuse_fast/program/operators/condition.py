"""Comparisons, and choices by them as networks need them: masks of scores, and the threshold of a softplus.

A condition is 1 or 0. A choice between two results is refused: as arithmetic it would let NaN and Inf through from the one that is
not chosen.
"""

from __future__ import annotations

import math

import numpy as np

from ..call import Call
from ..lowering import Tensor, Value
from ..program import Binary, Unary, View
from .registry import handles

_MASKED = -1e3  # a number that fills masked scores is below


@handles("Greater", "Less")
def compare(call: Call) -> Value:
    x, y = (call.lowering.tensor(call.value(i)).view for i in range(2))
    x, y = (x, y) if call.node.op == "Greater" else (y, x)
    difference = call.lowering.binary("subtract", x, y)
    steps = (Binary("maximum", 0.0), Binary("minimum", 1.0), Unary("ceil"))
    return Tensor(call.lowering.map(difference, *steps), "bool")


@handles("Not")
def negation(call: Call) -> Value:
    return Tensor(_opposite(call, _condition(call, call.value(0))), "bool")


@handles("And", "Or")
def combination(call: Call) -> Value:
    a, b = (_condition(call, call.value(i)) for i in range(2))
    return Tensor(call.lowering.binary("minimum" if call.node.op == "And" else "maximum", a, b), "bool")


@handles("Where")
def where(call: Call) -> Value:
    condition, chosen, other = (call.value(i) for i in range(3))
    if isinstance(condition, np.ndarray) and (condition.all() or not condition.any()):
        taken, left = (chosen, other) if condition.all() else (other, chosen)
        if np.broadcast_shapes(condition.shape, chosen.shape, other.shape) == taken.shape:
            return taken
        if left.shape == np.broadcast_shapes(condition.shape, chosen.shape, other.shape) and isinstance(left, Tensor):
            taken_view, _ = call.lowering.broadcast_views(call.lowering.tensor(taken).view, left.view)
            return Tensor(taken_view, call.lowering.tensor(taken).dtype)
    if (found := _softplus(call, chosen, other)) is not None:
        return found
    for scores, fill, kept in ((chosen, other, True), (other, chosen, False)):
        number = _fill(fill)
        if number is not None and number < _MASKED:
            mask = _condition(call, condition)
            return Tensor(_masked(call, scores, mask if kept else _opposite(call, mask), number))
    raise call.unsupported("it chooses between elements")


def _condition(call: Call, value: Value) -> View:
    tensor = call.lowering.tensor(value)
    if tensor.dtype != "bool":
        raise call.unsupported(f"a condition of {tensor.dtype}")
    return tensor.view


def _opposite(call: Call, condition: View) -> View:
    return call.lowering.map(condition, Binary("reverse_subtract", 1.0))


def _fill(value: Value) -> float | None:
    """A constant that is one number everywhere."""
    if isinstance(value, Tensor) or value.dtype.kind != "f" or not value.size or not (value == value.flat[0]).all():
        return None
    return float(value.flat[0])


def _masked(call: Call, scores: Value, mask: View, fill: float) -> View:
    """Scores where the mask is 1, and a low number elsewhere."""
    lowering = call.lowering
    number = _fill(scores)
    if math.isinf(fill):  # log(1) = 0 and log(0) = -inf
        added = lowering.unary("log", mask)
        return added if number == 0 else lowering.binary("add", lowering.tensor(scores).view, added)
    added = lowering.map(mask, Binary("reverse_subtract", 1.0), Binary("multiply", fill))
    return added if number == 0 else lowering.binary("add", lowering.binary("multiply", lowering.tensor(scores).view, mask), added)


def _softplus(call: Call, above: Value, below: Value) -> Value | None:
    """softplus(b x) / b, which PyTorch cuts off at a threshold: beyond it, it is x in float32."""
    node = call.lowering.producers.get(call.node.inputs[0])
    if node is None or node.op != "Greater" or not isinstance(above, Tensor) or not isinstance(below, Tensor):
        return None
    compared, threshold = call.lowering.value(node.inputs[0]), call.lowering.known(call.lowering.value(node.inputs[1]))
    if threshold is None or threshold.size != 1 or threshold.flat[0] < 16 or not isinstance(compared, Tensor):
        return None
    scaled, beta = _times(call, below.view)
    inner = call.lowering.stage(scaled, Unary, "softplus")
    if inner is None or inner[0] != compared.view:
        return None
    base, factor = _times(call, compared.view)
    matches = (base, factor) == (above.view, 1 / beta) or (compared.view == above.view and beta == 1)
    return below if matches else None


def _times(call: Call, view: View) -> tuple[View, float]:
    """(x, c) of a view that is c x."""
    for function in ("multiply", "divide"):
        found = call.lowering.stage(view, Binary, function)
        if found is not None and isinstance(found[1], Binary) and isinstance(found[1].operand, float) and found[1].operand:
            return found[0], found[1].operand if function == "multiply" else 1 / found[1].operand
    return view, 1.0
