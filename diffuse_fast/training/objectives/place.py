"""Where a part of a batch lies in its run, and what is drawn for it there.

Noise comes from the library's counter-based generator (``csrc/step/step.h``): its normals are a function of the seed, the training
step and the sample's number in the whole batch, so they are the same however many processes and passes share the batch.
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
class Place:
    """Samples ``first`` onwards of the ``batch`` samples of a training step.

    Attributes:
        seed: Of the run.
        step: Number of the training step.
        first: Number of the part's first sample in the whole batch.
        batch: Samples of the whole batch.
    """

    seed: int
    step: int
    first: int
    batch: int

    def normals(self, shape: torch.Size | tuple[int, ...], stream: int = STREAM_TRAINING) -> Tensor:
        """N(0, 1) of these samples, (B, ...) float32 on the CPU: the forward process's, or of another stream."""
        out = np.empty(shape, np.float32)
        seeds, indices = np.full(shape[0], self.seed, np.uint64), np.arange(self.first, self.first + shape[0], dtype=np.uint32)
        get_kernel(device="cpu").normals(out, seeds=seeds, indices=indices, row=self.step, stream=stream)
        return torch.from_numpy(out)


def share(count: int, place: Place | None, draw: Callable[[int], Tensor]) -> Tensor:
    """What ``draw`` gives for the whole batch, cut to the ``count`` samples at ``place``; None is a batch of its own."""
    return draw(count) if place is None else draw(place.batch)[place.first : place.first + count]
