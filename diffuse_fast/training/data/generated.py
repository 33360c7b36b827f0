"""Samples from a generator function."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from ...errors import ArgumentError, TrainingError
from .source import Batch
from .value_range import LEVELS, channels_first, scaled


class Generated:
    """The samples, or pairs of a sample and a label, of a generator function.

    The function is called again when it ends. A resumed run skips the samples that it has used, so the function must yield the
    same samples every time.

    Args:
        make: Called without arguments; yields arrays of one shape, or (array, label). uint8 and uint16 are levels: 0 becomes -1
            and the largest 1. Other numbers are not scaled.
        num_classes: Number of classes; None without labels.

    Raises:
        ArgumentError: the function yields nothing, or something other than this.

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
        sample, _ = self._read(first)
        channels_first(sample.shape)
        self.shape: tuple[int, ...] = sample.shape

    def take(self, start: int, stop: int) -> Batch:
        """Samples ``start`` to ``stop`` of the endless sequence, as in :meth:`Source.fetch`."""
        if start < self._at:
            self._iterator, self._at = iter(()), 0
        while self._at < start:
            self._next()
        arrays, numbers = zip(*(self._read(self._next()) for _ in range(start, stop)), strict=True)
        labels = None
        if self.num_classes is not None:
            labels = torch.tensor(numbers)
            if (bad := labels[(labels < 0) | (labels >= self.num_classes)]).numel():
                raise ArgumentError(f"the generator yields the label {bad[0].item()}; labels are 0 to {self.num_classes - 1}.")
        for array in arrays:
            if array.shape != self.shape or not np.isfinite(array).all():
                raise ArgumentError(f"the generator yields {array.shape}; it must be finite and {self.shape}, like the first.")
        return torch.from_numpy(np.stack(arrays)), labels

    def _read(self, item: Any) -> tuple[np.ndarray, int | None]:
        """A sample and its label, or None without labels."""
        try:
            if self.num_classes is None:
                return _numbers(item), None
            sample, label = item
            return _numbers(sample), operator.index(label)
        except (TypeError, ValueError) as error:
            what = (
                "arrays; pairs with a label need num_classes="
                if self.num_classes is None
                else "pairs of an array and an integer label"
            )
            raise ArgumentError(f"the generator yields an invalid sample ({error}); it must yield {what}.") from error

    def _next(self) -> Any:
        for item in self._iterator:
            self._at += 1
            return item
        self._iterator = iter(self._make())
        for item in self._iterator:
            self._at += 1
            return item
        raise TrainingError("the generator function no longer yields samples.")


def _numbers(sample: Any) -> np.ndarray:
    array = np.asarray(sample)
    return scaled(array, LEVELS[array.dtype.name]) if array.dtype.name in LEVELS else array.astype(np.float32)
