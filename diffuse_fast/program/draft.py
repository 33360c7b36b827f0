"""A program while it is being made: a list of operations over views that still hold the batch.

While lowering, the batch is a prime number that is no other size of the network, so that reshapes can be followed: it is an atom
``(batch, ROW)``, whose stride is one row of the buffer. ``finish`` removes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .program import Buffer, Input, Level, Operation, View

ROW = -1  # the stride of the batch's atom


@dataclass(slots=True)
class Draft:
    """Attributes: see :class:`.program.Program`; ``batch`` is the prime that stands for the batch."""

    batch: int
    buffers: list[Buffer] = field(default_factory=list)
    inputs: list[Input] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    output: View | None = None

    def buffer(
        self, size: int, level: Level = Level.SAMPLE, *, initializer: str | None = None, values: np.ndarray | None = None
    ) -> int:
        """Add a buffer and return its index."""
        self.buffers.append(Buffer(size, level, initializer, values))
        return len(self.buffers) - 1
