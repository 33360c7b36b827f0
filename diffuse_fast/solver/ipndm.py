"""iPNDM: Zhang & Chen 2022, "Fast Sampling of Diffusion Models with Exponential Integrator" (arXiv:2204.13902), appendix; the
pseudo linear multistep method of Liu et al. 2022 ("Pseudo Numerical Methods", arXiv:2202.09778), started with lower orders.

The last noise predictions are combined with the Adams-Bashforth weights of a uniform grid, for any grid, and DDIM's step uses the
combination in place of ε. diffusers' IPNDMScheduler.

In a state without signal ε is the state and carries no information about the data. The first step therefore uses the network's data
prediction, which is DDIM's step again. diffusers uses 0 in place of the data (``zero_initial_data``).
"""

from __future__ import annotations

import dataclasses
from itertools import pairwise

from . import multistep
from .multistep import Transfer
from .solver import Grid, Option, Solver, SolverTable

# Weights by number of predictions, newest first (Liu et al. 2022, eq. 12).
ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def adams_bashforth(first: Transfer, order: int) -> Transfer:
    """DDIM's step ``first`` with a combination of the last predictions in place of the newest one."""
    return Transfer(first.x, [first.weights[0] * w for w in ADAMS_BASHFORTH[order - 1]])


def table(grid: Grid, *, solver_order: int, zero_initial_data: bool, final_sigmas_type: str, steps_offset: int) -> SolverTable:
    points = (*grid.points, grid.end)
    transfers = []
    for i, (now, then) in enumerate(pairwise(points)):
        # Without signal the state is ε; the data is added below.
        first = Transfer(0.0, [then.sigma]) if now.alpha == 0.0 else multistep.by_noise(now, then, ())
        transfers.append(adams_bashforth(first, min(i + 1, solver_order)))
    made = multistep.table(grid, points, transfers, "noise")
    if points[0].alpha > 0.0:
        return made
    reached = points[1].alpha
    if zero_initial_data:
        missed = ((-reached, 0.0), *((0.0, 0.0),) * (len(transfers) - 1))
        return dataclasses.replace(made, deviation=missed if reached > 0.0 else None)
    p, q = grid.data(points[0])
    start = dataclasses.replace(made.rows[0], p=p, q=q, lo=grid.lo, hi=grid.hi, d=reached)
    return dataclasses.replace(made, rows=(start.folded(), *made.rows[1:]))


SOLVER = Solver(
    name="ipndm",
    order=2,  # in the log-SNR; the weights are of higher order for integrals of ε without an exponential factor
    nfe_per_step=1,
    registers=3,
    stochastic=False,
    paper="Zhang & Chen 2022, Fast Sampling of Diffusion Models with Exponential Integrator, arXiv:2204.13902",
    timestep_spacing="linspace",
    options={
        "solver_order": Option(4, "number of predictions combined, 1 to 4", minimum=1, maximum=4),
        "zero_initial_data": Option(False, "in a state without signal, use 0 as the data instead of the network's prediction"),
        "final_sigmas_type": multistep.FINAL_SIGMAS_TYPE,
        "steps_offset": multistep.STEPS_OFFSET,
    },
    table=table,
)
