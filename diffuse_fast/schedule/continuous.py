"""The base class of schedules whose marginals are closed forms of a continuous time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..checks import to_float64
from ..errors import ArgumentError
from .base import Schedule


class ContinuousSchedule(Schedule):
    """A schedule over a continuous time.

    Attributes:
        domain: The times at which the marginals are defined.
    """

    domain: tuple[float, float] = (0.0, 1.0)

    def _times(self, t: Any) -> np.ndarray:
        times = to_float64("t", t)
        low, high = self.domain
        if not np.all((times >= low) & (times <= high)):
            raise ArgumentError(f"a time is {_outside(times, low, high)}; it must be from {low:g} to {high:g}.")
        return times

    def _reached(self, log_snr: np.ndarray, low: float, high: float) -> np.ndarray:
        """Log-SNRs, checked against the range of the schedule and clipped to it, to allow for rounding at its ends."""
        slack = 1e-12 * (1.0 + max(abs(end) for end in (low, high, 0.0) if math.isfinite(end)))
        if not np.all((log_snr >= low - slack) & (log_snr <= high + slack)):
            raise ArgumentError(
                f"log_snr is {_outside(log_snr, low - slack, high + slack)}; this schedule has {low:g} to {high:g}."
            )
        return np.clip(log_snr, low, high)


def _outside(values: np.ndarray, low: float, high: float) -> float:
    return float(np.ravel(values)[~((values >= low) & (values <= high)).ravel()][0])
