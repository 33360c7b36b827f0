"""Random programs of one operation, over views of any layout."""

from __future__ import annotations

import math

import numpy as np

from diffuse_fast.program.program import (
    NORMS,
    UNARY,
    Attention,
    Binary,
    Buffer,
    Convolution,
    Gather,
    Input,
    Kind,
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

X, T, COND = 0, 1, 2  # buffers of the inputs
SIZE = 30_000  # elements of x and of the condition

# Functions that are defined on all numbers, so that random values do not make NaN.
TOTAL = [f for f in UNARY if f not in ("log", "rsqrt", "reciprocal", "sqrt", "exp")]
SMOOTH = [f for f in TOTAL if f not in ("ceil", "floor", "round")]


def dense(buffer: int, shape: tuple[int, ...]) -> View:
    """The row-major view of a buffer."""
    dims = [((size, math.prod(shape[i + 1 :])),) if size > 1 else () for i, size in enumerate(shape)]
    return View(buffer, 0, tuple(dims))


class Maker:
    """Makes one program.

    Attributes:
        rng: The source of all choices.
        weights: The initializers by name.
    """

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.weights: dict[str, np.ndarray] = {}
        self._buffers = [Buffer(SIZE), Buffer(1, Level.TIME), Buffer(SIZE, Level.CONDITION)]

    def flip(self, share: float = 0.5) -> bool:
        return bool(self.rng.random() < share)

    def integer(self, least: int, most: int) -> int:
        return int(self.rng.integers(least, most + 1))

    def view(self, buffer: int, shape: tuple[int, ...], size: int = SIZE, *, repeats: bool = True) -> View:
        """A view of that shape in a buffer of ``size`` elements: dimensions in any order, with gaps, cut in atoms, or repeated."""
        dims: list[tuple] = [()] * len(shape)
        stride = 1 + (self.flip(0.2))
        for d in self.rng.permutation(len(shape)):
            n = shape[d]
            if n == 1:
                continue
            if repeats and self.flip(0.15):
                dims[d] = ((n, 0),)
                continue
            if n % 2 == 0 and n > 2 and self.flip(0.2):  # doubled, or in two halves apart
                inner = (2, 0) if repeats and self.flip() else (2, stride)
                stride *= 2 if inner[1] else 1
                outer = stride + self.integer(0, 2)
                dims[d] = ((n // 2, outer), inner)
                stride = outer * (n // 2)
            else:
                dims[d] = ((n, stride),)
                stride *= n
            stride += self.integer(0, 3) * self.flip(0.3)
        view = View(buffer, 0, tuple(dims))
        assert view.last < size, (shape, view)
        return View(buffer, self.integer(0, min(size - 1 - view.last, 50)), view.dims)

    def sample(self, shape: tuple[int, ...]) -> View:
        """A view that depends on the sample, sometimes on the condition alone."""
        return self.view(X if self.flip(0.8) else COND, shape)

    def initializer(self, values: np.ndarray, shape: tuple[int, ...] | None = None) -> View:
        """A weight in any order of its dimensions."""
        shape = values.shape if shape is None else shape
        order = self.rng.permutation(len(shape))
        name = f"w{len(self.weights)}"
        self.weights[name] = np.ascontiguousarray(values.transpose(order), np.float32)
        self._buffers.append(Buffer(values.size, Level.CONSTANT, initializer=name))
        dims: list[tuple] = [()] * len(shape)
        stride = 1
        for d in reversed(order):
            if shape[d] > 1:
                dims[d] = ((shape[d], stride),)
            stride *= shape[d]
        return View(len(self._buffers) - 1, 0, tuple(dims))

    def weight(self, *shape: int) -> View:
        return self.initializer(self.rng.normal(size=shape) / math.sqrt(max(1, math.prod(shape[1:]))))

    def operand(self, shape: tuple[int, ...]) -> View | float:
        if self.flip(0.2):
            return float(np.float32(self.rng.uniform(0.5, 2)))
        if shape and self.flip(0.4):  # per channel: one dimension varies
            varies = self.integer(0, len(shape) - 1)
            return View(
                COND,
                self.integer(0, 9),
                tuple(((n, 1),) if d == varies and n > 1 else ((n, 0),) * (n > 1) for d, n in enumerate(shape)),
            )
        return self.sample(shape)

    def norm(self, shape: tuple[int, ...]) -> Norm:
        axes = [int(a) for a in self.rng.permutation(len(shape))[: self.integer(1, len(shape))]]
        groups = [g for g in range(1, shape[axes[0]] + 1) if shape[axes[0]] % g == 0]
        return Norm(str(self.rng.choice(NORMS)), (axes[0], *sorted(axes[1:])), int(self.rng.choice(groups)), 1e-5)

    def stages(self, shape: tuple[int, ...], *, norms: bool) -> tuple[Stage, ...]:
        stages: list[Stage] = []
        for _ in range(self.integer(0, 3)):
            kind = self.integer(0, 3 if norms else 2)
            if kind == 0:
                stages.append(Unary(str(self.rng.choice(SMOOTH)), 0.25))
            elif kind < 3:
                stages.append(Binary(str(self.rng.choice(["add", "multiply", "subtract", "maximum"])), self.operand(shape)))
            else:
                stages.append(self.norm(shape))
                if self.flip():
                    stages += [Binary("multiply", self.operand(shape)), Binary("add", self.operand(shape))]
                    stages += [Unary(str(self.rng.choice(["silu", "gelu", "relu", "mish"])))] * self.flip()
        return tuple(stages)

    def program(
        self, kind: Kind, inputs: tuple[View, ...], out: tuple[int, ...], *, prologue: bool = False, epilogue: bool = True
    ) -> Program:
        """The operation with random stages into a buffer of random layout, and a copy of that to the output."""
        before = self.stages(inputs[0].shape, norms=True) if prologue else ()
        after = self.stages(out, norms=False) if epilogue else ()
        self._buffers.append(Buffer(SIZE))
        middle = self.view(len(self._buffers) - 1, out, repeats=False)
        operations = [Operation(kind, inputs, middle, before, after)]
        self._buffers.append(Buffer(math.prod(out)))
        result = dense(len(self._buffers) - 1, out)
        operations.append(Operation(Map(), (middle,), result))
        names = (Input("x", X, (SIZE,)), Input("t", T, ()), Input("c", COND, (SIZE,)))
        return Program(tuple(self._buffers), names, result, tuple(operations))

    def shape(self, least: int, most: int, largest: int = 9) -> tuple[int, ...]:
        return tuple(self.integer(1, largest) for _ in range(self.integer(least, most)))

    # ---- kinds ----------------------------------------------------------------------------------

    def map(self) -> Program:
        shape = self.shape(1, 4)
        return self.program(Map(), (self.sample(shape),), shape, prologue=True, epilogue=False)

    def convolution(self, *, transposed: bool = False) -> Program:
        spatial = self.integer(1, 2)
        groups = int(self.rng.choice([1, 1, 1, 2, 3]))
        wide = self.flip(0.3) and groups == 1
        c, o = (groups * self.integer(1, 4) for _ in range(2)) if not wide else (self.integer(16, 24), self.integer(16, 40))
        size = tuple(self.integer(3, 11) for _ in range(spatial))
        if wide and self.flip():
            size, kernel, ones = (9, 10)[:spatial], (3,) * spatial, (1,) * spatial
            kind = Convolution(ones, ((1, 1),) * spatial, ones, 1, transposed)
        else:
            kernel = tuple(self.integer(1, 3) for _ in range(spatial))
            dilations = tuple(self.integer(1, 2) for _ in range(spatial))
            pads = tuple(
                (self.integer(0, (k - 1) * d), self.integer(0, (k - 1) * d)) for k, d in zip(kernel, dilations, strict=True)
            )
            strides = tuple(self.integer(1, 3) for _ in range(spatial))
            kind = Convolution(strides, pads, dilations, groups, transposed)
        out = []
        for n, k, s, (before, after), d in zip(size, kernel, kind.strides, kind.pads, kind.dilations, strict=True):
            reach = (k - 1) * d + 1
            if transposed:
                full = (n - 1) * s + reach - before - after
                out.append(max(1, full + self.integer(0, s - 1)))
            elif n + before + after < reach:
                return self.convolution(transposed=transposed)
            else:
                out.append((n + before + after - reach) // s + 1)
        weight = self.weight(c, o // groups, *kernel) if transposed else self.weight(o, c // groups, *kernel)
        inputs = (self.sample((c, *size)), weight, *([self.weight(o)] if self.flip() else []))
        return self.program(kind, inputs, (o, *out), prologue=True)

    def transposed(self) -> Program:
        return self.convolution(transposed=True)

    def linear(self) -> Program:
        lead, k, parts = self.shape(0, 2), self.integer(1, 40), self.integer(1, 3)
        columns = [self.integer(1, 40) for _ in range(parts)]
        weights = [self.weight(n, k) for n in columns]
        biases = [self.weight(n) for n in columns] if self.flip() else []
        return self.program(Linear(parts), (self.sample((*lead, k)), *weights, *biases), (*lead, sum(columns)), prologue=True)

    def attention(self) -> Program:
        lead, i, j, d, e = self.shape(0, 2, 3), self.integer(1, 37), self.integer(1, 20), self.integer(1, 17), self.integer(1, 9)
        shapes = [(*lead, i, d), (*lead, j, d), (*lead, j, e), *([(*lead, i, j)] if self.flip(0.3) else [])]
        kind = Attention(d**-0.5, self.flip(0.3), 3.0 if self.flip(0.3) else 0.0)
        return self.program(kind, tuple(self.sample(s) for s in shapes), (*lead, i, e))

    def product(self) -> Program:
        lead, i, k, j = self.shape(0, 2, 3), self.integer(1, 9), self.integer(1, 20), self.integer(1, 40)
        return self.program(Product(), (self.sample((*lead, i, k)), self.sample((*lead, k, j))), (*lead, i, j))

    def softmax(self) -> Program:
        shape = self.shape(1, 3, 20)
        return self.program(Softmax(self.integer(0, len(shape) - 1)), (self.sample(shape),), shape, prologue=True)

    def reduce(self) -> Program:
        shape = self.shape(1, 4)
        axes = tuple(sorted(int(a) for a in self.rng.permutation(len(shape))[: self.integer(1, len(shape))]))
        out = tuple(1 if d in axes else n for d, n in enumerate(shape))
        return self.program(
            Reduce(str(self.rng.choice(["sum", "mean", "max", "min"])), axes), (self.sample(shape),), out, prologue=True
        )

    def pool(self) -> Program:
        spatial, c = self.integer(1, 2), self.integer(1, 20)
        size = tuple(self.integer(4, 9) for _ in range(spatial))
        kernel = tuple(self.integer(1, 3) for _ in range(spatial))
        strides = tuple(self.integer(1, 3) for _ in range(spatial))
        pads = tuple((self.integer(0, k - 1), self.integer(0, k - 1)) for k in kernel)
        out = tuple((n + sum(p) - k) // s + 1 for n, k, s, p in zip(size, kernel, strides, pads, strict=True))
        kind = Pool(str(self.rng.choice(["mean", "max"])), kernel, strides, pads, self.flip())
        return self.program(kind, (self.sample((c, *size)),), (c, *out), prologue=True)

    def resize(self) -> Program:
        shape = self.shape(1, 3)
        axis, length = self.integer(0, len(shape) - 1), self.integer(1, 12)
        tables = [self.rng.integers(0, shape[axis], length) for _ in range(2)] + [self.rng.random(length)]
        out = tuple(length if d == axis else n for d, n in enumerate(shape))
        return self.program(Resize(axis), (self.sample(shape), *(self.initializer(table) for table in tables)), out)

    def gather(self) -> Program:
        entries, rest, indices = self.integer(2, 9), self.shape(0, 2), self.shape(0, 2, 4)
        which = self.initializer(self.rng.integers(0, entries, indices or (1,)).reshape(indices))
        return self.program(Gather(), (self.sample((entries, *rest)), which), (*indices, *rest))


KINDS = (
    "map", "convolution", "transposed", "linear", "attention", "product", "softmax", "reduce", "pool", "resize", "gather",
)  # fmt: skip


def constants(program: Program, weights: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The arrays that the core takes besides the words."""
    return [
        weights[b.initializer] if b.initializer is not None else b.values
        for b in program.buffers
        if b.initializer is not None or b.values is not None
    ]
