"""DPM-Solver-2, singlestep: Lu et al. 2022, "DPM-Solver" (arXiv:2206.00927), Algorithm 4 with r1 = 1/2 (Algorithm 1).

With h = λ' − λ, s the point at λ + r1·h and ε_s the prediction at (u, s)::

    u  = (alpha_s/alpha)·x − sigma_s·(e^(r1·h) − 1)·ε
    x' = (alpha'/alpha)·x − sigma'·(e^h − 1)·ε − w·(ε_s − ε)

    midpoint   w = sigma'·(e^h − 1)/(2·r1)            (the paper's)
    heun       w = sigma'·((e^h − 1)/h − 1)/r1        (its Taylor form, eq. (B.4); ``solver_type`` as in diffusers)

A step is one full step of the method, with two network calls. The step to the clean data, a step from a point without signal, and a
step that is too long (``leaps.py``) are DPM-Solver-1. In diffusers' DPMSolverSinglestep a step is one network call: the points of
its grid are alternately s and the ends of steps, so its grid determines r1.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

from ..plans.plan import Row
from . import leaps
from .solver import Grid, Option, Point, Solver, SolverTable
from .stages import by_noise, noise_row

R1 = 0.5


def table(grid: Grid, *, solver_type: str, steps_offset: int) -> SolverTable:
    rows: list[Row] = []
    before: list[Point] = []
    guard = leaps.Guard(grid)
    for now, then in pairwise((*grid.points, grid.end)):
        points, step = guard.step(now, then, partial(_stages, grid, now, then, solver_type))
        rows += step
        before += points
    return SolverTable(
        rows=tuple(rows),
        marginals=tuple((point.alpha, point.sigma) for point in (*before, grid.end)),
        registers=int(any(row.write is not None for row in rows)),
    )


def _stages(grid: Grid, now: Point, then: Point, solver_type: str) -> leaps.Step:
    h = then.lam - now.lam
    s = grid.at(now.lam + R1 * h)
    x, eps = by_noise(now, then)
    w = eps / (2.0 * R1) if solver_type == "midpoint" else -then.sigma * (math.expm1(h) / h - 1.0) / R1
    first = noise_row(grid, now, *by_noise(now, s), keep=(x, eps - w))
    second = noise_row(grid, s, 0.0, w, c=(1.0,))
    return (now, s), (first, second)


SOLVER = Solver(
    name="dpmsolver_2s",
    order=2,
    nfe_per_step=2,
    registers=1,
    stochastic=False,
    paper="Lu et al. 2022, DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling, arXiv:2206.00927",
    timestep_spacing="linspace",
    options={
        "solver_type": Option("midpoint", "weight of the second stage", choices=("midpoint", "heun")),
        "steps_offset": Option(0, "added to the timesteps of leading spacing", minimum=0),
    },
    table=table,
    grid="open",
)
