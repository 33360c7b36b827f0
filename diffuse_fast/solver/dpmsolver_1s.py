"""DPM-Solver-1: Lu et al. 2022, "DPM-Solver" (arXiv:2206.00927), eq. (3.7)::

    x' = (alpha'/alpha)·x − sigma'·(e^h − 1)·ε,    h = λ' − λ

It is DDIM with eta = 0 (section 4.1 of the paper). If x0 is clipped, ε is computed from the clipped x0, as in diffusers.
In diffusers: DPMSolverSinglestep with ``algorithm_type="dpmsolver"``, ``solver_order=1``.
"""

from __future__ import annotations

from itertools import pairwise

from .solver import Grid, Option, Solver, SolverTable
from .stages import by_data, data_row


def table(grid: Grid, *, steps_offset: int) -> SolverTable:
    points = (*grid.points, grid.end)
    rows = (data_row(grid, now, *by_data(now, then)) for now, then in pairwise(points))
    return SolverTable(rows=tuple(rows), marginals=tuple((point.alpha, point.sigma) for point in points))


SOLVER = Solver(
    name="dpmsolver_1s",
    order=1,
    nfe_per_step=1,
    registers=0,
    stochastic=False,
    paper="Lu et al. 2022, DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling, arXiv:2206.00927",
    timestep_spacing="linspace",
    options={"steps_offset": Option(0, "added to the timesteps of leading spacing", minimum=0)},
    table=table,
    grid="open",
)
