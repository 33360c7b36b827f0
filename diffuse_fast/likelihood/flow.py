"""The change of variables along the probability-flow ODE (Song et al. 2021, arXiv:2011.13456, appendix D.2).

In the angle φ = atan(sigma/alpha) and for u = x/sqrt(alpha² + sigma²) the ODE is du/dφ = v̂ (``theory.probability_flow``), and
d log p/dφ = −div v̂ (Chen et al. 2018, "Neural Ordinary Differential Equations", eq. 8).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import ArgumentError, NonFiniteError, RuntimeUnavailableError
from ..model import Model
from ..runtimes import network
from ..solvers.solver import Point, Problem
from ..theory.bound import log_phi
from ..theory.gaussian import Gaussian
from .bound import LEAST_LOG_SNR
from .derivatives import Difference, Gradient

LEAST_LAM = 0.5 * LEAST_LOG_SNR


def estimate_flow(
    model: Any, known: Model | None, problem: Problem, x0: np.ndarray, cond: dict[str, np.ndarray],
    noise: Callable[[int, tuple[int, ...]], np.ndarray], draws: int, runtime: str, *,
    exact: bool, width: float | None, rtol: float, atol: float,
) -> tuple[list[dict[str, np.ndarray]], int, float]:  # fmt: skip
    """The terms of each draw, in nats per sample; the network evaluations of a sample; and about how far finite differences may
    have moved a sum, in nats."""
    try:
        from scipy.integrate import solve_ivp
    except ImportError:
        raise RuntimeUnavailableError("method='ode' needs SciPy: pip install 'diffuse-fast[train]'") from None
    if known is not None and known.time.dtype != "float32":
        raise ArgumentError(
            "the model takes whole timesteps, and an adaptive solver calls it at any time. Export the network with "
            "time_dtype='float32', give the torch module, or use method='elbo'."
        )
    first, last = problem.points
    if first.alpha == 0.0 and problem.schedule.family == "discrete":
        raise ArgumentError("the schedule jumps to no signal at all at its last timestep (zero terminal SNR); use method='elbo'.")
    n, shape = len(x0), x0.shape[1:]
    elements = math.prod(shape)
    runs = network(model, runtime, time_dtype=None if known else "float32")
    output_shape = known.output_shape if known else shape
    derive: Gradient | Difference
    derive = Gradient(runs, cond, shape) if runs.name == "torch" else Difference(runs.bind(n, shape, cond, output_shape), shape)
    lams = max(first.lam, LEAST_LAM), last.lam
    start, stop = (math.atan(math.exp(-lam)) for lam in reversed(lams))

    def at(phi: float) -> Point:
        # Rounding must not ask for a λ beyond the ends of the schedule.
        return problem.at(min(max(-math.log(math.tan(phi)), math.nextafter(lams[0], math.inf)), math.nextafter(lams[1], -math.inf)))

    error = 0.0

    def change(phi: float, flat: np.ndarray) -> np.ndarray:
        nonlocal error
        point = at(phi)
        alpha, sigma = point.alpha, point.sigma
        rho = math.hypot(alpha, sigma)
        (p0, q0), (p1, q1) = problem.data(point), problem.noise(point)
        p, q = (alpha * p1 - sigma * p0) / rho, (alpha * q1 - sigma * q0) / rho  # v̂ = p·x + q·m
        x = flat[: n * elements].reshape(n, *shape) * rho
        output, trace, doubt = derive(x, point.time, sigma, probes)
        if not np.isfinite(output).all():
            bad = tuple(np.flatnonzero(~np.isfinite(output).reshape(n, -1).all(axis=1)).tolist())
            where = f"at time {point.time:g} for sample {bad[0]}"
            raise NonFiniteError(f"the network returned NaN or Inf {where}.", row=0, samples=bad)
        error = max(error, abs(q) * rho * doubt)
        return np.concatenate([(p * x + q * output).ravel(), rho * (p * elements + q * trace)])

    rows = []
    for draw in range(draws):
        # The divergence along signs that stay the same all the way, or along every axis.
        probes = None if exact else np.where(noise(2 * draw, shape) < 0.0, -1.0, 1.0)
        data, cells = x0, 0.0
        if width is not None:  # the probability of a level: the mean density over its cell, times the cell
            data = x0 + width * (np.exp(log_phi(noise(2 * draw + 1, shape))) - 0.5)
            cells = elements * math.log(width)
        begin, end = at(start), at(stop)
        scale = begin.alpha / math.hypot(begin.alpha, begin.sigma)
        state = np.concatenate([(scale * data).ravel(), np.zeros(n)])
        solved = solve_ivp(change, (start, stop), state, "DOP853", rtol=rtol, atol=atol, t_eval=(stop,))
        if not solved.success:
            raise NonFiniteError(f"the adaptive solver could not go on: {solved.message}", row=0, samples=())
        final = solved.y[:, -1]
        u, integral = final[: n * elements].reshape(n, *shape), final[n * elements :]
        spread = problem.initial_scale / math.hypot(end.alpha, end.sigma)
        prior = Gaussian(np.zeros_like(u), np.asarray(spread**2)).log_density(u)
        rows.append({"prior": -prior, "change": -integral - elements * math.log(scale) - cells})
    return rows, derive.calls, error * (stop - start)

