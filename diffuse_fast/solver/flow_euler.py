"""Euler on a flow: Lipman et al. 2023, "Flow Matching" (arXiv:2210.02747); Liu et al. 2023, "Rectified Flow"
(arXiv:2209.03003), as in diffusers' FlowMatchEulerDiscreteScheduler.

On the straight path x = (1 − σ)·x0 + σ·ε with velocity v = dx/dσ = ε − x0::

    x' = x + (σ' − σ)·v

which is (1 − σ')·x0 + σ'·ε, DDIM's step. With ``stochastic_sampling`` the noise is fresh, x' = (1 − σ')·x0 + σ'·z. If x0 is
clipped, the velocity is computed from the clipped x0.
"""

from __future__ import annotations

from itertools import pairwise

from .solver import Grid, Option, Solver, SolverTable
from .stages import by_data, data_row


def table(grid: Grid, *, stochastic_sampling: bool) -> SolverTable:
    points = (*grid.points, grid.end)
    rows = []
    for now, then in pairwise(points):
        if stochastic_sampling:
            rows.append(data_row(grid, now, 0.0, then.alpha, s=then.sigma))
        else:
            rows.append(data_row(grid, now, *by_data(now, then)))
    return SolverTable(rows=tuple(rows), marginals=tuple((point.alpha, point.sigma) for point in points))


SOLVER = Solver(
    name="flow_euler",
    order=1,
    nfe_per_step=1,
    registers=0,
    stochastic=False,
    paper="Lipman et al. 2023, Flow Matching for Generative Modeling, arXiv:2210.02747",
    timestep_spacing="linspace",
    options={"stochastic_sampling": Option(False, "replace the noise of the state by fresh noise in every step")},
    table=table,
    families=("flow",),
)
