"""The change of variables along the probability-flow ODE (Song et al. 2021, arXiv:2011.13456, appendix D.2).

In the angle φ = atan(sigma/alpha) and for u = x/sqrt(alpha² + sigma²) the ODE is du/dφ = v̂ (``theory.probability_flow``), and
d log p/dφ = −div v̂ (Chen et al. 2018, "Neural Ordinary Differential Equations", eq. 8).

For a network that takes integer timesteps, v̂ is known only at their angles and assumed to be smooth in between. The ODE is then
solved on these angles in log φ, in which both ends are smooth: at little noise, data on a lower-dimensional set has div v̂ ~ 1/φ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..artifact.document import output_shape
from ..checks import require_int
from ..errors import ArgumentError, MissingDependencyError, NonFiniteError, install_hint
from ..model import Model
from ..runtimes import network
from ..solver.solver import Grid, Point
from ..theory.bound import log_phi
from ..theory.gaussian import Gaussian
from .adams import integrate
from .bound import LEAST_LOG_SNR
from .derivatives import Difference, Gradient

LEAST_LAM = 0.5 * LEAST_LOG_SNR
INTEGER_STEPS = 200

Change = Callable[[Point, np.ndarray], np.ndarray]
Solve = Callable[[np.ndarray], np.ndarray]


def estimate_flow(
    model: Any,
    known: Model | None,
    grid: Grid,
    x0: np.ndarray,
    cond: dict[str, np.ndarray],
    noise: Callable[[int, tuple[int, ...]], np.ndarray],
    draws: int,
    runtime: str,
    learned: str,
    by_alpha: bool,
    first: int,
    *,
    exact: bool,
    width: float | None,
    rtol: float,
    atol: float,
    steps: int | None,
    evaluated: Callable[[], None],
) -> tuple[list[dict[str, np.ndarray]], int, float]:
    """The terms of each draw, in nats per sample; the network evaluations per sample; and an estimate of the error from finite
    differences, in nats."""
    if grid.points[0].alpha == 0.0 and grid.schedule.family == "discrete":
        raise ArgumentError("the signal of the schedule jumps to 0 at the last timestep (zero terminal SNR); use method='elbo'.")
    n, shape = len(x0), x0.shape[1:]
    elements = math.prod(shape)
    runs = network(model, runtime, float_times=known is None)
    returned = output_shape(shape, learned)
    derive: Gradient | Difference
    derive = Gradient(runs, cond, shape) if runs.name == "torch" else Difference(runs.bind(n, shape, cond, returned), shape)
    error = 0.0

    def change(point: Point, flat: np.ndarray) -> np.ndarray:
        """Derivatives of u and of the integral with respect to φ."""
        nonlocal error
        alpha, sigma = point.alpha, point.sigma
        rho = math.hypot(alpha, sigma)
        (p0, q0), (p1, q1) = grid.data(point), grid.noise(point)
        p, q = (alpha * p1 - sigma * p0) / rho, (alpha * q1 - sigma * q0) / rho  # v̂ = p·x + q·m
        x = flat[: n * elements].reshape(n, *shape) * rho
        scale = 1.0 / alpha if by_alpha else 1.0  # of the network's input, with respect to which the derivatives are taken
        output, trace, doubt = derive(x * scale, point.time, sigma * scale, probes)
        evaluated()
        if not np.isfinite(output).all():
            bad = tuple((first + np.flatnonzero(~np.isfinite(output).reshape(n, -1).all(axis=1))).tolist())
            where = f"at time {point.time:g} for sample {bad[0]}"
            raise NonFiniteError(f"the network returned NaN or Inf {where}.", row=0, samples=bad)
        error = max(error, abs(q) * rho * scale * doubt)
        return np.concatenate([(p * x + q * output).ravel(), rho * (p * elements + q * scale * trace)])

    if known is not None and known.time.dtype != "float32":
        begin, end, solve = _on_integer_timesteps(grid, change, steps)
    else:
        begin, end, solve = _to_a_tolerance(grid, change, rtol, atol)
    scale = begin.alpha / math.hypot(begin.alpha, begin.sigma)
    rows = []
    for draw in range(draws):
        # Probes of random signs, the same along the path; or every axis.
        probes = None if exact else np.where(noise(2 * draw, shape) < 0.0, -1.0, 1.0)
        data, cells = x0, 0.0
        if width is not None:  # probability of a level: the mean density in its cell, times the cell's volume
            data = x0 + width * (np.exp(log_phi(noise(2 * draw + 1, shape))) - 0.5)
            cells = elements * math.log(width)
        final = solve(np.concatenate([(scale * data).ravel(), np.zeros(n)]))
        u, integral = final[: n * elements].reshape(n, *shape), final[n * elements :]
        spread = grid.initial_scale / math.hypot(end.alpha, end.sigma)
        prior = Gaussian(np.zeros_like(u), np.asarray(spread**2)).log_density(u)
        rows.append({"prior": -prior, "change": -integral - elements * math.log(scale) - cells})
    return rows, derive.calls, error * (_angle(end) - _angle(begin))


def _to_a_tolerance(grid: Grid, change: Change, rtol: float, atol: float) -> tuple[Point, Point, Solve]:
    """The ends of the ODE, and an adaptive solver."""
    try:
        from scipy.integrate import solve_ivp
    except ImportError:
        raise MissingDependencyError(f"method='ode' needs SciPy: {install_hint('likelihood')}") from None
    first, last = grid.points
    lams = max(first.lam, LEAST_LAM), last.lam
    start, stop = (math.atan(math.exp(-lam)) for lam in reversed(lams))

    def at(phi: float) -> Point:
        # Clamped, because rounding may lead to a λ beyond the ends of the schedule.
        return grid.at(min(max(-math.log(math.tan(phi)), math.nextafter(lams[0], math.inf)), math.nextafter(lams[1], -math.inf)))

    def solve(state: np.ndarray) -> np.ndarray:
        solved = solve_ivp(lambda phi, y: change(at(phi), y), (start, stop), state, "DOP853", rtol=rtol, atol=atol, t_eval=(stop,))
        if not solved.success:
            raise NonFiniteError(f"the adaptive solver failed: {solved.message}", row=0, samples=())
        final: np.ndarray = solved.y[:, -1]
        return final

    return at(start), at(stop), solve


def _on_integer_timesteps(grid: Grid, change: Change, steps: int | None) -> tuple[Point, Point, Solve]:
    """The ends of the ODE, and a solver on timesteps whose angles are about evenly spaced in their logarithm."""
    schedule = grid.schedule
    if schedule.family != "discrete":
        raise ArgumentError("the model takes integer timesteps, but the times of this schedule are fractional.")
    every = np.arange(schedule.num_train_timesteps)  # type: ignore[attr-defined]  # checked above
    steps = min(INTEGER_STEPS, len(every)) if steps is None else require_int("steps", steps, 2)
    if steps > len(every):
        raise ArgumentError(f"steps is {steps}; the schedule has {len(every)} timesteps.")
    angles = np.log(np.arctan2(schedule.sigma(every), schedule.alpha(every)))
    points = grid.at_times(np.unique(np.round(np.interp(np.linspace(angles[0], angles[-1], steps), angles, every))))
    nodes = np.log([_angle(point) for point in points])

    def slope(i: int, state: np.ndarray) -> np.ndarray:
        return _angle(points[i]) * change(points[i], state)

    return points[0], points[-1], lambda state: integrate(slope, nodes, state)


def _angle(point: Point) -> float:
    return math.atan2(point.sigma, point.alpha)
