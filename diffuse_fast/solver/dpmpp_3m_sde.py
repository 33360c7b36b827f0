"""SDE-DPM-Solver++(3M): the third-order SDE solver of k-diffusion (``sample_dpmpp_3m_sde``).

As ``dpmpp_2m_sde.py``, with the quadratic through the last three data predictions integrated exactly. k-diffusion and diffusers use
half of its quadratic term; ``halved_curvature=True`` reproduces k-diffusion (diffusers' step also has a sign error).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from . import multistep
from .solver import Grid, Option, Solver, SolverTable


def table(grid: Grid, **options: Any) -> SolverTable:
    return multistep.dpm_solver(grid, "data", 3, **options)


SOLVER = Solver(
    name="dpmpp_3m_sde",
    order=3,
    nfe_per_step=1,
    registers=2,
    stochastic=True,
    paper="Lu et al. 2022, DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models, arXiv:2211.01095",
    timestep_spacing="linspace",
    options={
        "eta": Option(1.0, "noise: 0 is the ODE, 1 the reverse SDE", minimum=0.0),
        "solver_type": dataclasses.replace(multistep.SOLVER_TYPE, default="heun"),
        "halved_curvature": multistep.HALVED,
        "lower_order_final": multistep.LOWER_ORDER_FINAL,
        "euler_at_final": multistep.EULER_AT_FINAL,
        "final_sigmas_type": multistep.FINAL_SIGMAS_TYPE,
        "steps_offset": multistep.STEPS_OFFSET,
    },
    table=table,
    grid="open",
)
