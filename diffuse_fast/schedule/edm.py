"""EDM: Karras, Aittala, Aila & Laine 2022, "Elucidating the Design Space of Diffusion-Based Generative Models"
(arXiv:2206.00364).

The paper's x = x0 + σ·ε is denoised by D(x; σ) = c_skip(σ)·x + c_out(σ)·F(c_in(σ)·x; c_noise(σ)) (eq. 7). Here the state is
the input of the network F, c_in·x, so alpha = c_in and sigma = c_in·σ, and no separate pass scales the inputs.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..checks import require_increasing, require_positive, unwrap_scalar
from .continuous import ContinuousSchedule


class EDMSchedule(ContinuousSchedule):
    """EDM's schedule; t is the noise level σ.

    Attributes:
        sigma_min, sigma_max: Noise levels between which sampling calls the network.
        rho: Exponent of the default grid.
    """

    family = "edm"
    prediction_types = ("edm", "denoised", "epsilon", "v_prediction")
    time_conventions = ("c_noise", "sigma", "log_snr")
    timestep_spacing = "karras"
    domain = (0.0, 1e150)  # squares are finite

    sigma_min: float
    sigma_max: float
    rho: float

    @property
    def t_min(self) -> float:  # type: ignore[override]  # an attribute of the base
        return self.sigma_min

    @property
    def t_max(self) -> float:  # type: ignore[override]  # an attribute of the base
        return self.sigma_max

    # ---- Table 1, "Network and preconditioning" -------------------------------------------------

    def c_skip(self, sigma: Any) -> Any:
        """Weight of x in the denoiser: sigma_data²/(σ² + sigma_data²).

        Args:
            sigma: A noise level or an array of them.

        Example:
            >>> import diffuse_fast as df
            >>> round(df.Schedule.edm().c_skip(0.5), 12)
            0.5
        """
        return unwrap_scalar((self.sigma_data / self._total(sigma)) ** 2)

    def c_out(self, sigma: Any) -> Any:
        """Weight of F in the denoiser: σ·sigma_data/sqrt(σ² + sigma_data²). Arguments as for :meth:`c_skip`."""
        return unwrap_scalar(self._times(sigma) * self.sigma_data / self._total(sigma))

    def c_in(self, sigma: Any) -> Any:
        """Scale of the network's input: 1/sqrt(σ² + sigma_data²), which is ``alpha``. Arguments as for :meth:`c_skip`."""
        return unwrap_scalar(1.0 / self._total(sigma))

    def c_noise(self, sigma: Any) -> Any:
        """The network's time input at σ: log(σ)/4. Arguments as for :meth:`c_skip`."""
        return self.network_time(sigma, "c_noise")

    # ---- marginals ------------------------------------------------------------------------------

    def _total(self, sigma: Any) -> np.ndarray:
        return np.hypot(self._times(sigma), self.sigma_data)

    def _alpha(self, t: np.ndarray) -> np.ndarray:
        return 1.0 / self._total(t)

    def _log_alpha(self, t: np.ndarray) -> np.ndarray:
        larger, smaller = np.maximum(t, self.sigma_data), np.minimum(t, self.sigma_data)
        return -np.log(larger) - 0.5 * np.log1p((smaller / larger) ** 2)  # accurate also for alpha close to 1

    def _sigma(self, t: np.ndarray) -> np.ndarray:
        return t / self._total(t)

    def _log_snr(self, t: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return -2.0 * np.log(t)

    def _timestep_at_log_snr(self, log_snr: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 * self._reached(log_snr, -2.0 * math.log(self.domain[1]), math.inf))

    def _noise_level(self, t: np.ndarray) -> np.ndarray:
        return t + 0.0

    def _timestep_at_noise_level(self, sigma: np.ndarray) -> np.ndarray:
        return self._times(sigma) + 0.0


def of(sigma_min: Any, sigma_max: Any, sigma_data: Any, rho: Any) -> EDMSchedule:
    low, high = require_increasing("sigma_min", sigma_min, "sigma_max", sigma_max)
    values = {
        "sigma_min": low,
        "sigma_max": high,
        "sigma_data": require_positive("sigma_data", sigma_data),
        "rho": require_positive("rho", rho),
    }
    return EDMSchedule._make({"type": "edm", **values}, **values)
