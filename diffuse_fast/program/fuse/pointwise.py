"""Convolutions with a kernel of one element are products of rows, so they become linears and are merged and fused as such."""

from __future__ import annotations

from dataclasses import replace

from ..program import Convolution, Linear, View
from ..views import permute
from .graph import Graph


def convolution_to_linear(graph: Graph, index: int) -> None:
    """Turn a convolution with kernel 1, stride 1 and no padding into a linear, before anything is fused with it."""
    op = graph[index]
    kind = op.kind
    assert isinstance(kind, Convolution)
    if kind.transposed or kind.groups != 1 or op.prologue or op.epilogue:
        return
    x, weight, *bias = op.inputs
    if any(size != 1 for size in (*weight.shape[2:], *kind.strides)) or any(pad for pads in kind.pads for pad in pads):
        return
    rank = len(x.dims)
    channel = rank - len(kind.strides) - 1
    order = [*range(channel), *range(channel + 1, rank), channel]
    inputs = (permute(x, order), View(weight.buffer, weight.offset, weight.dims[:2]), *bias)
    graph.set(index, replace(op, kind=Linear(), inputs=inputs, output=permute(op.output, order)))
