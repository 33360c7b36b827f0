"""Time grids: the times at which the network is called, from noise to data.

Spacings over the integer timesteps of a discrete schedule, with the names of Lin et al. 2023 ("Common Diffusion Noise Schedules and
Sample Steps are Flawed", Table 2; 0-based here), for T training timesteps and N steps:

=========  =========================================================  =======================
name       timesteps                                                  T = 1000, N = 4
=========  =========================================================  =======================
leading    ``i·⌊T/N⌋ + steps_offset``, i = N − 1 .. 0                 750, 500, 250, 0
trailing   ``round(T − i·T/N) − 1``, i = 0 .. N − 1                   999, 749, 499, 249
linspace   ``round(i·(T − 1)/(N − 1))``, i = N − 1 .. 0               999, 666, 333, 0
=========  =========================================================  =======================

Halves are rounded to even, as in NumPy and diffusers. With few steps, or with a large number that does not divide T, leading starts
in the middle of the schedule, and so does linspace with one step (:func:`starts_in_the_middle`); :func:`diffuse_fast.plan` then
uses trailing. diffusers' schedulers define ``leading`` and ``linspace`` differently; each solver follows its own scheduler
(``Solver.grid``):

* ``closed`` (DDIM, DDPM): the table above;
* ``open`` (DPM-Solver, UniPC, DEIS): the grid of N + 1 steps without its last, timestep 0;
* ``fractional`` (Euler, Heun, LMS, DPM-2): linspace is not rounded.

In other families ``linspace`` is evenly spaced from ``t_max`` to ``t_min``. In a flow it is evenly spaced from σ = 1 to the shifted
1/num_train_timesteps, then shifted. The last level is thus shifted twice, as in diffusers' FlowMatchEulerDiscreteScheduler, which
shifts its smallest level when it is made, and in the code of Stable Diffusion 3. ``trailing`` of a flow is 1 − i/N, shifted once.

Spacings over the noise level σ of every family (``Schedule.noise_level``), from ``sigma_max`` to ``sigma_min``, u = i/(N − 1):

===========  =====================================================================================================
karras       ``(sigma_max^(1/rho) + u·(sigma_min^(1/rho) − sigma_max^(1/rho)))^rho`` (Karras et al. 2022, eq. 5)
exponential  ``exp(log(sigma_max) + u·(log(sigma_min) − log(sigma_max)))``
beta_sigmas  ``sigma_min + (sigma_max − sigma_min)·q(1 − u)``, q the quantile of Beta(0.6, 0.6): diffusers'
             ``use_beta_sigmas``
log_snr      even in log-SNR (Lu et al. 2022, section 5; diffusers' ``use_lu_lambdas``); equals exponential except in a flow
===========  =====================================================================================================

Spacings over the time t of every family:

=====  =========================================================================================================
beta   ``t_min + (t_max − t_min)·q(1 − u)``, q the quantile of Beta(a, b) with ``beta_shape`` (a, b) = (0.6, 0.6)
       (Lee et al. 2024, "Beta Sampling is All You Need", arXiv:2407.12173): dense at both ends. In a flow from 1 to
       1/num_train_timesteps, then shifted
power  ``t_max·(1 − i/N)^rho``; rho = 2 is DDIM's quadratic (Song et al. 2020, appendix D.2); shifted in a flow
=====  =========================================================================================================
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..checks import require_positive
from ..errors import ArgumentError, ArgumentTypeError, suggest
from ..schedule import Schedule

INTEGER = ("leading", "trailing", "linspace")
LEVELS = ("karras", "exponential", "beta_sigmas", "log_snr")
RHO = {"karras": 7.0, "power": 2.0}
BETA_SHAPE = (0.6, 0.6)
SPACINGS = (*INTEGER, *LEVELS, "beta", "power")

MAX_SHAPE = 10.0  # of the Beta distribution; larger values would put all times in the middle

MAX_STEPS = 100_000  # bounds the memory of a plan, which has a row per step


@dataclass(frozen=True)
class Spacing:
    """A named spacing with its options, checked.

    Attributes:
        name: One of ``SPACINGS``.
        steps_offset: Added to the timesteps of leading spacing.
        rho: Exponent of ``karras`` and ``power``; None for the others.
        sigma_min, sigma_max: Ends of a spacing over noise levels; None for the others.
        beta_shape: Shape parameters of ``beta``; None for the others.
    """

    name: str
    steps_offset: int
    rho: float | None
    sigma_min: float | None
    sigma_max: float | None
    beta_shape: tuple[float, float] | None = None


def resolve(
    schedule: Schedule,
    name: Any,
    *,
    steps_offset: int = 0,
    rho: Any = None,
    sigma_min: Any = None,
    sigma_max: Any = None,
    beta_shape: Any = None,
) -> Spacing:
    """The spacing of this name, with defaults from the schedule.

    Raises:
        ArgumentError: an unknown name, a spacing that the family does not have, an option of another spacing, an empty interval.
    """
    if not isinstance(name, str) or name not in SPACINGS:
        raise ArgumentError(f"unknown timestep_spacing {name!r}.{suggest(str(name), SPACINGS)}")
    if name == "leading" and schedule.family != "discrete":
        raise ArgumentError(
            f"timestep_spacing is 'leading'; it needs integer timesteps, which the family {schedule.family} does not have."
        )
    if name == "trailing" and schedule.family not in ("discrete", "flow"):
        raise ArgumentError(f"timestep_spacing is 'trailing'; for the family {schedule.family} use 'power' with rho=1.")
    if steps_offset != 0 and name != "leading":
        raise ArgumentError(f"steps_offset is {steps_offset}; only leading spacing has an offset, not {name}.")
    if rho is not None and name not in RHO:
        raise ArgumentError(f"rho is {rho!r}; only the spacings {' and '.join(RHO)} have an exponent, not {name}.")
    if name in RHO:
        default = getattr(schedule, "rho", RHO[name]) if name == "karras" else RHO[name]
        rho = require_positive("rho", default if rho is None else rho)
    shape = _shape(name, beta_shape)
    if name not in LEVELS:
        if (sigma_min, sigma_max) != (None, None):
            raise ArgumentError(f"sigma_min and sigma_max are the ends of the spacings {', '.join(LEVELS)}, not of {name}.")
        return Spacing(name, steps_offset, rho, None, None, shape)
    high = schedule.noise_level(schedule.t_max) if sigma_max is None else require_positive("sigma_max", sigma_max)
    low = schedule.noise_level(schedule.t_min) if sigma_min is None else require_positive("sigma_min", sigma_min)
    if name == "log_snr" and sigma_max is None and schedule.log_snr(schedule.t_max) == -math.inf:
        high = math.inf
    if math.isinf(high):
        raise ArgumentError(
            f"timestep_spacing is {name!r}, but this schedule starts without any signal, at an infinite noise level; give "
            f"sigma_max=..., or use 'trailing' or 'linspace'."
        )
    if not low < high:
        _refuse_one_level(name, schedule)
        raise ArgumentError(f"sigma_min is {low:g} and sigma_max {high:g}; the interval between them is empty.")
    return Spacing(name, 0, rho, low, high)


def _shape(name: str, given: Any) -> tuple[float, float] | None:
    """``beta_shape``, checked."""
    if name != "beta":
        if given is not None:
            raise ArgumentError(f"beta_shape is {given!r}; only the spacing beta has it, not {name}.")
        return None
    try:
        a, b = BETA_SHAPE if given is None else given
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"beta_shape is {given!r}; it must be a pair (a, b) of numbers.") from None
    shape = require_positive("beta_shape[0]", a), require_positive("beta_shape[1]", b)
    if max(shape) > MAX_SHAPE:
        raise ArgumentError(f"beta_shape is {given!r}; both must be at most {MAX_SHAPE:g}.")
    return shape


def _refuse_one_level(name: str, schedule: Schedule) -> None:
    """Raise an ArgumentError if a spacing from σ = 1 to 1/num_train_timesteps would have a single level."""
    if schedule.family == "flow" and schedule.num_train_timesteps == 1:  # type: ignore[attr-defined]  # checked above
        raise ArgumentError(
            f"timestep_spacing is {name!r}, which goes from sigma 1 to 1/num_train_timesteps, but num_train_timesteps is 1: "
            f"both are the same level. Use Schedule.flow(), with time_convention='continuous' if the network takes times from 0 "
            f"to 1; or timestep_spacing='trailing'."
        )


def grid(spacing: Spacing, schedule: Schedule, steps: int, style: str = "closed") -> np.ndarray:
    """The times of a spacing, float64 ``(steps,)``, decreasing, in the unit of the schedule.

    Raises:
        ArgumentError: ``steps`` is more than the number of timesteps or ``MAX_STEPS``, or ``steps_offset`` shifts the grid past
            the last timestep.
    """
    if steps > MAX_STEPS:
        raise ArgumentError(f"steps is {steps}; a plan has at most {MAX_STEPS}.")
    if spacing.name in INTEGER and schedule.family == "discrete":
        return _integers(spacing, schedule.num_train_timesteps, steps, style)  # type: ignore[attr-defined]  # checked above
    if steps < 1:
        raise ArgumentError(f"steps is {steps}; it must be at least 1.")
    if spacing.name in LEVELS:
        return _levels(spacing, schedule, steps)
    if spacing.name in ("linspace", "beta") and steps > 1:
        _refuse_one_level(spacing.name, schedule)
    if spacing.name == "beta":
        assert spacing.beta_shape is not None
        quantile = _beta_quantiles(steps, *spacing.beta_shape)
        if schedule.family != "flow":
            return schedule.t_min + (schedule.t_max - schedule.t_min) * quantile
        low = 1.0 / schedule.num_train_timesteps  # type: ignore[attr-defined]  # checked above
        sigma = low + (1.0 - low) * quantile
    elif spacing.name == "linspace":
        if schedule.family != "flow":
            return np.linspace(schedule.t_max, schedule.t_min, steps)
        sigma = np.linspace(1.0, schedule.shifted(1.0 / schedule.num_train_timesteps), steps)  # type: ignore[attr-defined]  # checked above
    else:  # in a flow, trailing is power with exponent 1
        sigma = (1.0 - np.arange(steps) / steps) ** (1.0 if spacing.rho is None else spacing.rho)
    if schedule.family == "flow":
        sigma = schedule.shifted(sigma)  # type: ignore[attr-defined]  # checked above
    return schedule.t_max * sigma


def starts_in_the_middle(spacing: Spacing, schedule: Schedule, times: np.ndarray) -> bool:
    """Whether a grid over integer timesteps starts below 0.9·num_train_timesteps and not at the last timestep: too late for a state
    of pure noise."""
    if spacing.name not in INTEGER or schedule.family != "discrete":
        return False
    count = schedule.num_train_timesteps  # type: ignore[attr-defined]  # checked above
    return bool(times[0] < count - 1 and 10 * times[0] < 9 * count)


def _integers(spacing: Spacing, count: int, steps: int, style: str) -> np.ndarray:
    drop_last = style == "open" and spacing.name != "trailing"
    most = count - 1 if drop_last and count > 1 else count
    if not 1 <= steps <= most:
        raise ArgumentError(f"steps is {steps}; this schedule allows 1 to {most} with {spacing.name} spacing.")
    if spacing.name == "trailing":
        times = np.round(count - np.arange(steps) * (count / steps)) - 1
    else:
        total = min(steps + drop_last, count)
        if spacing.name == "leading":
            rising = np.arange(total, dtype=np.float64) * (count // total)
        else:
            rising = np.linspace(0, count - 1, total)
            rising = rising if style == "fractional" else np.round(rising)
        times = rising[::-1][:steps] + spacing.steps_offset
    if times[0] >= count:
        raise ArgumentError(
            f"steps_offset is {spacing.steps_offset}; with {steps} steps the first timestep would be {times[0]}, past the "
            f"last of the schedule ({count - 1}). Use fewer steps or a smaller offset."
        )
    return times.astype(np.float64)


def _levels(spacing: Spacing, schedule: Schedule, steps: int) -> np.ndarray:
    low, high = spacing.sigma_min, spacing.sigma_max
    assert low is not None and high is not None
    u = np.linspace(0.0, 1.0, steps)
    if spacing.name == "log_snr":
        first, last = (schedule.timestep_at_noise_level(level) for level in (high, low))
        times = schedule.timestep_at_log_snr(schedule.log_snr(first) + u * (schedule.log_snr(last) - schedule.log_snr(first)))
    else:
        if spacing.name == "karras":
            a, b = high ** (1.0 / spacing.rho), low ** (1.0 / spacing.rho)  # type: ignore[operator]  # checked: karras has a rho
            levels = (a + u * (b - a)) ** spacing.rho
        elif spacing.name == "exponential":
            levels = np.exp(math.log(high) + u * (math.log(low) - math.log(high)))
        else:
            levels = low + (high - low) * _beta_quantiles(steps, *BETA_SHAPE)
        levels[0] = high
        if steps > 1:
            levels[-1] = low
        times = schedule.timestep_at_noise_level(levels)
    return times


@functools.lru_cache(maxsize=64)  # milliseconds, and a search for a plan asks again and again
def _beta_quantiles(steps: int, a: float, b: float) -> np.ndarray:
    """Quantiles of Beta(a, b) at evenly spaced p from 1 to 0, read-only."""
    quantiles = beta_quantile(1.0 - np.linspace(0.0, 1.0, steps), a, b)
    quantiles.flags.writeable = False
    return quantiles


def beta_quantile(p: np.ndarray, a: float, b: float) -> np.ndarray:
    """The quantile of the distribution Beta(a, b), 0 < a, b <= ``MAX_SHAPE``, at p in [0, 1]."""
    scale = math.gamma(a) * math.gamma(b), math.gamma(a + b)
    middle = 0.5 if a == b else 0.5**a * float(_beta_series(np.array(0.5), a, b)) * scale[1] / scale[0]
    lower = _inverse_beta(np.minimum(p, middle) * scale[0] / scale[1], a, b)
    upper = _inverse_beta(np.minimum(1.0 - p, 1.0 - middle) * scale[0] / scale[1], b, a)
    return np.where(p <= middle, lower, 1.0 - upper)


def _inverse_beta(integral: np.ndarray, a: float, b: float) -> np.ndarray:
    """The x in [0, 1/2] with ∫₀ˣ u^(a−1)·(1−u)^(b−1) du = integral.

    As a function of y = x^a the integral is convex (b < 1) or concave, and its first term alone gives a start above or below the
    root, so Newton's method converges from one side.
    """
    y = np.minimum(a * integral, 0.6**a)
    for _ in range(12):
        x = y ** (1.0 / a)
        y = y - (y * _beta_series(x, a, b) - integral) * a * (1.0 - x) ** (1.0 - b)
    return y ** (1.0 / a)


def _beta_series(x: np.ndarray, a: float, b: float) -> np.ndarray:
    """The incomplete beta integral over x^a, for x up to 0.6: Σ (1 − b)_n/(n!·(a + n))·x^n (Abramowitz & Stegun 26.5.4)."""
    n = np.arange(120)
    coefficients = np.cumprod(np.concatenate([[1.0], (n[1:] - b) / n[1:]])) / (a + n)
    return np.polynomial.polynomial.polyval(x, coefficients)
