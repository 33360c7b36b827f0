"""Stages that multiply by a number."""

from __future__ import annotations

from collections.abc import Sequence

from ..program import Binary, Stage, View


def factor(stage: Stage) -> float | None:
    """The number by which a stage multiplies; None for other stages."""
    if isinstance(stage, Binary) and not isinstance(stage.operand, View):
        if stage.function == "multiply":
            return stage.operand
        if stage.function == "divide" and stage.operand:
            return 1 / stage.operand
    return None


def joined(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages with neighbours that multiply by numbers as one."""
    out: list[Stage] = []
    for stage in stages:
        last = factor(out[-1]) if out else None
        number = factor(stage)
        if last is not None and number is not None:
            out[-1] = Binary("multiply", last * number)
        else:
            out.append(stage)
    return tuple(out)
