"""Example inputs of a network, for tracing and for comparison."""

from __future__ import annotations

import numpy as np

from ..artifact.document import Document


def times(document: Document) -> list[float]:
    """Times at which the file is compared with the module."""
    assert document.schedule is not None
    if document.time.convention != "timestep":
        return [0.25, 0.75]
    last = document.schedule.t_max
    return [0.0, float(last // 3), float(last)]


def example(document: Document, batch: int, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
    """Random inputs by name, in the order of the call: the sample, the time, the conditioning."""
    rng = rng or np.random.default_rng(0)
    inputs = {
        document.input: rng.standard_normal((batch, *document.shape)).astype(np.float32),
        document.time.input: np.full(batch, times(document)[1], document.time.dtype),
    }
    for c in document.conditioning:
        size = (batch, *c.shape)
        if c.dtype == "float32":
            inputs[c.name] = rng.standard_normal(size).astype(np.float32)
        else:
            inputs[c.name] = rng.integers(0, min(c.classes or 2, 1 << 30), size).astype(c.dtype)
    return inputs
