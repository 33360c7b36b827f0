"""Arrays of any shape, in memory or in a file that is read as it is needed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import ArgumentError
from .source import Batch, whole_labels


class Arrays:
    """Samples in an array.

    Args:
        data: (N, *shape), real numbers.
        labels: (N,) whole numbers from 0, or None.
        levels: The data are 8-bit levels 0..255, to be scaled to [-1, 1].

    Raises:
        ArgumentError: a wrong shape or type.

    Example:
        >>> import numpy as np
        >>> from diffuse_fast.training.data import Arrays
        >>> source = Arrays(np.zeros((10, 2, 4)))
        >>> len(source), source.shape
        (10, (2, 4))
    """

    def __init__(self, data: np.ndarray | Tensor, labels: np.ndarray | Tensor | None = None, *, levels: bool = False):
        numbers = data if isinstance(data, Tensor) else np.asarray(data)
        kind = str(numbers.dtype)
        if numbers.ndim < 2 or not any(name in kind for name in ("float", "int")):
            shape = tuple(numbers.shape)
            raise ArgumentError(f"data is {shape} of {kind}; it must be real numbers of the shape (samples, *shape).")
        self._data, self.levels = numbers, levels
        self.shape: tuple[int, ...] = tuple(numbers.shape[1:])
        self._labels = None if labels is None else whole_labels(labels, len(numbers))
        self.num_classes = None if self._labels is None or not len(self._labels) else int(self._labels.max()) + 1
        if self._labels is not None and len(self._labels) and self._labels.min() < 0:
            lowest, highest = self._labels.min(), self._labels.max()
            raise ArgumentError(f"labels go from {lowest} to {highest}; they count from 0 to the last class.")

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Arrays:
        """A ``.npy`` file of samples, which is mapped and not read whole; or a ``.npz`` with ``data`` and perhaps ``labels``.
        8-bit arrays are levels of pictures. Pickles are refused.

        Raises:
            ArgumentError: the file cannot be read or has no such arrays.
        """
        path = Path(path)
        labels = None
        try:
            if path.suffix == ".npz":
                with np.load(path, allow_pickle=False) as file:
                    data = file["data"]
                    labels = file.get("labels")
            else:
                data = np.load(path, mmap_mode="r", allow_pickle=False)
        except KeyError:
            raise ArgumentError(f"{path} has no array 'data'; write it with numpy.savez(path, data=..., labels=...).") from None
        except (OSError, ValueError, EOFError) as error:
            raise ArgumentError(f"{path} is no .npy or .npz file of plain arrays: {error}.") from error
        if not isinstance(data, np.ndarray):
            raise ArgumentError(f"{path} is an archive; name it .npz.")
        return cls(data, labels, levels=data.dtype == np.uint8)

    def __len__(self) -> int:
        return len(self._data)

    def fetch(self, indices: Sequence[int]) -> Batch:
        """As of :class:`Source`.

        Raises:
            ArgumentError: a value is not finite.
        """
        picked = self._data[torch.as_tensor(indices) if isinstance(self._data, Tensor) else np.asarray(indices)]
        x = torch.as_tensor(picked, dtype=torch.float32)
        if not x.isfinite().all():
            raise ArgumentError("data has values that are not finite; remove or repair those samples.")
        if self.levels:
            x = x / 127.5 - 1.0
        return x, None if self._labels is None else self._labels[torch.as_tensor(indices)]
