"""DPM-Solver++ 3S: the singlestep method of third order of DPM-Solver (Lu et al. 2022, arXiv:2206.00927, Algorithm 2) in the data
form of DPM-Solver++ (Lu et al. 2022, arXiv:2211.01095, section 4), with r1 = 1/3 and r2 = 2/3, as in the authors' code
for ``algorithm_type="dpmsolver++"``, ``method="singlestep"``, order 3.

With h = λ' − λ, s1 and s2 the points at λ + r1·h and λ + r2·h, φ(z) = (e^−z − 1)/z + 1::

    u1 = (sigma_1/sigma)·x + alpha_1·(1 − e^(−r1·h))·x0
    u2 = (sigma_2/sigma)·x + alpha_2·(1 − e^(−r2·h))·x0 + alpha_2·(r2/r1)·φ(r2·h)·(x0_1 − x0)
    x' = (sigma'/sigma)·x + alpha'·(1 − e^−h)·x0 + (alpha'/r2)·φ(h)·(x0_2 − x0)

One register is enough, as in ``dpmsolver_3s``: it holds x0, from which the second row recovers x with u1, and then the known part
of x'.

A step is one full step of the method, with three network calls. The step to the clean data and a step from a point without signal
are of first order (DDIM). In diffusers' DPMSolverSinglestep (``dpmsolver_singlestep``) a step is one network call, s1 and s2 are
points of the grid, and the third order either omits φ from u2 ("midpoint") or adds a second difference to x' ("heun"); neither is
this form.
"""

from __future__ import annotations

import math
from itertools import pairwise

from .solver import Grid, Option, Solver, SolverTable
from .stages import by_data, data_row, one_stage

R1, R2 = 1.0 / 3.0, 2.0 / 3.0


def table(grid: Grid, *, steps_offset: int) -> SolverTable:
    rows, before = [], []
    for now, then in pairwise((*grid.points, grid.end)):
        before.append(now)
        if one_stage(now, then):
            rows.append(data_row(grid, now, *by_data(now, then)))
            continue
        h = then.lam - now.lam
        s1, s2 = grid.at(now.lam + R1 * h), grid.at(now.lam + R2 * h)
        x1, d1 = by_data(now, s1)
        x2, d2 = by_data(now, s2)
        x3, d3 = by_data(now, then)
        w2 = s2.alpha * (R2 / R1) * _phi(R2 * h)  # of x0_1 in u2
        w3 = then.alpha / R2 * _phi(h)  # of x0_2 in x'
        # x = (u1 − d1·x0)/x1
        rows.append(data_row(grid, now, x1, d1, keep=(0.0, 1.0)))
        rows.append(data_row(grid, s1, x2 / x1, w2, c=(d2 - w2 - d1 * x2 / x1,), keep=(x3 / x1, 0.0), f=(d3 - w3 - d1 * x3 / x1,)))
        rows.append(data_row(grid, s2, 0.0, w3, c=(1.0,)))
        before += [s1, s2]
    return SolverTable(
        rows=tuple(rows),
        marginals=tuple((point.alpha, point.sigma) for point in (*before, grid.end)),
        registers=int(any(row.write is not None for row in rows)),
    )


def _phi(z: float) -> float:
    return math.expm1(-z) / z + 1.0


SOLVER = Solver(
    name="dpmpp_3s",
    order=3,
    nfe_per_step=3,
    registers=1,
    stochastic=False,
    paper="Lu et al. 2022, DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models, arXiv:2211.01095",
    timestep_spacing="linspace",
    options={"steps_offset": Option(0, "added to the timesteps of leading spacing", minimum=0)},
    table=table,
    grid="open",
)
