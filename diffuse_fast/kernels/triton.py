"""The step in Triton, for torch tensors on a CUDA device: a table of rows bound to static device memory.

A launch applies to every sample its own row and advances it to the next one. Nothing is read back, so a launch can be captured
in a CUDA graph and replayed for every row of any table of the same :class:`~.triton_variant.Variant`. The device code is in
:mod:`.triton_step`, :mod:`.triton_reduce` and :mod:`.triton_noise`; triton and torch are loaded when a kernel is created.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, ArgumentTypeError, install_hint
from ..plans.plan import MAX_OUTPUTS
from .arrays import FLOATS
from .base import Rows
from .overlap import check_out
from .rows import pack
from .triton_variant import ROW_WORDS, Variant, canonicalize, check, variant_of

# Elements per program, of a step and of a reduction; small samples use fewer. Eight elements per thread: two accesses of
# 128 bits in float32, one in float16.
BLOCK = 1024
REDUCE_BLOCK = 2048
_SMALLEST_BLOCK = 128
_PER_THREAD = 8
_MAX_GRID_Y = 65535
# Contraction of multiplies and adds, and libdevice flushing denormals, would change bits.
_OPTIONS = {"enable_fp_fusion": False, "enable_reflect_ftz": False}


def unavailable_reason() -> str | None:
    """What is missing to run the kernel, or None. Loads torch only if a driver and triton are present."""
    if importlib.util.find_spec("triton") is None:
        return f"triton is not installed; {install_hint('gpu')}"
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed; the Triton kernel steps torch tensors"
    if (why := driver_reason()) is not None:
        return why
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if not torch.cuda.is_available():
        return "no CUDA device answers"
    return None


def driver_reason() -> str | None:
    """A message if the NVIDIA driver is missing, else None. Does not initialise it: the process may still fork."""
    try:
        ctypes.CDLL("libcuda.so.1" if sys.platform != "win32" else "nvcuda.dll")
    except OSError:
        return "this machine has no NVIDIA driver (libcuda.so.1)"
    return None


class TritonKernel:
    """The kernel ``triton``; its buffers are torch tensors on one device, contiguous."""

    name = "triton"
    device = "cuda"

    def __init__(self) -> None:
        self._step = importlib.import_module(f"{__package__}.triton_step")
        self._reduce = importlib.import_module(f"{__package__}.triton_reduce")
        self._forward = importlib.import_module(f"{__package__}.triton_forward")

    def bind(self, rows: Rows, **buffers: Any) -> TritonStep:
        """Bind rows to tensors; see :meth:`~.base.Kernel.bind` and :class:`TritonStep`."""
        return TritonStep(self._step, self._reduce, rows, **buffers)

    def variant_of(
        self,
        rows: Rows,
        *,
        x: Any,
        outputs: Sequence[Any],
        seeds: Sequence[int] | np.ndarray,
        mask: Any = None,
        variance_offset: int = -1,
        element_offset: int = 0,
        **_: Any,
    ) -> Variant:
        """The variant of a step with these rows and buffers; takes the arguments of :meth:`bind`."""
        return _variant(_table(rows), x, outputs, len(seeds), mask, variance_offset, element_offset)

    def normals(self, out: Any, *, seeds: Any, indices: Any, row: int, stream: int, scale: float = 1.0, element_offset: int = 0):
        """Fill ``out`` (samples, ...), a contiguous float32 tensor, with ``scale`` times N(0, 1)."""
        samples, lead = len(seeds), element_offset % 4
        elements = out.numel() // samples
        block = _block(elements + lead, BLOCK)
        with _on(out):
            self._step.normals_kernel[_grid(samples, elements + lead, block)](
                out,
                _seeds(seeds, out),
                _indices(indices, out),
                samples,
                elements,
                element_offset // 4,
                row,
                scale,
                STREAM=stream,
                LEAD=lead,
                BLOCK=block,
                **_launch_options(block),
            )

    def forward(
        self,
        x0: Any,
        x_t: Any,
        target: Any,
        *,
        coefficients: np.ndarray,
        indices: np.ndarray,
        seed: int,
        row: int,
        noise: Any = None,
    ) -> None:
        """The forward process on (samples, ...) contiguous float32 tensors; ``coefficients`` float32 (4, samples); see
        :mod:`.forward`."""
        samples = len(indices)
        elements = x0.numel() // samples
        parameters = np.empty((samples, self._forward.WORDS), np.uint32)
        parameters[:, :4] = coefficients.view(np.uint32).T
        parameters[:, 4] = indices
        parameters[:, 5:] = seed & 0xFFFFFFFF, seed >> 32, row
        block = _block(elements, BLOCK)
        with _on(x0):
            self._forward.forward_kernel[_grid(samples, elements, block)](
                x0,
                noise,
                x_t,
                target,
                _copied(parameters.view(np.int32), x0),
                samples,
                elements,
                GIVEN=noise is not None,
                WITH_TARGET=target is not None,
                WHOLE=elements % block == 0,
                BLOCK=block,
                **_launch_options(block),
            )


class TritonStep:
    """A table of rows bound to the tensors of one run; see :class:`~.base.DeviceStep`. Keeps the tensors alive.

    Work is queued on torch's current stream: the ``stream`` that methods take is ignored.

    Args:
        rows: Rows of a plan, or their :func:`~.rows.pack`.
        x, out, outputs, registers, seeds, indices, y, mask, variance_offset, element_offset: As in :meth:`~.base.Kernel.bind`.
        times: float32, one per row: the values written to ``t``.
        t: One time per sample, which a launch sets to the time of each sample's next row.
        capacity: Rows that the static table can hold; default: as many as ``rows``.

    Raises:
        ArgumentError: a row needs a tensor that is missing, the table is larger than ``capacity``, or ``out`` overlaps ``x``
            without being ``x``.
    """

    def __init__(
        self,
        step: Any,
        reduce: Any,
        rows: Rows,
        *,
        x: Any,
        out: Any,
        outputs: Sequence[Any],
        registers: Any,
        seeds: Sequence[int] | np.ndarray,
        indices: Sequence[int] | np.ndarray,
        y: Any = None,
        mask: Any = None,
        variance_offset: int = -1,
        element_offset: int = 0,
        times: Sequence[float] | np.ndarray | None = None,
        t: Any = None,
        capacity: int | None = None,
    ):
        import torch

        if t is not None and times is None:
            raise ArgumentError("t is given without times; give times=, one per row.")
        check_out(x.data_ptr(), out.data_ptr(), x.numel() * x.element_size())
        self._step, self._reduce = step, reduce
        self._x, self._out, self._outputs, self._registers, self._y, self._mask, self._t = x, out, outputs, registers, y, mask, t
        self._variance_offset, self._element_offset = variance_offset, element_offset
        self._samples = len(seeds)
        self.capacity = len(rows) if capacity is None else capacity

        def static(*shape: int, dtype: Any) -> Any:
            return torch.zeros(shape, dtype=dtype, device=x.device)

        self._table = static(self.capacity, ROW_WORDS, dtype=torch.float32)
        self._times = static(self.capacity, dtype=torch.float32)
        self._row_count = static(1, dtype=torch.int32)
        self._numbers, self._noise_rows = static(2, self._samples, dtype=torch.int32)
        self._bad = static(self._samples, dtype=torch.int32)
        self._seeds, self._indices = static(self._samples, dtype=torch.int64), static(self._samples, dtype=torch.int32)
        self._live = static(self._samples, ROW_WORDS, dtype=torch.float32)
        self.variant: Variant
        self.load(rows, times)
        self.seed(seeds, indices)
        nowhere = np.full(self._samples, -1, np.int32)
        self.place(nowhere, nowhere)

    def load(self, rows: Rows, times: Sequence[float] | np.ndarray | None = None, *, stream: int | None = None) -> None:
        """Replace the table, and the times of its rows. If that changes ``variant``, a captured launch must be captured again.

        Raises:
            ArgumentError: a row needs a tensor that is missing, or there are more rows than ``capacity``. Nothing has changed.
        """
        import torch

        table = _table(rows)
        if not 0 < len(table) <= self.capacity:
            raise ArgumentError(f"the table has {len(table)} rows; the static memory holds 1 to {self.capacity}.")
        if times is not None and len(times) != len(table):
            raise ArgumentError(f"there are {len(times)} times for {len(table)} rows; give one per row.")
        if times is None and self._t is not None:
            raise ArgumentError("t is bound, and the table has no times; give times=, one per row.")
        check(
            table,
            outputs=len(self._outputs),
            registers=0 if self._registers is None else len(self._registers),
            variance=self._variance_offset >= 0 and len(self._outputs) > 0,
            masked=self._mask is not None,
            known=self._y is not None,
        )
        self.variant = _variant(
            table, self._x, self._outputs, self._samples, self._mask, self._variance_offset, self._element_offset
        )
        words = table.view(np.float32).reshape(len(table), ROW_WORDS)
        self._table[: len(table)].copy_(torch.from_numpy(words))
        if times is not None:
            self._times[: len(table)].copy_(torch.from_numpy(np.asarray(times, np.float32)))
        self._row_count.fill_(len(table))

    def seed(self, seeds: Sequence[int] | np.ndarray, indices: Sequence[int] | np.ndarray, *, stream: int | None = None) -> None:
        """Set the noise keys: a seed and a sample index per sample."""
        self._seeds.copy_(_seeds(seeds, self._x))
        self._indices.copy_(_indices(indices, self._x))

    def place(self, rows: Sequence[int] | np.ndarray, noise_rows: Sequence[int] | np.ndarray, *, stream: int | None = None) -> None:
        """Set each sample's row, the row number of its noise, and its ``t``. A negative row makes the sample inactive and keeps its
        ``t``. Clears the bad rows."""
        self._numbers.copy_(_int32(rows, self._x))
        self._noise_rows.copy_(_int32(noise_rows, self._x))
        self._bad.fill_(-1)
        if self._t is not None:
            placed = self._numbers >= 0
            self._t.copy_(self._times[self._numbers.clamp(min=0).long()].to(self._t.dtype).where(placed, self._t))

    def launch(self, *, stream: int | None = None, outputs: Sequence[Any] | None = None) -> None:
        """Apply to every active sample its row and advance it. A sample past the last row is inactive.

        The first launch of a variant compiles it: before a capture, launch once with all samples inactive.

        Args:
            outputs: Tensors that replace the bound outputs for this launch; of the same dtypes, shapes and alignment.
        """
        outputs = self._outputs if outputs is None else outputs
        variant, lead = self.variant, self._element_offset % 4
        terms = variant.terms()
        block = _block(variant.elements + lead, BLOCK)
        first_counter = self._element_offset // 4
        m_0, m_1, m_2 = [*outputs, None, None, None][:MAX_OUTPUTS]
        with _on(self._x):
            if variant.reductions:
                reduce_block = _block(variant.elements + lead, REDUCE_BLOCK)
                self._reduce.reduce_kernel[(self._samples,)](
                    self._table,
                    self._live,
                    self._row_count,
                    self._numbers,
                    self._noise_rows,
                    self._seeds,
                    self._indices,
                    self._x,
                    m_0,
                    m_1,
                    m_2,
                    self._registers,
                    self._samples,
                    variant.elements,
                    variant.output_stride,
                    first_counter,
                    SOME=terms["SOME"],
                    EVERY=terms["EVERY"],
                    REDUCTIONS=variant.reductions,
                    LEAD=lead,
                    BLOCK=reduce_block,
                    **_launch_options(reduce_block),
                )
            self._step.step_kernel[_grid(self._samples, variant.elements + lead, block)](
                self._table,
                self._live,
                self._row_count,
                self._numbers,
                self._noise_rows,
                self._bad,
                self._seeds,
                self._indices,
                self._x,
                self._out,
                m_0,
                m_1,
                m_2,
                self._registers,
                self._y,
                self._mask,
                self._samples,
                variant.elements,
                variant.output_stride,
                variant.variance_offset,
                first_counter,
                **terms,
                REDUCED=variant.reductions != 0,
                MASKED=variant.masked,
                PRIVATE=self._private(block, outputs),
                LEAD=lead,
                WHOLE=lead == 0 and variant.elements % block == 0,
                BLOCK=block,
                **_launch_options(block),
            )
            advance_block = _block(self._samples, BLOCK)
            self._step.advance_kernel[(-(-self._samples // advance_block),)](
                self._row_count,
                self._numbers,
                self._noise_rows,
                self._times,
                self._t,
                self._samples,
                TIMED=self._t is not None,
                BLOCK=advance_block,
                **_launch_options(advance_block),
            )

    def first_bad_rows(self, *, stream: int | None = None) -> np.ndarray:
        """For each sample the first row since ``place`` whose model output held NaN or Inf, or -1: int32. Synchronises."""
        return self._bad.cpu().numpy()

    def _private(self, block: int, outputs: Sequence[Any]) -> bool:
        """Whether each thread writes only elements that it has read. Then all tensors have one dtype and alignment, so triton gives
        them the same layout. Otherwise threads must synchronise before they write."""
        variant = self.variant
        tensors = [t for t in (self._x, self._out, *self._outputs, self._registers, self._y, self._mask) if t is not None]
        return (
            block >= BLOCK
            and variant.element_offset % 4 == 0
            and all(size % 16 == 0 for size in (variant.elements, variant.output_stride, max(variant.variance_offset, 0)))
            and all(_dtype(t, "a buffer") == "float32" and t.data_ptr() % 16 == 0 for t in tensors)
        )


def _table(rows: Rows) -> np.ndarray:
    return canonicalize(pack(rows))


def _variant(
    table: np.ndarray, x: Any, outputs: Sequence[Any], samples: int, mask: Any, variance_offset: int, element_offset: int
) -> Variant:
    return variant_of(
        table,
        state=_dtype(x, "x"),
        output=_dtype(outputs[0], "a network output") if outputs else "float32",
        masked=mask is not None,
        samples=samples,
        elements=x.numel() // samples,
        output_stride=outputs[0].numel() // len(outputs[0]) if outputs else 0,
        variance_offset=variance_offset,
        element_offset=element_offset,
    )


def _dtype(tensor: Any, name: str) -> str:
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in FLOATS:
        raise ArgumentTypeError(f"{name} has dtype {dtype}; it must be {' or '.join(FLOATS)}.")
    return dtype


def _block(elements: int, largest: int) -> int:
    """The smallest power of two that holds the elements, from _SMALLEST_BLOCK to ``largest``."""
    return min(max(1 << (elements - 1).bit_length(), _SMALLEST_BLOCK), largest)


def _grid(samples: int, elements: int, block: int) -> tuple[int, int, int]:
    y = min(samples, _MAX_GRID_Y)
    return -(-elements // block), y, -(-samples // y)


def _launch_options(block: int) -> dict[str, Any]:
    return {"num_warps": max(1, block // (32 * _PER_THREAD)), **_OPTIONS}


def _on(tensor: Any) -> contextlib.AbstractContextManager[Any]:
    """Makes the tensor's device current, because triton launches there."""
    import torch

    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def _seeds(seeds: Any, like: Any) -> Any:
    return _copied(np.asarray(seeds, np.uint64).view(np.int64), like)


def _indices(indices: Any, like: Any) -> Any:
    return _copied(np.asarray(indices, np.uint32).view(np.int32), like)


def _int32(numbers: Any, like: Any) -> Any:
    return _copied(np.asarray(numbers).astype(np.int32), like)


def _copied(array: np.ndarray, like: Any) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array)).to(like.device)
