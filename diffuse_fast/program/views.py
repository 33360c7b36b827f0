"""Reshaping, transposing, slicing and repeating as changes of a view.

While lowering, the batch is an atom ``(prime, ROW)``. It is never cut, merged or sliced; a dimension may hold it beside other
atoms. A function returns None for a result that is no view; the caller then copies (:meth:`.lowering.Lowering.copy`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from .draft import ROW
from .program import Atom, View

Dim = tuple[Atom, ...]


def merged(atoms: Iterable[Atom]) -> Dim:
    """The atoms of a dimension without those of size 1, and with neighbours that are one stride as one atom."""
    out: list[Atom] = []
    for size, stride in atoms:
        if size == 1:
            continue
        if out and stride != ROW and out[-1][1] == size * stride:
            out[-1] = (out[-1][0] * size, stride)
        else:
            out.append((size, stride))
    return tuple(out)


def row_major(buffer: int, shape: Sequence[int], batch: int) -> View:
    """A whole buffer as an array; a first dimension of the size of the batch is the batch."""
    dims: list[Dim] = []
    stride = 1
    for i in reversed(range(len(shape))):
        size = shape[i]
        if i == 0 and size == batch:
            dims.append(((batch, ROW),))
        else:
            dims.append(((size, stride),) if size != 1 else ())
            stride *= size
    return View(buffer, 0, tuple(reversed(dims)))


def reshape(view: View, shape: Sequence[int]) -> View | None:
    """Regroup the elements, row-major as in ONNX. The sizes must have the product of the view's."""
    atoms = list(merged(atom for dim in view.dims for atom in dim))
    atoms.reverse()
    dims: list[Dim] = []
    for wanted in shape:
        dim: list[Atom] = []
        while wanted != 1:
            if not atoms:
                return None
            size, stride = atoms.pop()
            if size > wanted:  # the outer part of the atom belongs to this dimension, the rest to the next
                if size % wanted or stride == ROW:
                    return None
                atoms.append((size // wanted, stride))
                size, stride = wanted, stride * (size // wanted)
            elif wanted % size:
                return None
            dim.append((size, stride))
            wanted //= size
        dims.append(tuple(dim))
    return None if atoms else View(view.buffer, view.offset, tuple(dims))


def permute(view: View, order: Sequence[int]) -> View:
    """Reorder the dimensions."""
    return View(view.buffer, view.offset, tuple(view.dims[i] for i in order))


def narrow(view: View, axis: int, start: int, count: int, step: int = 1) -> View | None:
    """Take ``count`` elements of a dimension from ``start``, each ``step`` (at least 1) behind the last."""
    dim = view.dims[axis]
    if start == 0 and step == 1 and count == math.prod(size for size, _ in dim):
        return view
    outer, inner = dim[:1], dim[1:]
    block = math.prod(size for size, _ in inner)  # elements under one element of the outer atom
    if not outer:  # size 1
        outer = ((1, 0),)
    stride = outer[0][1]
    if stride == ROW:
        return None
    if block > 1:
        if start % block or count % block or step != 1:
            return None
        start, count = start // block, count // block
    taken = merged([(count, stride * step), *inner])
    return View(view.buffer, view.offset + start * stride, (*view.dims[:axis], taken, *view.dims[axis + 1 :]))


def unsqueeze(view: View, axes: Sequence[int]) -> View:
    """Insert dimensions of size 1; ``axes``, rising, are their places in the result."""
    dims = list(view.dims)
    for axis in axes:
        dims.insert(axis, ())
    return View(view.buffer, view.offset, tuple(dims))


def squeeze(view: View, axes: Sequence[int]) -> View:
    """Remove dimensions, which must have size 1."""
    return View(view.buffer, view.offset, tuple(dim for i, dim in enumerate(view.dims) if i not in axes))


def expand(view: View, dims: Sequence[Dim]) -> View:
    """Repeat dimensions of size 1, as NumPy broadcasts, to the sizes of ``dims``; the batch is where it is in ``dims``."""
    if len(view.dims) < len(dims):
        view = unsqueeze(view, range(len(dims) - len(view.dims)))
    out = tuple(mine or repeated(like) for mine, like in zip(view.dims, dims, strict=True))
    return View(view.buffer, view.offset, out)


def repeated(dim: Dim) -> Dim:
    """A dimension of the same size that repeats one element."""
    if not dim:
        return ()
    return merged((size, ROW if stride == ROW else 0) for size, stride in dim)


def dim_of(size: int, stride: int, batch: int) -> Dim:
    """A dimension whose size may contain the batch, which then is its outermost atom."""
    if size % batch == 0 and size:
        return merged([(batch, ROW), (size // batch, stride)])
    return ((size, stride),) if size != 1 else ()


def tile(view: View, axis: int, count: int) -> View:
    """Repeat a dimension as a whole: a b a b."""
    return _with_dim(view, axis, merged([(count, 0), *view.dims[axis]]))


def repeat(view: View, axis: int, count: int) -> View:
    """Repeat each element of a dimension: a a b b."""
    return _with_dim(view, axis, merged([*view.dims[axis], (count, 0)]))


def _with_dim(view: View, axis: int, dim: Dim) -> View:
    return View(view.buffer, view.offset, (*view.dims[:axis], dim, *view.dims[axis + 1 :]))


def join(view: View, groups: Sequence[Sequence[int]]) -> View:
    """Make each group of dimensions one dimension. A group may be empty."""
    return View(view.buffer, view.offset, tuple(merged(a for i in group for a in view.dims[i]) for group in groups))


def batch_place(view: View) -> tuple[int, int] | None:
    """The dimension that holds the batch, and how many elements the atoms inside it in that dimension have; None without batch."""
    for i, dim in enumerate(view.dims):
        for j, (_, stride) in enumerate(dim):
            if stride == ROW:
                if len(dim) == 1:  # nearly always
                    return i, 1
                return i, math.prod(size for size, _ in dim[j + 1 :])
    return None


def new_dims(order: Sequence[int], dims: Sequence[Dim]) -> tuple[tuple[Dim, ...], int]:
    """The dimensions of a new buffer that is filled without gaps, and its size.

    Args:
        order: The dimensions from the outermost in memory to the innermost.
        dims: Their sizes and the place of the batch; other atoms of a dimension become one.
    """
    out: list[Dim] = [()] * len(dims)
    stride = 1
    for i in reversed(order):
        atoms: list[Atom] = []
        for size, old in reversed(dims[i]):
            atoms.append((size, ROW if old == ROW else stride))
            stride *= 1 if old == ROW else size
        out[i] = merged(reversed(atoms))
    return tuple(out), stride


def dims_like(view: View) -> tuple[tuple[Dim, ...], int]:
    """The dimensions of a new buffer with the memory order of a view, and its size."""
    atoms = [(stride, i, j) for i, dim in enumerate(view.dims) for j, (_, stride) in enumerate(dim) if stride != ROW]
    if any(stride == 0 for stride, _, _ in atoms):
        return new_dims(memory_order(view), view.dims)
    atoms.sort(key=lambda atom: atom[0])
    out = [list(dim) for dim in view.dims]
    stride = 1
    for _, i, j in atoms:
        size = out[i][j][0]
        out[i][j] = (size, stride)
        stride *= size
    return tuple(merged(dim) for dim in out), stride


def memory_order(view: View) -> list[int]:
    """The dimensions of a view, from the outermost in memory to the innermost. Those that only repeat are outermost."""
    inner = [min((stride for _, stride in dim if stride > 0), default=1 << 62) for dim in view.dims]
    return sorted(range(len(inner)), key=lambda i: -inner[i])


def channels_last(rank: int) -> list[int]:
    """The memory order of an image (batch, channels, ...): channels innermost. Row-major below three dimensions."""
    return [0, *range(2, rank), 1] if rank > 2 else list(range(rank))
