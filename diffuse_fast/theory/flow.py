"""The probability-flow ODE, in a time variable for every family."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checks import to_float64


def probability_flow(x: Any, epsilon: Any, alpha: float, sigma: float) -> np.ndarray:
    """The velocity of the probability-flow ODE (Song et al. 2021, arXiv:2011.13456, eq. 13) in the angle φ = atan(sigma/alpha).

    With ρ = sqrt(alpha² + sigma²) and u = x/ρ, every schedule has the form u = cos φ·x0 + sin φ·ε, and the ODE is

        du/dφ = −sin φ·x̂0 + cos φ·ε̂ = v̂,

    the v of Salimans & Ho 2022 (arXiv:2202.00512, eq. 11 and appendix D). φ is finite for pure data and for pure noise,
    unlike λ and sigma/alpha.

    Args:
        x: (batch, ...), the state, alpha·x0 + sigma·ε.
        epsilon: (batch, ...), E[ε | x], as a network predicts it.
        alpha, sigma: The marginal of the state; alpha above 0.

    Returns:
        du/dφ, (batch, ...).

    Example:
        >>> import numpy as np, diffuse_fast as df
        >>> x = np.array([[0.3]])  # for data N(0, 1) the velocity is 0
        >>> df.theory.probability_flow(x, 0.6 * x, 0.8, 0.6)
        array([[0.]])
    """
    state, noise = to_float64("x", x), to_float64("epsilon", epsilon)
    rho = np.hypot(alpha, sigma)
    data = (state - sigma * noise) / alpha
    return (alpha * noise - sigma * data) / rho
