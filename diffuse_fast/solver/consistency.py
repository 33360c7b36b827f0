"""Consistency sampling: Song et al. 2023, "Consistency Models" (arXiv:2303.01469), Algorithm 1, as in diffusers'
CMStochasticIterativeScheduler.

In the paper's variables, σ = sigma/alpha and the state x/alpha, with ε the lowest noise level of the schedule::

    x0 = f(x, σ),    x' = x0 + sqrt(σ'² − ε²)·s_noise·z,    and x0 itself at the end

One step is one call of f, which is the data prediction of the network. With the prediction type ``edm`` (EDM's raw network F) f has
the scalings for which f(x, ε) = x (appendix C, eq. 25)::

    f = c_skip·x + c_out·F,    c_skip = sigma_data²/((σ − ε)² + sigma_data²),    c_out = sigma_data·(σ − ε)/sqrt(σ² + sigma_data²)

In the paper f(x, σ) is a sample at noise level ε. A perfect f that returns the clean data makes the variance of the state smaller
than the schedule's by ε² (on the scale of σ), which the plan declares.
"""

from __future__ import annotations

import math
from itertools import pairwise

from ..plans.plan import Row
from .solver import Grid, Option, Point, Solver, SolverTable


def table(grid: Grid, *, s_noise: float, steps_offset: int) -> SolverTable:
    schedule = grid.schedule
    sigma_min = schedule.sigma(schedule.t_min) / schedule.alpha(schedule.t_min)
    points = (*grid.points, grid.end)
    rows, deviation = [], []
    for now, then in pairwise(points):
        p, q = _boundary(grid, now, sigma_min) if grid.prediction_type == "edm" else grid.data(now)
        s = s_noise * math.sqrt(max(then.sigma**2 - (then.alpha * sigma_min) ** 2, 0.0))
        row = Row(timestep=now.time, p=p, q=q, lo=grid.lo, hi=grid.hi, d=then.alpha, s=s if then.sigma > 0.0 else 0.0)
        rows.append(row.folded())
        deviation.append(_deviation(grid, now, then, row))
    marginals = tuple((point.alpha, point.sigma) for point in points)
    return SolverTable(rows=tuple(rows), marginals=marginals, deviation=tuple(deviation))


def _boundary(grid: Grid, point: Point, sigma_min: float) -> tuple[float, float]:
    sigma, unit = max(point.sigma / point.alpha, sigma_min), grid.schedule.sigma_data  # at the end they are equal up to rounding
    c_skip = unit**2 / ((sigma - sigma_min) ** 2 + unit**2)
    c_out = unit * (sigma - sigma_min) / math.hypot(sigma, unit)
    return c_skip / point.alpha, c_out


def _deviation(grid: Grid, now: Point, then: Point, row: Row) -> tuple[float, float]:
    """The deviation of a row for a network whose data prediction is exact."""
    p, q = grid.data(now)
    # Its output is m = (x0 − p·x)/q, and x has the marginal of ``now``.
    of_x0 = row.p * now.alpha + row.q * (1.0 - p * now.alpha) / q
    of_eps = row.p * now.sigma - row.q * p * now.sigma / q
    return then.alpha * (of_x0 - 1.0), (then.alpha * of_eps) ** 2 + row.s**2 - then.sigma**2


SOLVER = Solver(
    name="consistency",
    order=1,
    nfe_per_step=1,
    registers=0,
    stochastic=True,
    paper="Song et al. 2023, Consistency Models, arXiv:2303.01469",
    timestep_spacing="trailing",
    options={
        "s_noise": Option(1.0, "factor of the noise", minimum=0.0),
        "steps_offset": Option(0, "added to the timesteps of leading spacing", minimum=0),
    },
    table=table,
)
