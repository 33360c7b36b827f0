"""Euler with ancestral noise: k-diffusion's ``sample_euler_ancestral`` (Crowson 2022), diffusers' EulerAncestralDiscrete.

In k-diffusion's variables, σ = sigma/alpha and the state x/alpha::

    x' = x + (σ_down − σ)·(x − x0)/σ + σ_up·z,    σ_up = min(σ', eta·sqrt(σ'²·(σ² − σ'²)/σ²)),    σ_down² = σ'² − σ_up²

On a variance-preserving schedule this is DDIM with the same eta. If x0 is clipped, the direction points to the clipped x0. The last
step draws no noise. (diffusers has eta = 1 only.)
"""

from __future__ import annotations

from itertools import pairwise

from .solver import Grid, Option, Solver, SolverTable
from .stages import ancestral, by_data, data_row


def table(grid: Grid, *, eta: float, steps_offset: int) -> SolverTable:
    points = (*grid.points, grid.end)
    rows = []
    for now, then in pairwise(points):
        down, up = ancestral(now, then, eta)
        rows.append(data_row(grid, now, *by_data(now, down), s=up))
    return SolverTable(rows=tuple(rows), marginals=tuple((point.alpha, point.sigma) for point in points))


SOLVER = Solver(
    name="euler_ancestral",
    order=1,
    nfe_per_step=1,
    registers=0,
    stochastic=True,
    paper="Song et al. 2021, Score-Based Generative Modeling through SDEs, arXiv:2011.13456, eq. (47); Crowson 2022, k-diffusion",
    timestep_spacing="linspace",
    options={
        "eta": Option(1.0, "fraction of a step's noise that is fresh: 0 is Euler", minimum=0.0),
        "steps_offset": Option(0, "added to the timesteps of leading spacing", minimum=0),
    },
    table=table,
    grid="fractional",
)
