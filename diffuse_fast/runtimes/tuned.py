"""A network that runs each batch size in the way that ``tune`` found fastest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

import numpy as np

from .base import BoundCall, Network


def nearest(batch: int, tuned: Iterable[int]) -> int:
    """Return the tuned batch size that is nearest in ratio; the smaller one of a tie."""
    return min(sorted(tuned), key=lambda size: max(size / batch, batch / size))


class TunedNetwork:
    """Networks by tuned batch size. Each is made when it is first needed."""

    name = "tuned"

    def __init__(self, makers: dict[int, Callable[[], Network]]):
        self._makers, self._made = makers, dict[int, Network]()
        self._lock = threading.Lock()

    def bind(
        self, batch: int, shape: tuple[int, ...], cond: dict[str, np.ndarray], output_shape: tuple[int, ...] | None = None
    ) -> BoundCall:
        size = nearest(batch, self._makers)
        with self._lock:
            if size not in self._made:
                self._made[size] = self._makers[size]()
        return self._made[size].bind(batch, shape, cond, output_shape)
