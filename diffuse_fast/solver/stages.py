"""Building blocks of singlestep solvers: exact first-order transfers, and rows in terms of x0 or ε.

If a prediction stays constant along the path x = alpha·x0 + sigma·ε, the step from one point to the next is exact. In the two forms
of the DPM-Solver papers, with h = λ' − λ::

    x' = (alpha'/alpha)·x − sigma'·(e^h − 1)·ε         Lu et al. 2022, DPM-Solver (arXiv:2206.00927), eq. (3.7)
    x' = (sigma'/sigma)·x + alpha'·(1 − e^−h)·x0       Lu et al. 2022, DPM-Solver++ (arXiv:2211.01095), eq. (9)

Both are the same map: Euler's step in σ = sigma/alpha (k-diffusion, EDM), and DDIM's at eta = 0. Only ratios at one point and
differences of λ appear, so alpha² + sigma² = 1 is not assumed.
"""

from __future__ import annotations

import math

from ..errors import PlanError
from ..plans.plan import Row
from .solver import Grid, Point


def by_noise(now: Point, then: Point) -> tuple[float, float]:
    """Weights of x and ε that carry the state from ``now`` to ``then``; ``now`` must have signal."""
    return then.alpha / now.alpha, then.alpha * (now.sigma / now.alpha) * math.expm1(now.lam - then.lam)


def by_data(now: Point, then: Point) -> tuple[float, float]:
    """Weights of x and x0 that carry the state from ``now`` to ``then``; defined also for infinite λ."""
    return then.sigma / now.sigma, -then.alpha * math.expm1(now.lam - then.lam)


def one_stage(now: Point, then: Point) -> bool:
    """Whether a step has no intermediate stage, because λ is infinite at one end (no signal, or no noise). Such a step is of first
    order, as in other libraries."""
    return now.alpha == 0.0 or then.sigma == 0.0


def require_timesteps(grid: Grid, solver: str) -> None:
    """Check that the times of a grid are training timesteps, for a solver whose formulas contain them.

    Raises:
        PlanError: the network takes the time in another form.
    """
    if grid.time_convention not in (None, "timestep"):
        raise PlanError(
            f"{solver} is defined on training timesteps, but time_convention is {grid.time_convention!r}. Leave it out, or "
            f"use another solver."
        )


def ancestral(now: Point, then: Point, eta: float) -> tuple[Point, float]:
    """Split a step into a deterministic part and fresh noise, as k-diffusion's ``get_ancestral_step`` does with σ:
    σ_up = min(σ', eta·√(σ'²·(σ² − σ'²)/σ²)), σ_down = √(σ'² − σ_up²).

    Returns:
        The point to step to (``then``, with less noise), and the standard deviation to add there.
    """
    h = then.lam - now.lam
    up = min(then.sigma, eta * then.sigma * math.sqrt(-math.expm1(-2.0 * h)))
    # sigma'² − up², without cancellation at eta = 1 and a long step
    left = (1.0 - eta) * (1.0 + eta) + (eta * math.exp(-h)) ** 2
    return Point(then.time, then.log_alpha, then.alpha, then.sigma * math.sqrt(max(left, 0.0))), up


def data_row(
    grid: Grid,
    point: Point,
    x: float,
    x0: float,
    *,
    c: tuple[float, ...] = (),
    s: float = 0.0,
    keep: tuple[float, float] | None = None,
    f: tuple[float, ...] = (),
) -> Row:
    """``x' = x·state + x0·(data prediction) + Σ c·h + s·z`` for a network called at ``point``; ``keep`` are weights of the
    state and the data prediction for register 0, in addition to Σ f·h."""
    p, q = grid.data(point)
    e_x, e_0 = keep or (0.0, 0.0)
    row = Row(
        timestep=point.time,
        p=p,
        q=q,
        lo=grid.lo,
        hi=grid.hi,
        a=x,
        d=x0,
        c=c,
        s=s,
        write=None if keep is None else 0,
        e_x=e_x,
        e_0=e_0,
        f=f,
    )
    return row.folded()


def noise_row(
    grid: Grid,
    point: Point,
    x: float,
    eps: float,
    *,
    c: tuple[float, ...] = (),
    s: float = 0.0,
    keep: tuple[float, float] | None = None,
    f: tuple[float, ...] = (),
) -> Row:
    """``x' = x·state + eps·(noise prediction) + Σ c·h + s·z`` for a network called at ``point``; ``keep`` are weights of the
    state and the noise prediction for register 0, in addition to Σ f·h. If x0 is clipped, ε is computed from the clipped x0."""
    k_x, k_eps = keep or (0.0, 0.0)
    write = None if keep is None else 0
    if grid.clips:
        p, q = grid.data(point)
        n_x, n_0 = 1.0 / point.sigma, -point.alpha / point.sigma
        return Row(
            timestep=point.time,
            p=p,
            q=q,
            lo=grid.lo,
            hi=grid.hi,
            a=x + eps * n_x,
            d=eps * n_0,
            c=c,
            s=s,
            write=write,
            e_x=k_x + k_eps * n_x,
            e_0=k_eps * n_0,
            f=f,
        )
    n_x, n_m = grid.noise(point)
    return Row(
        timestep=point.time, a=x + eps * n_x, b=eps * n_m, c=c, s=s, write=write, e_x=k_x + k_eps * n_x, e_m=k_eps * n_m, f=f
    )
