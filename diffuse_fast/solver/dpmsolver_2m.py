"""DPM-Solver-2, multistep: Lu et al. 2022, "DPM-Solver" (arXiv:2206.00927), in the multistep form of its authors' code.

With h = λ' − λ, r = (λ − λ₋₁)/h and E = ε + (ε − ε₋₁)/(2r)::

    x' = (alpha'/alpha)·x − sigma'·(e^h − 1)·E

(``solver_type="midpoint"``); ``heun`` integrates the straight line through both predictions exactly. The first step and a step
that ends without noise are of first order. diffusers' DPMSolverMultistepScheduler with ``algorithm_type="dpmsolver"`` and
``solver_order=2``; it does not support ``final_sigmas_type="zero"``, which here ends with a step of first order.
"""

from __future__ import annotations

from typing import Any

from . import multistep
from .solver import Grid, Solver, SolverTable


def table(grid: Grid, **options: Any) -> SolverTable:
    return multistep.dpm_solver(grid, "noise", 2, **options)


SOLVER = Solver(
    name="dpmsolver_2m",
    order=2,
    nfe_per_step=1,
    registers=1,
    stochastic=False,
    paper="Lu et al. 2022, DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10 Steps, "
    "arXiv:2206.00927",
    timestep_spacing="linspace",
    options={
        "solver_type": multistep.SOLVER_TYPE,
        "lower_order_final": multistep.LOWER_ORDER_FINAL,
        "euler_at_final": multistep.EULER_AT_FINAL,
        "final_sigmas_type": multistep.FINAL_SIGMAS_TYPE,
        "steps_offset": multistep.STEPS_OFFSET,
    },
    table=table,
    grid="open",
)
