"""Scales and shifts per channel that follow each other are one scale and one shift, which are computed outside the step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from ..draft import ROW, Draft
from ..program import Binary, Level, Map, Operation, Stage, View


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
        runs = groupby(stages, self._vector_dim)
        return tuple(stage for dim, run in runs for stage in (run if dim is None else self._composed(run)))

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

    def _composed(self, run: Iterator[Stage]) -> list[Binary]:
        stages = [stage for stage in run if isinstance(stage, Binary)]
        if len(stages) == len({stage.function for stage in stages}):
            return stages
        scale: list[Binary] = []
        shift: list[Binary] = []
        for stage in stages:
            if stage.function == "multiply":
                scale.append(stage)
            if stage.function == "add" or shift:
                shift.append(stage)
        parts = (("multiply", scale), ("add", shift))
        return [Binary(function, self._vector(part)) for function, part in parts if part]

    def _vector(self, stages: Sequence[Binary]) -> View:
        """Compute the operand of the first stage with the others applied to it."""
        first, *rest = [stage.operand for stage in stages if isinstance(stage.operand, View)]
        if not rest:
            return first
        narrow = [_narrow(view) for view in (first, *rest)]
        key = narrow[0], tuple(Binary(s.function, v) for s, v in zip(stages[1:], narrow[1:], strict=True))
        if key not in self._known:
            level = Level.CONSTANT
            for view in (first, *rest):
                level |= self._level(view)
            size = narrow[0].shape[-1]
            batch = narrow[0].dims[0]
            output = View(self.draft.buffer(size, level), 0, (batch, ((size, 1),)))
            self.operations.append(Operation(Map(), (narrow[0],), output, key[1]))
            self._known[key] = output
        result = self._known[key]
        dims = tuple(result.dims[1] if any(s > 0 for _, s in dim) else dim for dim in first.dims)
        return View(result.buffer, 0, dims)


def _narrow(view: View) -> View:
    """(batch, vector) of an operand that repeats a vector."""
    batch = tuple(atom for dim in view.dims for atom in dim if atom[1] == ROW)
    (vector,) = (dim for dim in view.dims if any(stride > 0 for _, stride in dim))
    return View(view.buffer, view.offset, (batch, vector))
