"""DDIM around a runtime as a good engineer writes it in NumPy: tables computed before the loop, the state updated in place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..networks import CLIP, NETWORKS
from .base import Job
from .torch_loop import coefficients, timesteps


class NumpyLoop:
    """A network as a function of arrays x (batch, *shape) float32 and t (batch,) int64."""

    def __init__(self, job: Job, call: Callable[[np.ndarray, np.ndarray], np.ndarray]):
        self._call, self._shape = call, (job.batch, *NETWORKS[job.network].shape)
        self._rows = [tuple(map(np.float32, row)) for row in coefficients(job)]
        self._times = [np.full(job.batch, t) for t in timesteps(job)]
        self._rng = np.random.default_rng(0)
        self._x0, self._term = (np.empty(self._shape, np.float32) for _ in range(2))

    def network(self, x: np.ndarray, t: int) -> np.ndarray:
        return self._call(x, np.full(len(x), t))

    def sample(self, noise: np.ndarray | None = None) -> np.ndarray:
        x = self._rng.standard_normal(self._shape, np.float32) if noise is None else noise.copy()
        x0, term = self._x0, self._term
        for t, (p, q, a, b, d) in zip(self._times, self._rows, strict=True):
            m = self._call(x, t)
            np.add(np.multiply(x, p, out=x0), np.multiply(m, q, out=term), out=x0)
            np.clip(x0, *CLIP, out=x0)
            np.add(np.multiply(x, a, out=x), np.multiply(x0, d, out=x0), out=x)
            if b:
                np.add(x, np.multiply(m, b, out=term), out=x)
        return x
