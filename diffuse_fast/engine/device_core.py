"""A CUDA device as the compiled core has it, beside onnxruntime: no torch in the process."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..errors import ArgumentError, NetworkError
from ..kernels import cuda as _cuda


@functools.cache
def core_device(index: int) -> CoreDevice:
    """The device of that number: one for the process, since sessions outlive samplers and hold its stream."""
    return CoreDevice(index)


class CoreDevice:
    """See :class:`~diffuse_fast.engine.device.Device`. Its one stream is shared by onnxruntime's sessions: users take turns."""

    kernels: tuple[str, ...] = ("cuda",)
    captures = False

    def __init__(self, index: int):
        self.name = f"cuda:{index}"
        self._index = index
        self._stream = _cuda.Stream(index)
        self._turn = threading.RLock()

    @property
    def stream(self) -> int:
        return self._stream.handle

    @contextmanager
    def scope(self) -> Iterator[None]:
        with self._turn:
            yield

    def alloc(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        array = _cuda.DeviceArray(shape, np.dtype(dtype), self._index)
        self.upload(np.zeros(shape, dtype), array)
        return array

    def upload(self, host: np.ndarray, into: Any) -> None:
        into.copy_from_host(np.ascontiguousarray(host), self.stream)

    def part(self, array: Any, i: int) -> Any:
        raise ArgumentError("step_noise cannot replace the generator of a model file on a CUDA device; sample on the CPU.")

    def download(self, array: Any) -> np.ndarray:
        return array.copy_to_host(self.stream)

    def own(self, array: Any, as_tensor: bool) -> Any:
        if as_tensor:  # torch is loaded: the noise was a tensor
            self.synchronize()
            return sys.modules["torch"].from_dlpack(array).clone()
        return self.download(array)

    def start(self, noise: Any, scale: float, into: Any) -> None:
        self.upload(np.multiply(noise, np.float32(scale), dtype=np.float32, casting="same_kind"), into)

    def warm_up(self, run: Callable[[], Any]) -> Any:
        return run()

    def pool(self) -> Any:
        return None

    def capture(self, run: Callable[[], None], pool: Any) -> Any:
        raise NetworkError("onnxruntime captures its own calls; the engine captures nothing around them.")

    def synchronize(self) -> None:
        self._stream.synchronize()
