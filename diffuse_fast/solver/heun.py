"""Heun's method with churn: Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models"
(arXiv:2206.00364), Algorithm 2.

In the paper's variables, σ = sigma/alpha and the state x/alpha, with x̂ at σ̂ the state after churn (``churn.py``)::

    d = (x̂ − D(x̂; σ̂))/σ̂ = ε̂,   x' = x̂ + (σ' − σ̂)·d                                         lines 7, 8
    x' = x̂ + (σ' − σ̂)·(d + d')/2,   d' = ε at (x', σ')                                         lines 10, 11

Euler's row keeps the values that the second row needs in a register. The step to the clean data (line 9), a step from a point
without signal, where σ is infinite, and a step that is too long (``leaps.py``) are Euler's. diffusers' HeunDiscreteScheduler has no
churn, and uses the correction in steps of any length.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from ..plans.plan import Row
from . import leaps
from .churn import OPTIONS, Churn
from .solver import Grid, Option, Point, Solver, SolverTable
from .stages import by_noise, noise_row


def table(grid: Grid, *, steps_offset: int, **churn: float) -> SolverTable:
    rows: list[Row] = []
    before: list[Point] = []
    deviation: list[tuple[float, float]] = []
    churned = Churn(grid, **churn)
    guard = leaps.Guard(grid)
    for now, then in pairwise((*grid.points, grid.end)):
        if raised := churned.at(now):
            rows.append(raised.row)
            before.append(now)
            deviation.append((0.0, raised.excess))
            now = raised.point
        points, step = guard.step(now, then, partial(_stages, grid, now, then))
        rows += step
        before += points
        deviation += [(0.0, 0.0)] * (len(rows) - len(deviation))
    return SolverTable(
        rows=tuple(rows),
        marginals=tuple((point.alpha, point.sigma) for point in (*before, grid.end)),
        deviation=tuple(deviation) if any(variance for _, variance in deviation) else None,
        registers=int(any(row.write is not None for row in rows)),
    )


def _stages(grid: Grid, now: Point, then: Point) -> leaps.Step:
    x, eps = by_noise(now, then)
    first = noise_row(grid, now, x, eps, keep=(x, eps / 2.0))
    second = noise_row(grid, then, 0.0, eps / 2.0, c=(1.0,))
    return (now, then), (first, second)


SOLVER = Solver(
    name="heun",
    order=2,
    nfe_per_step=2,
    registers=1,
    stochastic=False,
    paper="Karras et al. 2022, Elucidating the Design Space of Diffusion-Based Generative Models, arXiv:2206.00364",
    timestep_spacing="linspace",
    options={**OPTIONS, "steps_offset": Option(0, "added to the timesteps of leading spacing", minimum=0)},
    table=table,
    grid="fractional",
)
