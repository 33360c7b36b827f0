"""Activations that a graph spells out: silu, mish and both forms of gelu."""

from __future__ import annotations

import math

from ..lowering import Lowering
from ..program import Binary, Unary, View

_CLOSE = 1e-5  # relative: constants of a graph are rounded to float32, sometimes from few digits


def activation(lowering: Lowering, function: str, a: View, b: View | float) -> View | None:
    """The activation that ``function`` of a and b completes; None if there is none."""
    if function != "multiply":
        return None
    if isinstance(b, View):
        for x, gate in ((a, b), (b, a)):
            if lowering.stage(gate, Unary, "sigmoid") == (x, Unary("sigmoid")):
                return lowering.unary("silu", x)
            if (inner := _before(lowering, gate, "tanh")) is not None and _before(lowering, inner, "softplus") == x:
                return lowering.unary("mish", x)
    scale, factors = _factors(lowering, a, b)
    if len(factors) == 2 and _close(scale, 0.5):
        for x, curve in (factors, factors[::-1]):
            name = _gelu(lowering, x, curve)
            if name is not None:
                return lowering.unary(name, x)
    return None


def _before(lowering: Lowering, view: View, function: str) -> View | None:
    """What a function was applied to, if a view is its result."""
    found = lowering.stage(view, Unary, function)
    return None if found is None else found[0]


def _scaled(lowering: Lowering, view: View) -> tuple[float, View]:
    """(c, x) of a view that is c x; (1, view) for others."""
    for function in ("multiply", "divide"):
        found = lowering.stage(view, Binary, function)
        if found is not None and isinstance(found[1], Binary) and isinstance(found[1].operand, float) and found[1].operand != 0:
            number = found[1].operand
            return (number if function == "multiply" else 1 / number), found[0]
    return 1.0, view


def _product(lowering: Lowering, view: View) -> tuple[View, View] | None:
    """(a, b) of a view that is a b."""
    found = lowering.stage(view, Binary, "multiply")
    if found is not None and isinstance(found[1], Binary) and isinstance(found[1].operand, View):
        return found[0], found[1].operand
    return None


def _factors(lowering: Lowering, a: View, b: View | float) -> tuple[float, list[View]]:
    """A product as a number and at most two factors that are no product with a number."""
    scale, out = 1.0, []
    for x in (a, b):
        if not isinstance(x, View):
            scale *= x
            continue
        number, x = _scaled(lowering, x)
        scale *= number
        parts = _product(lowering, x) if not isinstance(b, View) else None
        for part in parts or (x,):
            number, part = _scaled(lowering, part)
            scale *= number
            out.append(part)
    return scale, out


def _gelu(lowering: Lowering, x: View, curve: View) -> str | None:
    """The form of gelu whose last product is x (1 + f(x)); None if it is none."""
    plus = lowering.stage(curve, Binary, "add")
    if plus is None or not isinstance(plus[1], Binary) or plus[1].operand != 1.0:
        return None
    inner = _before(lowering, plus[0], "erf")
    if inner is not None:
        scale, base = _scaled(lowering, inner)
        return "gelu" if base == x and _close(scale, math.sqrt(0.5)) else None
    inner = _before(lowering, plus[0], "tanh")
    if inner is None:
        return None
    scale, polynomial = _scaled(lowering, inner)
    return "gelu_tanh" if _close(scale, math.sqrt(2 / math.pi)) and _is_polynomial(lowering, polynomial, x) else None


def _is_polynomial(lowering: Lowering, view: View, x: View) -> bool:
    """Whether a view is x + 0.044715 x^3, or x (1 + 0.044715 x^2)."""
    added = lowering.stage(view, Binary, "add")
    if added is not None and isinstance(added[1], Binary):
        return any(
            a == x and isinstance(b, View) and _is_power(lowering, b, x, 3)
            for a, b in ((added[0], added[1].operand), (added[1].operand, added[0]))
        )
    parts = _product(lowering, view)
    if parts is None or x not in parts:
        return False
    plus = lowering.stage(parts[1] if parts[0] == x else parts[0], Binary, "add")
    return plus is not None and isinstance(plus[1], Binary) and plus[1].operand == 1.0 and _is_power(lowering, plus[0], x, 2)


def _is_power(lowering: Lowering, view: View, x: View, degree: int) -> bool:
    """Whether a view is 0.044715 x^degree."""
    scale, view = _scaled(lowering, view)
    pending, count = [view], 0
    while pending and count <= degree:
        factor = pending.pop()
        if factor == x:
            count += 1
            continue
        number, factor = _scaled(lowering, factor)
        scale *= number
        power = lowering.stage(factor, Binary, "power")
        if power is not None and power[0] == x and isinstance(power[1], Binary) and power[1].operand == 3.0:
            count += 3
            continue
        if factor == x:
            count += 1
            continue
        parts = _product(lowering, factor)
        if parts is None:
            return False
        pending += parts
    return count == degree and not pending and _close(scale, 0.044715)


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= _CLOSE * abs(b)
