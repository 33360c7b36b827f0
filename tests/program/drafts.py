"""Drafts made by hand, and what they compute before and after fusing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from diffuse_fast.program import views
from diffuse_fast.program.draft import ROW, Draft
from diffuse_fast.program.finish import finish
from diffuse_fast.program.fuse import fuse
from diffuse_fast.program.program import Binary, Convolution, Input, Level, Linear, Map, Norm, Operation, Unary, View
from diffuse_fast.program.reference import Reference

BATCH = 997


class Maker:
    """Makes a draft with inputs x and t and weights of its own.

    Methods that add an operation return a view of its result, (batch, ...), channels innermost in memory.
    """

    def __init__(self, *shape: int, conditions: dict[str, tuple[int, ...]] | None = None):
        self.draft = Draft(BATCH)
        self.weights: dict[str, np.ndarray] = {}
        self._random = np.random.default_rng(0)
        self.x = self._input("x", shape, Level.SAMPLE)
        self.t = self._input("t", (), Level.TIME)
        self.conditions = [self._input(name, size, Level.CONDITION) for name, size in (conditions or {}).items()]

    def _input(self, name: str, shape: tuple[int, ...], level: Level) -> View:
        buffer = self.draft.buffer(math.prod(shape), level)
        self.draft.inputs.append(Input(name, buffer, shape))
        return views.row_major(buffer, (BATCH, *shape), BATCH)

    def weight(self, *shape: int) -> View:
        """A random weight."""
        name = f"w{len(self.weights)}"
        self.weights[name] = self._random.normal(size=shape)
        return views.row_major(self.draft.buffer(math.prod(shape), Level.CONSTANT, initializer=name), shape, 0)

    def add(self, kind, inputs, shape, prologue=(), epilogue=(), order=None) -> View:
        """Add an operation with a result of (batch, *shape)."""
        operands = [s.operand for s in (*prologue, *epilogue) if isinstance(s, Binary) and isinstance(s.operand, View)]
        level = Level.CONSTANT
        for view in (*inputs, *operands):
            level |= self.draft.buffers[view.buffer].level
        dims, size = views.new_dims(
            order or views.channels_last(len(shape) + 1), [((BATCH, ROW),), *(((n, 1),) if n > 1 else () for n in shape)]
        )
        output = View(self.draft.buffer(size, level.stage), 0, dims)
        self.draft.operations.append(Operation(kind, tuple(inputs), output, tuple(prologue), tuple(epilogue)))
        return output

    def map(self, x: View, *stages, order=None) -> View:
        """Apply stages."""
        return self.add(Map(), (x,), x.shape[1:], stages, order=order)

    def convolution(self, x: View, channels: int, kernel=3, stride=1, bias=True) -> View:
        """A convolution of an image, padded so that stride 1 keeps its size."""
        spatial = x.shape[2:]
        count, pad = len(spatial), kernel // 2
        kind = Convolution((stride,) * count, ((pad, pad),) * count, (1,) * count)
        inputs = (x, self.weight(channels, x.shape[1], *(kernel,) * count), *([self.weight(channels)] if bias else []))
        size = [(n + 2 * pad - kernel) // stride + 1 for n in spatial]
        return self.add(kind, inputs, (channels, *size))

    def linear(self, x: View, width: int, bias=True) -> View:
        """A linear over the last dimension."""
        inputs = (x, self.weight(width, x.shape[-1]), *([self.weight(width)] if bias else []))
        rank = len(x.dims)
        return self.add(Linear(), inputs, (*x.shape[1:-1], width), order=range(rank))

    def concatenate(self, parts: list[View], axis: int = 1) -> View:
        """Copies side by side."""
        shape = list(parts[0].shape[1:])
        shape[axis - 1] = sum(part.shape[axis] for part in parts)
        dims, size = views.new_dims(views.channels_last(len(shape) + 1), [((BATCH, ROW),), *(((n, 1),) for n in shape)])
        level = Level.CONSTANT
        for part in parts:
            level |= self.draft.buffers[part.buffer].level
        whole, start = View(self.draft.buffer(size, level.stage), 0, dims), 0
        for part in parts:
            target = views.narrow(whole, axis, start, part.shape[axis])
            self.draft.operations.append(Operation(Map(), (part,), target))
            start += part.shape[axis]
        return whole

    def finish(self, result: View) -> Draft:
        """Copy the result to the output, row-major, and return the draft."""
        self.draft.output = self.map(result, order=range(len(result.dims)))
        return self.draft


def per_channel(weight: View, x: View, axis: int = 1) -> View:
    """A vector as an operand of x that varies along one dimension."""
    dims = [views.repeated(dim) for dim in x.dims]
    dims[axis] = weight.dims[0]
    return View(weight.buffer, weight.offset, tuple(dims))


def group_norm(maker: Maker, x: View, groups: int) -> View:
    """A group norm as the lowering writes it: three maps."""
    y = maker.map(x, Norm("standard", tuple(range(1, len(x.dims))), groups, 1e-5))
    y = maker.map(y, Binary("multiply", per_channel(maker.weight(x.shape[1]), x)))
    return maker.map(y, Binary("add", per_channel(maker.weight(x.shape[1]), x)))


def silu(maker: Maker, x: View) -> View:
    return maker.map(x, Unary("silu"))


def evaluate(draft: Draft, weights, batch=3):
    """What a draft computes for a random batch of distinct times and conditions."""
    random = np.random.default_rng(1)
    x, t, *conditions = [random.normal(size=(batch, *one.shape)) for one in draft.inputs]
    return Reference(finish(draft), weights)(x, t, conditions)


def fused(maker: Maker, result: View) -> Draft:
    """Fuse, and check that the result is the same."""
    draft = maker.finish(result)
    before = replace(draft, operations=list(draft.operations))
    after = fuse(draft)
    assert draft == before  # it is left alone
    np.testing.assert_allclose(evaluate(after, maker.weights), evaluate(draft, maker.weights), rtol=1e-12, atol=1e-12)
    return after


def kinds(draft: Draft, level: Level = Level.SAMPLE) -> list[str]:
    """The kinds of the operations at one level, in order."""
    return [type(op.kind).__name__ for op in draft.operations if draft.buffers[op.output.buffer].level.stage == level]
