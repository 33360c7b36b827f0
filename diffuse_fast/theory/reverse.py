"""The reverse process: one step from noise towards data, with a network's prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..checks import to_float64
from ..errors import ArgumentError, suggest
from ..solver.prediction import convert_prediction
from .forward import added, level, posterior
from .gaussian import Gaussian

if TYPE_CHECKING:
    from ..schedule import Schedule

# The same names as in the solver `ddpm`.
REVERSE_VARIANCES = ("fixed_small", "fixed_large", "learned", "learned_range")


def reverse(
    schedule: Schedule,
    x_t: Any,
    model_output: Any,
    *,
    t: Any,
    s: Any,
    prediction_type: str,
    variance_type: str = "fixed_small",
    v: Any = None,
) -> Gaussian:
    """p(x_s | x_t) = q(x_s | x_t, x_0 = x̂_0): the posterior with the network's data prediction (Ho et al. 2020, eq. 1 and the
    text before eq. 8; Kingma et al. 2021, eq. 4). The mean does not depend on the prediction type (ε, x0, v, ...); for ε it is
    DDPM's eq. 11.

    Args:
        schedule: Any schedule.
        x_t: (batch, ...), the state.
        model_output: (batch, ...), the network's output for ``x_t``.
        t, s: Times, one number or one per sample, s before t; ``s=None`` is the data.
        prediction_type: What the network predicts.
        variance_type: With β = σ²_{t|s} the variance of :func:`~diffuse_fast.theory.transition` and β̃ that of the posterior
            (Ho et al. 2020, section 3.2; Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 15):

            =================  ============================================================================
            ``fixed_small``    β̃: correct if the data is a single point
            ``fixed_large``    β: correct for data N(0, 1) under a variance-preserving schedule
            ``learned_range``  exp(f·log β + (1 − f)·log β̃), f = (v + 1)/2
            ``learned``        exp(v)
            =================  ============================================================================
        v: (batch, ...), the network's output for a learned variance.

    Returns:
        The distribution. For the step to the data (``s=None``) β̃ is 0, and so is the variance of ``fixed_small``.

    Raises:
        ArgumentError: an unknown variance type, a missing ``v``, times in the wrong order, or ``learned_range`` for the step to the
            data.

    Example:
        >>> import numpy as np, diffuse_fast as df
        >>> schedule, x = df.Schedule.linear(), np.ones((1, 1))
        >>> p = df.theory.reverse(schedule, x, np.zeros((1, 1)), t=500, s=499, prediction_type="epsilon")
        >>> bool(np.isclose(p.mean.item(), 1 / np.sqrt(1 - schedule.betas[500])))  # eq. 11 with ε = 0
        True
    """
    if variance_type not in REVERSE_VARIANCES:
        raise ArgumentError(f"variance_type is {variance_type!r}.{suggest(str(variance_type), REVERSE_VARIANCES)}")
    if v is None and variance_type.startswith("learned"):
        raise ArgumentError(f"variance_type is {variance_type!r}, which needs v, the network's output for the variance.")
    state, output = to_float64("x_t", x_t), to_float64("model_output", model_output)
    data = convert_prediction(
        output,
        state,
        from_=prediction_type,
        to="sample",
        alpha=schedule.alpha(t),
        sigma=schedule.sigma(t),
        sigma_data=schedule.sigma_data,
    )
    small = posterior(schedule, state, data, t=t, s=s)
    if variance_type == "fixed_small":
        return small
    if variance_type == "learned":
        return Gaussian(small.mean, np.exp(to_float64("v", v)))
    now = level(schedule, t, state.ndim)
    gain = added(now, level(schedule, s, state.ndim))[1]
    large = gain * now.sigma**2
    if variance_type == "fixed_large":
        return Gaussian(small.mean, np.asarray(large))
    if np.any(small.variance == 0.0):
        raise ArgumentError("variance_type is 'learned_range', whose lower end is 0 for s=None and s=t; use another variance type.")
    share = 0.5 * (to_float64("v", v) + 1.0)
    return Gaussian(small.mean, np.exp(share * np.log(large) + (1.0 - share) * np.log(small.variance)))
