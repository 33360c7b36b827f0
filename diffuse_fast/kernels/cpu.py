"""The compiled step on the CPU: NumPy arrays in, addresses handed to ``diffuse_fast._core``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import _core
from ..errors import ArgumentError
from ..plans.plan import Row
from .rows import ROW, pack

assert ROW.itemsize == _core.ROW_BYTES, "diffuse_fast/kernels/rows.py and csrc/step/step.h disagree; rebuild the extension"

MAX_SINGLES = 4096

# Codes of DType in csrc/step/step.h. NumPy has no bfloat16: its bits travel as uint16.
DTYPE_CODES = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, np.dtype(np.uint16): 2}


class CpuStep:
    """A row table bound to the buffers of one run. Holds references to the arrays, so that they outlive it."""

    def __init__(
        self,
        kernel: str,
        rows: Sequence[Row] | np.ndarray,
        *,
        x: np.ndarray,
        out: np.ndarray,
        outputs: Sequence[np.ndarray],
        registers: np.ndarray | None,
        seeds: np.ndarray,
        indices: np.ndarray,
        y: np.ndarray | None = None,
        mask: np.ndarray | None = None,
        variance_offset: int = -1,
        element_offset: int = 0,
    ):
        self._keep = (x, out, tuple(outputs), registers, y, mask)
        samples = len(seeds)
        elements = x.size // samples
        try:
            self._stepper = _core.Stepper(
                kernel,
                rows if isinstance(rows, np.ndarray) else pack(rows),
                elements=elements,
                element_offset=element_offset,
                state_dtype=DTYPE_CODES[x.dtype],
                output_dtype=DTYPE_CODES[outputs[0].dtype] if outputs else 0,
                x=_address(x),
                out=_address(out),
                outputs=[_address(m) for m in outputs],
                output_stride=outputs[0].size // len(outputs[0]) if outputs else 0,
                output_count=len(outputs[0]) if outputs else 0,
                variance_offset=variance_offset,
                registers=_address(registers),
                register_count=0 if registers is None else len(registers),
                y=_address(y),
                mask=_address(mask),
                seeds=seeds,
                indices=indices,
            )
        except ValueError as error:
            raise ArgumentError(f"the rows do not fit the buffers: {error}.") from None
        # Bound methods of the compiled object: a call per row and nothing around it.
        self.run = self._stepper.run
        self.run_each = self._stepper.run_each
        self.seed = self._stepper.seed
        self.bad_samples = self._stepper.bad_samples


class CpuKernel:
    """One compiled implementation, by name (``scalar``, ``avx2``, ``avx512``, ``neon``)."""

    def __init__(self, name: str):
        self.name = name
        self._singles: dict[int, tuple[Row, _core.SingleRow]] = {}

    def single(self, row: Row) -> _core.SingleRow:
        """The row for plain float32 arrays (``csrc/bindings/single_row.cpp``), made once for each row object."""
        known = self._singles.get(id(row))
        if known is not None and known[0] is row:
            return known[1]
        if len(self._singles) >= MAX_SINGLES:
            self._singles.clear()
        single = _core.SingleRow(self.name, pack([row]))
        self._singles[id(row)] = (row, single)  # holds the row, so that its id stays its own
        return single

    def bind(self, rows: Sequence[Row] | np.ndarray, **buffers) -> CpuStep:
        """The rows, or what :func:`~.rows.pack` made of them, bound to buffers; see :class:`CpuStep`."""
        return CpuStep(self.name, rows, **buffers)

    def normals(self, out: np.ndarray, *, seeds, indices, row: int, stream: int, scale: float = 1.0, element_offset: int = 0):
        """Fill ``out`` (samples, ...), float32, C-contiguous, with ``scale`` times N(0, 1)."""
        _core.normals(self.name, _address(out), out.size // len(seeds), element_offset, seeds, indices, row, stream, scale)

    def forward(self, x0, x_t, target, *, coefficients, indices, seed: int, row: int, noise=None):
        """The forward process on (samples, ...) float32 arrays; ``coefficients`` float32 (4, samples); see :mod:`.forward`."""
        _core.forward(
            self.name,
            _address(x0),
            _address(noise),
            _address(x_t),
            _address(target),
            x0.size // len(indices),
            coefficients,
            seed,
            row,
            indices,
        )


def _address(array: np.ndarray | None) -> int:
    # ctypes.data is several times slower, and this is on the path of a single step.
    return 0 if array is None else array.__array_interface__["data"][0]
