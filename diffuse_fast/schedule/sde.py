"""The SDEs of Song et al. 2021, "Score-Based Generative Modeling through Stochastic Differential Equations"
(arXiv:2011.13456), section 3.4 and appendix B: dx = f(t)·x dt + g(t) dw, t from 0 (data) to 1 (noise)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..checks import require_increasing, require_number, require_positive, unwrap_scalar
from ..errors import ArgumentError
from .continuous import ContinuousSchedule
from .discrete import vp_marginal


class SDESchedule(ContinuousSchedule):
    """The schedule of an SDE.

    Attributes:
        sampling_eps: The time at which sampling stops.
    """

    time_conventions = ("continuous", "sigma", "log_snr")
    timestep_spacing = "linspace"
    t_max = 1.0

    sampling_eps: float

    @property
    def t_min(self) -> float:  # type: ignore[override]  # an attribute of the base
        return self.sampling_eps

    def drift(self, t: Any) -> Any:
        """f(t), with f(t)·x the drift of the forward SDE. For a number or an array of times in [0, 1].

        Example:
            >>> import diffuse_fast as df
            >>> df.Schedule.vp_sde(0.1, 20.0).drift(0.0), df.Schedule.ve_sde().drift(0.5)
            (-0.05, 0.0)
        """
        return unwrap_scalar(self._drift(self._times(t)))

    def diffusion(self, t: Any) -> Any:
        """g(t), the diffusion coefficient of the forward SDE. For a number or an array of times in [0, 1].

        Example:
            >>> import diffuse_fast as df
            >>> df.Schedule.vp_sde(0.25, 20.0).diffusion(0.0)
            0.5
        """
        return unwrap_scalar(np.sqrt(self._diffusion_squared(self._times(t))))

    def _drift(self, t: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _diffusion_squared(self, t: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class VPSchedule(SDESchedule):
    """The variance-preserving SDE (eq. 32, 33).

    Attributes:
        beta_min, beta_max: β(0) and β(1).
    """

    family = "vp_sde"
    prediction_types: tuple[str, ...] = ("epsilon", "score", "sample", "v_prediction")  # type: ignore[misc]  # an attribute of the base

    beta_min: float
    beta_max: float

    def _beta(self, t: np.ndarray) -> np.ndarray:
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def _integral(self, t: np.ndarray) -> np.ndarray:
        """∫β from 0 to t, which is −log(alpha²)."""
        return t * (self.beta_min + 0.5 * t * (self.beta_max - self.beta_min))

    def _time_of_integral(self, integral: np.ndarray) -> np.ndarray:
        root = np.sqrt(self.beta_min**2 + 2.0 * (self.beta_max - self.beta_min) * integral)
        with np.errstate(invalid="ignore"):
            t = 2.0 * integral / (self.beta_min + root)
        return np.clip(np.where(integral == 0.0, 0.0, t), *self.domain)

    def _drift(self, t: np.ndarray) -> np.ndarray:
        return -0.5 * self._beta(t)

    def _diffusion_squared(self, t: np.ndarray) -> np.ndarray:
        return self._beta(t)

    def _log_alpha(self, t: np.ndarray) -> np.ndarray:
        return -0.5 * self._integral(t)

    def _sigma(self, t: np.ndarray) -> np.ndarray:
        return np.sqrt(-np.expm1(-self._integral(t)))

    def _log_snr(self, t: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return -self._integral(t) - np.log(-np.expm1(-self._integral(t)))

    def _timestep_at_log_snr(self, log_snr: np.ndarray) -> np.ndarray:
        values = self._reached(log_snr, self.log_snr(1.0), math.inf)
        # −log(alpha²) = log(1 + exp(−log_snr)), without overflow.
        return self._time_of_integral(np.logaddexp(0.0, -values))

    def marginal_at_log_snr(self, log_snr: float) -> tuple[float, float, float]:
        self.timestep_at_log_snr(log_snr)  # checks the range
        return vp_marginal(log_snr)


class SubVPSchedule(VPSchedule):
    """The sub-VP SDE (eq. 28, 29): sigma = 1 − alpha²."""

    family = "sub_vp_sde"
    prediction_types = ("epsilon", "score", "sample")  # type: ignore[misc]  # an attribute of the base

    def _diffusion_squared(self, t: np.ndarray) -> np.ndarray:
        return self._beta(t) * -np.expm1(-2.0 * self._integral(t))

    def _sigma(self, t: np.ndarray) -> np.ndarray:
        return -np.expm1(-self._integral(t))

    def _log_snr(self, t: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return -self._integral(t) - 2.0 * np.log(self._sigma(t))

    def _timestep_at_log_snr(self, log_snr: np.ndarray) -> np.ndarray:
        # With R = sigma/alpha: alpha² + R·alpha = 1, so sigma = 1 − alpha² = R·alpha = 2·R/(R + sqrt(R² + 4)).
        ratio = np.exp(-0.5 * self._reached(log_snr, self.log_snr(1.0), math.inf))
        sum_ = ratio + np.hypot(ratio, 2.0)
        sigma, alpha = 2.0 * ratio / sum_, 2.0 / sum_
        with np.errstate(divide="ignore"):
            return self._time_of_integral(np.where(sigma < 0.5, -np.log1p(-np.minimum(sigma, 0.5)), -2.0 * np.log(alpha)))

    def marginal_at_log_snr(self, log_snr: float) -> tuple[float, float, float]:
        t = self.timestep_at_log_snr(log_snr)
        return self.log_alpha(t), self.alpha(t), self.sigma(t)


class VESchedule(SDESchedule):
    """The variance-exploding SDE (eq. 30, 31).

    Attributes:
        sigma_min, sigma_max: sigma(0) and sigma(1).
    """

    family = "ve_sde"
    prediction_types = ("score", "epsilon", "denoised")
    time_conventions = ("sigma", "continuous", "log_snr")

    sigma_min: float
    sigma_max: float

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def _drift(self, t: np.ndarray) -> np.ndarray:
        return 0.0 * t

    def _diffusion_squared(self, t: np.ndarray) -> np.ndarray:
        return 2.0 * self._log_ratio * self._sigma(t) ** 2

    def _log_alpha(self, t: np.ndarray) -> np.ndarray:
        return 0.0 * t

    def _sigma(self, t: np.ndarray) -> np.ndarray:
        return self.sigma_min ** (1.0 - t) * self.sigma_max**t

    def _log_snr(self, t: np.ndarray) -> np.ndarray:
        return -2.0 * np.log(self._sigma(t))

    def _timestep_at_log_snr(self, log_snr: np.ndarray) -> np.ndarray:
        values = self._reached(log_snr, self.log_snr(1.0), self.log_snr(0.0))
        return np.clip((-0.5 * values - math.log(self.sigma_min)) / self._log_ratio, *self.domain)

    def _noise_level(self, t: np.ndarray) -> np.ndarray:
        return self._sigma(t)


def of_vp(beta_min: Any, beta_max: Any, sampling_eps: Any) -> VPSchedule:
    values = _betas(beta_min, beta_max, sampling_eps)
    return VPSchedule._make({"type": "vp_sde", **values}, **values)


def of_sub_vp(beta_min: Any, beta_max: Any, sampling_eps: Any) -> SubVPSchedule:
    values = _betas(beta_min, beta_max, sampling_eps)
    return SubVPSchedule._make({"type": "sub_vp_sde", **values}, **values)


def of_ve(sigma_min: Any, sigma_max: Any, sampling_eps: Any) -> VESchedule:
    low, high = require_increasing("sigma_min", sigma_min, "sigma_max", sigma_max)
    values = {"sigma_min": low, "sigma_max": high, "sampling_eps": _eps(sampling_eps)}
    return VESchedule._make({"type": "ve_sde", **values}, **values)


def _betas(beta_min: Any, beta_max: Any, sampling_eps: Any) -> dict[str, float]:
    low, high = require_number("beta_min", beta_min), require_positive("beta_max", beta_max)
    if not 0.0 <= low < high:
        raise ArgumentError(f"beta_min is {beta_min!r} and beta_max {beta_max!r}; they must satisfy 0 <= beta_min < beta_max.")
    return {"beta_min": low, "beta_max": high, "sampling_eps": _eps(sampling_eps)}


def _eps(sampling_eps: Any) -> float:
    eps = require_positive("sampling_eps", sampling_eps)
    if not eps < 1.0:
        raise ArgumentError(f"sampling_eps is {sampling_eps!r}; it must be below 1, where sampling starts.")
    return eps
