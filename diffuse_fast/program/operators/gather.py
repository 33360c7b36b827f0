"""Gather: rows of a table by labels, and elements at constant positions."""

from __future__ import annotations

import numpy as np

from .. import views
from ..call import Call
from ..lowering import Tensor, Value
from ..program import Gather, Level, View
from .registry import handles


@handles("Gather")
def gather(call: Call) -> Value:
    table, indices = call.tensor(0), call.value(1)
    axis = call.axis(call.integer("axis"), len(table.shape))
    if isinstance(indices, Tensor):
        if indices.dtype == "float32" or call.lowering.level(table.view) != Level.CONSTANT:
            raise call.unsupported("the table or its indices are computed while the network runs")
        return Tensor(_rows(call, table.view, indices.view, axis), table.dtype)
    size = table.shape[axis]
    if indices.dtype.kind not in "iu" or indices.size == 0 or indices.min() < -size or indices.max() >= size:
        raise call.malformed(f"has indices outside of {size} elements")
    taken = call.lowering.select(table.view, axis, np.where(indices < 0, indices + size, indices).ravel())
    if indices.ndim == 0:
        return Tensor(views.squeeze(taken, (axis,)), table.dtype)
    if indices.ndim > 1:
        taken = call.lowering.reshape(taken, (*table.shape[:axis], *indices.shape, *table.shape[axis + 1 :]))
    return Tensor(taken, table.dtype)


def _rows(call: Call, table: View, indices: View, axis: int) -> View:
    rank = len(table.dims)
    table = views.permute(table, (axis, *(i for i in range(rank) if i != axis)))
    dims = [*indices.dims, *table.dims[1:]]
    found = call.lowering.emit(Gather(), (table, indices), views.new_dims(range(len(dims)), dims))
    places = list(range(len(indices.dims)))
    rest = list(range(len(indices.dims), len(dims)))
    return views.permute(found, (*rest[:axis], *places, *rest[axis:]))
