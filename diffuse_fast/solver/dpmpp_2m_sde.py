"""SDE-DPM-Solver++(2M): Lu et al. 2022, "DPM-Solver++" (arXiv:2211.01095), the SDE solver of appendix A.

With h = λ' − λ and D as in ``dpmpp_2m.py``, for the SDE whose noise has eta² times the variance of the reverse SDE::

    x' = (sigma'/sigma)·e^−ηh·x + alpha'·(1 − e^−(1+η)h)·D + sigma'·sqrt(1 − e^−2ηh)·z

eta = 1 is the paper's solver (diffusers' ``sde-dpmsolver++``); other values are k-diffusion's ``sample_dpmpp_2m_sde``. A step that
ends without noise draws none.
"""

from __future__ import annotations

from typing import Any

from . import multistep
from .solver import Grid, Option, Solver, SolverTable


def table(grid: Grid, **options: Any) -> SolverTable:
    return multistep.dpm_solver(grid, "data", 2, **options)


SOLVER = Solver(
    name="dpmpp_2m_sde",
    order=2,
    nfe_per_step=1,
    registers=1,
    stochastic=True,
    paper="Lu et al. 2022, DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models, arXiv:2211.01095",
    timestep_spacing="linspace",
    options={
        "eta": Option(1.0, "noise: 0 is the ODE, 1 the reverse SDE", minimum=0.0),
        "solver_type": multistep.SOLVER_TYPE,
        "lower_order_final": multistep.LOWER_ORDER_FINAL,
        "euler_at_final": multistep.EULER_AT_FINAL,
        "final_sigmas_type": multistep.FINAL_SIGMAS_TYPE,
        "steps_offset": multistep.STEPS_OFFSET,
    },
    table=table,
    grid="open",
)
