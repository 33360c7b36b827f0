"""The step in NumPy, float64: the definition that every other kernel is held against. Slow, and meant to be read.

The noise is also here (:func:`philox`, :func:`normals`), from the papers and in float64, so that it shares nothing with
the compiled core but the definition in ``csrc/random``.
"""

from __future__ import annotations

import numpy as np

from ..plan import Row

STREAM_INITIAL, STREAM_ROW, STREAM_KNOWN = 0, 1, 2


def apply_row(row: Row, x, outputs=(), registers=None, *, z=None, v=None, y=None, mask=None, z_known=None) -> np.ndarray:
    """One row on one sample, in float64.

    Args:
        row: The row.
        x: The state, any shape.
        outputs: Network outputs, each of x's shape.
        registers: A list of arrays; the register the row writes is replaced in place.
        z, z_known: Standard normals for the row and for the known region.
        v: The network's variance channel.
        y, mask: The known region and where it is known.

    Returns:
        The new state.
    """
    x = np.asarray(x, np.float64)
    g, b, lo, hi, r, s = list(row.g), row.b, row.lo, row.hi, row.r, row.s
    m = combine(g, outputs) if row.calls_network else 0.0

    if row.reduce is not None:
        kind, values = row.reduce.kind, row.reduce.values
        if kind == "dynamic_threshold":
            ratio, largest = values
            hi = max(1.0, min(float(np.quantile(np.abs(row.p * x + row.q * m), ratio)), largest))
            lo, r = -hi, 1.0 / hi
        elif kind == "guidance_rescale" and np.std(m) > 0:
            (phi,) = values
            m = m * (phi * np.std(np.asarray(outputs[0], np.float64)) / np.std(m) + 1.0 - phi)
        elif kind == "langevin":
            snr, kappa = values
            score = np.linalg.norm(kappa * m)
            size = 2.0 * (snr * np.linalg.norm(z) / score) ** 2 if score > 0 else 0.0
            b, s = size * kappa, np.sqrt(2.0 * size)

    x0 = r * np.clip(row.p * x + row.q * m, lo, hi)
    new = row.a * x + b * m + row.d * x0 + combine(row.c, registers)
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


def combine(weights, tensors):
    """Σ weight·tensor over the weights that are not 0; the other tensors may be anything, or None."""
    return sum((w * np.asarray(t, np.float64) for w, t in zip(weights, tensors or (), strict=False) if w != 0.0), 0.0)


def philox(seed: int, counters: np.ndarray) -> np.ndarray:
    """Philox4x32-10 (Salmon et al. 2011): words of ``counters``, both uint32 of shape (n, 4)."""
    c = [counters[:, j].astype(np.uint64) for j in range(4)]
    k0, k1, low = seed & 0xFFFFFFFF, seed >> 32, np.uint64(0xFFFFFFFF)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> 32) ^ c[1] ^ np.uint64(k0), p1 & low, (p0 >> 32) ^ c[3] ^ np.uint64(k1), p0 & low]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, axis=1).astype(np.uint32)


def normals(elements: int, *, seed: int, index: int, row: int, stream: int, element_offset: int = 0) -> np.ndarray:
    """The noise of one sample, float64, by the definition in ``csrc/random/normal.h``."""
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
