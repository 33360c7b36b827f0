"""Euler–Maruyama on the reverse SDE: Song et al. 2021, "Score-Based Generative Modeling through SDEs" (arXiv:2011.13456),
eq. (6)::

    dx = (f·x − g²·∇ log p)·dt + g·dw̄,    f = d log alpha/dt,    g² = d sigma²/dt − 2·f·sigma²    (its eq. 28 and appendix B)

One step from t to t' < t, with L = log(alpha'/alpha) = −∫f dt, G = ∫g² dt and the score −ε/sigma::

    x' = (1 + L)·x − G·ε/sigma + sqrt(G)·z

The coefficients are integrated over the step, which is Euler–Maruyama in a time variable for which they are constant. With
Q = sigma² − (alpha/alpha')²·sigma'² the variance that the forward process adds, G = Q·2L/(1 − e^(−2L)). That is exact if sigma² is
linear in alpha² (VP: G = 2L = ∫β dt; VE: G = Q = sigma² − sigma'²), and otherwise (sub-VP, flow) accurate to third order in the
step.

The last step, to the clean data, adds no noise, as in the paper's samplers. A step deviates from the marginal by a term of second
order, which the plan declares. From a point without signal the drift is infinite.
"""

from __future__ import annotations

import math
from itertools import pairwise

from ..errors import PlanError
from .solver import Grid, Option, Solver, SolverTable
from .stages import noise_row


def table(grid: Grid, *, steps_offset: int) -> SolverTable:
    points = (*grid.points, grid.end)
    if points[0].alpha == 0.0:
        raise PlanError(
            f"at the first timestep ({points[0].time:g}) the schedule has zero signal-to-noise ratio, where the drift of "
            f"euler_maruyama is infinite. Start later, or use ddpm, or ddim with eta=1."
        )
    rows, deviation = [], []
    for now, then in pairwise(points):
        drift = then.log_alpha - now.log_alpha
        added = -(now.sigma**2) * math.expm1(2.0 * (now.lam - then.lam))
        diffusion = added * (2.0 * drift / -math.expm1(-2.0 * drift) if drift != 0.0 else 1.0)
        variance = diffusion if then.sigma > 0.0 else 0.0
        rows.append(noise_row(grid, now, 1.0 + drift, -diffusion / now.sigma, s=math.sqrt(variance)))
        of_eps = (1.0 + drift) * now.sigma - diffusion / now.sigma
        deviation.append(((1.0 + drift) * now.alpha - then.alpha, of_eps**2 + variance - then.sigma**2))
    marginals = tuple((point.alpha, point.sigma) for point in points)
    return SolverTable(rows=tuple(rows), marginals=marginals, deviation=tuple(deviation))


SOLVER = Solver(
    name="euler_maruyama",
    order=1,
    nfe_per_step=1,
    registers=0,
    stochastic=True,
    paper="Song et al. 2021, Score-Based Generative Modeling through Stochastic Differential Equations, arXiv:2011.13456",
    timestep_spacing="linspace",
    options={"steps_offset": Option(0, "added to the timesteps of leading spacing", minimum=0)},
    table=table,
)
