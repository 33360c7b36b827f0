"""DPM-Solver-3, singlestep: Lu et al. 2022, "DPM-Solver" (arXiv:2206.00927), Algorithm 2 with r1 = 1/3, r2 = 2/3.

With h = λ' − λ, s1 and s2 the points at λ + r1·h and λ + r2·h, φ(z) = (e^z − 1)/z − 1::

    u1 = (alpha_1/alpha)·x − sigma_1·(e^(r1·h) − 1)·ε
    u2 = (alpha_2/alpha)·x − sigma_2·(e^(r2·h) − 1)·ε − sigma_2·(r2/r1)·φ(r2·h)·(ε_1 − ε)
    x' = (alpha'/alpha)·x − sigma'·(e^h − 1)·ε − (sigma'/r2)·φ(h)·(ε_2 − ε)

One register is enough: it holds ε, from which the second row recovers x with u1, and then the known part of x'.

A step is one full step of the method, with three network calls. The step to the clean data, a step from a point without signal,
and a step that is too long (``leaps.py``) are DPM-Solver-1. In diffusers' DPMSolverSinglestep a step is one network call, s1 and
s2 are points of the grid, and ``solver_type`` either omits φ from u2 ("midpoint") or adds a second difference to x' ("heun");
neither is the paper's form.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

from ..plans.plan import Row
from . import leaps
from .solver import Grid, Option, Point, Solver, SolverTable
from .stages import by_noise, noise_row

R1, R2 = 1.0 / 3.0, 2.0 / 3.0


def table(grid: Grid, *, steps_offset: int) -> SolverTable:
    rows: list[Row] = []
    before: list[Point] = []
    guard = leaps.Guard(grid)
    for now, then in pairwise((*grid.points, grid.end)):
        points, step = guard.step(now, then, partial(_stages, grid, now, then))
        rows += step
        before += points
    return SolverTable(
        rows=tuple(rows),
        marginals=tuple((point.alpha, point.sigma) for point in (*before, grid.end)),
        registers=int(any(row.write is not None for row in rows)),
    )


def _stages(grid: Grid, now: Point, then: Point) -> leaps.Step:
    h = then.lam - now.lam
    s1, s2 = grid.at(now.lam + R1 * h), grid.at(now.lam + R2 * h)
    x1, eps1 = by_noise(now, s1)
    x2, eps2 = by_noise(now, s2)
    x3, eps3 = by_noise(now, then)
    w2 = -s2.sigma * (R2 / R1) * _phi(R2 * h)  # of ε_1 in u2
    w3 = -then.sigma / R2 * _phi(h)  # of ε_2 in x'
    # x = (u1 − eps1·ε)/x1
    first = noise_row(grid, now, x1, eps1, keep=(0.0, 1.0))
    second = noise_row(grid, s1, x2 / x1, w2, c=(eps2 - w2 - eps1 * x2 / x1,), keep=(x3 / x1, 0.0), f=(eps3 - w3 - eps1 * x3 / x1,))
    third = noise_row(grid, s2, 0.0, w3, c=(1.0,))
    return (now, s1, s2), (first, second, third)


def _phi(z: float) -> float:
    return math.expm1(z) / z - 1.0


SOLVER = Solver(
    name="dpmsolver_3s",
    order=3,
    nfe_per_step=3,
    registers=1,
    stochastic=False,
    paper="Lu et al. 2022, DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling, arXiv:2206.00927",
    timestep_spacing="linspace",
    options={"steps_offset": Option(0, "added to the timesteps of leading spacing", minimum=0)},
    table=table,
    grid="open",
)
