"""The compiled step on CUDA devices, with or without torch: device arrays in, addresses passed to ``_core``.

Everything here needs a build with CUDA, a driver and a device; otherwise each call raises
:class:`~diffuse_fast.errors.UnavailableError`, which names what is missing. Work is queued on the caller's stream: a
``stream`` is a ``cudaStream_t`` as an int (``torch.cuda.current_stream().cuda_stream``, ``Stream.handle``), 0 the default stream.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _core
from ..errors import ArgumentError, ArgumentTypeError
from .arrays import FLOATS
from .base import Rows
from .device_array import View, view_of
from .overlap import check_out
from .rows import pack

# The dtypes of the state and of network outputs. NumPy has no bfloat16: its bits are passed as uint16.
_STATES = (*FLOATS, "uint16")
_TIMES = ("float32", "float64", "int32", "int64")


def _typed(value: Any, name: str, dtypes: Sequence[str]) -> View:
    """The memory of an array of one of these dtypes; bfloat16's bits as bfloat16."""
    view = view_of(value, name)
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


def _address(view: View | None) -> int:
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
