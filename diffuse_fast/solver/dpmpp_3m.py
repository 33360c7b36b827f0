"""DPM-Solver++(3M): the third-order multistep solver of the code of Lu et al. 2022, "DPM-Solver++" (arXiv:2211.01095).

The quadratic through the last three data predictions is integrated exactly. The authors' code and diffusers use half of its
quadratic term (their φ₃ is the integral of τ²/2 against a divided difference that is already half the second derivative), which
reduces the order to 2; ``halved_curvature=True`` reproduces them. The first two steps and a step that ends without noise are of
lower order. diffusers' DPMSolverMultistepScheduler with ``algorithm_type="dpmsolver++"`` and ``solver_order=3``.
"""

from __future__ import annotations

from typing import Any

from . import multistep
from .solver import Grid, Solver, SolverTable


def table(grid: Grid, **options: Any) -> SolverTable:
    return multistep.dpm_solver(grid, "data", 3, **options)


SOLVER = Solver(
    name="dpmpp_3m",
    order=3,
    nfe_per_step=1,
    registers=2,
    stochastic=False,
    paper="Lu et al. 2022, DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models, arXiv:2211.01095",
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
