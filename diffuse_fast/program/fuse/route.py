"""Follow elements from one view to others of the same shape: the one tool that all passes move views with.

A value may be read through any view of its buffer: transposed, regrouped, sliced, repeated. When the value moves to other
storage, or is no longer stored because its reader computes it, every such view has to be turned into a view of something else.
``Route`` cuts the dimensions of the value into axes so fine that each has one stride in every view involved, and then reads any
other view of the same buffer as digits of these axes.

Where elements cannot be followed it raises UnsupportedError, and the pass leaves the operation as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ...errors import UnsupportedError
from ..draft import ROW
from ..program import Atom, Binary, Norm, Stage, View
from ..views import Dim, merged

Follow = Callable[[View], View]


class Route:
    """Where the elements of ``source`` lie in other views.

    Args:
        source: A view that reaches no element twice.
        others: Views of the same shape.
        norms: Normalisations over dimensions of ``source`` that shall be followed too.

    Raises:
        UnsupportedError: The atoms do not nest, or the source repeats elements.
    """

    def __init__(self, source: View, others: Sequence[View], norms: Sequence[Norm]):
        self.source, self.others, self.norms = source, others, norms
        marks = [_marks(norm, source.shape) for norm in norms]
        self.sizes: list[int] = []
        self.strides: list[int] = []  # in the source
        self.columns: list[tuple[int, ...]] = []  # in each of the others, then 0 where a norm takes moments over the axis
        for index, dim in enumerate(source.dims):
            for size, strides in _refine([dim, *(view.dims[index] for view in others), *(mark[index] for mark in marks)]):
                if strides[0] == 0:
                    raise UnsupportedError("the source repeats elements")
                self.sizes.append(size)
                self.strides.append(strides[0])
                self.columns.append(strides[1:])
        self.row = self.strides.index(ROW) if ROW in self.strides else None
        self.order = sorted((axis for axis in range(len(self.sizes)) if axis != self.row), key=lambda axis: -self.strides[axis])
        reach = None
        for axis in self.order:
            if reach is not None and self.strides[axis] * self.sizes[axis] > reach:
                raise UnsupportedError("the axes of the source do not nest")
            reach = self.strides[axis]

    def follow(self, view: View) -> tuple[list[View], list[Norm]]:
        """Turn a view of the source's buffer into views of the others, and the norms into norms over its dimensions.

        Raises:
            UnsupportedError: The view reaches elements outside the source or across its axes, or a norm does not see all of its
                elements.
        """
        digits, used = self._digits(view.offset - self.source.offset), [0] * len(self.sizes)
        dims = [[piece for atom in dim for piece in self._pieces(atom, digits, used)] for dim in view.dims]
        views = []
        for k, other in enumerate(self.others):
            offset = other.offset + sum(digit * self.columns[axis][k] for axis, digit in enumerate(digits) if digit)
            views.append(View(other.buffer, offset, tuple(self._dim(dim, k) for dim in dims)))
        first = len(self.others)
        return views, [self._norm(norm, dims, first + k, used) for k, norm in enumerate(self.norms)]

    def _digits(self, offset: int) -> list[int]:
        digits = [0] * len(self.sizes)
        if offset < 0:
            raise UnsupportedError("the view begins before the source")
        for axis in self.order:
            digits[axis], offset = divmod(offset, self.strides[axis])
            if digits[axis] >= self.sizes[axis]:
                raise UnsupportedError("the view begins outside the source")
        if offset:
            raise UnsupportedError("the view begins between elements of the source")
        return digits

    def _pieces(self, atom: Atom, digits: Sequence[int], used: list[int]) -> list[tuple[int, int | None, int]]:
        """Cut an atom into (size, axis, step along the axis); a repetition has no axis."""
        size, stride = atom
        if stride == 0:
            return [(size, None, 0)]
        if stride == ROW:
            if self.row is None:
                raise UnsupportedError("the source is the same for all samples")
            return [(size, self.row, 1)]
        pieces: list[tuple[int, int | None, int]] = []
        for axis in self.order:
            unit = self.strides[axis]
            if stride * size <= unit:
                continue
            inner = 1 if stride >= unit else unit // stride
            count, rest = divmod(size, inner)
            step, between = divmod(stride * inner, unit)
            used[axis] += (count - 1) * step
            if rest or between or digits[axis] + used[axis] >= self.sizes[axis]:
                break
            pieces.append((count, axis, step))
            size = inner
            if size == 1:
                return pieces
        raise UnsupportedError("the view runs across axes of the source")

    def _dim(self, pieces: Sequence[tuple[int, int | None, int]], k: int) -> Dim:
        atoms = []
        for size, axis, step in pieces:
            stride = 0 if axis is None else self.columns[axis][k]
            atoms.append((size, stride if stride == ROW else stride * step))
        return merged(atoms)

    def _norm(self, norm: Norm, dims: Sequence[Sequence[tuple[int, int | None, int]]], column: int, used: Sequence[int]) -> Norm:
        """Find the dimensions that hold the axes over which moments are taken, and the one of them that also tells groups apart."""
        inside = {axis for axis, column_strides in enumerate(self.columns) if column_strides[column] == 0}
        counts = dict.fromkeys(inside, 1)
        axes, cut, groups = [], None, 1
        for index, pieces in enumerate(dims):
            outer, inner = 1, False
            for size, axis, _ in pieces:
                if axis in inside:
                    counts[axis] *= size
                    inner = True
                elif axis is None:
                    if inner and norm.kind == "l2":
                        raise UnsupportedError("a sum over repeated elements")
                    outer *= 1 if inner else size
                elif inner:
                    raise UnsupportedError("a norm over the outer part of a dimension")
                else:
                    outer *= size
            if inner and outer > 1:
                if cut is not None:
                    raise UnsupportedError("a norm with groups along two dimensions")
                cut, groups = index, outer
            elif inner:
                axes.append(index)
        if not counts or any(counts[axis] != self.sizes[axis] or used[axis] != self.sizes[axis] - 1 for axis in inside):
            raise UnsupportedError("a norm over elements that the view does not reach")
        return replace(norm, axes=tuple(axes) if cut is None else (cut, *axes), groups=groups)


def follow_stages(source: View, x: View, stages: Sequence[Stage], view: View) -> tuple[View, tuple[Stage, ...]]:
    """Move stages to another view of the value that they belong to.

    Args:
        source: The value, with the shape of ``x`` and of the stages' operands.
        x: Where the result lies.
        stages: Stages between them.
        view: A view of the source's buffer.

    Returns:
        ``x`` and the stages, as ``view`` sees them.
    """
    if _same(source, view):
        return x, tuple(stages)
    operands = [stage.operand for stage in stages if isinstance(stage, Binary) and isinstance(stage.operand, View)]
    norms = [stage for stage in stages if isinstance(stage, Norm)]
    views, moved = Route(source, [x, *operands], norms).follow(view)
    rest, norm = iter(views[1:]), iter(moved)

    def move(stage: Stage) -> Stage:
        if isinstance(stage, Norm):
            return next(norm)
        if isinstance(stage, Binary) and isinstance(stage.operand, View):
            return Binary(stage.function, next(rest))
        return stage

    return views[0], tuple(move(stage) for stage in stages)


def follower(source: View, target: View) -> Follow:
    """Return a function from views of the source's buffer to views of the same elements of ``target``, which has its shape."""
    route: Route | None = None

    def follow(view: View) -> View:
        nonlocal route
        if _same(source, view):
            return target
        if route is None:
            route = Route(source, [target], [])
        return route.follow(view)[0][0]

    return follow


def _same(source: View, view: View) -> bool:
    return view.dims == source.dims and view.offset == source.offset


def _refine(dims: Sequence[Dim]) -> list[tuple[int, tuple[int, ...]]]:
    """Cut dimensions of one size where any of them has a cut: (size, the stride in each), outermost first."""
    if all(len(dim) == 1 for dim in dims):
        return [(dims[0][0][0], tuple(dim[0][1] for dim in dims))]
    rest, out = [list(dim) for dim in dims], []
    while rest[0]:
        if not all(rest):
            raise UnsupportedError("the dimensions have different sizes")
        size, strides = min(atoms[-1][0] for atoms in rest), []
        for atoms in rest:
            count, stride = atoms.pop()
            if count % size or (count > size and stride == ROW):
                raise UnsupportedError("the atoms do not nest")
            if count > size:
                atoms.append((count // size, stride * size))
            strides.append(stride)
        out.append((size, tuple(strides)))
    return out[::-1]


def _marks(norm: Norm, shape: Sequence[int]) -> list[Dim]:
    """Mark dimensions as atoms: stride 0 where a norm takes moments, 1 elsewhere."""
    marks: list[Dim] = [((size, 0 if dim in norm.axes else 1),) if size > 1 else () for dim, size in enumerate(shape)]
    cut, size = norm.axes[0], shape[norm.axes[0]]
    marks[cut] = tuple(atom for atom in ((norm.groups, 1), (size // norm.groups, 0)) if atom[0] > 1)
    return marks
