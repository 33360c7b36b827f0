"""The step in NumPy, in float64: the definition that every other kernel is tested against. Slow, and meant to be read.

The noise is here too (:func:`philox`, :func:`normals`), written from the papers in float64: it shares only the definition in
``csrc/random`` with the compiled core.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..plans.plan import Row

STREAM_INITIAL, STREAM_ROW, STREAM_KNOWN, STREAM_TRAINING, STREAM_TRAINING_REST = range(5)


def apply_row(row: Row, x, outputs=(), registers=None, *, z=None, v=None, y=None, mask=None, z_known=None) -> np.ndarray:
    """One row on one sample, in float64.

    Args:
        row: The row.
        x: The state, any shape.
        outputs: Network outputs, each of x's shape.
        registers: A list of arrays; the entry of the register that the row writes is replaced.
        z, z_known: Standard normals for the row and for the known region.
        v: The network's variance channel.
        y, mask: The known region and where it is known.

    Returns:
        The new state.
    """
    x = np.asarray(x, np.float64)
    g, c, b, lo, hi, r = list(row.g), list(row.c), row.b, row.lo, row.hi, row.r
    s: Any = row.s  # an array where the variance is learned
    m = combine(g, outputs) if row.calls_network else 0.0

    if row.reduce is not None:
        kind, values = row.reduce.kind, row.reduce.values
        of_0 = deviation(outputs[0]) if kind == "guidance_rescale" else math.nan
        if kind == "dynamic_threshold":
            ratio, largest = values
            hi = max(1.0, min(float(np.quantile(np.abs(row.p * x + row.q * m), ratio)), largest))
            lo, r = -hi, 1.0 / hi
        elif kind == "guidance_rescale" and (deviation(m) > 0 or math.isnan(of_0)):
            (phi,) = values
            m = m * (phi * np.divide(of_0, deviation(m)) + 1.0 - phi)  # NaN where the conditional output is not finite
        elif kind in ("langevin", "langevin_given"):
            snr, kappa = values
            given = max((k for k, weight in enumerate(c) if weight != 0.0), default=0)  # the register that holds z
            noise = z if kind == "langevin" else registers[given]
            score = float(np.linalg.norm(kappa * m))
            size = 2.0 * (snr * float(np.linalg.norm(noise)) / score) ** 2 if score > 0 else 0.0
            b = size * kappa
            if kind == "langevin":
                s = np.sqrt(2.0 * size)
            else:
                c[given] = np.sqrt(2.0 * size)

    x0 = r * np.clip(row.p * x + row.q * m, lo, hi)
    new = row.a * x + b * m + row.d * x0 + combine(c, registers)
    if row.log_s is not None:
        s = np.exp(row.log_s[0] + row.log_s[1] * np.asarray(v, np.float64))
    if z is not None:
        new = new + s * z
    if mask is not None:
        known = row.known_y * y + (row.known_z * z_known if z_known is not None else 0.0)
        new = new + mask * (known - new)
    if row.write is not None:
        registers[row.write] = row.e_x * x + row.e_m * m + row.e_0 * x0 + combine(row.f, registers) + np.zeros_like(x)
    return new + np.zeros_like(x)


def deviation(values) -> float:
    """The standard deviation: exactly 0 for a constant, in spite of the mean's rounding. NaN if a value is not finite."""
    values = np.asarray(values, np.float64)
    with np.errstate(invalid="ignore"):
        return float(np.std(values - values.flat[0]))


def combine(weights, tensors):
    """Σ weight·tensor over the weights that are not 0. Tensors with weight 0 are not read."""
    return sum((w * np.asarray(t, np.float64) for w, t in zip(weights, tensors or (), strict=False) if w != 0.0), 0.0)


def philox(seed: int, counters: np.ndarray) -> np.ndarray:
    """Philox4x32-10 (Salmon et al. 2011): the words of ``counters``, both uint32 of shape (n, 4)."""
    c: list[Any] = [counters[:, j].astype(np.uint64) for j in range(4)]
    k0, k1, low = seed & 0xFFFFFFFF, seed >> 32, np.uint64(0xFFFFFFFF)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> 32) ^ c[1] ^ np.uint64(k0), p1 & low, (p0 >> 32) ^ c[3] ^ np.uint64(k1), p0 & low]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, axis=1).astype(np.uint32)


def normals(elements: int, *, seed: int, index: int, row: int, stream: int, element_offset: int = 0) -> np.ndarray:
    """The noise of one sample, float64, as defined in ``csrc/random/normal.h``."""
    first, last = element_offset // 4, (element_offset + elements + 3) // 4
    counters = np.empty((last - first, 4), np.uint32)
    counters[:, 0] = np.arange(first, last)
    counters[:, 1:] = row, index, stream
    u, w = (philox(seed, counters).reshape(-1, 2)[:, j].astype(np.uint64) for j in (0, 1))
    unit = np.minimum((u >> 1) * 2.0**-31 + 2.0**-32, 1.0)
    radius = np.sqrt(-2.0 * np.log(unit))
    phi = np.pi / 4 * ((w << 2) & 0xFFFFFFFF).astype(np.uint32).view(np.int32) * 2.0**-31
    cosine = np.where(w >> 31, -np.cos(phi), np.cos(phi))
    swap = (w >> 30) & 1 == 1
    first_z, second_z = np.where(swap, np.sin(phi), cosine), np.where(swap, cosine, np.sin(phi))
    lead = element_offset % 4
    return (radius[:, None] * np.stack([first_z, second_z], axis=1)).reshape(-1)[lead : lead + elements]


class ReferenceStep:
    """A table of rows bound to the buffers of one run; see :class:`~.base.HostStep`."""

    def __init__(
        self, rows, *, x, out, outputs, registers, seeds, indices, y=None, mask=None, variance_offset=-1, element_offset=0
    ):
        self._rows = tuple(rows)
        self._x, self._out, self._outputs, self._registers, self._y, self._mask = x, out, outputs, registers, y, mask
        self._seeds, self._indices, self._variance_offset, self._offset = seeds, indices, variance_offset, element_offset
        self._bad: list[int] = []

    def run(self, row: int, noise_row: int) -> int:
        n = len(self._seeds)
        return self.run_each([row] * n, [noise_row] * n)

    def seed(self, seeds, indices) -> None:
        self._seeds, self._indices = seeds, indices

    def run_each(self, rows, noise_rows, outputs=None) -> int:
        self._bad = []
        for i, (number, noise_row) in enumerate(zip(rows, noise_rows, strict=True)):
            if number >= 0:
                at = (i, i, i) if outputs is None else outputs[i]
                self._step(i, self._rows[number], int(noise_row), at)
        return self._bad[0] if self._bad else -1

    def bad_samples(self) -> list[int]:
        return self._bad

    def _step(self, i: int, row: Row, noise_row: int, at) -> None:
        x = self._x[i].reshape(-1)
        n = x.size

        def noise(stream: int) -> np.ndarray:
            return normals(
                n, seed=int(self._seeds[i]), index=int(self._indices[i]), row=noise_row, stream=stream, element_offset=self._offset
            )

        # A negative number is an output that was not evaluated; the row does not read it.
        flat = [output[number].reshape(-1) for output, number in zip(self._outputs, at, strict=False)]
        outputs = [m[:n] for m in flat]
        registers: Any = None if self._registers is None else [h[i].reshape(-1).astype(np.float64) for h in self._registers]
        masked = self._mask is not None
        new = apply_row(
            row,
            x,
            outputs,
            registers,
            z=noise(STREAM_ROW) if row.stochastic else None,
            v=flat[0][self._variance_offset :][:n] if row.log_s is not None else None,
            y=self._y[i].reshape(-1) if masked else None,
            mask=self._mask[i].reshape(-1) if masked else None,
            z_known=noise(STREAM_KNOWN) if masked and row.known_z else None,
        )
        if row.calls_network and not all(np.isfinite(outputs[j]).all() for j in row.reads if j < len(outputs)):
            self._bad.append(i)
        if row.write is not None:
            self._registers[row.write][i].reshape(-1)[:] = registers[row.write]
        self._out[i].reshape(-1)[:] = new


class ReferenceKernel:
    """``DIFFUSE_FAST_KERNEL=reference``: float64 arithmetic on float32 or float16 buffers."""

    name = "reference"
    device = "cpu"

    def bind(self, rows: Any, **buffers: Any) -> ReferenceStep:
        return ReferenceStep(rows, **buffers)

    def normals(
        self, out: Any, *, seeds: Any, indices: Any, row: int, stream: int, scale: float = 1.0, element_offset: int = 0
    ) -> None:
        for sample, seed, index in zip(out, seeds, indices, strict=True):
            sample.reshape(-1)[:] = scale * normals(
                sample.size, seed=int(seed), index=int(index), row=row, stream=stream, element_offset=element_offset
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
        for i, index in enumerate(indices):
            z = normals(x0[i].size, seed=seed, index=int(index), row=row, stream=STREAM_TRAINING) if noise is None else noise[i]
            pair = x0[i].reshape(-1), np.asarray(z).reshape(-1)
            x_t[i].reshape(-1)[:] = combine(coefficients[:2, i].astype(np.float64), pair)
            if target is not None:
                target[i].reshape(-1)[:] = combine(coefficients[2:, i].astype(np.float64), pair)
