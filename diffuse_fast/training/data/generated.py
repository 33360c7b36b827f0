"""Samples that a generator function makes, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from ...errors import ArgumentError, TrainingError
from .source import Batch


class Generated:
    """What a generator function yields: samples, or pairs of a sample and a label.

    It is called again when it ends. A resumed run skips what was used before, so that it goes on where it stopped; for that the
    function must yield the same every time.

    Args:
        make: Called without arguments; yields arrays of one shape, or (array, label).
        num_classes: Of the labels; None without labels.

    Raises:
        ArgumentError: nothing is yielded, or it is not as said.

    Example:
        >>> import numpy as np
        >>> from diffuse_fast.training.data import Generated
        >>> def points():
        ...     rng = np.random.default_rng(0)
        ...     while True:
        ...         yield rng.standard_normal(2)
        >>> Generated(points).shape
        (2,)
    """

    def __init__(self, make: Callable[[], Iterator[Any]], *, num_classes: int | None = None):
        self._make, self.num_classes = make, num_classes
        self._iterator: Iterator[Any] = iter(())
        self._at = 0
        first = next(make(), None)
        if first is None:
            raise ArgumentError("the generator function yields nothing.")
        sample = first[0] if num_classes is not None else first
        self.shape: tuple[int, ...] = tuple(np.shape(sample))

    def take(self, start: int, stop: int) -> Batch:
        """Samples ``start`` to ``stop`` of the endless sequence, as of :meth:`Source.fetch`."""
        if start < self._at:
            self._iterator, self._at = iter(()), 0
        while self._at < start:
            self._next()
        items = [self._next() for _ in range(start, stop)]
        labels = None
        if self.num_classes is not None:
            labels = torch.tensor([int(label) for _, label in items])
            items = [sample for sample, _ in items]
            if (bad := labels[(labels < 0) | (labels >= self.num_classes)]).numel():
                raise ArgumentError(f"the generator yields the label {bad[0].item()}; labels are 0 to {self.num_classes - 1}.")
        arrays = [np.asarray(sample, dtype=np.float32) for sample in items]
        for array in arrays:
            if array.shape != self.shape or not np.isfinite(array).all():
                raise ArgumentError(f"the generator yields {array.shape}; it must be finite and {self.shape}, as the first was.")
        return torch.from_numpy(np.stack(arrays)), labels

    def _next(self) -> Any:
        for item in self._iterator:
            self._at += 1
            return item
        self._iterator = iter(self._make())
        for item in self._iterator:
            self._at += 1
            return item
        raise TrainingError("the generator function yields nothing any more.")
