"""NumPy evaluation of what depends on no input, such as the arithmetic of shapes.

The size of each result is counted before it is made: at most 64 MiB in total.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..errors import ArtifactError
from .call import Call
from .operators.shape import split_sizes, target_shape

_Function = Callable[[Call], np.ndarray | tuple[np.ndarray, ...]]

FOLDED: dict[str, _Function] = {}

_TYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64",
    12: "uint32", 13: "uint64",
}  # fmt: skip


def _folds(*operators: str) -> Callable[[_Function], _Function]:
    def register(function: _Function) -> _Function:
        FOLDED.update(dict.fromkeys(operators, function))
        return function

    return register


def _arrays(call: Call) -> list[np.ndarray]:
    return [call.constant(i) for i in range(len(call.node.inputs))]


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind == "f":
        return a / b
    if not b.all():
        raise ArtifactError("the graph divides by zero in its shapes.")
    return np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))  # towards zero


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


_ELEMENTWISE: dict[str, Callable[..., np.ndarray]] = {
    "Abs": np.abs, "Add": np.add, "And": np.logical_and, "Ceil": np.ceil, "Cos": np.cos, "Div": _divide, "Equal": np.equal,
    "Exp": np.exp, "Floor": np.floor, "Greater": np.greater, "GreaterOrEqual": np.greater_equal, "Less": np.less,
    "LessOrEqual": np.less_equal, "Log": np.log, "Max": np.maximum, "Min": np.minimum, "Mul": np.multiply, "Neg": np.negative,
    "Not": np.logical_not, "Or": np.logical_or, "Reciprocal": np.reciprocal, "Round": np.round, "Sigmoid": _sigmoid,
    "Sign": np.sign, "Sin": np.sin, "Sqrt": np.sqrt, "Sub": np.subtract, "Tan": np.tan, "Tanh": np.tanh, "Where": np.where,
    "Xor": np.logical_xor,
}  # fmt: skip


# NumPy's float32 forms of these differ in the last place between processors. In float64, rounded once, they do not.
_IN_FLOAT64 = ("Cos", "Exp", "Log", "Sigmoid", "Sin", "Tan", "Tanh")


@_folds(*_ELEMENTWISE)
def _elementwise(call: Call) -> np.ndarray:
    arrays = _arrays(call)
    call.lowering.reserve(math.prod(np.broadcast_shapes(*(a.shape for a in arrays))))
    function = _ELEMENTWISE[call.node.op]
    if call.node.op in ("Max", "Min"):
        out = arrays[0]
        for array in arrays[1:]:
            out = function(out, array)
        return out
    if call.node.op in _IN_FLOAT64:
        return np.asarray(function(arrays[0].astype(np.float64))).astype(arrays[0].dtype)
    return np.asarray(function(*arrays))


@_folds("Pow")
def _pow(call: Call) -> np.ndarray:
    x, y = _arrays(call)
    call.lowering.reserve(math.prod(np.broadcast_shapes(x.shape, y.shape)))
    return np.power(x.astype(np.float64), y).astype(x.dtype)


@_folds("Mod")
def _mod(call: Call) -> np.ndarray:
    x, y = _arrays(call)
    call.lowering.reserve(math.prod(np.broadcast_shapes(x.shape, y.shape)))
    return np.fmod(x, y) if call.integer("fmod") else np.mod(x, y)


@_folds("Cast")
def _cast(call: Call) -> np.ndarray:
    call.ignore("saturate", "round_mode")
    kind = call.integer("to")
    if kind not in _TYPES:
        raise call.unsupported(f"to the type {kind}")
    array = call.constant(0)
    call.lowering.reserve(array.size)
    return array.astype(_TYPES[kind])


@_folds("Shape")
def _shape(call: Call) -> np.ndarray:
    sizes = np.array(call.constant(0).shape, np.int64)
    return sizes[call.integer("start", 0) : call.integer("end", len(sizes))]


@_folds("Constant")
def _constant(call: Call) -> np.ndarray:
    return call.literal()


@_folds("ConstantOfShape")
def _constant_of_shape(call: Call) -> np.ndarray:
    shape = call.integers_of(0)
    fill = call.array("value")
    if any(n < 0 for n in shape):
        raise call.malformed(f"makes the shape {list(shape)[:20]}")
    call.lowering.reserve(math.prod(shape))
    return np.zeros(shape, np.float32) if fill is None else np.full(shape, fill.reshape(()), fill.dtype)


@_folds("Range")
def _range(call: Call) -> np.ndarray:
    start, limit, delta = (call.constant(i).reshape(()) for i in range(3))
    if delta == 0 or not np.isfinite([start, limit, delta]).all():
        raise call.malformed(f"has the step {delta}")
    count = max(int(np.ceil((float(limit) - float(start)) / float(delta))), 0)
    call.lowering.reserve(count)
    return (start + np.arange(count) * delta).astype(start.dtype)


@_folds("Identity")
def _identity(call: Call) -> np.ndarray:
    return call.constant(0)


@_folds("Reshape")
def _reshape(call: Call) -> np.ndarray:
    array = call.constant(0)
    return array.reshape(target_shape(call, array.shape))


@_folds("Flatten")
def _flatten(call: Call) -> np.ndarray:
    array, axis = call.constant(0), call.integer("axis", 1)
    return array.reshape(math.prod(array.shape[:axis]), -1)


@_folds("Size")
def _size(call: Call) -> np.ndarray:
    return np.array(call.constant(0).size, np.int64)


@_folds("Transpose")
def _transpose(call: Call) -> np.ndarray:
    return call.constant(0).transpose(call.integers("perm"))


@_folds("Unsqueeze")
def _unsqueeze(call: Call) -> np.ndarray:
    return np.expand_dims(call.constant(0), call.integers_of(1))


@_folds("Squeeze")
def _squeeze(call: Call) -> np.ndarray:
    return np.squeeze(call.constant(0), call.integers_of(1) if call.has(1) else None)


@_folds("Expand")
def _expand(call: Call) -> np.ndarray:
    array = call.constant(0)
    shape = np.broadcast_shapes(array.shape, call.integers_of(1))
    call.lowering.reserve(math.prod(shape))
    return np.broadcast_to(array, shape)


@_folds("Tile")
def _tile(call: Call) -> np.ndarray:
    array, counts = call.constant(0), call.integers_of(1)
    call.lowering.reserve(array.size * math.prod(max(n, 0) for n in counts))
    return np.tile(array, counts)


@_folds("Concat")
def _concat(call: Call) -> np.ndarray:
    arrays = _arrays(call)
    call.lowering.reserve(sum(a.size for a in arrays))
    return np.concatenate(arrays, call.integer("axis"))


@_folds("Gather")
def _gather(call: Call) -> np.ndarray:
    table, indices = call.constant(0), call.constant(1)
    axis = call.axis(call.integer("axis"), table.ndim)
    call.lowering.reserve(table.size // max(table.shape[axis], 1) * indices.size)
    return np.take(table, indices, axis)


@_folds("Slice")
def _slice(call: Call) -> np.ndarray:
    array = call.constant(0)
    starts, ends = call.integers_of(1), call.integers_of(2)
    axes = call.integers_of(3) if call.has(3) else range(len(starts))
    steps = call.integers_of(4) if call.has(4) else (1,) * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = call.axis(axis, array.ndim)
        taken = slice(start, end if end >= -(1 << 62) or step > 0 else None, step)
        array = array[(*[slice(None)] * axis, taken)]
    return array


@_folds("Split")
def _split(call: Call) -> tuple[np.ndarray, ...]:
    array = call.constant(0)
    axis = call.axis(call.integer("axis"), array.ndim)
    sizes = split_sizes(call, array.shape[axis])
    return tuple(np.split(array, np.cumsum(sizes)[:-1], axis))


@_folds("Clip")
def _clip(call: Call) -> np.ndarray:
    array = call.constant(0)
    call.lowering.reserve(array.size)
    for index, function in ((1, np.maximum), (2, np.minimum)):
        array = function(array, call.constant(index)) if call.has(index) else array
    return array


@_folds("ReduceProd", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceMean")
def _reduce(call: Call) -> np.ndarray:
    array = call.constant(0)
    axes = call.integers_of(1) if call.has(1) else call.integers("axes")
    keep = bool(call.integer("keepdims", 1))
    if not axes and call.integer("noop_with_empty_axes"):
        return array
    reduce = getattr(np, call.node.op.removeprefix("Reduce").lower())
    return np.asarray(reduce(array, axis=axes or None, keepdims=keep), array.dtype)


@_folds("CumSum")
def _cumulative_sum(call: Call) -> np.ndarray:
    array, axis = call.constant(0), call.constant(1)
    if call.integer("exclusive") or call.integer("reverse"):
        raise call.unsupported("exclusive or reverse")
    call.lowering.reserve(array.size)
    return np.cumsum(array, int(axis), dtype=array.dtype)


@_folds("Trilu")
def _triangle(call: Call) -> np.ndarray:
    array = call.constant(0)
    k = int(call.constant(1)) if call.has(1) else 0
    call.lowering.reserve(array.size)
    return np.triu(array, k) if call.integer("upper", 1) else np.tril(array, k)
