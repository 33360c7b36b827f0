"""Trajectory consistency distillation: Zheng et al. 2024, "Trajectory Consistency Distillation" (arXiv:2402.19159), strategic
stochastic sampling (Algorithm 4), as in diffusers' TCDScheduler. ``eta`` is the paper's γ.

With t' the next timestep and s = ⌊(1 − eta)·t'⌋ <= t', go to s without noise, and from there to t' by the forward process::

    x_s = alpha_s·x0 + sigma_s·ε
    x'  = (alpha'/alpha_s)·x_s + sqrt(sigma'² − (alpha'/alpha_s)²·sigma_s²)·z

eta = 0 is DDIM, eta = 1 draws all but timestep 0's noise afresh. The end is timestep 0, as in diffusers, which does not take its
own ``set_alpha_to_one`` into account; True here ends at the clean data. Where the plan clips x0, ε is the one that fits it
(diffusers' scheduler does not clip).
TCD's own grid is LCM's: give it as ``timesteps``.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from ..plans.plan import Row
from .solver import Grid, Option, Solver, SolverTable
from .stages import needs_timesteps


def table(grid: Grid, *, eta: float, set_alpha_to_one: bool, steps_offset: int) -> SolverTable:
    needs_timesteps(grid, "tcd")
    points = (*grid.points, grid.end)
    rows = []
    for now, then in pairwise(points):
        middle = then
        if then.sigma > 0.0:
            middle = grid.at_times(np.floor(np.array([(1.0 - eta) * then.time])))[0]
            middle = max(middle, then, key=lambda point: point.lam)  # not before t', where that is told rounded up
        forward = then.alpha / middle.alpha
        added = 0.0 if middle.lam == then.lam else -math.expm1(2.0 * (then.lam - middle.lam))
        p, q = grid.data(now)
        a, b, d = grid.noise_terms(now, forward * middle.sigma, rederive=grid.clips)
        row = Row(
            timestep=now.time,
            p=p,
            q=q,
            lo=grid.lo,
            hi=grid.hi,
            a=a,
            b=b,
            d=forward * middle.alpha + d,
            s=then.sigma * math.sqrt(added),
        )
        rows.append(row.folded())
    return SolverTable(rows=tuple(rows), marginals=tuple((point.alpha, point.sigma) for point in points))


SOLVER = Solver(
    name="tcd",
    order=1,
    nfe_per_step=1,
    registers=0,
    stochastic=True,
    paper="Zheng et al. 2024, Trajectory Consistency Distillation, arXiv:2402.19159",
    timestep_spacing="trailing",
    options={
        "eta": Option(
            0.3, "share of the way to the next timestep that is noise drawn afresh, the paper's gamma", minimum=0.0, maximum=1.0
        ),
        "set_alpha_to_one": Option(False, "end at the clean data; otherwise at timestep 0"),
        "steps_offset": Option(0, "added to the timesteps of leading spacing", minimum=0),
    },
    table=table,
    families=("discrete",),
)
