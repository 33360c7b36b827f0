"""The compiled step on the CPU: NumPy arrays in, addresses passed to ``diffuse_fast._core``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _core
from ..errors import ArgumentError
from ..plans.plan import Row
from .base import Rows
from .rows import pack

MAX_SINGLE_ROWS = 4096

# NumPy has no bfloat16: its bits are passed as uint16.
_DTYPE_NAMES = {np.dtype(np.float32): "float32", np.dtype(np.float16): "float16", np.dtype(np.uint16): "bfloat16"}


def dtype_name(array: np.ndarray) -> str:
    """The dtype as the core names it: ``float32``, ``float16`` or ``bfloat16``, or NumPy's name of another one."""
    return _DTYPE_NAMES.get(array.dtype) or str(array.dtype)


def address_of(array: np.ndarray | None) -> int:
    """The address of the array's memory; 0 for None."""
    # ctypes.data is several times slower, and df.step calls this for every array.
    return 0 if array is None else array.__array_interface__["data"][0]


class CpuStep:
    """A table of rows bound to the buffers of one run; see :class:`~.base.HostStep`. Keeps the arrays alive."""

    def __init__(
        self,
        kernel: str,
        rows: Rows,
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
                pack(rows),
                elements=elements,
                element_offset=element_offset,
                state_dtype=dtype_name(x),
                output_dtype=dtype_name(outputs[0]) if outputs else "float32",
                x=address_of(x),
                out=address_of(out),
                outputs=[address_of(m) for m in outputs],
                output_stride=outputs[0].size // len(outputs[0]) if outputs else 0,
                output_count=len(outputs[0]) if outputs else 0,
                variance_offset=variance_offset,
                registers=address_of(registers),
                register_count=0 if registers is None else len(registers),
                y=address_of(y),
                mask=address_of(mask),
                seeds=seeds,
                indices=indices,
            )
        except ValueError as error:
            raise ArgumentError(f"the rows do not fit the buffers: {error}.") from None
        # The compiled object's own methods, so that a call per row costs nothing more.
        self.run = self._stepper.run
        self.run_each = self._stepper.run_each
        self.seed = self._stepper.seed
        self.bad_samples = self._stepper.bad_samples


class CpuKernel:
    """One compiled implementation, by name (``scalar``, ``avx2``, ``avx512``, ``neon``)."""

    device = "cpu"

    def __init__(self, name: str):
        self.name = name
        self._single_rows: dict[int, tuple[Row, _core.SingleRow]] = {}

    def single_row(self, row: Row) -> _core.SingleRow:
        """The row for contiguous float32 arrays (``csrc/step/cpu/single_row.h``), created once per row object."""
        cached = self._single_rows.get(id(row))
        if cached is not None and cached[0] is row:
            return cached[1]
        if len(self._single_rows) >= MAX_SINGLE_ROWS:
            self._single_rows.clear()
        single = _core.SingleRow(self.name, pack([row]))
        self._single_rows[id(row)] = (row, single)  # keeps the row alive, so that no other object gets its id
        return single

    def bind(self, rows: Rows, **buffers: Any) -> CpuStep:
        """Bind rows to NumPy arrays; see :meth:`~.base.Kernel.bind`."""
        return CpuStep(self.name, rows, **buffers)

    def normals(
        self, out: np.ndarray, *, seeds: Any, indices: Any, row: int, stream: int, scale: float = 1.0, element_offset: int = 0
    ) -> None:
        """Fill ``out`` (samples, ...), float32, C-contiguous, with ``scale`` times N(0, 1)."""
        _core.normals(self.name, address_of(out), out.size // len(seeds), element_offset, seeds, indices, row, stream, scale)

    def forward(
        self,
        x0: np.ndarray,
        x_t: np.ndarray,
        target: np.ndarray | None,
        *,
        coefficients: np.ndarray,
        indices: np.ndarray,
        seed: int,
        row: int,
        noise: np.ndarray | None = None,
    ) -> None:
        """The forward process on (samples, ...) float32 arrays; ``coefficients`` float32 (4, samples); see :mod:`.forward`."""
        _core.forward(
            self.name,
            address_of(x0),
            address_of(noise),
            address_of(x_t),
            address_of(target),
            x0.size // len(indices),
            coefficients,
            seed,
            row,
            indices,
        )
