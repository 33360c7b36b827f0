"""The compiled step on CUDA devices, with or without torch: device arrays in, addresses passed to ``_core``.

Everything here needs a build with CUDA, a driver and a device; otherwise each call raises
:class:`~diffuse_fast.errors.UnavailableError`, which names what is missing. Work is queued on the caller's stream: a
``stream`` is a ``cudaStream_t`` as an int (``torch.cuda.current_stream().cuda_stream``, ``Stream.handle``), 0 the default stream.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _core
from ..errors import ArgumentError, ArgumentTypeError
from .base import Rows
from .overlap import check_out
from .rows import pack

# The dtypes of the state and of network outputs. NumPy has no bfloat16: its bits are passed as uint16.
FLOATS = ("float32", "float16", "bfloat16")
_STATES = (*FLOATS, "uint16")
_TIMES = ("float32", "float64", "int32", "int64")
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
    def from_host(cls, array: np.ndarray, device: int = 0, stream: int = 0) -> DeviceArray:
        """A copy of a NumPy array on the device."""
        new = cls(array.shape, array.dtype, device)
        new.copy_from_host(array, stream)
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
            >>> from diffuse_fast.kernels.cuda import DeviceArray
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


class _View(NamedTuple):
    """The memory of a device array, and its owner."""

    address: int
    shape: tuple[int, ...]
    dtype: str
    owner: Any


def _view(value: Any, name: str) -> _View:
    """The memory of a DeviceArray, a torch tensor, or any array with ``__cuda_array_interface__`` or DLPack; never a copy."""
    if hasattr(value, "data_ptr"):  # torch, whose __cuda_array_interface__ does not support bfloat16
        if value.device.type != "cuda":
            raise ArgumentError(f"{name} is on {value.device}; the cuda kernel needs it on a CUDA device.")
        if not value.is_contiguous():
            raise ArgumentError(f"{name} is not contiguous; pass {name}.contiguous().")
        return _View(value.data_ptr(), tuple(value.shape), str(value.dtype).removeprefix("torch."), value)
    if not isinstance(value, DeviceArray):
        interface = getattr(value, "__cuda_array_interface__", None)
        if interface is not None:
            dtype = np.dtype(interface["typestr"])
            shape = tuple(interface["shape"])
            strides = interface.get("strides")
            if strides is not None and not _is_contiguous(shape, strides, dtype.itemsize):
                raise ArgumentError(f"{name} is not contiguous; pass a contiguous copy.")
            return _View(interface["data"][0], shape, dtype.name, value)
        value = DeviceArray.from_dlpack(value, None, name)
    return _View(value.memory.address, value.shape, value.dtype_name, value)


def _is_contiguous(shape: Sequence[int], strides: Sequence[int], item: int) -> bool:
    """Whether the strides are those of C order. Strides of axes of length 1, and of empty arrays, are ignored."""
    wanted = (item * math.prod(shape[i + 1 :]) for i in range(len(shape)))
    return 0 in shape or all(n == 1 or have == want for n, have, want in zip(shape, strides, wanted, strict=True))


def _typed(value: Any, name: str, dtypes: Sequence[str]) -> _View:
    """The memory of an array of one of these dtypes; bfloat16's bits as bfloat16."""
    view = _view(value, name)
    if view.dtype not in dtypes:
        raise ArgumentTypeError(f"{name} has dtype {view.dtype}; it must be {' or '.join(dtypes)}.")
    return view._replace(dtype="bfloat16") if view.dtype == "uint16" else view


class CudaStep:
    """A table of rows bound to the device buffers of one run; see :class:`~.base.DeviceStep`. Keeps the arrays alive.

    Where a method takes a ``stream``, None is the stream given here. Nothing waits for the work that writes the buffers: the caller
    queues that work first. Its ``variant`` is (term set, whether a reduction runs before the step).
    """

    def __init__(
        self,
        rows: Rows,
        *,
        x: Any,
        out: Any,
        outputs: Sequence[Any],
        registers: Any,
        seeds: Any,
        indices: Any,
        y: Any = None,
        mask: Any = None,
        variance_offset: int = -1,
        element_offset: int = 0,
        times: Any = None,
        t: Any = None,
        capacity: int | None = None,
        stream: int | None = None,
    ):
        self._stream = stream or 0
        samples = len(seeds)
        state = _typed(x, "x", _STATES)
        size = math.prod(state.shape)
        if samples == 0 or size == 0 or size % samples:
            raise ArgumentError(
                f"x has shape {state.shape} for {samples} seeds; it must have one seed per sample and at least one element."
            )
        if element_offset < 0:
            raise ArgumentError(f"element_offset is {element_offset}; it must not be negative.")
        target = _typed(out, "out", _STATES)
        if (target.shape, target.dtype) != (state.shape, state.dtype):
            raise ArgumentError(f"out is {target.dtype} {target.shape}; it must be {state.dtype} {state.shape}, like x.")
        check_out(state.address, target.address, size * (4 if state.dtype == "float32" else 2))
        self._outputs = views = [_typed(m, "a network output", _STATES) for m in outputs]
        if len({(v.dtype, v.shape) for v in views}) > 1:
            raise ArgumentError("the network outputs have different shapes or dtypes; all must have the same.")
        stride = math.prod(views[0].shape[1:]) if views else 0
        if views and (views[0].shape[0] != samples or stride < (size // samples) + max(variance_offset, 0)):
            raise ArgumentError(f"a network output has shape {views[0].shape}; it must hold {samples} samples like x's.")
        bank = None if registers is None else _typed(registers, "registers", ("float32",))
        if bank is not None and bank.shape[1:] != state.shape:
            raise ArgumentError(f"registers has shape {bank.shape}; it must be (registers, *{state.shape}).")
        known, where = (None if a is None else _typed(a, name, ("float32",)) for a, name in ((y, "y"), (mask, "mask")))
        for view, name in ((known, "y"), (where, "mask")):
            if view is not None and view.shape != state.shape:
                raise ArgumentError(f"{name} has shape {view.shape}; it must have x's shape {state.shape}.")
        time = None if t is None else _typed(t, "t", _TIMES)
        if time is not None and math.prod(time.shape) != samples:
            raise ArgumentError(f"t has shape {time.shape}; it must hold one time per sample ({samples}).")
        self._keep = (state, target, views, bank, known, where, time)
        table = pack(rows)
        with _fit_errors():
            self._step = _core.DeviceStep(
                table,
                times=times,
                capacity=max(1, len(table)) if capacity is None else capacity,
                elements=size // samples,
                element_offset=element_offset,
                state_dtype=state.dtype,
                output_dtype=views[0].dtype if views else state.dtype,
                x=state.address,
                out=target.address,
                outputs=[v.address for v in views],
                output_stride=stride,
                variance_offset=variance_offset,
                registers=_address(bank),
                register_count=0 if bank is None else bank.shape[0],
                y=_address(known),
                mask=_address(where),
                t=_address(time),
                time_dtype="float32" if time is None else time.dtype,
                seeds=np.asarray(seeds, np.uint64),
                indices=np.asarray(indices, np.uint32),
                stream=self._stream,
            )

    @property
    def variant(self) -> tuple[str, bool]:
        """(term set, whether a reduction runs before the step)."""
        return self._step.variant

    @property
    def capacity(self) -> int:
        """The largest table, in rows."""
        return self._step.capacity

    def load(self, rows: Rows, times: Any = None, *, stream: int | None = None) -> None:
        """Replace the table, and the times of its rows. The samples keep their row numbers.

        Raises:
            ArgumentError: the rows do not fit the buffers or the capacity. Nothing has changed.
        """
        with _fit_errors():
            self._step.load(pack(rows), times, self._on(stream))

    def seed(self, seeds: Any, indices: Any, *, stream: int | None = None) -> None:
        """Set the noise keys: a seed (uint64) and a sample index (uint32) per sample."""
        with _fit_errors():
            self._step.seed(np.asarray(seeds, np.uint64), np.asarray(indices, np.uint32), self._on(stream))

    def place(self, rows: Any, noise_rows: Any, *, stream: int | None = None) -> None:
        """Set each sample's row and the row number of its noise. A negative row makes the sample inactive.

        Writes ``t`` of the active samples and clears the bad rows.
        """
        with _fit_errors():
            self._step.place(np.asarray(rows, np.int32), np.asarray(noise_rows).astype(np.uint32), self._on(stream))

    def launch(self, *, stream: int | None = None, outputs: Sequence[Any] | None = None) -> None:
        """Apply to every active sample its row, then advance its row, its noise row and ``t``, on the device.

        Asynchronous, without allocation: it can be captured in a CUDA graph. A sample past the last row is inactive.

        Args:
            outputs: Network outputs that replace the bound ones for this launch; of the same number, dtype and shape. The caller
                keeps them alive until the work is done.
        """
        addresses = None
        if outputs is not None:
            views = [_typed(m, "a network output", _STATES) for m in outputs]
            if [(v.shape, v.dtype) for v in views] != [(v.shape, v.dtype) for v in self._outputs]:
                raise ArgumentError("the network outputs differ from the bound ones in number, shape or dtype.")
            addresses = [v.address for v in views]
        self._step.launch(self._on(stream), addresses)

    def _on(self, stream: int | None) -> int:
        return self._stream if stream is None else stream

    def first_bad_rows(self, *, stream: int | None = None) -> np.ndarray:
        """For each sample the first row since :meth:`place` whose model output held NaN or Inf, or -1: int32. Waits.

        Raises:
            DeviceError: a launch failed, or a graph captured for another variant was replayed.
        """
        return self._step.first_bad_rows(self._on(stream))


class _fit_errors:
    """Turns a ValueError of the core into an ArgumentError."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, ValueError) and not isinstance(error, ArgumentError):
            raise ArgumentError(f"the rows do not fit the buffers: {error}.") from None


def _address(view: _View | None) -> int:
    return 0 if view is None else view.address


class CudaKernel:
    """The CUDA kernel (``csrc/step/cuda``)."""

    name = "cuda"
    device = "cuda"

    def bind(self, rows: Rows, **buffers: Any) -> CudaStep:
        """Bind rows to device buffers; see :meth:`~.base.Kernel.bind` and :class:`CudaStep`."""
        return CudaStep(rows, **buffers)

    def variant_of(self, rows: Rows, *, masked: bool = False) -> tuple[str, bool]:
        """The variant of a step with these rows. ``masked``: whether the step has a mask."""
        return _core.cuda_variant(pack(rows), masked)

    def normals(
        self,
        out: Any,
        *,
        seeds: Any,
        indices: Any,
        row: int,
        stream: int,
        scale: float = 1.0,
        element_offset: int = 0,
        cuda_stream: int | None = None,
    ) -> None:
        """Fill ``out`` (samples, ...), float32 on the device, with ``scale`` times N(0, 1). ``stream`` is the generator's."""
        view = _typed(out, "out", ("float32",))
        seeds, indices = np.asarray(seeds, np.uint64), np.asarray(indices, np.uint32)
        if len(seeds) == 0 or math.prod(view.shape) % len(seeds) or element_offset < 0:
            raise ArgumentError(f"out has shape {view.shape} for {len(seeds)} seeds, from element {element_offset}.")
        with _fit_errors():
            _core.device_normals(
                view.address,
                math.prod(view.shape) // len(seeds),
                element_offset,
                seeds,
                indices,
                row,
                stream,
                scale,
                cuda_stream or 0,
            )
