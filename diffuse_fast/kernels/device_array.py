"""Memory on CUDA devices without torch: streams, arrays, and their exchange with other libraries.

A ``stream`` is a ``cudaStream_t`` as an int (``torch.cuda.current_stream().cuda_stream``, ``Stream.handle``), 0 the default stream.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _core
from ..errors import ArgumentError, ArgumentTypeError

# DLPack's DLDataTypeCode by NumPy's kind, and its DLDeviceType.
_DLPACK_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}
_DLPACK_KINDS = {code: kind for kind, code in _DLPACK_CODES.items()}
_DLPACK_BFLOAT, _DLPACK_CUDA, _DLPACK_MANAGED = 4, 2, 13
# The default stream is 1 in DLPack and __cuda_array_interface__, where 0 is ambiguous. -1: no synchronisation.
_DEFAULT_STREAM, _NO_STREAM = 1, -1


class Stream:
    """A new stream of a device, for processes without torch. ``handle`` is the cudaStream_t as an int."""

    def __init__(self, device: int = 0):
        self._stream = _core.DeviceStream(device)
        self.handle = self._stream.handle

    def synchronize(self) -> None:
        """Wait until all work on the stream is done."""
        self._stream.synchronize()


class DeviceArray:
    """A C-contiguous array on a CUDA device: memory, a shape and a dtype, without arithmetic.

    It is exchanged with other libraries without a copy: they read it by ``__cuda_array_interface__`` or DLPack, and
    :meth:`from_dlpack` reads theirs. ``array[i]`` and ``array[i:j]`` are views of the same memory.

    Args:
        shape: Its shape.
        dtype: A NumPy dtype, or ``"bfloat16"`` (uint16 in NumPy).
        device: Number of the device.
        stream: The stream that writes it. A library that reads the array by a protocol waits for the work queued there. None: the
            caller orders writes and reads.

    Raises:
        UnavailableError: CUDA cannot be used on this machine.
        DeviceError: the device is out of memory.
    """

    def __init__(self, shape: Sequence[int], dtype: Any = np.float32, device: int = 0, *, stream: int | None = None):
        self._describe(shape, dtype, stream)
        self.memory = _core.DeviceMemory(self.size * self.dtype.itemsize, device)

    def _describe(self, shape: Sequence[int], dtype: Any, stream: int | None) -> None:
        self.bfloat16 = isinstance(dtype, str) and dtype == "bfloat16"
        self.dtype = np.dtype(np.uint16 if self.bfloat16 else dtype)
        self.shape = tuple(int(n) for n in shape)
        self.size = math.prod(self.shape)
        self.stream = stream

    @classmethod
    def _in(cls, memory: Any, shape: Sequence[int], dtype: Any, stream: int | None) -> DeviceArray:
        new = cls.__new__(cls)
        new._describe(shape, dtype, stream)
        new.memory = memory
        return new

    @classmethod
    def from_dlpack(cls, value: Any, stream: int | None = 0, name: str = "the array") -> DeviceArray:
        """A view of another library's array on a CUDA device. It keeps that array's memory alive.

        Args:
            value: Anything with ``__dlpack__``: a CUDA tensor, an array of CuPy or JAX.
            stream: The stream that will read it. That stream, not the host, waits for the other library's queued work. None: the
                caller orders the two.
            name: The argument's name, for messages.

        Raises:
            ArgumentError: it is not on a CUDA device, or not contiguous.
            ArgumentTypeError: it has no ``__dlpack__``, or a dtype that NumPy does not have.

        Example:
            >>> from diffuse_fast.kernels.device_array import DeviceArray
            >>> DeviceArray.from_dlpack(torch.ones(2, 3, device="cuda"))  # doctest: +SKIP
        """
        if not hasattr(value, "__dlpack__") or not hasattr(value, "__dlpack_device__"):
            raise ArgumentTypeError(f"{name} is a {type(value).__name__}; give an array of a library that supports DLPack.")
        _check_place(value.__dlpack_device__()[0], name)
        try:
            capsule = value.__dlpack__(stream=_NO_STREAM if stream is None else stream or _DEFAULT_STREAM)
        except BufferError as error:
            raise ArgumentError(f"{name} cannot be exported by DLPack: {error}") from None
        memory, place, shape, strides, code, bits, lanes = _core.take_dlpack(capsule)
        _check_place(place, name)
        kind = "bfloat16" if (code, bits) == (_DLPACK_BFLOAT, 16) else f"{_DLPACK_KINDS.get(code)}{bits // 8}"
        try:
            dtype = kind if kind == "bfloat16" and lanes == 1 else np.dtype(kind if lanes == 1 else "none")
        except TypeError:
            raise ArgumentTypeError(
                f"{name} has DLPack's dtype {code} of {lanes} x {bits} bits, which NumPy does not have."
            ) from None
        if strides is not None and not _is_contiguous(shape, strides, 1):
            raise ArgumentError(f"{name} is not contiguous; pass a contiguous copy.")
        return cls._in(memory, shape, dtype, stream)

    @property
    def device(self) -> int:
        """Number of the device."""
        return self.memory.device

    @property
    def dtype_name(self) -> str:
        """NumPy's name of the dtype, or ``bfloat16``."""
        return "bfloat16" if self.bfloat16 else self.dtype.name

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, at: int | slice) -> DeviceArray:
        which = range(len(self))[at]
        first, count, shape = (which, 1, ()) if isinstance(which, int) else (which.start, len(which), (len(which),))
        if isinstance(which, range) and which.step != 1:
            raise ArgumentError(f"a slice of a DeviceArray must be contiguous; this one has step {which.step}.")
        row = self.dtype.itemsize * math.prod(self.shape[1:])
        return self._in(
            self.memory.part(first * row, count * row),
            (*shape, *self.shape[1:]),
            "bfloat16" if self.bfloat16 else self.dtype,
            self.stream,
        )

    def reshape(self, shape: Sequence[int]) -> DeviceArray:
        """A view of the memory with another shape of the same size."""
        if math.prod(shape) != self.size:
            raise ArgumentError(f"an array of shape {self.shape} cannot be reshaped to {tuple(shape)}.")
        return self._in(self.memory, shape, "bfloat16" if self.bfloat16 else self.dtype, self.stream)

    def copy_from_host(self, array: np.ndarray, stream: int = 0) -> None:
        """Copy a NumPy array of this shape and dtype to the device. Waits for the copy."""
        if array.shape != self.shape or array.dtype != self.dtype:
            raise ArgumentError(f"the array is {array.dtype} {array.shape}; the device's is {self.dtype} {self.shape}.")
        self.memory.upload(np.ascontiguousarray(array), stream)

    def copy_from(self, other: DeviceArray, stream: int = 0) -> None:
        """Copy an array of this shape, dtype and device. Asynchronous: the caller keeps ``other`` alive until the copy is done."""
        if (other.shape, other.dtype_name) != (self.shape, self.dtype_name):
            raise ArgumentError(f"the array is {other.dtype_name} {other.shape}; this is {self.dtype_name} {self.shape}.")
        self.memory.copy(other.memory, stream)

    def copy_to_host(self, stream: int = 0) -> np.ndarray:
        """A NumPy copy, made after the work queued on the stream."""
        out = np.empty(self.shape, self.dtype)
        self.memory.download(out, stream)
        return out

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.memory.address, False),
            "strides": None,
            "stream": None if self.stream is None else self.stream or _DEFAULT_STREAM,
            "version": 3,
        }

    def __dlpack__(self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: Any = None) -> Any:
        if copy:
            raise BufferError("a DeviceArray is exported without a copy; copy the result")
        if dl_device not in (None, self.__dlpack_device__()):
            raise BufferError(f"a DeviceArray is exported on its own device, {self.__dlpack_device__()}; copy the result")
        if self.stream is not None and stream != _NO_STREAM:
            _core.order_streams(stream or _DEFAULT_STREAM, self.stream, self.device)
        code = _DLPACK_BFLOAT if self.bfloat16 else _DLPACK_CODES[self.dtype.kind]
        return self.memory.dlpack(self.shape, code, 8 * self.dtype.itemsize)

    def __dlpack_device__(self) -> tuple[int, int]:
        return _DLPACK_CUDA, self.device


def is_on_cuda(value: Any) -> bool:
    """Whether the value is an array of any library on a CUDA device, according to DLPack."""
    place = getattr(value, "__dlpack_device__", None)
    return place is not None and place()[0] in (_DLPACK_CUDA, _DLPACK_MANAGED)


def _check_place(place: int, name: str) -> None:
    if place not in (_DLPACK_CUDA, _DLPACK_MANAGED):
        raise ArgumentError(f"{name} is on DLPack's device {int(place)}; it must be on a CUDA device, {_DLPACK_CUDA}.")


class View(NamedTuple):
    """The memory of a device array, and its owner."""

    address: int
    shape: tuple[int, ...]
    dtype: str
    owner: Any


def view_of(value: Any, name: str) -> View:
    """The memory of a DeviceArray, a torch tensor, or any array with ``__cuda_array_interface__`` or DLPack; never a copy."""
    if hasattr(value, "data_ptr"):  # torch, whose __cuda_array_interface__ does not support bfloat16
        if value.device.type != "cuda":
            raise ArgumentError(f"{name} is on {value.device}; the cuda kernel needs it on a CUDA device.")
        if not value.is_contiguous():
            raise ArgumentError(f"{name} is not contiguous; pass {name}.contiguous().")
        return View(value.data_ptr(), tuple(value.shape), str(value.dtype).removeprefix("torch."), value)
    if not isinstance(value, DeviceArray):
        interface = getattr(value, "__cuda_array_interface__", None)
        if interface is not None:
            dtype = np.dtype(interface["typestr"])
            shape = tuple(interface["shape"])
            strides = interface.get("strides")
            if strides is not None and not _is_contiguous(shape, strides, dtype.itemsize):
                raise ArgumentError(f"{name} is not contiguous; pass a contiguous copy.")
            return View(interface["data"][0], shape, dtype.name, value)
        value = DeviceArray.from_dlpack(value, None, name)
    return View(value.memory.address, value.shape, value.dtype_name, value)


def _is_contiguous(shape: Sequence[int], strides: Sequence[int], item: int) -> bool:
    """Whether the strides are those of C order. Strides of axes of length 1, and of empty arrays, are ignored."""
    wanted = (item * math.prod(shape[i + 1 :]) for i in range(len(shape)))
    return 0 in shape or all(n == 1 or have == want for n, have, want in zip(shape, strides, wanted, strict=True))
