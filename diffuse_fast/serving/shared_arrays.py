"""Arrays of one shape in memory that two processes share, so that samples are not sent through a pipe.

One side fills places and the other empties them; which places are free is known to the side that fills.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_SHARED = "/dev/shm"  # files in memory, on Linux


@dataclass(frozen=True, slots=True)
class Place:
    """Where an array is."""

    number: int


class SharedArrays:
    """float32 arrays in a file that has no name.

    Args:
        descriptor: The file, from :func:`new_file`.
        places: How many arrays it holds.
        shape: The shape of each.
    """

    def __init__(self, descriptor: int, places: int, shape: Sequence[int]):
        self._memory = mmap.mmap(descriptor, file_size(places, shape))
        self._arrays = np.frombuffer(self._memory, np.float32).reshape(places, *shape)
        self._free = list(range(places))

    def put(self, array: np.ndarray) -> Place | np.ndarray:
        """Copy an array to a free place; where none is free, return a copy of it."""
        if not self._free:
            return array.copy()
        number = self._free.pop()
        self._arrays[number] = array
        return Place(number)

    def free(self, number: int) -> None:
        """Use a place again."""
        self._free.append(number)

    def get(self, place: Place) -> np.ndarray:
        """Return a copy of the array at a place."""
        return self._arrays[place.number].copy()


def new_file(places: int, shape: Sequence[int]) -> int:
    """Return the descriptor of a file without a name."""
    with tempfile.TemporaryFile(dir=_SHARED if os.access(_SHARED, os.W_OK) else None) as file:
        file.truncate(file_size(places, shape))
        return os.dup(file.fileno())


def file_size(places: int, shape: Sequence[int]) -> int:
    """Bytes of the file."""
    return 4 * places * math.prod(shape)
