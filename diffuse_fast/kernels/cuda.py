"""The compiled step on CUDA devices, with or without torch beside it: device arrays in, addresses handed to ``_core``.

Everything here needs a build with CUDA, a driver and a device; without one of them, each call raises
:class:`~diffuse_fast.errors.UnavailableError`, which names what is missing. Work goes to the stream of the caller: a
``stream`` is a ``cudaStream_t`` as a whole number (``torch.cuda.current_stream().cuda_stream``, ``Stream.handle``), 0 the default.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _core
from ..errors import ArgumentError, ArgumentTypeError
from ..plans.plan import Row
from .overlap import check_out
from .rows import pack

# Codes of DType in csrc/step/step.h, by NumPy's and by torch's name. NumPy has no bfloat16: its bits travel as uint16.
_CODES = {"float32": 0, "float16": 1, "bfloat16": 2, "uint16": 2}
# What the state and the network's outputs may be.
FLOATS = ("float32", "float16", "bfloat16")
# Codes of TimeType in csrc/step/cuda.h.
_TIME_CODES = {"float32": 0, "float64": 1, "int32": 2, "int64": 3}
# Codes of DLPack's DLDataTypeCode by NumPy's kind, and of DLDeviceType.
_DLPACK_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}
_DLPACK_KINDS = {code: kind for kind, code in _DLPACK_CODES.items()}
_DLPACK_BFLOAT, _DLPACK_CUDA, _DLPACK_MANAGED = 4, 2, 13
# In DLPack and __cuda_array_interface__ the default stream is 1: 0 could mean two of them. -1: nothing waits.
_DEFAULT_STREAM, _NO_STREAM = 1, -1


class Stream:
    """A stream of a device, where there is no torch to make one. ``handle`` is the cudaStream_t as a whole number."""

    def __init__(self, device: int = 0):
        self._stream = _core.DeviceStream(device)
        self.handle = self._stream.handle

    def synchronize(self) -> None:
        """Wait until all work on the stream is done."""
        self._stream.synchronize()


class DeviceArray:
    """A C-contiguous array on a CUDA device: memory, a shape and a dtype, and nothing to compute with.

    Other libraries take it without a copy, by ``__cuda_array_interface__`` or DLPack, and :meth:`from_dlpack` takes theirs.
    ``array[i]`` and ``array[i:j]`` are parts of the same memory.

    Args:
        shape: Its shape.
        dtype: A NumPy dtype, or ``"bfloat16"`` (which NumPy sees as uint16).
        device: Number of the device.
        stream: The stream that it is written on: who takes it by a protocol waits for what is queued there. None: the caller
            orders what reads it after what writes it.

    Raises:
        UnavailableError: there is no CUDA here.
        DeviceError: the device has no memory left.
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
        """Another library's array on a CUDA device: the same memory, which is held as long as this lives.

        Args:
            value: Anything with ``__dlpack__``: a CUDA tensor, an array of CuPy or JAX.
            stream: Where it will be read: what the other library has queued on it is waited for there, not on the host. None: the
                caller orders that.
            name: What messages call it.

        Raises:
            ArgumentError: it is not on a CUDA device, or not contiguous.
            ArgumentTypeError: it has no ``__dlpack__``, or a dtype that NumPy has not.

        Example:
            >>> from diffuse_fast.kernels.cuda import DeviceArray
            >>> DeviceArray.from_dlpack(torch.ones(2, 3, device="cuda"))  # doctest: +SKIP
        """
        if not hasattr(value, "__dlpack__") or not hasattr(value, "__dlpack_device__"):
            raise ArgumentTypeError(f"{name} is a {type(value).__name__}; give an array of a library that speaks DLPack.")
        _check_place(value.__dlpack_device__()[0], name)
        try:
            capsule = value.__dlpack__(stream=_NO_STREAM if stream is None else stream or _DEFAULT_STREAM)
        except BufferError as error:
            raise ArgumentError(f"{name} cannot be handed over: {error}") from None
        memory, place, shape, strides, code, bits, lanes = _core.take_dlpack(capsule)
        _check_place(place, name)
        kind = "bfloat16" if (code, bits) == (_DLPACK_BFLOAT, 16) else f"{_DLPACK_KINDS.get(code)}{bits // 8}"
        try:
            dtype = kind if kind == "bfloat16" and lanes == 1 else np.dtype(kind if lanes == 1 else "none")
        except TypeError:
            raise ArgumentTypeError(f"{name} has DLPack's dtype {code} of {lanes} x {bits} bits; NumPy has none like it.") from None
        if strides is not None and not _is_contiguous(shape, strides, 1):
            raise ArgumentError(f"{name} is not contiguous; pass a contiguous copy.")
        return cls._in(memory, shape, dtype, stream)

    @property
    def device(self) -> int:
        """Number of the device."""
        return self.memory.device

    @property
    def dtype_name(self) -> str:
        """As NumPy calls it, and ``bfloat16``."""
        return "bfloat16" if self.bfloat16 else self.dtype.name

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, at: int | slice) -> DeviceArray:
        which = range(len(self))[at]
        first, count, shape = (which, 1, ()) if isinstance(which, int) else (which.start, len(which), (len(which),))
        if isinstance(which, range) and which.step != 1:
            raise ArgumentError(f"a part of a DeviceArray is contiguous; this one goes in steps of {which.step}.")
        row = self.dtype.itemsize * math.prod(self.shape[1:])
        return self._in(
            self.memory.part(first * row, count * row),
            (*shape, *self.shape[1:]),
            "bfloat16" if self.bfloat16 else self.dtype,
            self.stream,
        )

    def reshape(self, shape: Sequence[int]) -> DeviceArray:
        """The same memory in another shape of as many elements."""
        if math.prod(shape) != self.size:
            raise ArgumentError(f"the array is {self.shape}; it has no shape {tuple(shape)}.")
        return self._in(self.memory, shape, "bfloat16" if self.bfloat16 else self.dtype, self.stream)

    def copy_from_host(self, array: np.ndarray, stream: int = 0) -> None:
        """Copy a NumPy array of this shape and dtype to the device; has read it when it returns."""
        if array.shape != self.shape or array.dtype != self.dtype:
            raise ArgumentError(f"the array is {array.dtype} {array.shape}; the device's is {self.dtype} {self.shape}.")
        self.memory.upload(np.ascontiguousarray(array), stream)

    def copy_from(self, other: DeviceArray, stream: int = 0) -> None:
        """Copy an array of this shape, dtype and device. Asynchronous: the caller keeps ``other`` until that is done."""
        if (other.shape, other.dtype_name) != (self.shape, self.dtype_name):
            raise ArgumentError(f"the array is {other.dtype_name} {other.shape}; this is {self.dtype_name} {self.shape}.")
        self.memory.copy(other.memory, stream)

    def copy_to_host(self, stream: int = 0) -> np.ndarray:
        """A NumPy array of the contents, after the work on the stream."""
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
            raise BufferError("a DeviceArray is handed over without a copy; copy it there")
        if dl_device not in (None, self.__dlpack_device__()):
            raise BufferError(f"a DeviceArray is handed over where it is, {self.__dlpack_device__()}; copy it from there")
        if self.stream is not None and stream != _NO_STREAM:
            _core.order_streams(stream or _DEFAULT_STREAM, self.stream, self.device)
        code = _DLPACK_BFLOAT if self.bfloat16 else _DLPACK_CODES[self.dtype.kind]
        return self.memory.dlpack(self.shape, code, 8 * self.dtype.itemsize)

    def __dlpack_device__(self) -> tuple[int, int]:
        return _DLPACK_CUDA, self.device


def is_on_cuda(value: Any) -> bool:
    """Whether DLPack finds the array of some library on a CUDA device."""
    place = getattr(value, "__dlpack_device__", None)
    return place is not None and place()[0] in (_DLPACK_CUDA, _DLPACK_MANAGED)


def _check_place(place: int, name: str) -> None:
    if place not in (_DLPACK_CUDA, _DLPACK_MANAGED):
        raise ArgumentError(f"{name} is on DLPack's device {int(place)}; it must be on a CUDA device, {_DLPACK_CUDA}.")


class _View(NamedTuple):
    """What the kernel wants to know of an array, and the owner of its memory."""

    address: int
    shape: tuple[int, ...]
    dtype: str
    owner: Any


def _view(value: Any, name: str) -> _View:
    """The device memory of a DeviceArray, a torch tensor, or whatever has ``__cuda_array_interface__`` or DLPack; never a copy."""
    if hasattr(value, "data_ptr"):  # torch: its __cuda_array_interface__ knows no bfloat16
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
    """Whether strides are those of C order. Where an axis has one entry, or the array none, its stride means nothing."""
    wanted = (item * math.prod(shape[i + 1 :]) for i in range(len(shape)))
    return 0 in shape or all(n == 1 or have == want for n, have, want in zip(shape, strides, wanted, strict=True))


def _typed(value: Any, name: str, codes: dict[str, int]) -> _View:
    view = _view(value, name)
    if view.dtype not in codes:
        raise ArgumentTypeError(f"{name} has dtype {view.dtype}; it must be {' or '.join(codes)}.")
    return view


def _packed(rows: Sequence[Row] | np.ndarray) -> np.ndarray:
    return rows if isinstance(rows, np.ndarray) else pack(rows)


class CudaStep:
    """A table of rows bound to the device buffers of one run. Holds references to the arrays, so that they outlive it.

    Every sample sits out until :meth:`place` puts it at a row. Where a method takes a ``stream``, None is the one given when
    bound. ``variant`` is what a captured :meth:`launch` has fixed: while it is the same, another table may be loaded under the
    capture. Nothing here waits for what wrote the arrays: the caller orders that before. ``out`` may be ``x``; it overlaps it in
    no other way.
    """

    def __init__(
        self,
        rows: Sequence[Row] | np.ndarray,
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
        state = _typed(x, "x", _CODES)
        size = math.prod(state.shape)
        if samples == 0 or size == 0 or size % samples:
            raise ArgumentError(f"x has shape {state.shape} for {samples} seeds; it needs a seed per sample and elements.")
        if element_offset < 0:
            raise ArgumentError(f"element_offset is {element_offset}; it must not be negative.")
        target = _typed(out, "out", _CODES)
        if target.shape != state.shape or _CODES[target.dtype] != _CODES[state.dtype]:
            raise ArgumentError(f"out is {target.dtype} {target.shape}; it must be as x, {state.dtype} {state.shape}.")
        check_out(state.address, target.address, size * (4 if state.dtype == "float32" else 2))
        self._outputs = views = [_typed(m, "a network output", _CODES) for m in outputs]
        if len({(v.dtype, v.shape) for v in views}) > 1:
            raise ArgumentError("the network outputs have different shapes or dtypes; give all alike.")
        stride = math.prod(views[0].shape[1:]) if views else 0
        if views and (views[0].shape[0] != samples or stride < (size // samples) + max(variance_offset, 0)):
            raise ArgumentError(f"a network output has shape {views[0].shape}; it must hold {samples} samples like x's.")
        bank = None if registers is None else _typed(registers, "registers", {"float32": 0})
        if bank is not None and bank.shape[1:] != state.shape:
            raise ArgumentError(f"registers has shape {bank.shape}; it must be (registers, *{state.shape}).")
        known, where = (None if a is None else _typed(a, name, {"float32": 0}) for a, name in ((y, "y"), (mask, "mask")))
        for view, name in ((known, "y"), (where, "mask")):
            if view is not None and view.shape != state.shape:
                raise ArgumentError(f"{name} has shape {view.shape}; it must have x's shape {state.shape}.")
        time = None if t is None else _typed(t, "t", _TIME_CODES)
        if time is not None and math.prod(time.shape) != samples:
            raise ArgumentError(f"t has shape {time.shape}; it must hold one time per sample ({samples}).")
        self._keep = (state, target, views, bank, known, where, time)
        table = _packed(rows)
        with _fitting():
            self._step = _core.DeviceStep(
                table,
                times=times,
                capacity=max(1, len(table)) if capacity is None else capacity,
                elements=size // samples,
                element_offset=element_offset,
                state_dtype=_CODES[state.dtype],
                output_dtype=_CODES[views[0].dtype] if views else _CODES[state.dtype],
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
                time_dtype=0 if time is None else _TIME_CODES[time.dtype],
                seeds=np.asarray(seeds, np.uint64),
                indices=np.asarray(indices, np.uint32),
                stream=self._stream,
            )

    @property
    def variant(self) -> tuple[str, bool]:
        """(cover, whether a reduction goes before the step)."""
        return self._step.variant

    @property
    def capacity(self) -> int:
        """Rows that fit."""
        return self._step.capacity

    def load(self, rows: Sequence[Row] | np.ndarray, times: Any = None, *, stream: int | None = None) -> None:
        """Another table in place of the one that is there. The samples stay at their row numbers.

        Raises:
            ArgumentError: it does not fit the buffers or the capacity; nothing has changed.
        """
        with _fitting():
            self._step.load(_packed(rows), times, self._on(stream))

    def seed(self, seeds: Any, indices: Any, *, stream: int | None = None) -> None:
        """Other keys of the noise: a seed (uint64) and a sample index (uint32) per sample."""
        with _fitting():
            self._step.seed(np.asarray(seeds, np.uint64), np.asarray(indices, np.uint32), self._on(stream))

    def place(self, rows: Any, noise_rows: Any, *, stream: int | None = None) -> None:
        """The row that each sample is at, and the number of its noise. A negative row: the sample sits out.

        Sets ``t`` of the samples that take part, and forgets the bad rows.
        """
        with _fitting():
            self._step.place(np.asarray(rows, np.int32), np.asarray(noise_rows).astype(np.uint32), self._on(stream))

    def launch(self, *, stream: int | None = None, outputs: Sequence[Any] | None = None) -> None:
        """Apply to every sample its row, then go on to the next: counters, noise rows and ``t`` rise on the device.

        Asynchronous, without allocation: it can be captured in a CUDA graph. A sample past the last row sits out.

        Args:
            outputs: Network outputs in place of those that were bound, for this launch: of their number, dtype and shape. The
                caller keeps them until the work is done.
        """
        addresses = None
        if outputs is not None:
            views = [_typed(m, "a network output", _CODES) for m in outputs]
            if [(v.shape, v.dtype) for v in views] != [(v.shape, v.dtype) for v in self._outputs]:
                raise ArgumentError("the network outputs differ from those that were bound in number, shape or dtype.")
            addresses = [v.address for v in views]
        self._step.launch(self._on(stream), addresses)

    def _on(self, stream: int | None) -> int:
        return self._stream if stream is None else stream

    def first_bad_rows(self, *, stream: int | None = None) -> np.ndarray:
        """int32 per sample: the first row since :meth:`place` whose model output held NaN or Inf, or -1. Waits.

        Raises:
            DeviceError: a launch failed, or a graph captured for another variant was replayed.
        """
        return self._step.first_bad_rows(self._on(stream))


class _fitting:
    """ValueError of the core as ArgumentError."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, ValueError) and not isinstance(error, ArgumentError):
            raise ArgumentError(f"the rows do not fit the buffers: {error}.") from None


def _address(view: _View | None) -> int:
    return 0 if view is None else view.address


class CudaKernel:
    """The CUDA kernel (``csrc/step/step_cuda.cu``)."""

    name = "cuda"
    device = "cuda"

    def bind(self, rows: Sequence[Row] | np.ndarray, **buffers: Any) -> CudaStep:
        """The rows bound to device buffers; see :class:`CudaStep`."""
        return CudaStep(rows, **buffers)

    def variant_of(self, rows: Sequence[Row] | np.ndarray, *, masked: bool = False) -> tuple[str, bool]:
        """The variant that a step would have with these rows; ``masked``: where it has a mask."""
        return _core.cuda_variant(_packed(rows), masked)

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
        view = _typed(out, "out", {"float32": 0})
        seeds, indices = np.asarray(seeds, np.uint64), np.asarray(indices, np.uint32)
        if len(seeds) == 0 or math.prod(view.shape) % len(seeds) or element_offset < 0:
            raise ArgumentError(f"out has shape {view.shape} for {len(seeds)} seeds, from element {element_offset}.")
        with _fitting():
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
