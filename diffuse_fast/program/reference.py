"""What a program computes, in float64 NumPy: the oracle of the compiled core.

It is written to be checked by eye, not to be fast. It follows the contract of ``csrc/network/network.h``: each level is computed at
its own rows, and an operation reads a buffer of a lower level at the row that belongs to the row being computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, ArtifactError, NetworkError
from .program import (
    Attention,
    Binary,
    Convolution,
    Gather,
    Input,
    Level,
    Linear,
    Map,
    Norm,
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

PAIR = Level.TIME | Level.CONDITION
Memory = dict[int, np.ndarray]  # buffer: its rows, (rows, size)
Rows = dict[Level, np.ndarray]  # level: which of its rows belong to the rows being computed


class Reference:
    """Interpret a program.

    Args:
        program: A finished program.
        weights: From the name of an initializer to its array, a mapping or a function. Any shape with the elements in order.

    Raises:
        ArtifactError: a view leaves its buffer, a value is read before it is written, or a weight is missing or of another size.
        NetworkError: an index of a Gather is not an integer inside the table.
    """

    def __init__(self, program: Program, weights: Mapping[str, np.ndarray] | Callable[[str], np.ndarray]):
        self.program = program
        find = weights.__getitem__ if isinstance(weights, Mapping) else weights
        self._constants: Memory = {}
        for index, buffer in enumerate(program.buffers):
            content = buffer.values if buffer.initializer is None else _weight(find, buffer.initializer)
            if content is None:
                continue
            if content.size != buffer.size:
                name = buffer.initializer or f"constant {index}"
                raise ArtifactError(f"{name!r} has {content.size} elements and the program expects {buffer.size}.")
            self._constants[index] = np.array(content, np.float64).reshape(1, -1)
        self._compute(Level.CONSTANT, self._constants, {Level.CONSTANT: np.zeros(1, int)})

    def __call__(self, x: np.ndarray, t: np.ndarray, conditions: Sequence[np.ndarray] = ()) -> np.ndarray:
        """Evaluate the network.

        Args:
            x: States, (batch, *shape of a sample).
            t: Times, (batch,) for a time without dimensions.
            conditions: For each conditioning input its values, (batch, *shape).

        Returns:
            The output, float64, (batch, *shape of the output).
        """
        times, time_row = _distinct([np.asarray(t)])
        distinct, cond_row = _distinct([np.asarray(c) for c in conditions], len(x))
        return self.run(x, self.prepare_times(times[0]), time_row, self.prepare_conditions(distinct), cond_row)

    def prepare_times(self, times: np.ndarray) -> Memory:
        """Compute what depends on the time alone, one row per time."""
        return self._prepare(Level.TIME, self.program.inputs[1:2], [times])

    def prepare_conditions(self, conditions: Sequence[np.ndarray]) -> Memory:
        """Compute what depends on the conditioning inputs alone, one row per condition."""
        return self._prepare(Level.CONDITION, self.program.inputs[2:], conditions)

    def run(
        self,
        x: np.ndarray,
        times: Memory,
        time_row: np.ndarray,
        conditions: Memory,
        cond_row: np.ndarray,
        x_row: np.ndarray | None = None,
    ) -> np.ndarray:
        """Evaluate the network at prepared times and conditions.

        Args:
            x: States.
            times, conditions: What :meth:`prepare_times` and :meth:`prepare_conditions` returned.
            time_row, cond_row: For each evaluation its row of them, (batch,).
            x_row: For each evaluation its state; None for all states in order.

        Returns:
            The output, float64, (batch, *shape of the output).
        """
        pairs, pair_row = np.unique(np.stack([time_row, cond_row], 1), axis=0, return_inverse=True)
        sample = _rows_of(self.program.inputs[0], x)
        sample = sample if x_row is None else sample[x_row]
        memory = {**self._constants, **times, **conditions, self.program.inputs[0].buffer: sample}
        rows = {Level.CONSTANT: np.zeros(1, int), Level.TIME: pairs[:, 0], Level.CONDITION: pairs[:, 1]}
        self._compute(PAIR, memory, {**rows, PAIR: np.arange(len(pairs))})
        rows = {**rows, Level.TIME: time_row, Level.CONDITION: cond_row, PAIR: pair_row, Level.SAMPLE: np.arange(len(sample))}
        self._compute(Level.SAMPLE, memory, rows)
        output = self._read(self.program.output, memory, rows)
        return np.broadcast_to(output, (len(sample), *output.shape[1:])).copy()

    def _prepare(self, level: Level, inputs: Sequence[Input], arrays: Sequence[np.ndarray]) -> Memory:
        if len(inputs) != len(arrays):
            raise ArgumentError(f"{len(arrays)} conditioning inputs were given and the network has {len(inputs)}.")
        table = {one.buffer: _rows_of(one, array) for one, array in zip(inputs, arrays, strict=True)}
        counts = {len(rows) for rows in table.values()} or {1}
        if len(counts) > 1:
            raise ArgumentError(f"the conditioning inputs have {sorted(counts)} rows and must have the same number.")
        memory = {**self._constants, **table}
        self._compute(level, memory, {Level.CONSTANT: np.zeros(1, int), level: np.arange(counts.pop())})
        return {buffer: rows for buffer, rows in memory.items() if buffer not in self._constants}

    def _compute(self, level: Level, memory: Memory, rows: Rows) -> None:
        for op in self.program.at(level):
            with np.errstate(all="ignore"):
                result = self._operation(op, memory, rows)
            self._write(op, result, memory, len(rows[level]))

    def _operation(self, op: Operation, memory: Memory, rows: Rows) -> np.ndarray:
        x, *others = (self._read(view, memory, rows) for view in op.inputs)
        for stage in op.prologue:
            x = self._stage(stage, x, memory, rows)
        y = _KINDS[type(op.kind)](op.kind, op, x, *others)
        for stage in op.epilogue:
            y = self._stage(stage, y, memory, rows)
        return y

    def _stage(self, stage: Stage, x: np.ndarray, memory: Memory, rows: Rows) -> np.ndarray:
        if isinstance(stage, Unary):
            return _UNARY[stage.function](x, stage.parameter)
        if isinstance(stage, Binary):
            operand = stage.operand
            return _BINARY[stage.function](x, self._read(operand, memory, rows) if isinstance(operand, View) else operand)
        return _norm(stage, x)

    def _read(self, view: View, memory: Memory, rows: Rows) -> np.ndarray:
        """Return the rows of a view that belong to the rows being computed, (rows, *shape); one row if it is a constant."""
        if view.buffer not in memory:
            raise ArtifactError(f"buffer {view.buffer} is read before it is written.")
        level = self.program.buffers[view.buffer].level.stage
        if level not in rows:
            raise ArtifactError(f"buffer {view.buffer} is of level {level!r}, which is computed later.")
        strided = _strided(view, memory[view.buffer])
        return strided.reshape(len(strided), *view.shape)[rows[level]]

    def _write(self, op: Operation, result: np.ndarray, memory: Memory, count: int) -> None:
        view = op.output
        if result.shape[1:] != view.shape:
            raise ArtifactError(f"{op.source or type(op.kind).__name__} makes {result.shape[1:]} and its view is {view.shape}.")
        if view.buffer not in memory:
            memory[view.buffer] = np.full((count, self.program.buffers[view.buffer].size), np.nan)
        target = _strided(view, memory[view.buffer])
        target[...] = np.broadcast_to(result, (count, *view.shape)).reshape(target.shape)


def _weight(find: Callable[[str], np.ndarray], name: str) -> np.ndarray:
    try:
        return np.asarray(find(name))
    except KeyError:
        raise ArtifactError(f"the weight {name!r} is missing.") from None


def _distinct(arrays: Sequence[np.ndarray], count: int = 1) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the distinct rows of arrays that belong together, and for each row which of them it is."""
    if not arrays:
        return [], np.zeros(count, int)
    flat = np.concatenate([a.reshape(len(a), -1).astype(np.float64) for a in arrays], 1)
    _, first, row = np.unique(flat, axis=0, return_index=True, return_inverse=True)
    return [a[first] for a in arrays], row


def _rows_of(one: Input, array: np.ndarray) -> np.ndarray:
    """Return the values of an input as rows of its buffer."""
    array = np.asarray(array)
    if array.ndim == 0 or array.shape[1:] != one.shape or not len(array):
        raise ArgumentError(f"{one.name!r} has shape {array.shape} and must have (batch, {', '.join(map(str, one.shape))}).")
    return array.reshape(len(array), -1).astype(np.float64)


def _strided(view: View, buffer: np.ndarray) -> np.ndarray:
    """Return the atoms of a view as dimensions, (rows, *atoms), without a copy."""
    atoms = [atom for dim in view.dims for atom in dim]
    if view.offset < 0 or view.last >= buffer.shape[1] or any(size < 1 or stride < 0 for size, stride in atoms):
        raise ArtifactError(f"a view of buffer {view.buffer} reaches outside its {buffer.shape[1]} elements: {view}.")
    step, item = buffer.strides
    return np.lib.stride_tricks.as_strided(
        buffer[:, view.offset :], (len(buffer), *(size for size, _ in atoms)), (step, *(stride * item for _, stride in atoms))
    )


# ---- stages -------------------------------------------------------------------------------------


def _sigmoid(x: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, small) / (1 + small)


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, x)


_erf = np.vectorize(math.erf, otypes=[np.float64])
_SQRT_2_OVER_PI = math.sqrt(2 / math.pi)

_UNARY: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "abs": lambda x, _: np.abs(x),
    "ceil": lambda x, _: np.ceil(x),
    "cos": lambda x, _: np.cos(x),
    "elu": lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(x)),
    "erf": lambda x, _: _erf(x),
    "exp": lambda x, _: np.exp(x),
    "floor": lambda x, _: np.floor(x),
    "gelu": lambda x, _: x / 2 * (1 + _erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x, _: x / 2 * (1 + np.tanh(_SQRT_2_OVER_PI * (x + 0.044715 * x**3))),
    "hard_sigmoid": lambda x, _: np.clip(x / 6 + 0.5, 0, 1),
    "leaky_relu": lambda x, slope: np.where(x >= 0, x, slope * x),
    "log": lambda x, _: np.log(x),
    "mish": lambda x, _: x * np.tanh(_softplus(x)),
    "negate": lambda x, _: -x,
    "reciprocal": lambda x, _: 1 / x,
    "relu": lambda x, _: np.maximum(x, 0),
    "round": lambda x, _: np.rint(x),  # halves to even
    "rsqrt": lambda x, _: 1 / np.sqrt(x),
    "sigmoid": lambda x, _: _sigmoid(x),
    "silu": lambda x, _: x * _sigmoid(x),
    "sin": lambda x, _: np.sin(x),
    "softplus": lambda x, _: _softplus(x),
    "sqrt": lambda x, _: np.sqrt(x),
    "tanh": lambda x, _: np.tanh(x),
}

_BINARY: dict[str, Callable[[np.ndarray, np.ndarray | float], np.ndarray]] = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "reverse_subtract": lambda x, y: y - x,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / y,
    "reverse_divide": lambda x, y: y / x,
    "power": np.power,
    "maximum": np.maximum,
    "minimum": np.minimum,
}


def _norm(stage: Norm, x: np.ndarray) -> np.ndarray:
    cut = stage.axes[0] + 1  # behind the rows
    grouped = x.reshape(*x.shape[:cut], stage.groups, x.shape[cut] // stage.groups, *x.shape[cut + 1 :])
    axes = tuple(axis + 1 + (axis >= stage.axes[0]) for axis in stage.axes)  # the groups are one more dimension
    if stage.kind == "standard":
        centred = grouped - grouped.mean(axes, keepdims=True)
        grouped = centred / np.sqrt((centred**2).mean(axes, keepdims=True) + stage.epsilon)
    elif stage.kind == "rms":
        grouped = grouped / np.sqrt((grouped**2).mean(axes, keepdims=True) + stage.epsilon)
    else:
        grouped = grouped / np.maximum(np.sqrt((grouped**2).sum(axes, keepdims=True)), stage.epsilon)
    return grouped.reshape(x.shape)


# ---- kinds: each takes the kind, the operation and its inputs, (rows, *shape) ---------------------------------


def _places(starts: Iterable[int], counts: Iterable[int], strides: Iterable[int]) -> tuple[Any, ...]:
    """Return the index of ``count`` elements from ``start`` on, ``stride`` apart, in each of the last dimensions."""
    ends = zip(starts, counts, strides, strict=True)
    return (..., *(slice(start, start + (count - 1) * stride + 1, stride) for start, count, stride in ends))


def _convolution(kind: Convolution, op: Operation, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    groups, kernel, size, spatial = kind.groups, weight.shape[3:], op.output.shape[1:], x.shape[2:]
    weight = weight.reshape(len(weight), groups, weight.shape[1] // groups, *weight.shape[2:])
    before = [pad for pad, _ in kind.pads]
    if kind.transposed:
        weight = weight.swapaxes(2, 3)  # now (rows, groups, outputs of a group, inputs of a group, *kernel)
        reach = zip(spatial, kind.strides, kernel, kind.dilations, before, size, strict=True)
        sizes = [max((i - 1) * s + (k - 1) * d + 1, cut + n) for i, s, k, d, cut, n in reach]
    else:
        x = np.pad(x, [(0, 0), (0, 0), *kind.pads])
        sizes = list(size)
    rows = max(len(x), len(weight))
    y = np.zeros((rows, groups * weight.shape[2], *sizes))
    taps = np.ascontiguousarray(np.moveaxis(weight, range(4, weight.ndim), range(len(kernel))))  # of matrices that BLAS takes
    for tap in np.ndindex(*kernel):
        start = [k * d for k, d in zip(tap, kind.dilations, strict=True)]
        places = _places(start, spatial if kind.transposed else size, kind.strides)
        read, write = ((...,), places) if kind.transposed else (places, (...,))
        product = taps[tap] @ x[read].reshape(len(x), groups, x.shape[1] // groups, -1)
        y[write] += product.reshape(y[write].shape)
    if kind.transposed:
        y = y[_places(before, size, [1] * len(size))]
    return y if bias is None else y + bias.reshape(len(bias), -1, *[1] * len(size))


def _linear(kind: Linear, op: Operation, x: np.ndarray, *others: np.ndarray) -> np.ndarray:
    parts = kind.parts
    flat = x.reshape(len(x), -1, x.shape[-1])
    products = [flat @ weight.swapaxes(1, 2) for weight in others[:parts]]
    products = [p + bias[:, None] for p, bias in zip(products, others[parts:], strict=True)] if others[parts:] else products
    return np.concatenate(products, -1).reshape(-1, *x.shape[1:-1], sum(p.shape[-1] for p in products))


def _softmax(x: np.ndarray, axis: int) -> np.ndarray:
    powers = np.exp(x - x.max(axis, keepdims=True))
    return powers / powers.sum(axis, keepdims=True)


def _attention(
    kind: Attention, op: Operation, q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray | None = None
) -> np.ndarray:
    scores = kind.scale * (q @ k.swapaxes(-1, -2))
    if kind.softcap:
        scores = kind.softcap * np.tanh(scores / kind.softcap)
    if mask is not None:
        scores = scores + mask
    if kind.causal:
        scores = np.where(np.tri(*scores.shape[-2:]) > 0, scores, -np.inf)
    return _softmax(scores, -1) @ v


def _reduce(kind: Reduce, op: Operation, x: np.ndarray) -> np.ndarray:
    return getattr(np, kind.function)(x, axis=tuple(axis + 1 for axis in kind.axes), keepdims=True)


def _pool(kind: Pool, op: Operation, x: np.ndarray) -> np.ndarray:
    pads = [(0, 0), (0, 0), *kind.pads]
    taps = [_places(tap, op.output.shape[1:], kind.strides) for tap in np.ndindex(*kind.kernel)]
    if kind.function == "max":
        padded = np.pad(x, pads, constant_values=-np.inf)
        return np.max([padded[tap] for tap in taps], axis=0)
    padded, counted = np.pad(x, pads), np.pad(np.ones_like(x), pads, constant_values=float(kind.count_padding))
    return np.sum([padded[tap] for tap in taps], axis=0) / np.sum([counted[tap] for tap in taps], axis=0)


def _resize(kind: Resize, op: Operation, x: np.ndarray, first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    axis = kind.axis + 1
    ends = [np.take(x, _indices(table[0], x.shape[axis], op), axis) for table in (first, second)]
    share = weight[0].reshape(-1, *[1] * (x.ndim - axis - 1))
    return (1 - share) * ends[0] + share * ends[1]


def _gather(kind: Gather, op: Operation, table: np.ndarray, indices: np.ndarray) -> np.ndarray:
    which = _indices(indices, table.shape[1], op)
    if len(table) == 1:
        return table[0][which]
    return table[np.arange(len(table)).reshape(-1, *[1] * (which.ndim - 1)), which]


def _indices(values: np.ndarray, entries: int, op: Operation) -> np.ndarray:
    wrong = ~((values >= -entries) & (values < entries) & (values == np.floor(values)))  # NaN is wrong
    if wrong.any():
        where = op.source or type(op.kind).__name__
        raise NetworkError(
            f"{where}: {values[wrong][0]:g} is not an integer from {-entries} to {entries - 1}, an index of its table."
        )
    return values.astype(np.int64) % entries


_KINDS: dict[type, Callable[..., np.ndarray]] = {
    Map: lambda kind, op, x: x,
    Convolution: _convolution,
    Linear: _linear,
    Attention: _attention,
    Product: lambda kind, op, a, b: a @ b,
    Softmax: lambda kind, op, x: _softmax(x, kind.axis + 1),
    Reduce: _reduce,
    Pool: _pool,
    Resize: _resize,
    Gather: _gather,
}
