"""DPM-Solver-3, multistep: Lu et al. 2022, "DPM-Solver" (arXiv:2206.00927), in the multistep form of its authors' code.

The quadratic through the last three noise predictions is integrated exactly. The authors' code and diffusers use half of its
quadratic term, which reduces the order to 2; ``halved_curvature=True`` reproduces them (see ``dpmpp_3m.py``). diffusers'
DPMSolverMultistepScheduler with ``algorithm_type="dpmsolver"`` and ``solver_order=3``.
"""

from __future__ import annotations

from typing import Any

from . import multistep
from .solver import Grid, Solver, SolverTable


def table(grid: Grid, **options: Any) -> SolverTable:
    return multistep.dpm_solver(grid, "noise", 3, **options)


SOLVER = Solver(
    name="dpmsolver_3m",
    order=3,
    nfe_per_step=1,
    registers=2,
    stochastic=False,
    paper="Lu et al. 2022, DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10 Steps, "
    "arXiv:2206.00927",
    timestep_spacing="linspace",
    options={
        "solver_type": multistep.SOLVER_TYPE,
        "halved_curvature": multistep.HALVED,
        "lower_order_final": multistep.LOWER_ORDER_FINAL,
        "euler_at_final": multistep.EULER_AT_FINAL,
        "final_sigmas_type": multistep.FINAL_SIGMAS_TYPE,
        "steps_offset": multistep.STEPS_OFFSET,
    },
    table=table,
    grid="open",
)
