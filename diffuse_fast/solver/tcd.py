"""Trajectory consistency distillation: Zheng et al. 2024, "Trajectory Consistency Distillation" (arXiv:2402.19159), strategic
stochastic sampling (Algorithm 4), as in diffusers' TCDScheduler. ``eta`` is the paper's γ.

With t' the next timestep and s = ⌊(1 − eta)·t'⌋ <= t', step to s without noise, then to t' by the forward process::

    x_s = alpha_s·x0 + sigma_s·ε
    x'  = (alpha'/alpha_s)·x_s + sqrt(sigma'² − (alpha'/alpha_s)²·sigma_s²)·z

eta = 0 is DDIM; eta = 1 replaces all noise except that of timestep 0. The plan ends at timestep 0, as in diffusers, which ignores
its own ``set_alpha_to_one``; here True ends at the clean data. If the plan clips x0, ε is computed from the clipped x0 (diffusers'
scheduler does not clip). TCD's own grid is LCM's: give it as ``timesteps``.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from ..plans.plan import Row
from .solver import Grid, Option, Solver, SolverTable
from .stages import require_timesteps


def table(grid: Grid, *, eta: float, set_alpha_to_one: bool, steps_offset: int) -> SolverTable:
    require_timesteps(grid, "tcd")
    points = (*grid.points, grid.end)
    rows = []
    for now, then in pairwise(points):
        middle = then
        if then.sigma > 0.0:
            middle = grid.at_times(np.floor(np.array([(1.0 - eta) * then.time])))[0]
            middle = max(middle, then, key=lambda point: point.lam)  # not before t', whose rounded time may be larger
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
            0.3, "fraction of the step to the next timestep that is fresh noise, the paper's gamma", minimum=0.0, maximum=1.0
        ),
        "set_alpha_to_one": Option(False, "end at the clean data, not at timestep 0"),
        "steps_offset": Option(0, "added to the timesteps of leading spacing", minimum=0),
    },
    table=table,
    families=("discrete",),
)
