"""DDIM run backwards, from data to noise: Song, Meng & Ermon 2020 (arXiv:2010.02502), section 4.3, as in diffusers'
DDIMInverseScheduler.

With t' > t the next timestep of DDIM's grid in increasing order (the first state is the data), equation (12) at eta = 0::

    x_{t'} = alpha'·x0 + sigma'·ε,    x0 and ε from the network's output at (x_t, t')

The network receives the state at t with the time t': this approximation makes the step explicit. ``rederive_epsilon`` selects ε as
in ``ddim.py``, except in the step from the clean data, where ε is the network's. The plan's initial state is the data (the argument
``noise`` of ``sample``). From the result, the state at the first timestep of DDIM's grid, DDIM leads back to the data.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ..errors import ArgumentError, PlanError
from ..plans.plan import Row
from .solver import CLEAN, REDERIVE_EPSILON, Grid, Option, Solver, SolverTable


def table(grid: Grid, *, set_alpha_to_one: bool, steps_offset: int, rederive_epsilon: bool) -> SolverTable:
    family = grid.schedule.family
    if not set_alpha_to_one and family != "discrete":
        raise ArgumentError(f"set_alpha_to_one=False starts at timestep 0, which the family {family} does not have.")
    start = CLEAN if set_alpha_to_one else grid.at_times(np.zeros(1))[0]
    if start is CLEAN and grid.prediction_type in ("sample", "denoised", "score"):
        raise PlanError(
            f"the first step of ddim_inverse is at the clean data, where a network that predicts {grid.prediction_type} carries no "
            f"information about the noise. Use set_alpha_to_one=False, or a model that predicts epsilon or v."
        )
    points = (start, *reversed(grid.points))
    rows = []
    for now, then in pairwise(points):
        p, q = grid.data(now)
        a, b, d = grid.noise_terms(now, then.sigma, rederive=rederive_epsilon and now.sigma > 0.0)
        row = Row(timestep=then.time, p=p, q=q, lo=grid.lo, hi=grid.hi, a=a, b=b, d=then.alpha + d)
        rows.append(row.folded())
    marginals = tuple((point.alpha, point.sigma) for point in points)
    return SolverTable(rows=tuple(rows), marginals=marginals, initial_scale=1.0)


SOLVER = Solver(
    name="ddim_inverse",
    order=1,
    nfe_per_step=1,
    registers=0,
    stochastic=False,
    paper="Song, Meng & Ermon 2020, Denoising Diffusion Implicit Models, arXiv:2010.02502",
    timestep_spacing="leading",
    options={
        "set_alpha_to_one": Option(True, "start at the clean data, not at timestep 0"),
        "steps_offset": Option(0, "added to the timesteps of leading spacing", minimum=0),
        "rederive_epsilon": REDERIVE_EPSILON,
    },
    table=table,
    from_noise=False,
)
