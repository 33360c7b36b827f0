"""The interface between the engine and a CUDA device.

The engine decides what is captured, which memory is static and what is counted; a device only knows its driver.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ...runtimes.base import DeviceNetwork, Memory


class Graph(Protocol):
    """Captured work: the same kernels on the same memory, replayed any number of times."""

    def replay(self) -> None:
        """Enqueue the captured work. Does not wait."""
        ...


class Device(Memory, Protocol):
    """Memory of a device and its queue of work. Only :meth:`download`, :meth:`own`, :meth:`stack` and :meth:`synchronize` wait.

    Attributes:
        name: ``cuda:0``.
        kernels: Names of the step kernels that take its arrays, best first.
        captures: Whether it captures graphs.
        stream: Handle of the stream that work goes to now.
    """

    kernels: tuple[str, ...]
    captures: bool

    @property
    def stream(self) -> int | None: ...

    def scope(self) -> AbstractContextManager[None]:
        """Context manager that must surround all work on the device."""
        ...

    def part(self, array: Any, i: int) -> Any:
        """Entry i of the first axis, as a view."""
        ...

    def download(self, array: Any) -> np.ndarray:
        """Copy to the host."""
        ...

    def own(self, array: Any, as_tensor: bool) -> Any:
        """Copy for the caller: a tensor on this device, or NumPy."""
        ...

    def take(self, name: str, value: Any) -> Any:
        """Return an array of another library on this device as an array of the device's own, without a copy.

        Args:
            name: Name of the argument, for messages.

        Raises:
            ArgumentError, ArgumentTypeError: it is on another device, not contiguous where it must be, or not numeric.
        """
        ...

    def take_noise(self, name: str, value: Any) -> Any:
        """As :meth:`take`, and of a dtype that :meth:`start` reads."""
        ...

    def stack(self, arrays: list[Any]) -> Any:
        """Stack arrays of the host and of this device, of one shape and dtype, along a new first axis. The inputs have been read
        when it returns."""
        ...

    def start(self, noise: Any, scale: float, into: Any) -> None:
        """Write ``scale`` times the noise to ``into``. The noise is on the host or on this device; on the device, the caller keeps
        it alive until the work is done."""
        ...

    def warm_up(self, run: Callable[[], Any]) -> Any:
        """Run work once before it is captured, so that lazy initialization is done, and return its result."""
        ...

    def pool(self) -> Any:
        """A memory pool for graphs that never run at the same time."""
        ...

    def capture(self, run: Callable[[], None], pool: Any) -> Graph:
        """Record the work that ``run`` enqueues, without doing it.

        Raises:
            NetworkError: the work cannot be captured; the message says why and what to do.
        """
        ...

    def synchronize(self) -> None:
        """Wait until all work is done."""
        ...


@dataclass(frozen=True)
class Backend:
    """A model on a device: the device, the network bound to it, and the step kernel."""

    device: Device
    network: DeviceNetwork
    kernel: Any
