"""Norms that a graph spells out: x / sqrt(mean(x^2) + epsilon) and the like."""

from __future__ import annotations

from .. import views
from ..draft import ROW
from ..lowering import Lowering
from ..program import Binary, Norm, Reduce, Unary, View


def normalized(lowering: Lowering, function: str, a: View, b: View) -> View | None:
    """The norm that ``function`` of a and b completes; None if there is none."""
    if function == "divide":
        return _divided(lowering, a, _small(a, b))
    if function == "multiply":
        for x, factor in ((a, b), (b, a)):
            divisor = _inverse(lowering, _small(x, factor))
            found = None if divisor is None else _divided(lowering, x, divisor)
            if found is not None:
                return found
    return None


def _small(x: View, y: View) -> View:
    """An operand with the rank of x, without its repetitions."""
    y = views.unsqueeze(y, range(len(x.dims) - len(y.dims))) if len(y.dims) < len(x.dims) else y
    return View(y.buffer, y.offset, tuple(() if all(stride == 0 for _, stride in dim) else dim for dim in y.dims))


def _inverse(lowering: Lowering, view: View) -> View | None:
    """y of a view that is 1 / y."""
    found = lowering.stage(view, Unary, "reciprocal")
    if found is None:
        found = lowering.stage(view, Binary, "reverse_divide")
        if found is None or not isinstance(found[1], Binary) or found[1].operand != 1.0:
            return None
    return found[0]


def _divided(lowering: Lowering, x: View, divisor: View) -> View | None:
    """The norm that x / divisor is."""
    least = _number(lowering, divisor, "maximum")
    root = lowering.stage(least[0] if least else divisor, Unary, "sqrt")
    if root is None:
        return None
    added = None if least else _number(lowering, root[0], "add")
    moment = lowering.writer(added[0] if added else root[0])
    if moment is None or not isinstance(moment.kind, Reduce) or moment.prologue:
        return None
    square = lowering.stage(moment.inputs[0], Binary, "multiply")
    if square is None or not isinstance(square[1], Binary) or square[0] != x or square[1].operand != x:
        return None
    axes = moment.kind.axes
    if any(stride == ROW for axis in axes for _, stride in x.dims[axis]):
        return None
    if moment.kind.function == "sum":
        return None if added else lowering.map(x, Norm("l2", axes, 1, least[1] if least else 0.0))
    if moment.kind.function != "mean" or least:
        return None
    epsilon = added[1] if added else 0.0
    centred = _centred(lowering, x, axes)
    return (
        lowering.map(x, Norm("rms", axes, 1, epsilon))
        if centred is None
        else lowering.map(centred, Norm("standard", axes, 1, epsilon))
    )


def _number(lowering: Lowering, view: View, function: str) -> tuple[View, float] | None:
    """(y, number) of a view that is ``function`` of y and a number."""
    found = lowering.stage(view, Binary, function)
    if found is None or not isinstance(found[1], Binary) or isinstance(found[1].operand, View):
        return None
    return found[0], found[1].operand


def _centred(lowering: Lowering, view: View, axes: tuple[int, ...]) -> View | None:
    """x of a view that is x - mean(x) over the axes."""
    found = lowering.stage(view, Binary, "subtract")
    if found is None or not isinstance(found[1], Binary) or not isinstance(found[1].operand, View):
        return None
    mean = lowering.writer(_small(view, found[1].operand))
    same = mean is not None and mean.kind == Reduce("mean", axes) and not mean.prologue and mean.inputs[0] == found[0]
    return found[0] if same else None
