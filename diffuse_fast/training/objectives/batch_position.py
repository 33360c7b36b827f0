"""The position of samples in a training run, and the random numbers that depend on it alone.

Noise comes from the library's counter-based generator (``csrc/step/step.h``): its normals are a function of the seed, the training
step and the sample's index in the full batch, so they do not depend on how processes and passes share the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...kernels import get_kernel
from ...kernels.reference import STREAM_TRAINING


@dataclass(frozen=True)
class BatchPosition:
    """The position of samples ``first``, ``first + 1``, ... in the batch of a training step.

    Attributes:
        seed: Seed of the run.
        step: Number of the training step.
        first: Index of the first sample in the full batch.
        batch: Number of samples in the full batch.
    """

    seed: int
    step: int
    first: int
    batch: int

    def normals(self, shape: torch.Size | tuple[int, ...], stream: int = STREAM_TRAINING) -> Tensor:
        """The standard normals of these samples, (B, ...) float32 on the CPU; by default those of the forward process."""
        out = np.empty(shape, np.float32)
        seeds, indices = np.full(shape[0], self.seed, np.uint64), np.arange(self.first, self.first + shape[0], dtype=np.uint32)
        get_kernel(device="cpu").normals(out, seeds=seeds, indices=indices, row=self.step, stream=stream)
        return torch.from_numpy(out)


def draw_part(count: int, position: BatchPosition | None, draw: Callable[[int], Tensor]) -> Tensor:
    """Call ``draw`` for the full batch and return the ``count`` values at ``position``; without one, draw ``count`` values."""
    return draw(count) if position is None else draw(position.batch)[position.first : position.first + count]
