"""The interface of the step kernels: what the engine calls, and what every implementation provides.

A kernel binds a table of rows to the buffers of one run (:class:`BoundStep`); the bound step then applies rows, one call after
each network call. Kernels for the host (:class:`HostKernel`) take NumPy arrays and finish each call before they return. Kernels
for a device (:class:`DeviceKernel`) keep the table and the row numbers in device memory, so that one launch, captured in a graph,
can be replayed for every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from ..plans.plan import Row

# A table of rows: rows of a plan, or what `pack` made of them.
Rows = Sequence[Row] | np.ndarray


class BoundStep(Protocol):
    """A table of rows bound to the buffers of one run. It keeps the buffers alive, and serves one call at a time."""

    def seed(self, seeds: Any, indices: Any) -> None:
        """Set the noise keys: a seed (uint64) and a sample index (uint32) per sample."""
        ...


class HostStep(BoundStep, Protocol):
    """A bound step on the host."""

    def run(self, row: int, noise_row: int) -> int:
        """Apply one row to every sample.

        Args:
            row: Number of the row in the table.
            noise_row: Row number of the noise: the second word of its counter.

        Returns:
            The first sample whose model output holds NaN or Inf, or -1.
        """
        ...

    def run_each(self, rows: Any, noise_rows: Any, outputs: Any = None) -> int:
        """Apply to each sample its own row.

        Args:
            rows: int64 (samples,). A negative row skips the sample.
            noise_rows: uint32 (samples,).
            outputs: int64 (samples, 3): for each sample, the entry of output 0's memory that holds each of its network outputs,
                or a negative number if the output is absent. None: output j of sample i is entry i of output j.

        Returns:
            The first sample whose model output holds NaN or Inf, or -1.
        """
        ...

    def bad_samples(self) -> list[int]:
        """The samples whose model output held NaN or Inf in the last run."""
        ...


class DeviceStep(BoundStep, Protocol):
    """A bound step on a device. Where a method takes a ``stream``, None is the stream given to ``bind``, or torch's current one.

    Every sample is inactive until :meth:`place` gives it a row.
    """

    @property
    def variant(self) -> Any:
        """What a captured :meth:`launch` depends on. A table with an equal variant can be loaded without a new capture."""
        ...

    @property
    def capacity(self) -> int:
        """The largest table, in rows."""
        ...

    def load(self, rows: Rows, times: Any = None, *, stream: int | None = None) -> None:
        """Replace the table, and the times of its rows. The samples keep their row numbers.

        Raises:
            ArgumentError: the rows do not fit the buffers or the capacity. Nothing has changed.
        """
        ...

    def seed(self, seeds: Any, indices: Any, *, stream: int | None = None) -> None:
        """Set the noise keys: a seed (uint64) and a sample index (uint32) per sample."""
        ...

    def place(self, rows: Any, noise_rows: Any, *, stream: int | None = None) -> None:
        """Set each sample's row and the row number of its noise. A negative row makes the sample inactive. Writes ``t`` of the
        active samples and clears the bad rows."""
        ...

    def launch(self, *, stream: int | None = None, outputs: Sequence[Any] | None = None) -> None:
        """Apply to every active sample its row, then advance its row, its noise row and ``t``. A sample past the last row becomes
        inactive. Asynchronous, without allocation.

        Args:
            outputs: Network outputs that replace the bound ones for this launch; of the same number, dtype and shape.
        """
        ...

    def first_bad_rows(self, *, stream: int | None = None) -> np.ndarray:
        """For each sample the first row since :meth:`place` whose model output held NaN or Inf, or -1: int32. Waits."""
        ...


class Kernel(Protocol):
    """One implementation of the step (``csrc/step/step.h``).

    Attributes:
        name: Its name in the registry.
        device: ``"cpu"`` or ``"cuda"``: where its buffers are.
    """

    name: str
    device: str

    def bind(
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
    ) -> BoundStep:
        """Bind rows to buffers: contiguous arrays of the kernel's device.

        Args:
            rows: The table.
            x, out: The state and the new state, (samples, ...), float32, float16 or bfloat16. ``out`` may be ``x``; it must not
                overlap it otherwise.
            outputs: Up to three network outputs of one dtype, conditional first.
            registers: float32, (registers, samples, ...), or None.
            seeds, indices: uint64 and uint32 per sample, on the host: the noise keys.
            y, mask: float32, of x's shape: the known region and where it is known.
            variance_offset: Elements from the start of a sample of output 0 to its variance channel, or -1.
            element_offset: Logical index of the first element of each sample.

        Raises:
            ArgumentError: a row needs a tensor that is missing, or the buffers do not fit.
        """
        ...

    def normals(
        self, out: Any, *, seeds: Any, indices: Any, row: int, stream: int, scale: float = 1.0, element_offset: int = 0
    ) -> None:
        """Fill ``out`` (samples, ...), contiguous float32, with ``scale`` times N(0, 1). ``stream`` is the generator's."""
        ...


class HostKernel(Kernel, Protocol):
    """A kernel for NumPy arrays."""

    def bind(
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
    ) -> HostStep: ...

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
        """The forward process on (samples, ...) float32 arrays; ``coefficients`` float32 (4, samples); see :mod:`.forward`."""
        ...


class DeviceKernel(Kernel, Protocol):
    """A kernel for arrays of a device. Its ``bind`` takes three more buffers, for captured graphs:

    ``times`` (float32, one per row, on the host), ``t`` (one time per sample on the device, which a launch sets to the time of each
    sample's next row) and ``capacity`` (rows that the static table can hold; default: as many as ``rows``).
    """

    def bind(
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
    ) -> DeviceStep: ...
