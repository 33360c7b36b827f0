"""The step in Triton, for torch tensors on a CUDA device: a table of rows bound to static device memory.

A launch applies to every sample its own row and moves it to the next one; nothing is read back, so that a launch can be
captured in a CUDA graph and replayed for every row of any table of the same :class:`~.triton_variant.Variant`. The device code
is in :mod:`.triton_step`, :mod:`.triton_reduce` and :mod:`.triton_noise`; triton and torch are loaded when a kernel is made.
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
from ..plans.plan import MAX_OUTPUTS, Row
from .overlap import check_out
from .rows import pack
from .triton_variant import ROW_WORDS, Variant, check, tidy, variant_of

# Elements per program, of a step and of a reduction; a small sample takes fewer. Eight elements per thread: two accesses of
# 128 bits in float32, one in float16.
BLOCK = 1024
REDUCE_BLOCK = 2048
_SMALLEST_BLOCK = 128
_PER_THREAD = 8
_MAX_GRID_Y = 65535
# Contraction would change bits; so would libdevice with denormals flushed.
_OPTIONS = {"enable_fp_fusion": False, "enable_reflect_ftz": False}


def unavailable_reason() -> str | None:
    """None where the kernel can run, else what is missing. Loads torch only where a driver and triton are there."""
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
    """None where there is an NVIDIA driver, else that there is none. Starts nothing: a process may still fork."""
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

    def bind(self, rows: Sequence[Row] | np.ndarray, **buffers: Any) -> TritonStep:
        """The rows, or what :func:`~.rows.pack` made of them, bound to buffers; see :class:`TritonStep`."""
        return TritonStep(self._step, self._reduce, rows, **buffers)

    def variant_of(
        self,
        rows: Sequence[Row] | np.ndarray,
        *,
        x: Any,
        outputs: Sequence[Any],
        seeds: Sequence[int] | np.ndarray,
        mask: Any = None,
        variance_offset: int = -1,
        element_offset: int = 0,
        **_: Any,
    ) -> Variant:
        """What a launch of the rows on these buffers has built in; takes what :meth:`bind` takes."""
        return _variant(_table(rows), x, outputs, len(seeds), mask, variance_offset, element_offset)

    def normals(self, out: Any, *, seeds: Any, indices: Any, row: int, stream: int, scale: float = 1.0, element_offset: int = 0):
        """Fill ``out`` (samples, ...), a contiguous float32 tensor, with ``scale`` times N(0, 1)."""
        samples, lead = len(seeds), element_offset % 4
        elements = out.numel() // samples
        block = _block(elements + lead, BLOCK)
        with _on(out):
            self._step.normals_kernel[_grid(samples, elements + lead, block)](
                out,
                _keys(seeds, out),
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
        told = np.empty((samples, self._forward.TOLD), np.uint32)
        told[:, :4] = coefficients.view(np.uint32).T
        told[:, 4] = indices
        told[:, 5:] = seed & 0xFFFFFFFF, seed >> 32, row
        block = _block(elements, BLOCK)
        with _on(x0):
            self._forward.forward_kernel[_grid(samples, elements, block)](
                x0,
                noise,
                x_t,
                target,
                _copied(told.view(np.int32), x0),
                samples,
                elements,
                GIVEN=noise is not None,
                AIMED=target is not None,
                WHOLE=elements % block == 0,
                BLOCK=block,
                **_launch_options(block),
            )


class TritonStep:
    """A row table bound to the buffers of one run. Holds the tensors, so that they outlive it.

    Args:
        rows: Plan rows, or what :func:`~.rows.pack` made of them.
        x, out: The state and the new one, (samples, ...), float32, float16 or bfloat16; ``out`` may be ``x``, and overlaps it in
            no other way.
        outputs: Up to three network outputs of one dtype.
        registers: float32, (registers, samples, ...), or None.
        seeds, indices: Per sample, on the host.
        y, mask: float32, of x's shape: the known region and where it is known.
        variance_offset: Elements from a sample of output 0 to its variance channel, or -1.
        element_offset: Logical index of the first element of each sample.
        times: float32, one per row: what ``t`` is given.
        t: A tensor of one time per sample, which a launch sets to the time of each sample's next row.
        capacity: Rows that the static table holds; default: as many as ``rows``.

    Raises:
        ArgumentError: a row needs a tensor that is not there, the table is larger than ``capacity``, or ``out`` overlaps ``x``
            without being it.
    """

    def __init__(
        self,
        step: Any,
        reduce: Any,
        rows: Sequence[Row] | np.ndarray,
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

    # The methods take `stream` as those of every device kernel do; triton launches on torch's current stream, and so do copies.

    def load(
        self, rows: Sequence[Row] | np.ndarray, times: Sequence[float] | np.ndarray | None = None, *, stream: int | None = None
    ) -> None:
        """Copy another table, and its times, into the static memory. ``variant`` is then the table's: where it is another one,
        a captured launch must be captured again.

        Raises:
            ArgumentError: a row needs a tensor that is not there, or there are more rows than ``capacity``. Nothing was changed.
        """
        import torch

        table = _table(rows)
        if not 0 < len(table) <= self.capacity:
            raise ArgumentError(f"the table has {len(table)} rows; the static memory holds 1 to {self.capacity}.")
        if times is not None and len(times) != len(table):
            raise ArgumentError(f"there are {len(times)} times for {len(table)} rows; give one per row.")
        if times is None and self._t is not None:
            raise ArgumentError("the table comes without times, and t is bound; give times=, one per row.")
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
        """Other keys of the noise from here on: a seed and an index for each sample."""
        self._seeds.copy_(_keys(seeds, self._x))
        self._indices.copy_(_indices(indices, self._x))

    def place(self, rows: Sequence[int] | np.ndarray, noise_rows: Sequence[int] | np.ndarray, *, stream: int | None = None) -> None:
        """Put each sample at a row of the table and of the noise, and its ``t`` at the row's time. A sample at a negative row sits
        out and keeps its ``t``. Forgets the bad rows found so far."""
        self._numbers.copy_(_int32(rows, self._x))
        self._noise_rows.copy_(_int32(noise_rows, self._x))
        self._bad.fill_(-1)
        if self._t is not None:
            placed = self._numbers >= 0
            self._t.copy_(self._times[self._numbers.clamp(min=0).long()].to(self._t.dtype).where(placed, self._t))

    def launch(self, *, stream: int | None = None, outputs: Sequence[Any] | None = None) -> None:
        """Apply to every sample its row and move it to the next one, on torch's current stream; a sample past the last row is left
        alone. The first launch of a variant compiles it: launch once, with all samples sitting out, before a capture.

        Args:
            stream: Not used: torch's current stream is.
            outputs: Tensors of the dtypes, shapes and alignment of those that were bound, in their place for this launch.
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

    def first_bad_rows(self) -> np.ndarray:
        """For each sample the first row since ``place`` whose model output held NaN or Inf, or -1: int32. Synchronises."""
        return self._bad.cpu().numpy()

    def _private(self, block: int, outputs: Sequence[Any]) -> bool:
        """Whether each thread writes the elements that it has read itself: all in one dtype and aligned, so that triton gives
        every tensor the same layout. Else threads must wait for one another before they write."""
        variant = self.variant
        tensors = [t for t in (self._x, self._out, *self._outputs, self._registers, self._y, self._mask) if t is not None]
        return (
            block >= BLOCK
            and variant.element_offset % 4 == 0
            and all(size % 16 == 0 for size in (variant.elements, variant.output_stride, max(variant.variance_offset, 0)))
            and all(_dtype(t, "a buffer") == "float32" and t.data_ptr() % 16 == 0 for t in tensors)
        )


def _table(rows: Sequence[Row] | np.ndarray) -> np.ndarray:
    return tidy(rows if isinstance(rows, np.ndarray) else pack(rows))


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
    if dtype not in ("float32", "float16", "bfloat16"):
        raise ArgumentTypeError(f"{name} has dtype {dtype}; give float32, float16 or bfloat16.")
    return dtype


def _block(elements: int, largest: int) -> int:
    """The power of two that holds the elements, within bounds."""
    return min(max(1 << (elements - 1).bit_length(), _SMALLEST_BLOCK), largest)


def _grid(samples: int, elements: int, block: int) -> tuple[int, int, int]:
    y = min(samples, _MAX_GRID_Y)
    return -(-elements // block), y, -(-samples // y)


def _launch_options(block: int) -> dict[str, Any]:
    return {"num_warps": max(1, block // (32 * _PER_THREAD)), **_OPTIONS}


def _on(tensor: Any) -> contextlib.AbstractContextManager[Any]:
    """Triton launches on the current device: make it the tensor's."""
    import torch

    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def _keys(seeds: Any, like: Any) -> Any:
    return _copied(np.asarray(seeds, np.uint64).view(np.int64), like)


def _indices(indices: Any, like: Any) -> Any:
    return _copied(np.asarray(indices, np.uint32).view(np.int32), like)


def _int32(numbers: Any, like: Any) -> Any:
    return _copied(np.asarray(numbers).astype(np.int32), like)


def _copied(array: np.ndarray, like: Any) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array)).to(like.device)
