"""The inputs that all candidates run on, and the error of their outputs."""

from __future__ import annotations

import numpy as np

from ..engine.conditioning import conditions
from ..model import Model
from ..runtimes import BoundCall


class Inputs:
    """Random samples, three times and random conditioning of a batch."""

    def __init__(self, model: Model, batch: int, rng: np.random.Generator):
        self.x = rng.standard_normal((batch, *model.shape)).astype(np.float32)
        known = model.time.convention == "timestep" and model.schedule is not None
        last = float(model.schedule.t_max) if known else 1.0  # type: ignore[union-attr]  # not None, as checked
        self.times = [float(np.floor(last * part)) if model.time.dtype != "float32" else last * part for part in (0.5, 0.1, 0.9)]
        given = {}
        for c in model.conditioning:
            if c.dtype == "float32":
                given[c.name] = rng.standard_normal((batch, *c.shape)).astype(np.float32)
            else:
                given[c.name] = rng.integers(0, c.classes or 2, (batch, *c.shape)).astype(c.dtype)
        self.cond = conditions("cond", given, batch, model.conditioning)

    def outputs(self, call: BoundCall) -> list[np.ndarray]:
        """Return the outputs of a call at each time."""
        call.x[...] = self.x
        return [call(t).copy() for t in self.times]


def relative_rms_error(got: np.ndarray, want: np.ndarray) -> float:
    """Return the root mean square of ``got - want``, relative to that of ``want``."""
    scale = max(float(np.sqrt(np.mean(np.square(want, dtype=np.float64)))), float(np.finfo(np.float32).tiny))
    return float(np.sqrt(np.mean(np.square(got.astype(np.float64) - want)))) / scale
