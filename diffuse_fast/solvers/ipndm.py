"""iPNDM: Zhang & Chen 2022, "Fast Sampling of Diffusion Models with Exponential Integrator" (arXiv:2204.13902), appendix; the
pseudo linear multistep method of Liu et al. 2022 ("Pseudo Numerical Methods", arXiv:2202.09778) with lower orders for a start.

The last noise predictions are combined with the weights of Adams & Bashforth on an even grid, whatever the grid is, and DDIM's
step is taken with the combination in place of ε. diffusers' IPNDMScheduler.
"""

from __future__ import annotations

from itertools import pairwise

from . import multistep
from .multistep import Transfer
from .solver import Option, Problem, Solver, Table

# By number of predictions, newest first (Liu et al. 2022, eq. 12).
ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def table(problem: Problem, *, solver_order: int, final_sigmas_type: str, steps_offset: int) -> Table:
    points = multistep.ending(problem, final_sigmas_type)
    transfers = []
    for i, (now, then) in enumerate(pairwise(points)):
        first = multistep.by_noise(now, then, ())
        weights = ADAMS_BASHFORTH[min(i, solver_order - 1)]
        transfers.append(Transfer(first.x, [first.weights[0] * w for w in weights]))
    return multistep.table(problem, points, transfers, "noise")


SOLVER = Solver(
    name="ipndm",
    order=2,  # in the log-SNR; its weights are of higher order where ε has no exponential beside it
    nfe_per_step=1,
    registers=3,
    stochastic=False,
    paper="Zhang & Chen 2022, Fast Sampling of Diffusion Models with Exponential Integrator, arXiv:2204.13902",
    timestep_spacing="linspace",
    options={
        "solver_order": Option(4, "predictions used, 1 to 4", minimum=1, maximum=4),
        "final_sigmas_type": multistep.FINAL_SIGMAS_TYPE,
        "steps_offset": multistep.STEPS_OFFSET,
    },
    table=table,
)
