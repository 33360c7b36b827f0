"""Arrays of any shape, in memory or memory-mapped."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import ArgumentError
from .source import Batch, int_labels
from .value_range import channels_first, infer_range, parse_range, scaled

log = logging.getLogger(__name__)

# Evenly spaced samples show the range of the values, so that a file need not be read completely.
SAMPLED, ELEMENTS = 1024, 1 << 24


class Arrays:
    """Samples in an array.

    Args:
        data: (N, *shape), real numbers; images with their channels first. uint8 and uint16 are levels: 0 becomes -1 and the
            largest 1. Other numbers are not scaled.
        labels: (N,) integers from 0, or None.
        data_range: The values that become -1 and 1; False does not scale. Images without a negative value need it, except
            for uint8 and uint16.

    Attributes:
        value_range: (-1, 1) if values are scaled to it or ``data_range`` is that; else None.

    Raises:
        ArgumentError, ArgumentTypeError: a wrong shape or type, channels last, or values whose range is ambiguous.

    Example:
        >>> import numpy as np
        >>> from diffuse_fast.training.data import Arrays
        >>> source = Arrays(np.zeros((10, 2, 4)))
        >>> len(source), source.shape
        (10, (2, 4))
    """

    def __init__(
        self,
        data: np.ndarray | Tensor,
        labels: np.ndarray | Tensor | None = None,
        *,
        data_range: tuple[float, float] | bool | None = None,
    ):
        numbers = data if isinstance(data, Tensor) else np.asarray(data)
        kind = str(numbers.dtype).removeprefix("torch.") if isinstance(numbers, Tensor) else numbers.dtype.name
        if numbers.ndim < 2 or not any(name in kind for name in ("float", "int")):
            shape = tuple(numbers.shape)
            raise ArgumentError(f"data is {shape} of {kind}; it must be real numbers with the shape (samples, *shape).")
        channels_first(numbers.shape[1:])
        self._data = numbers
        count = min(SAMPLED, len(numbers), max(16, ELEMENTS // max(1, math.prod(numbers.shape[1:]))))
        few = self._select(np.unique(np.linspace(0, max(0, len(numbers) - 1), count).astype(int)))
        self._range = infer_range(kind, numbers.shape[1:], few, parse_range(data_range))
        self.value_range = None if self._range is None else (-1.0, 1.0)
        lo, hi = self._range or ((few.min(), few.max()) if few.size else (0, 0))
        done = "are not scaled" if self._range in (None, (-1.0, 1.0)) else "become -1 to 1"
        log.info("%d samples of %s, %s: values from %g to %g %s", len(numbers), tuple(numbers.shape[1:]), kind, lo, hi, done)
        self.shape: tuple[int, ...] = tuple(numbers.shape[1:])
        self._labels = None if labels is None else int_labels(labels, len(numbers))
        self.num_classes = None if self._labels is None or not len(self._labels) else int(self._labels.max()) + 1
        if self._labels is not None and len(self._labels) and self._labels.min() < 0:
            lowest, highest = self._labels.min(), self._labels.max()
            raise ArgumentError(f"labels go from {lowest} to {highest}; they must count from 0.")

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, data_range: tuple[float, float] | bool | None = None) -> Arrays:
        """Open a ``.npy`` file of samples, memory-mapped, or a ``.npz`` with ``data`` and optionally ``labels``. Pickles are
        refused.

        Args:
            data_range: As for :class:`Arrays`.

        Raises:
            ArgumentError: the file cannot be read or lacks these arrays.
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
            raise ArgumentError(f"{path} is not an .npy or .npz file of plain arrays: {error}.") from error
        if not isinstance(data, np.ndarray):
            raise ArgumentError(f"{path} is an archive; rename it to .npz.")
        return cls(data, labels, data_range=data_range)

    def __len__(self) -> int:
        return len(self._data)

    def fetch(self, indices: Sequence[int]) -> Batch:
        """See :class:`Source`.

        Raises:
            ArgumentError: a value is not finite.
        """
        if self._range is not None:
            x = torch.from_numpy(scaled(self._select(indices), self._range))
        elif isinstance(self._data, Tensor):
            x = self._data[torch.as_tensor(indices)].to(torch.float32)  # on its device
        else:
            with np.errstate(over="ignore"):  # values too large for float32 are reported below
                x = torch.from_numpy(self._select(indices).astype(np.float32))
        if not x.isfinite().all():
            raise ArgumentError("data has values that are not finite; remove or repair those samples.")
        return x, None if self._labels is None else self._labels[torch.as_tensor(indices)]

    def _select(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        if not isinstance(self._data, Tensor):
            return np.asarray(self._data[np.asarray(indices, dtype=np.int64)])
        picked = self._data[torch.as_tensor(indices, dtype=torch.int64, device=self._data.device)].detach().cpu()
        # NumPy has no bfloat16.
        return (picked.float() if picked.dtype == torch.bfloat16 else picked).numpy()
