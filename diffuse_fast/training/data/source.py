"""What the loop asks of data, and the checks that every source shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ...errors import ArgumentError

Batch = tuple[Tensor, Tensor | None]


class Source(Protocol):
    """Samples of one shape, float32, with or without a label each.

    Attributes:
        shape: Of one sample.
        num_classes: Labels are below it; None without labels.

    A source may have more attributes: ``classes``, the names of the classes; ``value_range``, (-1, 1) where it has scaled its
    values to that; ``broken`` and ``attribution`` as of :class:`~.images.Images`.
    """

    shape: tuple[int, ...]
    num_classes: int | None

    def __len__(self) -> int: ...

    def fetch(self, indices: Sequence[int]) -> Batch:
        """(B, *shape) float32 and (B,) int64, or None without labels."""
        ...


def whole_labels(labels: np.ndarray | Tensor, samples: int) -> Tensor:
    """Labels (N,) as int64.

    Raises:
        ArgumentError: they are not one whole number from 0 up for each sample.
    """
    label = torch.as_tensor(labels)
    if label.shape != (samples,) or label.is_floating_point() or label.is_complex() or label.dtype == torch.bool:
        raise ArgumentError(
            f"labels are {tuple(label.shape)} of {label.dtype}; they must be {samples} whole numbers, one per sample."
        )
    return label.to(torch.int64)
