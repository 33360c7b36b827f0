"""A CUDA device as the compiled core has it, for onnxruntime: no torch in the process."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...errors import ArgumentError, ArgumentTypeError, NetworkError
from ...kernels.arrays import FLOATS
from ...kernels.cuda import CudaKernel
from ...kernels.device_array import DeviceArray, Stream
from ...plans.plan import Row


@functools.cache
def core_device(index: int) -> CoreDevice:
    """Return the device of that number: one per process, since sessions outlive samplers and hold its stream."""
    return CoreDevice(index)


class CoreDevice:
    """See :class:`~diffuse_fast.engine.devices.base.Device`. onnxruntime's sessions share its one stream, so users take turns."""

    kernels: tuple[str, ...] = ("cuda",)
    captures = False

    def __init__(self, index: int):
        self.name = f"cuda:{index}"
        self._index = index
        self._stream = Stream(index)
        self._turn = threading.RLock()

    @property
    def stream(self) -> int:
        return self._stream.handle

    @contextmanager
    def scope(self) -> Iterator[None]:
        with self._turn:
            yield

    def alloc(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        array = DeviceArray(shape, np.dtype(dtype), self._index, stream=self.stream)
        self.upload(np.zeros(shape, dtype), array)
        return array

    def upload(self, array: Any, into: Any) -> None:
        if isinstance(array, DeviceArray):
            into.copy_from(array, self.stream)
        else:
            into.copy_from_host(np.asarray(array), self.stream)

    def part(self, array: Any, i: int) -> Any:
        return array[i]

    def download(self, array: Any) -> np.ndarray:
        return array.copy_to_host(self.stream)

    def own(self, array: Any, as_tensor: bool) -> Any:
        if as_tensor:  # torch is loaded: the noise was a tensor
            self.synchronize()
            return sys.modules["torch"].from_dlpack(array).clone()
        return self.download(array)

    def take(self, name: str, value: Any) -> Any:
        array = DeviceArray.from_dlpack(value, self.stream, name)
        if array.device != self._index:
            raise ArgumentError(f"{name} is on cuda:{array.device}; the model is sampled on {self.name}.")
        return array

    def take_noise(self, name: str, value: Any) -> Any:
        array = self.take(name, value)
        if array.dtype_name not in FLOATS:
            raise ArgumentTypeError(f"{name} has dtype {array.dtype_name}; on a device it must be {' or '.join(FLOATS)}.")
        return array

    def stack(self, arrays: list[Any]) -> Any:
        first = arrays[0]
        dtype = "bfloat16" if getattr(first, "bfloat16", False) else first.dtype
        new = DeviceArray((len(arrays), *first.shape), dtype, self._index, stream=self.stream)
        for i, array in enumerate(arrays):
            self.upload(array, new[i])
        self.synchronize()
        return new

    def start(self, noise: Any, scale: float, into: Any) -> None:
        if isinstance(noise, DeviceArray):
            # One row of the step does the scaling: the core has no other arithmetic on the device.
            samples = noise.shape[0] if noise.shape else 1
            noise, into = (array.reshape((samples, array.size // samples)) for array in (noise, into))
            row, zeros = Row(b=float(np.float32(scale))), np.zeros(samples, np.uint32)
            step = CudaKernel().bind([row], x=into, out=into, outputs=[noise], registers=None, seeds=zeros, indices=zeros,
                                           stream=self.stream)  # fmt: skip
            step.place(zeros, zeros)
            step.launch()
            return
        self.upload(np.multiply(noise, np.float32(scale), dtype=np.float32, casting="same_kind"), into)

    def warm_up(self, run: Callable[[], Any]) -> Any:
        return run()

    def pool(self) -> Any:
        return None

    def capture(self, run: Callable[[], None], pool: Any) -> Any:
        raise NetworkError("onnxruntime captures its own calls; the engine captures nothing around them.")

    def synchronize(self) -> None:
        self._stream.synchronize()
