"""A part of a source, such as the training or the held-out samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...errors import ArgumentError
from .source import Batch, Source


class Part:
    """A source with some samples of another."""

    def __init__(self, source: Source, indices: Sequence[int]):
        self._source, self._indices = source, tuple(indices)
        self.shape, self.num_classes = source.shape, source.num_classes

    @property
    def value_range(self) -> tuple[float, float] | None:
        """That of the underlying source."""
        return getattr(self._source, "value_range", None)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """That of the underlying source."""
        return getattr(self._source, "classes", None)

    @property
    def broken(self) -> dict[str, str]:
        """That of the underlying source."""
        return getattr(self._source, "broken", {})

    @property
    def attribution(self) -> str | None:
        """That of the underlying source."""
        return getattr(self._source, "attribution", None)

    def __len__(self) -> int:
        return len(self._indices)

    def fetch(self, indices: Sequence[int]) -> Batch:
        """See :class:`Source`."""
        return self._source.fetch([self._indices[i] for i in indices])


def hold_out(source: Source, fraction: float, seed: int) -> tuple[Part, Part]:
    """Split a source at random into a training part and a held-out part of a fraction of the samples, at least one.

    Raises:
        ArgumentError: the fraction is not between 0 and 1, or a part would be empty.
    """
    count = max(1, round(fraction * len(source)))
    if not 0 < fraction < 1 or count >= len(source):
        raise ArgumentError(f"held_out is {fraction!r} of {len(source)} samples; it must be in (0, 1) and leave some to train on.")
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed)).tolist()
    return Part(source, sorted(order[count:])), Part(source, sorted(order[:count]))
