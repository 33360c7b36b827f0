"""Rectified flow: Liu et al. 2022 (arXiv:2209.03003); flow matching with straight paths: Lipman et al. 2023
(arXiv:2210.02747); the shift: Esser et al. 2024 (arXiv:2403.03206), eq. 23."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..checks import require_int, require_positive, to_float64, unwrap_scalar
from ..errors import ArgumentError
from .continuous import ContinuousSchedule

MAX_TRAIN_TIMESTEPS = 1_000_000


class FlowSchedule(ContinuousSchedule):
    """alpha = 1 − σ, sigma = σ; t = σ·num_train_timesteps, the network's time input in diffusers' flow schedulers.

    Attributes:
        num_train_timesteps: The network's time at σ = 1.
        shift: Shift of the grids towards noise; 1 is none.
    """

    family = "flow"
    prediction_types = ("flow", "sample", "epsilon")
    time_conventions = ("timestep", "continuous", "sigma", "log_snr")
    timestep_spacing = "linspace"

    num_train_timesteps: int
    shift: float

    @property
    def domain(self) -> tuple[float, float]:  # type: ignore[override]  # an attribute of the base
        return 0.0, float(self.num_train_timesteps)

    @property
    def t_max(self) -> float:  # type: ignore[override]  # an attribute of the base
        return float(self.num_train_timesteps)

    @property
    def t_min(self) -> float:  # type: ignore[override]  # an attribute of the base
        # FlowMatchEulerDiscreteScheduler shifts its smallest sigma when it is made, and then the grid again.
        return min(self.t_max, self.num_train_timesteps * self.shifted(self.shifted(1.0 / self.num_train_timesteps)))

    def shifted(self, sigma: Any) -> Any:
        """shift·σ/(1 + (shift − 1)·σ), for a σ or an array of them.

        Example:
            >>> import diffuse_fast as df
            >>> df.Schedule.flow(shift=3.0).shifted(0.5)
            0.75
        """
        values = to_float64("sigma", sigma)
        return unwrap_scalar(self.shift * values / (1.0 + (self.shift - 1.0) * values))

    def marginal_at_log_snr(self, log_snr: float) -> tuple[float, float, float]:
        self.timestep_at_log_snr(log_snr)  # checks the type
        small = math.exp(-0.5 * abs(log_snr))  # the smaller of alpha/sigma and sigma/alpha
        larger, smaller = 1.0 / (1.0 + small), small / (1.0 + small)
        log_larger = -math.log1p(small)
        return (log_larger, larger, smaller) if log_snr > 0.0 else (0.5 * log_snr + log_larger, smaller, larger)

    def _left(self, t: np.ndarray) -> np.ndarray:
        return self.num_train_timesteps - t  # exact for small values

    def _alpha(self, t: np.ndarray) -> np.ndarray:
        return self._left(t) / self.num_train_timesteps

    def _log_alpha(self, t: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            half = t > 0.5 * self.num_train_timesteps
            return np.where(half, np.log(self._alpha(t)), np.log1p(-self._sigma(t) * ~half))

    def _sigma(self, t: np.ndarray) -> np.ndarray:
        return t / self.num_train_timesteps

    def _log_snr(self, t: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return 2.0 * (np.log(self._left(t)) - np.log(t))

    def _timestep_at_log_snr(self, log_snr: np.ndarray) -> np.ndarray:
        values = self._reached(log_snr, -math.inf, math.inf)
        small = np.exp(-0.5 * np.abs(values))
        return self.num_train_timesteps * np.where(values > 0.0, small, 1.0) / (1.0 + small)

    def _noise_level(self, t: np.ndarray) -> np.ndarray:
        return self._sigma(t)

    def _timestep_at_noise_level(self, sigma: np.ndarray) -> np.ndarray:
        if not np.all(sigma <= 1.0):
            raise ArgumentError(f"a noise level is {float(np.max(sigma))!r}; in a flow it is at most 1.")
        return sigma * self.num_train_timesteps

    def _continuous(self, t: np.ndarray) -> np.ndarray:
        return self._sigma(t)


def of(num_train_timesteps: Any, shift: Any) -> FlowSchedule:
    count = require_int("num_train_timesteps", num_train_timesteps, 1)
    if count > MAX_TRAIN_TIMESTEPS:
        raise ArgumentError(f"num_train_timesteps is {count}; it must be at most {MAX_TRAIN_TIMESTEPS}.")
    values = {"num_train_timesteps": count, "shift": require_positive("shift", shift)}
    return FlowSchedule._make({"type": "flow", **values}, **values)
