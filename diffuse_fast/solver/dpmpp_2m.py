"""DPM-Solver++(2M): Lu et al. 2022, "DPM-Solver++" (arXiv:2211.01095), Algorithm 2.

With h = λ' − λ, r = (λ − λ₋₁)/h and D = x0 + (x0 − x0₋₁)/(2r), the data prediction extrapolated to the middle of the step::

    x' = (sigma'/sigma)·x + alpha'·(1 − e^−h)·D

(``solver_type="midpoint"``); ``heun`` integrates the straight line through both predictions exactly. The first step and a step
that ends without noise are of first order. diffusers' DPMSolverMultistepScheduler with ``algorithm_type="dpmsolver++"`` and
``solver_order=2``; k-diffusion's ``sample_dpmpp_2m``.
"""

from __future__ import annotations

from typing import Any

from . import multistep
from .solver import Grid, Solver, SolverTable


def table(grid: Grid, **options: Any) -> SolverTable:
    return multistep.dpm_solver(grid, "data", 2, **options)


SOLVER = Solver(
    name="dpmpp_2m",
    order=2,
    nfe_per_step=1,
    registers=1,
    stochastic=False,
    paper="Lu et al. 2022, DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models, arXiv:2211.01095",
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
