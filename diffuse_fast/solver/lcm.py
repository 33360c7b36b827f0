"""Latent consistency models: Luo et al. 2023, "Latent Consistency Models" (arXiv:2310.04378), Algorithm 3, as in diffusers'
LCMScheduler.

With t' the next timestep, x0 the network's data prediction at (x, t), and the scalings for which f(x, 0) = x::

    f  = c_skip·x + c_out·x0,    c_skip = sigma_data²/((s·t)² + sigma_data²),    c_out = s·t/sqrt((s·t)² + sigma_data²)
    x' = alpha'·f + sigma'·z,    and f itself at the end

with sigma_data = 0.5 and s the ``timestep_scaling``. All noise is fresh. Because the scalings are not exactly (0, 1), f deviates
from the data, and the marginal deviates too; the plan declares by how much. LCM's own grid is every k-th of
``original_inference_steps`` timesteps: give it as ``timesteps``.
"""

from __future__ import annotations

import math
from itertools import pairwise

from .solver import Grid, Option, Solver, SolverTable
from .stages import data_row, require_timesteps

SIGMA_DATA = 0.5


def table(grid: Grid, *, timestep_scaling: float, steps_offset: int) -> SolverTable:
    require_timesteps(grid, "lcm")
    points = (*grid.points, grid.end)
    rows, deviation = [], []
    for now, then in pairwise(points):
        scaled = timestep_scaling * now.time
        c_skip = SIGMA_DATA**2 / (scaled**2 + SIGMA_DATA**2)
        c_out = scaled / math.hypot(scaled, SIGMA_DATA)
        rows.append(data_row(grid, now, then.alpha * c_skip, then.alpha * c_out, s=then.sigma))
        deviation.append((then.alpha * (c_out + c_skip * now.alpha - 1.0), (then.alpha * c_skip * now.sigma) ** 2))
    marginals = tuple((point.alpha, point.sigma) for point in points)
    return SolverTable(rows=tuple(rows), marginals=marginals, deviation=tuple(deviation))


SOLVER = Solver(
    name="lcm",
    order=1,
    nfe_per_step=1,
    registers=0,
    stochastic=True,
    paper="Luo et al. 2023, Latent Consistency Models, arXiv:2310.04378",
    timestep_spacing="trailing",
    options={
        "timestep_scaling": Option(10.0, "factor of the timestep in c_skip and c_out", minimum=0.0),
        "steps_offset": Option(0, "added to the timesteps of leading spacing", minimum=0),
    },
    table=table,
    families=("discrete",),
)
