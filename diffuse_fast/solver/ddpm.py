"""DDPM: Ho, Jain & Abbeel 2020, "Denoising Diffusion Probabilistic Models" (arXiv:2006.11239).

Ancestral sampling from the posterior, equations (6) and (7), on any decreasing grid. With t' the next timestep of the grid and
β = sigma² − (alpha/alpha')²·sigma'² the variance added from t' to t (1 − alpha²/alpha'² if alpha² + sigma² = 1; the paper's β_t
if the grid contains every timestep)::

    x_{t'} = alpha'·β/sigma²·x0 + (alpha/alpha')·sigma'²/sigma²·x + s·z                                          (7)

``variance_type`` determines s² (section 3.2):

* ``fixed_small``: s² = β·sigma'²/sigma², the variance of the posterior; a perfect prediction keeps the marginal;
* ``fixed_large``: s² = β; the variance after a step is too large by β·(1 − sigma'²/sigma²);
* ``learned_range``: log s² = (1 + v)/2·log β + (1 − v)/2·log(fixed_small's), v from the network (Nichol & Dhariwal 2021,
  "Improved DDPM", arXiv:2102.09672, eq. 15; the network's output has twice the channels, and the second half is v). For a single
  data point the correct v is −1, and the marginal is kept;
* ``learned``: log s² = v, as in guided-diffusion. (diffusers uses v as the variance itself.)

The last step draws no noise (Algorithm 2, line 3).
"""

from __future__ import annotations

import math
from itertools import pairwise

from ..plans.plan import Row
from .solver import Grid, Option, Solver, SolverTable

VARIANCES = ("fixed_small", "fixed_large", "learned", "learned_range")


def table(grid: Grid, *, variance_type: str, steps_offset: int) -> SolverTable:
    large = variance_type == "fixed_large"
    points = (*grid.points, grid.end)
    rows, deviation = [], []
    for now, then in pairwise(points):
        alpha, sigma, alpha_next, sigma_next = now.alpha, now.sigma, then.alpha, then.sigma
        gain = -math.expm1(2.0 * (now.lam - then.lam))  # β/sigma²
        beta = gain * sigma**2
        posterior_variance = gain * sigma_next**2  # eq. (7); 0 at the end
        variance = beta if large and then.sigma > 0.0 else posterior_variance
        log_s = None
        if variance_type.startswith("learned") and then.sigma > 0.0:
            log_s, variance = _learned(variance_type, posterior_variance, beta), 0.0
        p, q = grid.data(now)
        row = Row(
            timestep=now.time,
            p=p,
            q=q,
            lo=grid.lo,
            hi=grid.hi,
            a=(alpha / alpha_next) * (sigma_next / sigma) ** 2,
            d=alpha_next * gain,
            s=math.sqrt(variance),
            log_s=log_s,
        )
        rows.append(row.folded())
        deviation.append((0.0, variance - posterior_variance))
    marginals = tuple((point.alpha, point.sigma) for point in points)
    return SolverTable(rows=tuple(rows), marginals=marginals, deviation=tuple(deviation) if large else None)


def _learned(variance_type: str, small: float, large: float) -> tuple[float, float]:
    """``(A, B)`` with log s = A + B·v."""
    if variance_type == "learned":
        return 0.0, 0.5
    return (math.log(large) + math.log(small)) / 4.0, (math.log(large) - math.log(small)) / 4.0


SOLVER = Solver(
    name="ddpm",
    order=1,
    nfe_per_step=1,
    registers=0,
    stochastic=True,
    paper="Ho, Jain & Abbeel 2020, Denoising Diffusion Probabilistic Models, arXiv:2006.11239",
    timestep_spacing="leading",
    options={
        "variance_type": Option("fixed_small", "variance of a step", choices=VARIANCES),
        "steps_offset": Option(0, "added to the timesteps of leading spacing", minimum=0),
    },
    table=table,
)
