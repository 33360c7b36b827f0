"""The evidence lower bound (Ho et al. 2020, eq. 5): its three terms, and its relation to the simple loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checks import require_int, to_float64, to_vector
from ..errors import ArgumentError
from .forward import level, marginal, posterior
from .gaussian import Gaussian, kl, per_sample
from .reverse import reverse

if TYPE_CHECKING:
    from ..schedule import Schedule


@dataclass(frozen=True, eq=False)
class Bound:
    """−log p(x0) ≤ prior + diffusion + decoder, in nats per sample (batch,).

    Attributes:
        prior: L_T.
        diffusion: The sum of L_{t−1}.
        decoder: L_0.
    """

    prior: np.ndarray
    diffusion: np.ndarray
    decoder: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """The sum: the negative ELBO."""
        return self.prior + self.diffusion + self.decoder


def prior_term(schedule: Schedule, x0: Any, *, t: Any = None, scale: float = 1.0) -> np.ndarray:
    """L_T = D_KL(q(x_T | x_0) ‖ N(0, scale²)), in nats, (batch,) (Ho et al. 2020, eq. 5).

    Args:
        schedule: Any schedule.
        x0: (batch, ...) data.
        t: The last time; None is the schedule's ``t_max``.
        scale: Standard deviation of the initial state of sampling.

    Example:
        >>> import numpy as np, diffuse_fast as df
        >>> df.theory.prior_term(df.Schedule.flow(), np.ones((2, 3)))  # pure noise at the end
        array([0., 0.])
    """
    data = to_float64("x0", x0)
    q = marginal(schedule, data, schedule.t_max if t is None else t)
    return kl(q, Gaussian(np.zeros_like(data), np.asarray(scale**2)))


def diffusion_term(
    schedule: Schedule,
    x0: Any,
    x_t: Any,
    model_output: Any,
    *,
    t: Any,
    s: Any,
    prediction_type: str,
    variance_type: str = "fixed_small",
    v: Any = None,
) -> np.ndarray:
    """L_{t−1} = D_KL(q(x_s | x_t, x_0) ‖ p(x_s | x_t)), in nats, (batch,) (Ho et al. 2020, eq. 5; Kingma et al. 2021, eq. 13
    for any s).

    Args:
        schedule: Any schedule.
        x0: (batch, ...) data.
        x_t: (batch, ...), drawn from q(x_t | x_0).
        model_output: (batch, ...), the network's output for ``x_t``.
        t, s, prediction_type, variance_type, v: As for :func:`~diffuse_fast.theory.reverse`, with s a time.

    Example:
        >>> import numpy as np, diffuse_fast as df
        >>> x0, noise, schedule = np.ones((1, 2)), np.ones((1, 2)), df.Schedule.linear()
        >>> x = schedule.alpha(9) * x0 + schedule.sigma(9) * noise
        >>> found = df.theory.diffusion_term(schedule, x0, x, noise, t=9, s=8, prediction_type="epsilon")
        >>> bool(found < 1e-20)  # the noise is predicted exactly
        True
    """
    p = reverse(schedule, x_t, model_output, t=t, s=s, prediction_type=prediction_type, variance_type=variance_type, v=v)
    return kl(posterior(schedule, x_t, x0, t=t, s=s), p)


def decoder_term(
    x0: Any, mean: Any, std: Any, *, levels: int | None = None, value_range: tuple[float, float] = (-1.0, 1.0)
) -> np.ndarray:
    """L_0 = −log p(x_0 | x_1), in nats, (batch,), for p a Gaussian around the predicted data.

    For data of ``levels`` evenly spaced values from ``lo`` to ``hi``, p(x_0) is the Gaussian's mass on the cell around x_0, and the
    outermost cells extend to ±infinity (Ho et al. 2020, eq. 13). For continuous data (``levels=None``) it is the density.

    Args:
        x0: (batch, ...) data.
        mean: (batch, ...), the predicted data.
        std: Standard deviation around it, above 0: a number, or an array that broadcasts over ``x0``.
        levels: Number of values of an element of the data, at least 2; 256 for 8-bit images.
        value_range: The first and the last of them.

    Raises:
        ArgumentError: too few levels, an empty range, a deviation of 0, or data that is not on the levels.

    Example:
        >>> import numpy as np, diffuse_fast as df
        >>> df.theory.decoder_term(np.array([[1.0]]), np.array([[0.0]]), 1.0, levels=2)  # mass above 0: a half
        array([0.69314718])
    """
    data, center, width = to_float64("x0", x0), to_float64("mean", mean), to_float64("std", std)
    if not np.all(width > 0.0):
        raise ArgumentError("std has a value that is not above 0.")
    if levels is None:
        return -Gaussian(center, width**2).log_density(data)
    lo, half = cell(data, levels, value_range)
    below = np.where(data - half < lo, -math.inf, (data - half - center) / width)
    above = np.where(data + half > value_range[1], math.inf, (data + half - center) / width)
    return -per_sample(_log_mass(below, above))


def cell(data: np.ndarray, levels: int, value_range: tuple[float, float]) -> tuple[float, float]:
    """The lowest level, and half the width of a cell; data must be on the levels."""
    lo, hi = value_range
    levels = require_int("levels", levels, 2)
    if not lo < hi:
        raise ArgumentError(f"value_range is {value_range!r}; it must be (lo, hi) with lo < hi.")
    width = (hi - lo) / (levels - 1)
    steps = (data - lo) / width
    # A hundredth of a cell: above the rounding of float32 at 16 bits, below the difference to another number of levels.
    off = np.abs(steps - np.round(steps)) > 1e-2
    if np.any(off | (np.round(steps) < 0) | (np.round(steps) > levels - 1)):
        raise ArgumentError(
            f"x0 has values that are not on the {levels} levels from {lo:g} to {hi:g}; give the right number, or levels=None."
        )
    return lo, 0.5 * width


def _log_mass(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    """log(Φ(above) − Φ(below)), computed in the tail where both are small, for accuracy."""
    flip = below > 0.0
    low, high = np.where(flip, -above, below), np.where(flip, -below, above)
    log_high, log_low = log_phi(high), log_phi(low)
    with np.errstate(divide="ignore"):
        return log_high + np.log(-np.expm1(log_low - log_high))


def log_phi(x: np.ndarray) -> np.ndarray:
    """log Φ(x) of the standard normal, by ``erfc`` or, where that underflows, by its asymptotic series (Abramowitz &
    Stegun 1964, 26.2.12)."""
    erfc = np.frompyfunc(math.erfc, 1, 1)
    near = np.maximum(x, -30.0)
    plain = np.log(0.5 * erfc(-near / math.sqrt(2.0)).astype(np.float64))
    far = np.minimum(x, -30.0)
    with np.errstate(over="ignore", invalid="ignore"):
        series = -0.5 * (far**2 + math.log(2.0 * math.pi)) - np.log(-far) + np.log1p(-1.0 / far**2 + 3.0 / far**4 - 15.0 / far**6)
    return np.where(x < -30.0, np.where(np.isneginf(x), -math.inf, series), plain)


def simple_loss_weight(schedule: Schedule, *, t: Any, s: Any, variance_type: str = "fixed_small") -> Any:
    """The weight of ‖ε − ε̂‖² in L_{t−1}, up to a constant: β²/(2·s²·α·(1 − ᾱ)) (Ho et al. 2020, eq. 12), which L_simple (eq. 14)
    omits. It equals ½·(SNR(s)/SNR(t) − 1), for ``fixed_small`` (Kingma et al. 2021, eq. 14), times β̃/β for ``fixed_large``.

    Args:
        schedule: Any schedule.
        t, s: Times of the same shape, s before t.
        variance_type: ``fixed_small`` or ``fixed_large``.

    Returns:
        A float, or an array of the shape of ``t``.

    Example:
        >>> import diffuse_fast as df
        >>> schedule = df.Schedule.linear()
        >>> [round(df.theory.simple_loss_weight(schedule, t=t, s=t - 1), 4) for t in (1, 10, 999)]  # largest at small times
        [0.5997, 0.079, 0.0102]
    """
    if variance_type not in ("fixed_small", "fixed_large"):
        raise ArgumentError(f"variance_type is {variance_type!r}; the weight is known for fixed_small and fixed_large.")
    if s is None:
        raise ArgumentError("s is None, the data; that term is not a KL divergence (use decoder_term).")
    now, before = level(schedule, t, 1), level(schedule, s, 1)
    gained = before.log_snr - now.log_snr
    weight = 0.5 * np.expm1(gained)
    if variance_type == "fixed_large":
        weight = weight * (before.sigma / now.sigma) ** 2
    return float(weight) if np.ndim(weight) == 0 else weight


def elbo(
    schedule: Schedule,
    x0: Any,
    predict: Callable[[np.ndarray, float], Any],
    noise: Callable[[int], Any],
    *,
    prediction_type: str,
    times: Any = None,
    variance_type: str = "fixed_small",
    scale: float = 1.0,
    levels: int | None = None,
    value_range: tuple[float, float] = (-1.0, 1.0),
) -> Bound:
    """The negative ELBO of a network with one draw of noise per time (Ho et al. 2020, eq. 5): the bound of −log p(x0) for the
    reverse process :func:`~diffuse_fast.theory.reverse` with these times.

    The last step, to the data, is the Gaussian around the predicted data with standard deviation sigma/alpha, the posterior under a
    flat prior (Kingma et al. 2021, section 3.1). :func:`diffuse_fast.likelihood` estimates the same for a model, with standard
    errors.

    Args:
        schedule: Any schedule.
        x0: (batch, ...) data.
        predict: ``predict(x_t, t)``, (batch, ...): the network, as a function of the schedule's time.
        noise: ``noise(i)``, (batch, ...), standard normal, for the i-th time.
        prediction_type: What the network predicts.
        times: Increasing times; None is every timestep of a discrete schedule.
        variance_type: ``fixed_small`` or ``fixed_large``.
        scale, levels, value_range: As for :func:`prior_term` and :func:`decoder_term`.

    Returns:
        The three terms, in nats per sample.

    Example:
        >>> import numpy as np, diffuse_fast as df
        >>> schedule, rng = df.Schedule.cosine(), np.random.default_rng(0)
        >>> x0 = rng.standard_normal((500, 4))  # for which ε = sigma·x is the optimal prediction
        >>> bound = df.theory.elbo(schedule, x0, lambda x, t: schedule.sigma(t) * x, lambda i: rng.standard_normal(x0.shape),
        ...     prediction_type="epsilon", variance_type="fixed_large")
        >>> truth = -df.theory.Gaussian(np.zeros_like(x0), np.array(1.0)).log_density(x0)
        >>> bool(abs(np.mean(bound.total - truth)) < 0.1)
        True
    """
    data = to_float64("x0", x0)
    if times is None:
        if schedule.family != "discrete":
            raise ArgumentError(f"times is None; give times, because the family {schedule.family} has no integer timesteps.")
        times = np.arange(schedule.num_train_timesteps)  # type: ignore[attr-defined]  # checked above
    grid = to_vector("times", times)
    if not np.all(np.diff(grid) > 0.0):
        raise ArgumentError("times must increase.")
    diffusion = np.zeros(len(data))
    decoder = np.zeros(len(data))
    for i, t in enumerate(grid.tolist()):
        x_t = marginal(schedule, data, t).sample(noise(i))
        output = np.asarray(predict(x_t, t))
        if i == 0:
            p = reverse(schedule, x_t, output, t=t, s=None, prediction_type=prediction_type)
            width = schedule.sigma(t) / schedule.alpha(t)
            decoder = decoder_term(data, p.mean, width, levels=levels, value_range=value_range)
        else:
            diffusion += diffusion_term(
                schedule, data, x_t, output, t=t, s=float(grid[i - 1]), prediction_type=prediction_type, variance_type=variance_type
            )
    return Bound(prior_term(schedule, data, t=float(grid[-1]), scale=scale), diffusion, decoder)
