"""Scales and shifts per channel that follow each other are one scale and one shift, which are computed outside the step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from ..draft import ROW, Draft
from ..program import Binary, Level, Map, Operation, Stage, View
from .numbers import factor


def compose_affine(draft: Draft) -> Draft:
    """Compose the weights of a norm with the scale and shift of the time and condition.

    ``x a + b`` and then ``y c + d``, with vectors that do not depend on the sample, become ``x (a c) + (b c + d)``.
    """
    composer = _Composer(draft)
    for op in draft.operations:
        if draft.buffers[op.output.buffer].level.stage == Level.SAMPLE:
            op = replace(op, prologue=composer.stages(op.prologue), epilogue=composer.stages(op.epilogue))
        composer.operations.append(op)
    return replace(draft, buffers=composer.draft.buffers, operations=composer.operations)


class _Composer:
    def __init__(self, draft: Draft):
        self.draft = replace(draft, buffers=list(draft.buffers))
        self.operations: list[Operation] = []
        self._known: dict[tuple[View, tuple[Stage, ...]], View] = {}

    def stages(self, stages: Sequence[Stage]) -> tuple[Stage, ...]:
        dims = [self._vector_dim(stage) for stage in stages]
        for i, stage in enumerate(stages):
            if factor(stage) is not None:  # a number belongs to the vectors next to it
                dims[i] = next((dim for dim in (*dims[max(i - 1, 0) : i], *dims[i + 1 : i + 2]) if dim is not None), None)
        runs = groupby(zip(dims, stages, strict=True), key=lambda pair: pair[0])
        return tuple(new for dim, run in runs for new in self._composed([stage for _, stage in run], dim))

    def _vector_dim(self, stage: Stage) -> int | None:
        """The dimension along which a stage multiplies or adds a vector that is computed outside the step; None for others."""
        if not isinstance(stage, Binary) or stage.function not in ("multiply", "add") or not isinstance(stage.operand, View):
            return None
        varying = [i for i, dim in enumerate(stage.operand.dims) if any(stride > 0 for _, stride in dim)]
        if len(varying) != 1 or self._level(stage.operand) == Level.SAMPLE:
            return None
        return None if any(stride == ROW for _, stride in stage.operand.dims[varying[0]]) else varying[0]

    def _level(self, view: View) -> Level:
        return self.draft.buffers[view.buffer].level.stage

    def _composed(self, stages: Sequence[Stage], dim: int | None) -> Sequence[Stage]:
        if dim is None:
            return stages
        affine = [stage if (n := factor(stage)) is None else Binary("multiply", n) for stage in stages if isinstance(stage, Binary)]
        if len(affine) == len({stage.function for stage in affine}):
            return stages
        scale: list[Binary] = []
        shift: list[Binary] = []
        for stage in affine:
            if stage.function == "multiply":
                scale.append(stage)
            if stage.function == "add" or shift:
                shift.append(stage)
        scale.sort(key=lambda stage: not isinstance(stage.operand, View))  # vectors first
        return [Binary(part[0].function, self._value(part)) for part in (scale, shift) if part]

    def _value(self, stages: Sequence[Binary]) -> View | float:
        """The operand of the first stage with the others applied to it."""
        first = stages[0].operand
        if not isinstance(first, View):
            return math.prod(stage.operand for stage in stages if not isinstance(stage.operand, View))
        if len(stages) == 1:
            return first
        rest = tuple(replace(s, operand=_narrow(s.operand)) if isinstance(s.operand, View) else s for s in stages[1:])
        key = _narrow(first), rest
        if key not in self._known:
            level = Level.CONSTANT
            for stage in stages:
                level |= self._level(stage.operand) if isinstance(stage.operand, View) else Level.CONSTANT
            batch, vector = key[0].dims
            size = math.prod(n for n, _ in vector)
            output = View(self.draft.buffer(size, level), 0, (batch, ((size, 1),)))
            self.operations.append(Operation(Map(), (key[0],), output, rest))
            self._known[key] = output
        result = self._known[key]
        dims = tuple(result.dims[1] if any(s > 0 for _, s in dim) else dim for dim in first.dims)
        return View(result.buffer, 0, dims)


def _narrow(view: View) -> View:
    """(batch, vector) of an operand that repeats a vector."""
    batch = tuple(atom for dim in view.dims for atom in dim if atom[1] == ROW)
    (vector,) = (dim for dim in view.dims if any(stride > 0 for _, stride in dim))
    return View(view.buffer, view.offset, (batch, vector))
