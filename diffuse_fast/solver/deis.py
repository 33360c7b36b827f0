"""DEIS: Zhang & Chen 2022, "Fast Sampling of Diffusion Models with Exponential Integrator" (arXiv:2204.13902), tAB-DEIS.

The polynomial in log(sigma/alpha) = −λ through the last noise predictions is integrated exactly (section 3.3, eq. 15), in the
noise form of ``multistep.py``. diffusers' DEISMultistepScheduler, whose integrals in ρ = sigma/alpha with log ρ as the variable
(``logrho``) are the same numbers. As there, a plan on a discrete schedule ends at the cleanest timestep by default. Schedules of
other families have no such timestep; their plans end at the data.
"""

from __future__ import annotations

import dataclasses

from . import multistep
from .solver import Grid, Option, Solver, SolverTable


def table(grid: Grid, *, solver_order: int, lower_order_final: bool, final_sigmas_type: str, steps_offset: int) -> SolverTable:
    points = (*grid.points, grid.end)
    orders = multistep.orders(points, solver_order, lower_order_final=lower_order_final, euler_at_final=False)
    transfers = [multistep.by_noise(points[i], points[i + 1], multistep.steps_back(points, i, k)) for i, k in enumerate(orders)]
    return multistep.table(grid, points, transfers, "noise")


SOLVER = Solver(
    name="deis",
    order=3,
    nfe_per_step=1,
    registers=2,
    stochastic=False,
    paper="Zhang & Chen 2022, Fast Sampling of Diffusion Models with Exponential Integrator, arXiv:2204.13902",
    timestep_spacing="linspace",
    options={
        "solver_order": Option(2, "number of predictions combined, 1 to 3", minimum=1, maximum=3),
        "lower_order_final": multistep.LOWER_ORDER_FINAL,
        "final_sigmas_type": dataclasses.replace(multistep.FINAL_SIGMAS_TYPE, default="sigma_min", elsewhere="zero"),
        "steps_offset": multistep.STEPS_OFFSET,
    },
    table=table,
    grid="open",
)
