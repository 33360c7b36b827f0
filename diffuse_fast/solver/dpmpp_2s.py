"""DPM-Solver++ 2S: Lu et al. 2022, "DPM-Solver++" (arXiv:2211.01095), Algorithm 1 with r = 1/2.

With h = λ' − λ, s the point at λ + r·h and x0_s the prediction at (u, s)::

    u  = (sigma_s/sigma)·x + alpha_s·(1 − e^(−r·h))·x0
    x' = (sigma'/sigma)·x + alpha'·(1 − e^−h)·x0 + w·(x0_s − x0)

    midpoint   w = alpha'·(1 − e^−h)/(2·r)                  (the paper's)
    heun       w = alpha'·((e^−h − 1)/h + 1)/r              (``solver_type`` as in diffusers)

A step is one full step of the method, with two network calls. The step to the clean data and a step from a point without signal are
of first order (DDIM). In diffusers' DPMSolverSinglestep a step is one network call: the points of its grid are alternately s and
the ends of steps, so its grid determines r.
"""

from __future__ import annotations

import math
from itertools import pairwise

from .solver import Grid, Option, Solver, SolverTable
from .stages import by_data, data_row, one_stage

R = 0.5


def table(grid: Grid, *, solver_type: str, steps_offset: int) -> SolverTable:
    rows, before = [], []
    for now, then in pairwise((*grid.points, grid.end)):
        before.append(now)
        x, x0 = by_data(now, then)
        if one_stage(now, then):
            rows.append(data_row(grid, now, x, x0))
            continue
        h = then.lam - now.lam
        s = grid.at(now.lam + R * h)
        w = x0 / (2.0 * R) if solver_type == "midpoint" else then.alpha * (math.expm1(-h) / h + 1.0) / R
        rows.append(data_row(grid, now, *by_data(now, s), keep=(x, x0 - w)))
        rows.append(data_row(grid, s, 0.0, w, c=(1.0,)))
        before.append(s)
    return SolverTable(
        rows=tuple(rows),
        marginals=tuple((point.alpha, point.sigma) for point in (*before, grid.end)),
        registers=int(any(row.write is not None for row in rows)),
    )


SOLVER = Solver(
    name="dpmpp_2s",
    order=2,
    nfe_per_step=2,
    registers=1,
    stochastic=False,
    paper="Lu et al. 2022, DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models, arXiv:2211.01095",
    timestep_spacing="linspace",
    options={
        "solver_type": Option("midpoint", "weight of the second stage", choices=("midpoint", "heun")),
        "steps_offset": Option(0, "added to the timesteps of leading spacing", minimum=0),
    },
    table=table,
    grid="open",
)
