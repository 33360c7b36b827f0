"""Product, softmax and product as one attention, and factors of q and k as its scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ..program import Attention, Binary, Map, Norm, Operation, Product, Softmax, Stage, Unary, View
from ..views import permute, repeated
from .graph import Graph
from .numbers import factor
from .route import Route, follow_stages


def match_attention(graph: Graph, index: int) -> None:
    """Make softmax(scale q k^T + mask) v one operation, found from its softmax.

    The products may come from matmul or einsum, in any order of operands and dimensions.
    """
    softmax = graph[index]
    if softmax.epilogue:
        return
    before, after = graph.private(softmax.inputs[0], index), graph.readers(softmax.output.buffer)
    if len(before) != 1 or len(after) != 1 or graph.private(softmax.output, after[0]) != [index]:
        return
    first, last = before[0], after[0]
    if not isinstance(graph[first].kind, Product) or not isinstance(graph[last].kind, Product):
        return
    second = graph[last] if graph[last].inputs[0].buffer == softmax.output.buffer else _transposed(graph[last])
    if second.inputs[0].buffer != softmax.output.buffer:
        return  # an operand of the epilogue
    attention = _attention(graph[first], softmax, second)
    if attention is not None:
        graph.set(first, None)
        graph.set(index, None)
        graph.set(last, attention)


def _attention(first: Operation, softmax: Operation, second: Operation) -> Operation | None:
    assert isinstance(softmax.kind, Softmax)
    weights, v = second.inputs  # (..., i, j) and (..., j, e)
    over = Norm("standard", (softmax.kind.axis,), 1, 0.0)  # stands for the softmax: it too needs all of its dimension
    scores, (axis, *late) = follow_stages(softmax.output, softmax.inputs[0], (over, *softmax.prologue), weights)
    if axis != replace(over, axes=(len(weights.dims) - 1,)):
        return None
    a, b = first.inputs  # (..., i, k) and (..., k, j), in the dimensions of the first product
    shape = first.output.dims
    q_rows = View(a.buffer, a.offset, (*a.dims[:-1], repeated(shape[-1])))
    k_rows = View(b.buffer, b.offset, (*b.dims[:-2], repeated(shape[-2]), b.dims[-1]))
    (q_rows, k_rows), _ = Route(first.output, [q_rows, k_rows], []).follow(scores)
    if any(stride for _, stride in (*q_rows.dims[-1], *k_rows.dims[-2])):
        q_rows, k_rows, a, b = k_rows, q_rows, permute(b, _swap(b)), permute(a, _swap(a))
        if any(stride for _, stride in (*q_rows.dims[-1], *k_rows.dims[-2])):
            return None
    q = View(q_rows.buffer, q_rows.offset, (*q_rows.dims[:-1], a.dims[-1]))
    k = View(k_rows.buffer, k_rows.offset, (*k_rows.dims[:-2], k_rows.dims[-1], b.dims[-2]))
    _, early = follow_stages(first.output, first.output, first.epilogue, scores)
    kind, mask = _scores((*early, *late))
    if kind is None:
        return None
    source = ", ".join(op.source for op in (first, softmax, second) if op.source)
    return replace(second, kind=kind, inputs=(q, k, v, *mask), source=source)


def _scores(stages: Sequence[Stage]) -> tuple[Attention | None, tuple[View, ...]]:
    """Read the stages between the first product and the softmax: factors, a soft cap, a mask."""
    scale, softcap = 1.0, 0.0
    mask: tuple[View, ...] = ()
    for stage in stages:
        if mask:
            return None, ()
        number = factor(stage)
        if number is not None and softcap:
            softcap *= number
        elif number is not None:
            scale *= number
        elif isinstance(stage, Unary) and stage.function == "tanh" and not softcap:
            softcap = 1.0
        elif isinstance(stage, Binary) and stage.function == "add" and isinstance(stage.operand, View):
            mask = (stage.operand,)
        else:
            return None, ()
    return Attention(scale * softcap if softcap else scale, softcap=softcap), mask


def _swap(view: View) -> list[int]:
    rank = len(view.dims)
    return [*range(rank - 2), rank - 1, rank - 2]


def _transposed(op: Operation) -> Operation:
    """The product of the transposed operands in the other order, which is the transposed product."""
    a, b = op.inputs
    stages = tuple(
        Binary(s.function, permute(s.operand, _swap(s.operand))) if isinstance(s, Binary) and isinstance(s.operand, View) else s
        for s in op.epilogue
    )
    return replace(
        op, inputs=(permute(b, _swap(b)), permute(a, _swap(a))), output=permute(op.output, _swap(op.output)), epilogue=stages
    )


def absorb_scale(graph: Graph, index: int) -> None:
    """Multiply numbers by which q or k were multiplied last into the scale of the attention, at whatever level that was."""
    op = graph[index]
    assert isinstance(op.kind, Attention)
    for view in op.inputs[:2]:
        writers = graph.writers(view.buffer)
        if len(writers) != 1 or graph.reads(view.buffer) != 1:
            continue
        before = graph[writers[0]]
        stages, scale = before.prologue if isinstance(before.kind, Map) else before.epilogue, op.kind.scale
        kept = list(stages)
        while kept and (number := factor(kept[-1])) is not None:
            scale *= number
            kept.pop()
        if len(kept) == len(stages):
            continue
        is_map = isinstance(before.kind, Map)
        graph.set(writers[0], replace(before, prologue=tuple(kept)) if is_map else replace(before, epilogue=tuple(kept)))
        graph.set(index, replace(op, kind=replace(op.kind, scale=scale)))
        return


def settle_scale(graph: Graph, index: int) -> None:
    """Make a scale that is 1 / sqrt(head size) but for float32 rounding exact: exporters split it into roots in several ways."""
    op = graph[index]
    assert isinstance(op.kind, Attention)
    usual = 1 / math.sqrt(op.inputs[0].shape[-1])
    if op.kind.scale != usual and abs(op.kind.scale / usual - 1) < 1e-6:
        graph.set(index, replace(op, kind=replace(op.kind, scale=usual)))
