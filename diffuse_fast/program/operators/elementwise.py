"""Operators on each element."""

from __future__ import annotations

import math

import numpy as np

from .. import views
from ..call import Call
from ..lowering import Tensor, Value
from ..program import Binary, Stage, Unary, View
from .activations import activation
from .norm_patterns import normalized
from .registry import handles

_UNARY = {
    "Abs": "abs", "Ceil": "ceil", "Cos": "cos", "Erf": "erf", "Exp": "exp", "Floor": "floor", "Log": "log", "Mish": "mish",
    "Neg": "negate", "Reciprocal": "reciprocal", "Relu": "relu", "Round": "round", "Sigmoid": "sigmoid", "Sin": "sin",
    "Softplus": "softplus", "Sqrt": "sqrt", "Tanh": "tanh",
}  # fmt: skip
_BINARY = {"Add": "add", "Sub": "subtract", "Mul": "multiply", "Div": "divide", "Pow": "power"}
_EXACT = ("add", "subtract", "multiply", "maximum", "minimum")  # functions that keep integers


@handles(*_UNARY)
def unary(call: Call) -> Value:
    return Tensor(call.lowering.unary(_UNARY[call.node.op], call.view(0)))


@handles("Gelu")
def gelu(call: Call) -> Value:
    form = call.text("approximate", "none")
    if form not in ("none", "tanh"):
        raise call.unsupported(f"approximate = {form[:20]!r}")
    return Tensor(call.lowering.unary("gelu" if form == "none" else "gelu_tanh", call.view(0)))


@handles("LeakyRelu")
def leaky_relu(call: Call) -> Value:
    return Tensor(call.lowering.unary("leaky_relu", call.view(0), call.number("alpha", 0.01)))


@handles("Elu")
def elu(call: Call) -> Value:
    return Tensor(call.lowering.unary("elu", call.view(0), call.number("alpha", 1.0)))


@handles("Celu")
def celu(call: Call) -> Value:
    alpha = call.number("alpha", 1.0)
    stages = (Binary("divide", alpha), Unary("elu", 1.0), Binary("multiply", alpha))
    return Tensor(call.lowering.map(call.view(0), *stages))


@handles("Selu")
def selu(call: Call) -> Value:
    alpha, gamma = call.number("alpha", 1.6732631921768188), call.number("gamma", 1.0507010221481323)
    return Tensor(call.lowering.map(call.view(0), Unary("elu", alpha), Binary("multiply", gamma)))


@handles("PRelu")
def prelu(call: Call) -> Value:
    x, slope = call.view(0), call.view(1)
    below = call.lowering.binary("multiply", call.lowering.map(x, Binary("minimum", 0.0)), slope)
    return Tensor(call.lowering.binary("add", call.lowering.unary("relu", x), below))


@handles("HardSigmoid")
def hard_sigmoid(call: Call) -> Value:
    return Tensor(call.lowering.map(call.view(0), *_hard_sigmoid(call.number("alpha", 0.2), call.number("beta", 0.5))))


@handles("HardSwish")
def hard_swish(call: Call) -> Value:
    x = call.view(0)
    return Tensor(call.lowering.binary("multiply", x, call.lowering.map(x, *_hard_sigmoid(1 / 6, 0.5))))


def _hard_sigmoid(alpha: float, beta: float) -> tuple[Stage, ...]:
    return Binary("multiply", alpha), Binary("add", beta), Binary("maximum", 0.0), Binary("minimum", 1.0)


@handles("Swish")
def swish(call: Call) -> Value:
    x, alpha = call.view(0), call.number("alpha", 1.0)
    if alpha == 1:
        return Tensor(call.lowering.unary("silu", x))
    gate = call.lowering.map(x, Binary("multiply", alpha), Unary("sigmoid"))
    return Tensor(call.lowering.binary("multiply", x, gate))


@handles("Softsign")
def softsign(call: Call) -> Value:
    x = call.view(0)
    return Tensor(call.lowering.binary("divide", x, call.lowering.map(x, Unary("abs"), Binary("add", 1.0))))


@handles("Clip")
def clip(call: Call) -> Value:
    x = call.tensor(0)
    view = x.view
    for index, function in ((1, "maximum"), (2, "minimum")):
        if call.has(index):
            view = combine(call, function, Tensor(view, x.dtype), call.value(index)).view
    return Tensor(view, x.dtype)


@handles("Max", "Min", "Sum", "Mean")
def several(call: Call) -> Value:
    count = len(call.node.inputs)
    function = {"Max": "maximum", "Min": "minimum"}.get(call.node.op, "add")
    result = call.tensor(0)
    for i in range(1, count):
        result = combine(call, function, result, call.value(i))
    if call.node.op == "Mean":
        return Tensor(call.lowering.map(result.view, Binary("multiply", 1 / count)))
    return result


@handles(*_BINARY)
def binary(call: Call) -> Value:
    return combine(call, _BINARY[call.node.op], call.value(0), call.value(1))


def combine(call: Call, function: str, x: Value, y: Value) -> Tensor:
    """Combine two values with broadcasting."""
    dtype = (x if isinstance(x, Tensor) else y).dtype
    dtype = dtype if isinstance(dtype, str) else dtype.name
    if dtype != "float32" and (dtype == "bool" or function not in _EXACT):
        raise call.unsupported(f"on {dtype}")
    number = _number(y, x)
    if number is not None:
        return Tensor(_with_number(call, function, _like(x, y), number), dtype)
    number = _number(x, y)
    if number is not None and (exchanged := _EXCHANGED.get(function)):
        return Tensor(_with_number(call, exchanged, _like(y, x), number), dtype)
    a, b = call.lowering.tensor(x).view, call.lowering.tensor(y).view
    if dtype == "float32":
        found = activation(call.lowering, function, a, b) or normalized(call.lowering, function, a, b)
        if found is not None:
            return Tensor(found)
    return Tensor(call.lowering.binary(function, a, b), dtype)


_EXCHANGED = {
    "add": "add", "multiply": "multiply", "maximum": "maximum", "minimum": "minimum",
    "subtract": "reverse_subtract", "divide": "reverse_divide",
}  # fmt: skip


def _number(value: Value, other: Value) -> float | None:
    """A folded constant that is one number everywhere, if the other operand has the shape of the result."""
    if isinstance(value, Tensor) or isinstance(other, np.ndarray) or value.size == 0:
        return None
    first = value.flat[0]
    if value.size > 1:
        if (
            value.shape != other.shape[len(other.shape) - value.ndim :]
            and np.broadcast_shapes(value.shape, other.shape) != other.shape
        ):
            return None
        if not (value == first).all():
            return None
    return float(first)


def _like(x: Value, number: Value) -> View:
    assert isinstance(x, Tensor)
    return views.unsqueeze(x.view, range(max(len(number.shape) - len(x.shape), 0)))


def _with_number(call: Call, function: str, x: View, number: float) -> View:
    neutral = (number == 0 and function in ("add", "subtract")) or (number == 1 and function in ("multiply", "divide", "power"))
    if neutral:
        return x
    if function == "power" and number == 0.5:
        return call.lowering.unary("sqrt", x)
    if function == "power" and number == 2:
        return call.lowering.binary("multiply", x, x)
    if function == "divide" and math.frexp(number)[0] == 0.5:
        function, number = "multiply", 1 / number  # exact, and one form for the fusion
    found = activation(call.lowering, function, x, number)
    return call.lowering.map(x, Binary(function, number)) if found is None else found
