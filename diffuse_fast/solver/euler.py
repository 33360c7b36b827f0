"""Euler's method in σ = sigma/alpha: Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models"
(arXiv:2206.00364), Algorithm 2 without the correction; k-diffusion's ``sample_euler``, diffusers' EulerDiscreteScheduler.

For k-diffusion's state x/alpha the step is x' = x + (σ' − σ)·(x − x0)/σ. On the scale of the state here::

    x' = (sigma'/sigma)·x + (alpha' − alpha·sigma'/sigma)·x0

which is DDIM at eta = 0 (with ``rederive_epsilon`` if x0 is clipped). ``s_churn`` adds noise before each step (``churn.py``), as in
``sample_euler`` and diffusers' ``step(s_churn=...)``.
"""

from __future__ import annotations

from itertools import pairwise

from . import multistep
from .churn import OPTIONS, Churn
from .solver import Grid, Solver, SolverTable
from .stages import by_data, data_row


def table(grid: Grid, *, final_sigmas_type: str, steps_offset: int, **churn: float) -> SolverTable:
    points = (*grid.points, grid.end)
    rows, before, deviation = [], [], []
    churned = Churn(grid, **churn)
    for now, then in pairwise(points):
        if raised := churned.at(now):
            rows.append(raised.row)
            before.append(now)
            deviation.append((0.0, raised.excess))
            now = raised.point
        rows.append(data_row(grid, now, *by_data(now, then)))
        before.append(now)
        deviation.append((0.0, 0.0))
    return SolverTable(
        rows=tuple(rows),
        marginals=tuple((point.alpha, point.sigma) for point in (*before, points[-1])),
        deviation=tuple(deviation) if any(variance for _, variance in deviation) else None,
        registers=0,
    )


SOLVER = Solver(
    name="euler",
    order=1,
    nfe_per_step=1,
    registers=0,
    stochastic=False,
    paper="Karras et al. 2022, Elucidating the Design Space of Diffusion-Based Generative Models, arXiv:2206.00364",
    timestep_spacing="linspace",
    options={**OPTIONS, "final_sigmas_type": multistep.FINAL_SIGMAS_TYPE, "steps_offset": multistep.STEPS_OFFSET},
    table=table,
    grid="fractional",
)
