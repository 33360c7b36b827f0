"""The size of a program."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from .program import Level, Program

BYTES = 4  # of a float32


@dataclass(frozen=True)
class Summary:
    """Attributes:
    kinds: Operations per network call and sample, by kind, the most frequent first.
    prepared: Operations that a call does not repeat, by when they run: ``load``, ``time``, ``condition``, ``pair``.
    weight_bytes: Weights and folded constants.
    activation_bytes: All that one sample writes while the network runs; the core reuses memory and needs less.
    row_bytes: What is kept of each time, condition, and pair of them, by these names.
    """

    kinds: dict[str, int]
    prepared: dict[str, int]
    weight_bytes: int
    activation_bytes: int
    row_bytes: dict[str, int]


_LEVELS = {"load": Level.CONSTANT, "time": Level.TIME, "condition": Level.CONDITION, "pair": Level.TIME | Level.CONDITION}


def summarize(program: Program) -> Summary:
    """Count operations and bytes."""
    kinds = Counter(type(op.kind).__name__.lower() for op in program.at(Level.SAMPLE))
    given = {one.buffer for one in program.inputs}
    later = {view.buffer for op in program.at(Level.SAMPLE) for view in op.reads} - given
    sizes = [(buffer.level.stage, buffer.size * BYTES, index) for index, buffer in enumerate(program.buffers)]
    constant = [buffer.initializer is not None or buffer.values is not None for buffer in program.buffers]
    return Summary(
        kinds=dict(kinds.most_common()),
        prepared={name: len(program.at(level)) for name, level in _LEVELS.items()},
        weight_bytes=sum(size for _, size, index in sizes if constant[index]),
        activation_bytes=sum(size for level, size, index in sizes if level == Level.SAMPLE and index not in given),
        row_bytes={
            name: sum(size for found, size, index in sizes if found == level and index in later)
            for name, level in _LEVELS.items()
            if name != "load"
        },
    )
