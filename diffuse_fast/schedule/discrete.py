"""Discrete variance-preserving schedules, as in DDPM.

x_t = alpha(t)·x0 + sigma(t)·ε with alpha(t)² = ``alphas_cumprod[t]`` and alpha² + sigma² = 1 (Ho et al. 2020, eq. 4).
Timesteps are 0-based (``t = 0`` is the cleanest, ``num_train_timesteps − 1`` the noisiest) and may be fractional: between
integers ``log(alpha)`` is linear, unless :meth:`DiscreteSchedule.with_interpolation` selects another rule. The α of DPM-Solver's
papers is ``alpha`` here, that of DDIM's is ``alphas_cumprod``.

The arithmetic is float64, in ``csrc/schedule``.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np

from .. import _core
from ..checks import require_int, require_number, to_float64, to_vector
from ..errors import ArgumentError, suggest
from .base import Schedule
from .types import INTERPOLATION, ZERO_SNR

INTERPOLATIONS = ("log_alpha", "log_sigma", "sigma")
_BETAS = {
    "linear": _core.linear_betas,
    "scaled_linear": _core.scaled_linear_betas,
    "quadratic": _core.scaled_linear_betas,
    "sigmoid": _core.sigmoid_betas,
}


class DiscreteSchedule(Schedule):
    """A discrete variance-preserving schedule. Its tables are read-only float64 arrays of shape ``(num_train_timesteps,)``."""

    family = "discrete"
    prediction_types = ("epsilon", "sample", "v_prediction")
    time_conventions = ("timestep", "sigma", "continuous", "log_snr")
    timestep_spacing = None
    t_min = 0.0

    _tables: _core.Schedule

    def rescale_zero_terminal_snr(self) -> DiscreteSchedule:
        """This schedule with ``alpha`` shifted and scaled so that the last is 0 and the first is unchanged (Lin et al.
        2023, "Common Diffusion Noise Schedules and Sample Steps are Flawed", Algorithm 1; diffusers'
        ``rescale_betas_zero_snr``).

        The last timestep has no signal, so a network that predicts epsilon cannot start there. ``log(alpha)`` is −inf there and,
        by linear interpolation, at every t above ``num_train_timesteps − 2``.

        Raises:
            ArgumentError: the schedule has a single timestep.

        Example:
            >>> import diffuse_fast as df
            >>> df.Schedule.scaled_linear().rescale_zero_terminal_snr().alpha(999)
            0.0
        """
        return _of(self._tables.rescaled_zero_terminal_snr(), {**self._document, ZERO_SNR: True})

    def with_interpolation(self, interpolation: str) -> DiscreteSchedule:
        """This schedule with another interpolation between the integer timesteps, to match another library. The interpolation is
        linear in:

        =============  =======================================================================================
        ``log_alpha``  log(alpha): the default
        ``log_sigma``  log of the noise level sigma/alpha: k-diffusion, and diffusers from noise level to timestep
        ``sigma``      the noise level sigma/alpha: diffusers from timestep to noise level
        =============  =======================================================================================

        Raises:
            ArgumentError: the rule is unknown.

        Example:
            >>> import diffuse_fast as df
            >>> schedule = df.Schedule.linear().with_interpolation("sigma")
            >>> round(2 * schedule.noise_level(0.5) - schedule.noise_level(0) - schedule.noise_level(1), 12) == 0
            True
        """
        if interpolation not in INTERPOLATIONS:
            raise ArgumentError(f"unknown interpolation {interpolation!r}.{suggest(str(interpolation), INTERPOLATIONS)}")
        document = {name: value for name, value in self._document.items() if name != INTERPOLATION}
        if interpolation != "log_alpha":
            document[INTERPOLATION] = interpolation
        return _of(self._tables.with_interpolation(INTERPOLATIONS.index(interpolation)), document)

    # ---- tables over the integer timesteps ------------------------------------------------------

    @property
    def num_train_timesteps(self) -> int:
        """Number of timesteps T, which are 0 to T − 1."""
        return self._tables.num_train_timesteps

    @cached_property
    def betas(self) -> np.ndarray:
        """Variance added by each step of the forward process."""
        return _read_only(self._tables.betas)

    @cached_property
    def alphas(self) -> np.ndarray:
        """1 − betas."""
        return _read_only(self._tables.alphas)

    @cached_property
    def alphas_cumprod(self) -> np.ndarray:
        """Cumulative product of ``alphas``: alpha²."""
        return _read_only(self._tables.alphas_cumprod)

    @cached_property
    def alphas_cumprod_prev(self) -> np.ndarray:
        """``alphas_cumprod`` one timestep earlier, 1 at the first."""
        return _read_only(self._tables.alphas_cumprod_prev)

    @cached_property
    def snr(self) -> np.ndarray:
        """Signal-to-noise ratio alpha²/sigma² (Kingma et al. 2021, eq. 3)."""
        return _read_only(self._tables.snr)

    @cached_property
    def posterior_mean_coef_x0(self) -> np.ndarray:
        """Weight of x0 in the mean of q(x_{t−1} | x_t, x0) (Ho et al. 2020, eq. 7)."""
        return _read_only(self._tables.posterior_mean_coef_x0)

    @cached_property
    def posterior_mean_coef_xt(self) -> np.ndarray:
        """Weight of x_t in the mean of q(x_{t−1} | x_t, x0) (Ho et al. 2020, eq. 7)."""
        return _read_only(self._tables.posterior_mean_coef_xt)

    @cached_property
    def posterior_variance(self) -> np.ndarray:
        """Variance of q(x_{t−1} | x_t, x0) (Ho et al. 2020, eq. 7); 0 at the first timestep."""
        return _read_only(self._tables.posterior_variance)

    # ---- marginals ------------------------------------------------------------------------------

    @property
    def t_max(self) -> float:  # type: ignore[override]  # an attribute of the base
        return float(self.num_train_timesteps - 1)

    def marginal_at_log_snr(self, log_snr: float) -> tuple[float, float, float]:
        self.timestep_at_log_snr(log_snr)  # checks the range
        return vp_marginal(log_snr)

    def _times(self, t: Any) -> np.ndarray:
        return to_float64("t", t)  # the core checks the range

    def _alpha(self, t: np.ndarray) -> np.ndarray:
        return self._tables.alpha(t)

    def _log_alpha(self, t: np.ndarray) -> np.ndarray:
        return self._tables.log_alpha(t)

    def _sigma(self, t: np.ndarray) -> np.ndarray:
        return self._tables.sigma(t)

    def _log_snr(self, t: np.ndarray) -> np.ndarray:
        return self._tables.log_snr(t)

    def _timestep_at_log_snr(self, log_snr: np.ndarray) -> np.ndarray:
        return self._tables.timestep_at_log_snr(log_snr)

    def _timestep_at_noise_level(self, sigma: np.ndarray) -> np.ndarray:
        try:
            return super()._timestep_at_noise_level(sigma)
        except ArgumentError:  # report noise levels instead of log-SNRs
            low, high = float(self.noise_level(self.t_min)), float(self.noise_level(self.t_max))
            least, most = float(np.min(sigma)), float(np.max(sigma))
            outside = least if least < low else most
            raise ArgumentError(f"a noise level is {outside!r}; this schedule has {low!r} to {high!r}.") from None

    def _continuous(self, t: np.ndarray) -> np.ndarray:
        return (t + 1.0) / self.num_train_timesteps

    # ---- equality -------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DiscreteSchedule):
            return NotImplemented
        return (
            np.array_equal(self.betas, other.betas)
            and np.array_equal(self.alphas_cumprod, other.alphas_cumprod)
            and self._document.get(INTERPOLATION) == other._document.get(INTERPOLATION)
        )

    def __hash__(self) -> int:
        return hash(self.alphas_cumprod.tobytes())


def vp_marginal(log_snr: float) -> tuple[float, float, float]:
    """``(log(alpha), alpha, sigma)`` of a variance-preserving schedule: alpha² = sigmoid(log_snr)."""
    small = math.exp(-abs(log_snr))  # no overflow on either side
    near_one, near_zero = 1.0 / (1.0 + small), small / (1.0 + small)
    above = log_snr > 0.0
    log_alpha = -0.5 * math.log1p(small) + (0.0 if above else 0.5 * log_snr)
    alpha_squared, sigma_squared = (near_one, near_zero) if above else (near_zero, near_one)
    return log_alpha, math.sqrt(alpha_squared), math.sqrt(sigma_squared)


# ---- constructors -------------------------------------------------------------------------------


def of_range(kind: str, num_train_timesteps: int, beta_start: float, beta_end: float) -> DiscreteSchedule:
    document: dict[str, Any] = {
        "type": kind,
        "num_train_timesteps": require_int("num_train_timesteps", num_train_timesteps, 1, bits=63),
        "beta_start": require_number("beta_start", beta_start),
        "beta_end": require_number("beta_end", beta_end),
    }
    betas = _BETAS[kind](document["num_train_timesteps"], document["beta_start"], document["beta_end"])
    return _of(_core.Schedule.from_betas(betas), document)


def of_cosine(num_train_timesteps: int, s: float, max_beta: float) -> DiscreteSchedule:
    document: dict[str, Any] = {
        "type": "cosine",
        "num_train_timesteps": require_int("num_train_timesteps", num_train_timesteps, 1, bits=63),
        "s": require_number("s", s),
        "max_beta": require_number("max_beta", max_beta),
    }
    betas = _core.cosine_betas(document["num_train_timesteps"], document["s"], document["max_beta"])
    return _of(_core.Schedule.from_betas(betas), document)


def of_betas(betas: Any) -> DiscreteSchedule:
    values = to_vector("betas", betas)
    return _of(_core.Schedule.from_betas(values), {"type": "from_betas", "betas": values.tolist()})


def of_alphas_cumprod(alphas_cumprod: Any) -> DiscreteSchedule:
    values = to_vector("alphas_cumprod", alphas_cumprod)
    core = _core.Schedule.from_alphas_cumprod(values)
    return _of(core, {"type": "from_alphas_cumprod", "alphas_cumprod": values.tolist()})


def _of(core: _core.Schedule, document: dict[str, Any]) -> DiscreteSchedule:
    return DiscreteSchedule._make(document, _tables=core)


def _read_only(values: np.ndarray) -> np.ndarray:
    values.flags.writeable = False
    return values
