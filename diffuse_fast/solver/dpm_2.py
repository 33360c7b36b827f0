"""DPM-2 of k-diffusion (Crowson 2022), after Karras et al. 2022 (arXiv:2206.00364), Algorithm 2 with the second stage in the
middle: diffusers' KDPM2Discrete, and with eta = 1 its KDPM2AncestralDiscrete.

In k-diffusion's variables, σ = sigma/alpha and the state x/alpha, with σ_up and σ_down from eta as in ``euler_ancestral``::

    σ_mid = sqrt(σ·σ_down),   x_mid = x + (σ_mid − σ)·ε(x, σ),   x' = x + (σ_down − σ)·ε(x_mid, σ_mid) + σ_up·z

With eta = 0 it is DPM-Solver-2 (``dpmsolver_2s``), whose intermediate point is the same: the middle in log σ is the middle in λ.
The step to the clean data, a step from a point without signal, and a step that is too long (``leaps.py``) are Euler's.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from ..plans.plan import Row
from . import leaps
from .solver import Grid, Option, Point, Solver, SolverTable
from .stages import ancestral, by_noise, noise_row


def table(grid: Grid, *, eta: float, steps_offset: int) -> SolverTable:
    rows: list[Row] = []
    before: list[Point] = []
    guard = leaps.Guard(grid)
    for now, then in pairwise((*grid.points, grid.end)):
        down, up = ancestral(now, then, eta)
        points, step = guard.step(now, down, partial(_stages, grid, now, down, up), s=up)
        rows += step
        before += points
    return SolverTable(
        rows=tuple(rows),
        marginals=tuple((point.alpha, point.sigma) for point in (*before, grid.end)),
        registers=int(any(row.write is not None for row in rows)),
    )


def _stages(grid: Grid, now: Point, down: Point, up: float) -> leaps.Step:
    mid = grid.at(0.5 * (now.lam + down.lam))
    x, eps = by_noise(now, down)
    first = noise_row(grid, now, *by_noise(now, mid), keep=(x, 0.0))
    second = noise_row(grid, mid, 0.0, eps, c=(1.0,), s=up)
    return (now, mid), (first, second)


SOLVER = Solver(
    name="dpm_2",
    order=2,
    nfe_per_step=2,
    registers=1,
    stochastic=False,
    paper="Karras et al. 2022, Elucidating the Design Space of Diffusion-Based Generative Models, arXiv:2206.00364",
    timestep_spacing="linspace",
    options={
        "eta": Option(0.0, "fraction of a step's noise that is fresh: 1 is the ancestral solver", minimum=0.0),
        "steps_offset": Option(0, "added to the timesteps of leading spacing", minimum=0),
    },
    table=table,
    grid="fractional",
)
