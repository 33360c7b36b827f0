"""Linear multistep in σ = sigma/alpha: k-diffusion's ``sample_lms`` (Crowson 2022), diffusers' LMSDiscreteScheduler.

For the state x/alpha the path is dx/dσ = ε. The polynomial in σ through the last noise predictions is integrated over the step
(the Adams-Bashforth method on a nonuniform grid; Hairer, Nørsett & Wanner 1993, section III.1)::

    x'/alpha' = x/alpha + Σ_j ε_j·∫ Π_{k≠j} (τ − σ_k)/(σ_j − σ_k) dτ

The integrals have closed forms; k-diffusion and diffusers compute them by quadrature, to a relative error of 1e-4.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.polynomial import Polynomial

from ..errors import PlanError
from . import multistep
from .multistep import Transfer
from .solver import Grid, Option, Point, Solver, SolverTable


def table(grid: Grid, *, solver_order: int, final_sigmas_type: str, steps_offset: int) -> SolverTable:
    if grid.points[0].alpha == 0.0:
        raise PlanError("lms steps in sigma/alpha, which is infinite at zero signal-to-noise ratio; use another solver or grid.")
    points = (*grid.points, grid.end)
    transfers = [_step(points, i, min(solver_order, i + 1)) for i in range(len(points) - 1)]
    return multistep.table(grid, points, transfers, "noise")


def _step(points: Sequence[Point], i: int, order: int) -> Transfer:
    now, then = points[i], points[i + 1]
    level = [point.sigma / point.alpha for point in points]
    width = level[i + 1] - level[i]
    if width == 0.0:  # the last time of the grid may be the end of the schedule
        return Transfer(1.0, [0.0])
    # In u = (σ − σ_i)/width the step is [0, 1], which keeps the numbers at a moderate size.
    nodes = [(level[i - j] - level[i]) / width for j in range(order)]
    weights = []
    for j, node in enumerate(nodes):
        others = [other for k, other in enumerate(nodes) if k != j]
        basis = Polynomial.fromroots(others) / np.prod([node - other for other in others]) if others else Polynomial([1.0])
        weights.append(float(basis.integ()(1.0)))
    return Transfer(then.alpha / now.alpha, [then.alpha * width * w for w in weights])


SOLVER = Solver(
    name="lms",
    order=4,
    nfe_per_step=1,
    registers=3,
    stochastic=False,
    paper="Crowson 2022, k-diffusion; Hairer, Nørsett & Wanner 1993, Solving Ordinary Differential Equations I, section III.1",
    timestep_spacing="linspace",
    options={
        "solver_order": Option(4, "number of predictions combined, 1 to 4", minimum=1, maximum=4),
        "final_sigmas_type": multistep.FINAL_SIGMAS_TYPE,
        "steps_offset": multistep.STEPS_OFFSET,
    },
    table=table,
    grid="fractional",
)
