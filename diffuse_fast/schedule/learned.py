"""A learned schedule: the log-SNR that a network was trained with, as a table (Kingma et al. 2021, "Variational Diffusion Models",
arXiv:2107.00630, section 4 and appendix H)."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from ..checks import to_vector
from ..errors import ArgumentError
from .continuous import ContinuousSchedule
from .discrete import vp_marginal

MAX_VALUES = 100_000


class LearnedSchedule(ContinuousSchedule):
    """alpha² = sigmoid(log_snr(t)), alpha² + sigma² = 1; log_snr is linear between the values of its table, so it is monotonic
    and its inverse is exact."""

    family = "learned"
    prediction_types = ("epsilon", "sample", "v_prediction")
    time_conventions = ("log_snr", "continuous", "sigma")
    timestep_spacing = "linspace"
    t_min = 0.0
    t_max = 1.0

    _values: np.ndarray

    @cached_property
    def table(self) -> np.ndarray:
        """The log-SNR at evenly spaced times from 0 to 1: read-only float64 (K,)."""
        return self._values

    @cached_property
    def _knots(self) -> np.ndarray:
        return np.linspace(0.0, 1.0, len(self._values))

    def _log_snr(self, t: np.ndarray) -> np.ndarray:
        return np.interp(t, self._knots, self._values)

    def _log_alpha(self, t: np.ndarray) -> np.ndarray:
        return -0.5 * np.logaddexp(0.0, -self._log_snr(t))

    def _sigma(self, t: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 * np.logaddexp(0.0, self._log_snr(t)))

    def _timestep_at_log_snr(self, log_snr: np.ndarray) -> np.ndarray:
        values = self._reached(log_snr, float(self._values[-1]), float(self._values[0]))
        return np.interp(-values, -self._values, self._knots)

    def marginal_at_log_snr(self, log_snr: float) -> tuple[float, float, float]:
        self.timestep_at_log_snr(log_snr)  # checks the range
        return vp_marginal(log_snr)

    def __eq__(self, other: object) -> bool:
        return np.array_equal(self._values, other._values) if isinstance(other, LearnedSchedule) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._values.tobytes())


def of(log_snr: Any) -> LearnedSchedule:
    values = np.array(to_vector("log_snr", log_snr))
    if not 2 <= len(values) <= MAX_VALUES:
        raise ArgumentError(f"log_snr has {len(values)} values; a table has 2 to {MAX_VALUES}.")
    if not np.isfinite(values).all() or np.abs(values).max() > 700.0:
        raise ArgumentError("log_snr has a value that is not finite, or beyond ±700, where alpha or sigma underflows.")
    rises = np.flatnonzero(np.diff(values) >= 0.0)
    if rises.size:
        i = int(rises[0])
        raise ArgumentError(
            f"log_snr goes from {float(values[i])!r} to {float(values[i + 1])!r} at value {i + 1}; it must decrease."
        )
    values.flags.writeable = False
    return LearnedSchedule._make({"type": "learned", "log_snr": values.tolist()}, _values=values)
