"""DPM-Solver-3, multistep: Lu et al. 2022, "DPM-Solver" (arXiv:2206.00927), in the multistep form of its authors' code.

The quadratic through the last three noise predictions is integrated exactly. The authors' code and diffusers take half of its
quadratic term, which leaves order 2: ``halved_curvature=True`` gives their numbers (see ``dpmpp_3m.py``). diffusers'
DPMSolverMultistepScheduler with ``algorithm_type="dpmsolver"`` and ``solver_order=3``.
"""

from __future__ import annotations

from . import multistep
from .solver import Problem, Solver, Table


def table(
    problem: Problem, *, solver_type: str, halved_curvature: bool, lower_order_final: bool, euler_at_final: bool,
    final_sigmas_type: str, steps_offset: int,
) -> Table:  # fmt: skip
    points = multistep.ending(problem, final_sigmas_type)
    orders = multistep.orders(points, 3, lower_order_final=lower_order_final, euler_at_final=euler_at_final)
    transfers = [
        multistep.by_noise(points[i], points[i + 1], multistep.steps_back(points, i, k),
            solver_type=solver_type, halved=halved_curvature)
        for i, k in enumerate(orders)
    ]
    return multistep.table(problem, points, transfers, "noise")


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
