"""Matrix products: MatMul, Gemm and Einsum. A product with a weight is a Linear, one of two results a Product."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import views
from ..call import Call
from ..lowering import Tensor, Value
from ..program import Binary, Level, Linear, Product, Stage, View
from ..views import Dim
from .reduce import reduce
from .registry import handles


@handles("MatMul")
def matmul(call: Call) -> Value:
    a, b = call.view(0), call.view(1)
    if not a.dims or not b.dims:
        raise call.malformed("multiplies a number")
    left, right = len(a.dims) == 1, len(b.dims) == 1
    a = views.unsqueeze(a, (0,)) if left else a
    b = views.unsqueeze(b, (1,)) if right else b
    result = multiply(call, a, b)
    if right:
        result = views.squeeze(result, (len(result.dims) - 1,))
    if left:
        result = views.squeeze(result, (len(result.dims) - (1 if right else 2),))
    return Tensor(result)


def multiply(call: Call, a: View, b: View) -> View:
    """a (..., i, k) times b (..., k, j), with broadcasting."""
    lowering = call.lowering
    if a.shape[-1] != b.shape[-2]:
        raise call.malformed(f"multiplies {list(a.shape)} by {list(b.shape)}")
    if lowering.level(b) == Level.CONSTANT and not any(b.dims[:-2]):
        weight = views.permute(View(b.buffer, b.offset, b.dims[-2:]), (1, 0))
        a = views.unsqueeze(a, range(len(b.dims) - len(a.dims)))
        return linear(call, a, weight)
    rank = max(len(a.dims), len(b.dims))
    a, b = (views.unsqueeze(x, range(rank - len(x.dims))) for x in (a, b))
    lead = [lowering.broadcast([a.dims[i], b.dims[i]]) for i in range(rank - 2)]
    a, b = (views.expand(x, [*lead, *x.dims[-2:]]) for x in (a, b))
    return product(call, a, b)


def linear(call: Call, x: View, weight: View, bias: View | None = None, epilogue: Sequence[Stage] = ()) -> View:
    """x (..., k) times weight (n, k)."""
    dims = [*x.dims[:-1], weight.dims[0] and ((weight.shape[0], 1),)]
    inputs = (x, weight) if bias is None else (x, weight, bias)
    return call.lowering.emit(Linear(), inputs, views.new_dims(range(len(dims)), dims), (), epilogue)


def product(call: Call, a: View, b: View) -> View:
    """a (..., i, k) times b (..., k, j); both have the same leading dimensions."""
    for x, axis in ((a, -1), (b, -2)):
        if views.batch_place(View(0, 0, (x.dims[axis],))):
            raise call.unsupported("it sums over the batch")
    dims: list[Dim] = [*a.dims[:-1], b.dims[-1]]
    return call.lowering.emit(Product(), (a, b), views.new_dims(range(len(dims)), dims))


@handles("Gemm")
def gemm(call: Call) -> Value:
    lowering = call.lowering
    a, b, c = call.view(0), call.view(1), call.optional(2)
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    a = views.permute(a, (1, 0)) if call.integer("transA") else a
    weight = b if call.integer("transB") else views.permute(b, (1, 0))
    if len(a.dims) != 2 or len(weight.dims) != 2 or a.shape[1] != weight.shape[1]:
        raise call.malformed(f"multiplies {list(a.shape)} by {list(weight.shape)}, transposed")
    bias = None
    if c is not None and alpha == beta == 1 and lowering.level(c) == Level.CONSTANT and not any(c.dims[:-1]):
        bias = views.squeeze(c, range(len(c.dims) - 1)) if c.shape and c.shape[-1] == weight.shape[0] else None
    if lowering.level(weight) == Level.CONSTANT:
        result = linear(call, a, weight, bias)
    else:
        result, bias = product(call, a, views.permute(weight, (1, 0))), None
    if alpha != 1:
        result = lowering.map(result, Binary("multiply", alpha))
    if c is not None and bias is None and beta != 0:
        result = lowering.binary("add", result, c if beta == 1 else lowering.map(c, Binary("multiply", beta)))
    return Tensor(result)


@handles("Einsum")
def einsum(call: Call) -> Value:
    equation = call.text("equation").replace(" ", "")
    operands = [call.view(i) for i in range(len(call.node.inputs))]
    terms, result = _labels(call, equation, operands)
    if len(operands) == 1:
        return Tensor(_one(call, operands[0], terms[0], result))
    if len(operands) != 2:
        raise call.unsupported(f"{len(operands)} operands")
    return Tensor(_two(call, operands[0], operands[1], terms, result))


def _labels(call: Call, equation: str, operands: list[View]) -> tuple[list[str], str]:
    """The labels of each operand and of the result, with an ellipsis as digits."""
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(operands):
        raise call.malformed(f"has the equation {equation[:100]!r}")
    wide = 0
    for term, x in zip(terms, operands, strict=True):
        wide = max(wide, len(x.dims) - len(term.replace("...", ""))) if "..." in term else wide
    digits = "0123456789"[: max(wide, 0)]
    full = []
    for term, x in zip(terms, operands, strict=True):
        count = len(x.dims) - len(term.replace("...", ""))
        full.append(term.replace("...", digits[len(digits) - count :] if count else ""))
    if not arrow:
        every = "".join(full)
        result = digits + "".join(sorted(c for c in set(every) if every.count(c) == 1 and not c.isdigit()))
    result = result.replace("...", digits)
    labels = set("".join(full))
    wrong = any(len(set(t)) != len(t) or len(t) != len(x.dims) for t, x in zip(full, operands, strict=True))
    if (
        wrong
        or len(set(result)) != len(result)
        or not set(result) <= labels
        or any(not (c.isalpha() or c.isdigit()) for c in labels)
    ):
        raise call.unsupported(f"equation {equation[:100]!r}")
    return full, result


def _one(call: Call, x: View, term: str, result: str) -> View:
    summed = tuple(i for i, c in enumerate(term) if c not in result)
    if summed:
        x = views.squeeze(reduce(call, x, "sum", summed), summed)
        term = "".join(c for c in term if c in result)
    return views.permute(x, [term.index(c) for c in result])


def _two(call: Call, a: View, b: View, terms: list[str], result: str) -> View:
    lowering = call.lowering
    a_labels, b_labels = terms
    # A label that only one operand has and the result lacks is summed first.
    for label in sorted(set(a_labels) ^ set(b_labels)):
        if label not in result:
            if label in a_labels:
                a, a_labels = _one(call, a, a_labels, a_labels.replace(label, "")), a_labels.replace(label, "")
            else:
                b, b_labels = _one(call, b, b_labels, b_labels.replace(label, "")), b_labels.replace(label, "")
    shared = [c for c in result if c in a_labels and c in b_labels]
    rows = [c for c in result if c in a_labels and c not in b_labels]
    columns = [c for c in result if c in b_labels and c not in a_labels]
    summed = [c for c in a_labels if c in b_labels and c not in result]
    sizes = {c: a.dims[a_labels.index(c)] for c in a_labels}
    for c in b_labels:
        sizes[c] = lowering.broadcast([sizes.get(c, ()), b.dims[b_labels.index(c)]])
    a = views.expand(a, [sizes[c] for c in a_labels])
    b = views.expand(b, [sizes[c] for c in b_labels])
    left = views.join(a, [*([a_labels.index(c)] for c in shared), *_places(a_labels, rows, summed)])
    right = views.join(b, [*([b_labels.index(c)] for c in shared), *_places(b_labels, summed, columns)])
    if not shared and lowering.level(b) == Level.CONSTANT:
        found = linear(call, left, views.permute(right, (1, 0)))
    else:
        found = product(call, left, right)
    order = [*shared, *rows, *columns]
    split = lowering.reshape(found, [int(np.prod([n for n, _ in sizes[c]], dtype=np.int64)) for c in order])
    return views.permute(split, [order.index(c) for c in result])


def _places(labels: str, *groups: list[str]) -> list[list[int]]:
    return [[labels.index(c) for c in group] for group in groups]
