"""The protocol of a data source, and the checks that all sources share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ...errors import ArgumentError

Batch = tuple[Tensor, Tensor | None]


class Source(Protocol):
    """Float32 samples of one shape, optionally with labels.

    Attributes:
        shape: Shape of one sample.
        num_classes: Number of classes; None without labels.

    Optional attributes: ``classes``, the names of the classes; ``value_range``, (-1, 1) if the source scales its values to it;
    ``broken`` and ``attribution`` as in :class:`~.image_folder.Images`.
    """

    shape: tuple[int, ...]
    num_classes: int | None

    def __len__(self) -> int: ...

    def fetch(self, indices: Sequence[int]) -> Batch:
        """Return samples (B, *shape) float32 and labels (B,) int64, or None without labels."""
        ...


def int_labels(labels: np.ndarray | Tensor, samples: int) -> Tensor:
    """Convert labels (N,) to int64.

    Raises:
        ArgumentError: the labels are not one integer per sample.
    """
    label = torch.as_tensor(labels)
    if label.shape != (samples,) or label.is_floating_point() or label.is_complex() or label.dtype == torch.bool:
        raise ArgumentError(f"labels are {tuple(label.shape)} of {label.dtype}; they must be {samples} integers, one per sample.")
    return label.to(torch.int64)
