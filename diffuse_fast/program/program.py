"""The program of a network: a short list of fused operations over strided views.

:mod:`.lower` makes it from an ONNX graph, :mod:`.fuse` shortens it, :mod:`.reference` defines what it computes and ``csrc/network``
runs it. The program does not contain the weights of the network, only their names and shapes, so a fine-tuned network has the same
program.

**Rows.** A program describes one row: one sample, or one time, or one condition. Every shape and size here is that of one row;
there is no batch. A :class:`Buffer` has a level, which says what its rows are and so how often it is computed (:class:`Level`).

**Views.** An operation reads and writes views of buffers. Reshaping, transposing, splitting, broadcasting and doubling an image by
nearest neighbours are views too, so they cost nothing.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# Raised when the words of programs or any float32 result change (tests/network/golden.py); csrc/network/program.cpp has it too.
VERSION = 1


class Level(enum.IntFlag):
    """What a value depends on, and so how often it is computed.

    ``CONSTANT`` is computed when the network is loaded, ``TIME`` once per time, ``CONDITION`` once per condition,
    ``TIME | CONDITION`` once per distinct pair of them, and everything with ``SAMPLE`` once per network call and sample.
    """

    CONSTANT = 0
    TIME = 1
    CONDITION = 2
    SAMPLE = 4

    @property
    def stage(self) -> Level:
        """The level at which an operation runs: everything with ``SAMPLE`` is ``SAMPLE``."""
        return _STAGES[self.value]


_STAGES = tuple(Level.SAMPLE if bits & 4 else Level(bits) for bits in range(8))  # operators of a Flag are slow


@dataclass(frozen=True, slots=True)
class Buffer:
    """Float32 storage.

    Attributes:
        size: Number of elements of one row.
        level: What its rows are.
        initializer: Name of the weight in the ONNX file that it holds, row-major; None for other buffers.
        values: The content of a folded constant, float32, (size,); None for other buffers.
    """

    size: int
    level: Level = Level.SAMPLE
    initializer: str | None = None
    values: np.ndarray | None = None


Atom = tuple[int, int]  # (size, stride in elements); a stride of 0 repeats


@dataclass(frozen=True, slots=True)
class View:
    """A strided view of one row of a buffer.

    Attributes:
        buffer: Index into the buffers of the program.
        offset: Element of the row at which the view begins.
        dims: For each dimension its atoms, outermost first. A dimension is the product of its atoms: ``((4, 8), (2, 0))`` has size
            8 and repeats each of four elements twice. A dimension of size 1 has no atoms; neighbours that are one stride are
            merged.
    """

    buffer: int
    offset: int
    dims: tuple[tuple[Atom, ...], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each dimension."""
        return tuple([dim[0][0] if len(dim) == 1 else math.prod([size for size, _ in dim]) for dim in self.dims])

    @property
    def last(self) -> int:
        """The largest element of the row that the view reaches. No stride is negative."""
        return self.offset + sum((size - 1) * stride for dim in self.dims for size, stride in dim)


# ---- stages -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Unary:
    """Apply a function to each element.

    Attributes:
        function: One of :data:`UNARY`.
        parameter: The slope of ``leaky_relu`` and the alpha of ``elu``; 0 for other functions.
    """

    function: str
    parameter: float = 0.0


UNARY = (
    "abs", "ceil", "cos", "elu", "erf", "exp", "floor", "gelu", "gelu_tanh", "hard_sigmoid", "leaky_relu", "log", "mish", "negate",
    "reciprocal", "relu", "round", "rsqrt", "sigmoid", "silu", "sin", "softplus", "sqrt", "tanh",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Binary:
    """Combine each element x with an operand y.

    Attributes:
        function: One of :data:`BINARY`. ``reverse_subtract`` is y - x and ``reverse_divide`` is y / x.
        operand: A number, or a view with the shape of x.
    """

    function: str
    operand: View | float


BINARY = ("add", "subtract", "reverse_subtract", "multiply", "divide", "reverse_divide", "power", "maximum", "minimum")


@dataclass(frozen=True, slots=True)
class Norm:
    """Normalise x over some of its dimensions. Scale and bias are ``multiply`` and ``add`` stages behind it.

    Attributes:
        kind: ``standard`` is (x - mean) / sqrt(variance + epsilon), ``rms`` is x / sqrt(mean(x^2) + epsilon) and ``l2`` is
            x / max(sqrt(sum(x^2)), epsilon).
        axes: The dimensions over which moments are taken: the one that is cut into groups, then the others, rising. Without
            groups, all of them rising. (A linear that reads (pixels, channels) after a group norm has axes (1, 0).)
        groups: Equal parts into which the first of the axes is cut; each part has moments of its own.
        epsilon: See ``kind``.
    """

    kind: str
    axes: tuple[int, ...]
    groups: int
    epsilon: float


NORMS = ("standard", "rms", "l2")

Stage = Unary | Binary | Norm

# ---- operations ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Map:
    """Write the input, after its prologue, to the output. Inputs: (x)."""


@dataclass(frozen=True, slots=True)
class Convolution:
    """Convolution over one or two spatial dimensions. Inputs: (x, weight) or (x, weight, bias).

    x is (channels, *spatial), the output (output channels, *output spatial); the weight is (output channels, channels / groups,
    *kernel), or (channels, output channels / groups, *kernel) if transposed, as in ONNX; the bias is (output channels,).

    Attributes:
        strides, dilations: Per spatial dimension.
        pads: Zeros (before, after) per spatial dimension; for a transposed convolution what is cut from the output instead.
        groups: Groups of channels.
        transposed: Whether it is ConvTranspose. The size of the output is that of the output view.
    """

    strides: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilations: tuple[int, ...]
    groups: int = 1
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class Linear:
    """Products of the rows of x with one or more matrices. Inputs: (x, weight, ...) or (x, weight, ..., bias, ...).

    x is (..., k), each weight (n_i, k), each bias (n_i,), and the output (..., sum of n_i): parts side by side.

    Attributes:
        parts: Number of weights.
    """

    parts: int = 1


@dataclass(frozen=True, slots=True)
class Attention:
    """softmax(scale q k^T + mask) v. Inputs: (q, k, v) or (q, k, v, mask).

    q is (..., i, d), k is (..., j, d), v is (..., j, e), the mask (..., i, j) is added, and the output is (..., i, e).

    Attributes:
        scale: Factor of the scores.
        causal: Whether query i sees the keys up to i only.
        softcap: If not 0, scores s become softcap * tanh(s / softcap), before the mask is added.
    """

    scale: float
    causal: bool = False
    softcap: float = 0.0


@dataclass(frozen=True, slots=True)
class Product:
    """Batched matrix product. Inputs: (a, b); a is (..., i, k), b is (..., k, j) and the output is (..., i, j)."""


@dataclass(frozen=True, slots=True)
class Softmax:
    """Softmax over one dimension. Inputs: (x).

    Attributes:
        axis: The dimension.
    """

    axis: int


@dataclass(frozen=True, slots=True)
class Reduce:
    """Reduce dimensions to size 1. Inputs: (x); the output has the rank of x.

    Attributes:
        function: ``sum``, ``mean``, ``max`` or ``min``.
        axes: The dimensions, rising.
    """

    function: str
    axes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pool:
    """Pooling over the spatial dimensions. Inputs: (x), (channels, *spatial).

    Attributes:
        function: ``mean`` or ``max``.
        kernel, strides: Per spatial dimension.
        pads: (before, after) per spatial dimension.
        count_padding: Whether a mean counts the padding.
    """

    function: str
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    count_padding: bool = False


@dataclass(frozen=True, slots=True)
class Resize:
    """Interpolate between pairs of elements along dimensions. Inputs: (x, first, second, weight) per resized axis.

    Along the axis, output element i is ``(1 - weight[i]) x[first[i]] + weight[i] x[second[i]]``; the tables are constants of the
    length of the output. One axis per operation: a bilinear resize is two.

    Attributes:
        axis: The dimension.
    """

    axis: int


@dataclass(frozen=True, slots=True)
class Gather:
    """Rows of a table. Inputs: (table, indices); the table is (entries, *rest), the output (*indices, *rest).

    Indices are integers stored as float32, from 0 to entries - 1; others are an error when the program runs.
    """


Kind = Map | Convolution | Linear | Attention | Product | Softmax | Reduce | Pool | Resize | Gather


@dataclass(frozen=True, slots=True)
class Operation:
    """One fused operation: output = epilogue(kind(prologue(inputs[0]), inputs[1:])). It runs once per row of its output's level.

    Attributes:
        kind: What it computes, with its parameters.
        inputs: What it reads. A view of a buffer of a lower level is read at the row that belongs to the row being computed.
        output: What it writes. Several operations may write disjoint parts of one buffer: that is how a concatenation is made.
        prologue: Stages applied to inputs[0], with operands of its shape. Only Map, Convolution, Linear, Pool, Softmax and Reduce
            have one.
        epilogue: Stages applied to the result, with operands of the output's shape; no Norm. A Map has none.
        source: The ONNX nodes that it comes from, for messages.
    """

    kind: Kind
    inputs: tuple[View, ...]
    output: View
    prologue: tuple[Stage, ...] = ()
    epilogue: tuple[Stage, ...] = ()
    source: str = ""

    @property
    def reads(self) -> Iterator[View]:
        """All views that it reads."""
        yield from self.inputs
        for stage in (*self.prologue, *self.epilogue):
            if isinstance(stage, Binary) and isinstance(stage.operand, View):
                yield stage.operand


@dataclass(frozen=True, slots=True)
class Input:
    """An input of the network.

    Attributes:
        name: Its name in the file.
        buffer: The buffer that the caller fills: row-major, integers as float32.
        shape: Its shape for one row.
    """

    name: str
    buffer: int
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """A network as fused operations.

    Attributes:
        buffers: All storage.
        inputs: The sample, the time, then the conditioning inputs.
        output: The result: all of its buffer, row-major.
        operations: In an order in which each reads only what was written before it.
    """

    buffers: tuple[Buffer, ...]
    inputs: tuple[Input, ...]
    output: View
    operations: tuple[Operation, ...]

    def at(self, level: Level) -> tuple[Operation, ...]:
        """The operations that run at one level."""
        return tuple(op for op in self.operations if self.buffers[op.output.buffer].level.stage == level)
