"""Fusion of random networks: the same result in float64, and nothing left that could be fused."""

from __future__ import annotations

import numpy as np
import pytest

from diffuse_fast.program import views
from diffuse_fast.program.finish import finish
from diffuse_fast.program.fuse import fuse
from diffuse_fast.program.program import Binary, Norm, Pool, Product, Reduce, Softmax, Unary, View
from diffuse_fast.program.reference import Reference
from tests.program.drafts import BATCH, Maker, evaluate

OPERATIONS = 14
LARGEST = 600  # elements of a value


class Network:
    """A random network: operations over random views of values that it has so far."""

    def __init__(self, seed: int):
        self.random = np.random.default_rng(seed)
        self.maker = Maker(4, 4, 6, conditions={"c": (4, 6)})
        time = self.maker.map(self.maker.linear(views.reshape(self.maker.t, (BATCH, 1)), 8), Unary("sin"))
        first = self.maker.convolution(self.maker.x, 4)
        self.values = [self.maker.x, first, first, views.reshape(time, (BATCH, 2, 4)), self.maker.conditions[0]]
        for _ in range(OPERATIONS):
            made = self.random.choice(self.MAKERS)(self, self.seen(self.pick()))
            if made is not None and np.prod(made.shape[1:]) <= LARGEST:
                self.values.append(made)
        self.draft = self.maker.finish(self.result())

    def chance(self, share: float) -> bool:
        return bool(self.random.random() < share)

    def pick(self) -> View:
        """A value, more often a late one."""
        late = int(len(self.values) * np.sqrt(self.random.random()))
        return self.values[min(late, len(self.values) - 1)]

    def seen(self, x: View) -> View:
        """A view of a value: transposed, regrouped, a part, repeated."""
        if self.chance(0.3):
            x = views.permute(x, [0, *(1 + self.random.permutation(len(x.dims) - 1))])
        if self.chance(0.3):
            sizes = [n for size in x.shape[1:] for n in ((2, size // 2) if size % 2 == 0 and self.chance(0.3) else (size,))]
            while len(sizes) > 2 and self.chance(0.4):
                at = int(self.random.integers(len(sizes) - 1))
                sizes[at : at + 2] = [sizes[at] * sizes[at + 1]]
            x = views.reshape(x, (BATCH, *sizes)) or x
        axis = int(self.random.integers(1, len(x.dims)))
        if self.chance(0.15) and x.shape[axis] > 1:
            count = int(self.random.integers(1, x.shape[axis]))
            x = views.narrow(x, axis, x.shape[axis] - count if self.chance(0.5) else 0, count) or x
        if self.chance(0.1) and np.prod(x.shape[1:]) < LARGEST / 2:
            x = views.repeat(x, axis, 2)
        return x

    def order(self, x: View):
        """A memory order for a result."""
        return [0, *(1 + self.random.permutation(len(x.dims) - 1))] if self.chance(0.3) else None

    # ---- operations -----------------------------------------------------------------------------

    def unary(self, x):
        return self.maker.map(x, Unary(str(self.random.choice(["tanh", "sin", "sigmoid", "silu"]))), order=self.order(x))

    def number(self, x):
        stage = Binary(str(self.random.choice(["add", "multiply", "subtract"])), float(self.random.choice([0.0, 0.5, 1.0])))
        return self.maker.map(x, stage, order=self.order(x))

    def copy(self, x):
        return self.maker.map(x, order=self.order(x))

    def binary(self, x):
        function = str(self.random.choice(["add", "multiply", "subtract", "maximum"]))
        if self.chance(0.4):
            axis = int(self.random.integers(1, len(x.dims)))
            dims = [views.repeated(dim) for dim in x.dims]
            dims[axis] = ((x.shape[axis], 1),) if x.shape[axis] > 1 else ()
            return self.maker.map(x, Binary(function, View(self.maker.weight(x.shape[axis]).buffer, 0, tuple(dims))))
        for y in [self.pick() for _ in range(6)]:
            y = self.seen(y)
            if y.shape == x.shape:
                return self.maker.map(x, Binary(function, y), order=self.order(x))
            if len(y.dims) == len(x.dims) == 2 or len(y.dims) >= len(x.dims):
                continue
            at = int(self.random.integers(1, len(x.dims)))
            if y.shape[-1] == x.shape[at]:  # a vector along one dimension
                while len(y.dims) > 2:
                    y = View(y.buffer, y.offset, (*y.dims[:1], *y.dims[2:]))
                dims = [views.repeated(dim) for dim in x.dims]
                dims[at] = y.dims[-1]
                return self.maker.map(x, Binary(function, View(y.buffer, y.offset, tuple(dims))))
        return None

    def norm(self, x):
        rank = len(x.dims)
        axes = sorted(int(a) for a in self.random.choice(range(1, rank), int(self.random.integers(1, rank)), replace=False))
        groups = 2 if x.shape[axes[0]] % 2 == 0 and self.chance(0.5) else 1
        return self.maker.map(x, Norm(str(self.random.choice(["standard", "rms"])), tuple(axes), groups, 1e-2), order=self.order(x))

    def linear(self, x):
        return self.maker.linear(x, int(self.random.choice([4, 6])), bias=self.chance(0.7))

    def convolution(self, x):
        if len(x.dims) not in (3, 4):
            return None
        return self.maker.convolution(
            x, int(self.random.choice([4, 6])), kernel=int(self.random.choice([1, 3])), bias=self.chance(0.7)
        )

    def softmax(self, x):
        return self.maker.add(Softmax(int(self.random.integers(1, len(x.dims)))), (x,), x.shape[1:], order=self.order(x))

    def reduce(self, x):
        axis = int(self.random.integers(1, len(x.dims)))
        y = self.maker.add(Reduce("mean", (axis,)), (x,), [1 if i == axis else n for i, n in enumerate(x.shape)][1:])
        return views.expand(y, x.dims)

    def pool(self, x):
        if len(x.dims) != 4 or min(x.shape[2:]) < 2:
            return None
        kind = Pool("mean", (2, 2), (2, 2), ((0, 0), (0, 0)))
        return self.maker.add(kind, (x,), (x.shape[1], x.shape[2] // 2, x.shape[3] // 2))

    def attention(self, x):
        """Two products around a softmax, with or without a projection."""
        if len(x.dims) < 3:
            return None
        q, k, v = (self.maker.linear(x, 4) if self.chance(0.7) else x for _ in range(3))
        if q.shape[-1] != k.shape[-1]:
            return None
        swap = [*range(len(x.dims) - 2), len(x.dims) - 1, len(x.dims) - 2]
        shape = (*x.shape[1:-1], x.shape[-2])
        s = self.maker.add(Product(), (q, views.permute(k, swap)), shape, order=range(len(x.dims)))
        s = self.maker.map(s, Binary("multiply", 0.5)) if self.chance(0.7) else s
        axis = len(x.dims) - (1 if self.chance(0.8) else 2)
        p = self.maker.add(Softmax(axis), (s,), shape, order=self.order(x))
        if self.chance(0.2):
            self.values.append(p)
        return self.maker.add(Product(), (p, v), (*x.shape[1:-1], v.shape[-1]), order=range(len(x.dims)))

    def concatenate(self, x):
        parts = [x]
        for y in [self.seen(self.pick()) for _ in range(8)]:
            if y.shape[2:] == x.shape[2:] and len(parts) < 3 and not any(y is part for part in parts):
                parts.append(y)
        self.random.shuffle(parts)
        return self.maker.concatenate(parts) if len(parts) > 1 else None

    MAKERS = (
        unary, unary, number, copy, binary, binary, norm, norm, linear, convolution, convolution, softmax, reduce, pool, attention,
        concatenate, concatenate,
    )  # fmt: skip

    def result(self) -> View:
        """The last value, or several side by side."""
        flat = []
        for value in self.values[-int(self.random.integers(1, 5)) :]:
            view = views.reshape(value, (BATCH, int(np.prod(value.shape[1:]))))
            flat.append(view)
        return self.maker.concatenate(flat) if len(flat) > 1 else flat[0]


def check(seed: int) -> int:
    network = Network(seed)
    weights = network.maker.weights
    before, after = finish(network.draft), finish(fuse(network.draft))
    expected = evaluate(network.draft, weights)
    random = np.random.default_rng(1)
    x, t, *conditions = [random.normal(size=(3, *one.shape)) for one in after.inputs]
    found = Reference(after, weights)(x, t, conditions)
    scale = max(np.abs(expected).max(), 1.0)
    assert np.isfinite(expected).all()
    assert np.abs(found - expected).max() <= 1e-10 * scale, f"seed {seed}"
    assert finish(fuse(fuse(network.draft))) == after, f"seed {seed}"
    return len(before.operations) - len(after.operations)


@pytest.mark.parametrize("start", range(0, 200, 50))
def test_random_networks(start):
    assert sum(check(seed) for seed in range(start, start + 50)) > 150
