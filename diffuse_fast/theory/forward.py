"""The forward process: the distribution of data as noise is added, and of its earlier states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..checks import to_float64, unwrap_scalar
from ..errors import ArgumentError
from .gaussian import Gaussian

if TYPE_CHECKING:
    from ..schedule import Schedule


class Level(NamedTuple):
    """The marginal at one time, or at one time per sample; each value broadcasts over (batch, ...)."""

    alpha: Any
    sigma: Any
    log_alpha: Any
    log_snr: Any


def level(schedule: Schedule, t: Any, ndim: int) -> Level:
    """The marginal at ``t``; None is the data."""
    if t is None:
        return Level(1.0, 0.0, 0.0, np.inf)
    times = to_float64("t", t)
    if times.ndim > 1:
        raise ArgumentError(f"t has shape {times.shape}; it must be a number, or one per sample.")
    each = times.reshape(times.shape + (1,) * (ndim - 1)) if times.ndim else times
    return Level(schedule.alpha(each), schedule.sigma(each), schedule.log_alpha(each), schedule.log_snr(each))


def added(now: Level, before: Level) -> tuple[Any, Any]:
    """``(ratio, gain)``: alpha_t/alpha_s, and the fraction of sigma_t² that was added since s, 1 − SNR(t)/SNR(s). Both are accurate
    also for close t and s."""
    if np.any(np.asarray(now.log_snr) > np.asarray(before.log_snr)):
        raise ArgumentError("s is noisier than t; s must be the earlier time, or None for the data.")
    with np.errstate(invalid="ignore"):
        ratio = np.exp(now.log_alpha - before.log_alpha)
        gain = -np.expm1(now.log_snr - before.log_snr)
    same = np.asarray(now.log_snr) == np.asarray(before.log_snr)  # also if both are infinite
    return np.where(same, 1.0, ratio), np.where(same, 0.0, gain)


def transition(schedule: Schedule, x_s: Any, *, s: Any, t: Any) -> Gaussian:
    """q(x_t | x_s) = N(alpha_t/alpha_s·x_s, sigma_t² − (alpha_t/alpha_s)²·sigma_s²), for s before t (Kingma et al. 2021,
    "Variational Diffusion Models", arXiv:2107.00630, appendix A). One step of a discrete schedule is DDPM's q(x_t | x_{t−1}) =
    N(sqrt(1 − β_t)·x_{t−1}, β_t) (Ho et al. 2020, arXiv:2006.11239, eq. 2).

    Args:
        schedule: Any schedule.
        x_s: (batch, ...), the state at ``s``.
        s, t: Times, one number or one per sample; ``s=None`` is the data.

    Raises:
        ArgumentError: s is noisier than t, or a time is out of range.

    Example:
        >>> import numpy as np, diffuse_fast as df
        >>> schedule = df.Schedule.linear()
        >>> q = df.theory.transition(schedule, np.ones((1, 1)), s=499, t=500)
        >>> bool(np.isclose(q.variance, schedule.betas[500], rtol=1e-12))
        True
    """
    x = to_float64("x_s", x_s)
    now, before = level(schedule, t, x.ndim), level(schedule, s, x.ndim)
    ratio, gain = added(now, before)
    return Gaussian(ratio * x, np.asarray(gain * now.sigma**2))


def marginal(schedule: Schedule, x0: Any, t: Any) -> Gaussian:
    """q(x_t | x_0) = N(alpha_t·x_0, sigma_t²) (Ho et al. 2020, eq. 4).

    Args:
        schedule: Any schedule.
        x0: (batch, ...) data.
        t: A time, or one per sample.

    Example:
        >>> import numpy as np, diffuse_fast as df
        >>> q = df.theory.marginal(df.Schedule.flow(), np.ones((1, 1)), 250)
        >>> q.mean.item(), q.variance.item()
        (0.75, 0.0625)
    """
    x = to_float64("x0", x0)
    now = level(schedule, t, x.ndim)
    return Gaussian(now.alpha * x, np.asarray(now.sigma**2))


def posterior(schedule: Schedule, x_t: Any, x0: Any, *, t: Any, s: Any) -> Gaussian:
    """q(x_s | x_t, x_0), for s before t: with σ²_{t|s} the variance of :func:`transition`::

        mean     = alpha_s·σ²_{t|s}/sigma_t²·x_0 + (alpha_t/alpha_s)·sigma_s²/sigma_t²·x_t
        variance = σ²_{t|s}·sigma_s²/sigma_t²

    (Ho et al. 2020, eq. 6 and 7 for s = t − 1; Kingma et al. 2021, appendix A.2 for any s).

    Args:
        schedule: Any schedule.
        x_t, x0: (batch, ...), the state and the data.
        t, s: Times, one number or one per sample; ``s=None`` is the data, and the result the point x0.

    Raises:
        ArgumentError: s is noisier than t, or a time is out of range.

    Example:
        >>> import numpy as np, diffuse_fast as df
        >>> schedule = df.Schedule.cosine()
        >>> q = df.theory.posterior(schedule, np.ones((1, 1)), np.zeros((1, 1)), t=10, s=9)
        >>> bool(np.isclose(q.mean.item(), schedule.posterior_mean_coef_xt[10], rtol=1e-10))
        True
    """
    state, data = to_float64("x_t", x_t), to_float64("x0", x0)
    now, before = level(schedule, t, state.ndim), level(schedule, s, state.ndim)
    ratio, gain = added(now, before)
    mean = before.alpha * gain * data + ratio * (before.sigma / now.sigma) ** 2 * state
    return Gaussian(mean, np.asarray(gain * before.sigma**2))


def score(schedule: Schedule, x_t: Any, x0: Any, t: Any) -> np.ndarray:
    """∇ log q(x_t | x_0) = −(x_t − alpha_t·x_0)/sigma_t², which is −ε/sigma_t (Vincent 2011, "A Connection Between Score
    Matching and Denoising Autoencoders"; Song et al. 2021, arXiv:2011.13456, eq. 7). Its mean given x_t is ∇ log q(x_t), which
    is −1/sigma_t times the output of a network that predicts ε with the least squared error.

    Example:
        >>> import numpy as np, diffuse_fast as df
        >>> df.theory.score(df.Schedule.flow(), np.array([[1.0]]), np.array([[1.0]]), 500)
        array([[-2.]])
    """
    state = to_float64("x_t", x_t)
    now = level(schedule, t, state.ndim)
    return -(state - now.alpha * to_float64("x0", x0)) / now.sigma**2


def snr(schedule: Schedule, t: Any) -> Any:
    """alpha_t²/sigma_t² (Kingma et al. 2021, eq. 3). ``schedule.log_snr`` is its logarithm.

    Args:
        schedule: Any schedule.
        t: A time or an array of them.

    Example:
        >>> import diffuse_fast as df
        >>> round(df.theory.snr(df.Schedule.linear(), 0), 6)
        9999.0
    """
    return unwrap_scalar(np.exp(schedule.log_snr(t)))
