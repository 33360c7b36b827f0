"""DDIM: Song, Meng & Ermon 2020, "Denoising Diffusion Implicit Models" (arXiv:2010.02502).

The paper's α_t is ``alphas_cumprod`` = alpha². Equation (12), with t' the next timestep of the grid::

    x_{t'} = alpha'·x0 + sqrt(sigma'² − s²)·ε + s·z,    s = eta·sqrt(sigma'²/sigma²)·sqrt(β)    (16)

with β = sigma² − (alpha/alpha')²·sigma'² the variance added from t' to t, 1 − alpha²/alpha'² if alpha² + sigma² = 1.

x0 is the network's data prediction, clipped if the plan clips. With ``rederive_epsilon`` ε is computed from the clipped x0,
ε = (x − alpha·x0)/sigma, as in guided-diffusion; this is the default if the plan clips or thresholds. Without it ε is the
network's, as in diffusers, which together with a clipped x0 leaves the path: with a guidance scale above 1, where predictions often
exceed the bounds, the bundled model draws the wrong digits (docs/quality.md).
"""

from __future__ import annotations

import math
from itertools import pairwise

from ..errors import ArgumentError
from ..plans.plan import Row
from .solver import REDERIVE_EPSILON, Grid, Option, Solver, SolverTable


def table(grid: Grid, *, eta: float, set_alpha_to_one: bool, steps_offset: int, rederive_epsilon: bool) -> SolverTable:
    points = (*grid.points, grid.end)
    rows = []
    for now, then in pairwise(points):
        alpha, sigma, alpha_next, sigma_next = now.alpha, now.sigma, then.alpha, then.sigma
        gain = -math.expm1(2.0 * (now.lam - then.lam))  # β/sigma²
        s = eta * sigma_next * math.sqrt(gain)  # eq. (16)
        # (sigma'² − s²)/sigma'², without cancellation at eta = 1 and little signal
        left = (1.0 - eta) * (1.0 + eta) + (eta * alpha * sigma_next / (alpha_next * sigma)) ** 2
        if left < 0.0 and sigma_next > 0.0:
            raise ArgumentError(
                f"eta is {eta}; at timestep {now.time:g} the step would add more noise than the next timestep "
                f"has; use a smaller eta."
            )
        direction = sigma_next * math.sqrt(max(left, 0.0))
        p, q = grid.data(now)
        a, b, d = grid.noise_terms(now, direction, rederive=rederive_epsilon)
        row = Row(timestep=now.time, p=p, q=q, lo=grid.lo, hi=grid.hi, a=a, b=b, d=alpha_next + d, s=s)
        rows.append(row.folded())
    return SolverTable(rows=tuple(rows), marginals=tuple((point.alpha, point.sigma) for point in points))


SOLVER = Solver(
    name="ddim",
    order=1,
    nfe_per_step=1,
    registers=0,
    stochastic=False,
    paper="Song, Meng & Ermon 2020, Denoising Diffusion Implicit Models, arXiv:2010.02502",
    timestep_spacing="leading",
    options={
        "eta": Option(0.0, "noise of a step: 0 is the probability-flow ODE, 1 is DDPM", minimum=0.0),
        "set_alpha_to_one": Option(True, "end at the clean data, not at timestep 0"),
        "steps_offset": Option(0, "added to the timesteps of leading spacing", minimum=0),
        "rederive_epsilon": REDERIVE_EPSILON,
    },
    table=table,
)
