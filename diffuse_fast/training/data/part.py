"""A part of a source: what is trained on, and what is held out."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...errors import ArgumentError
from .source import Batch, Source


class Part:
    """Some samples of a source, which is itself one."""

    def __init__(self, source: Source, indices: Sequence[int]):
        self._source, self._indices = source, tuple(indices)
        self.shape, self.num_classes = source.shape, source.num_classes

    @property
    def value_range(self) -> tuple[float, float] | None:
        """Of the whole source."""
        return getattr(self._source, "value_range", None)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Of the whole source."""
        return getattr(self._source, "classes", None)

    @property
    def broken(self) -> dict[str, str]:
        """Of the whole source."""
        return getattr(self._source, "broken", {})

    @property
    def attribution(self) -> str | None:
        """Of the whole source."""
        return getattr(self._source, "attribution", None)

    def __len__(self) -> int:
        return len(self._indices)

    def fetch(self, indices: Sequence[int]) -> Batch:
        """As of :class:`Source`."""
        return self._source.fetch([self._indices[i] for i in indices])


def hold_out(source: Source, fraction: float, seed: int) -> tuple[Part, Part]:
    """A source as two parts, drawn by a seed: the second has the fraction of the samples, at least one.

    Raises:
        ArgumentError: the fraction is not between 0 and 1, or a part would be empty.
    """
    count = max(1, round(fraction * len(source)))
    if not 0 < fraction < 1 or count >= len(source):
        raise ArgumentError(f"held_out is {fraction!r} of {len(source)} samples; it must be between 0 and 1 and leave some.")
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed)).tolist()
    return Part(source, sorted(order[count:])), Part(source, sorted(order[:count]))
