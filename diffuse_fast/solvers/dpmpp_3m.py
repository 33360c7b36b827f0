"""DPM-Solver++(3M): the third-order multistep solver of the code of Lu et al. 2022, "DPM-Solver++" (arXiv:2211.01095).

The quadratic through the last three data predictions is integrated exactly. The authors' code and diffusers take half of its
quadratic term (their φ₃ is the integral of τ²/2 against a divided difference that is already half the second derivative), which
leaves order 2: ``halved_curvature=True`` gives their numbers. The second and the first steps, and the one that ends without
noise, are of lower order. diffusers' DPMSolverMultistepScheduler with ``algorithm_type="dpmsolver++"`` and ``solver_order=3``.
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
        multistep.by_data(points[i], points[i + 1], multistep.steps_back(points, i, k),
            solver_type=solver_type, halved=halved_curvature)
        for i, k in enumerate(orders)
    ]
    return multistep.table(problem, points, transfers, "data")


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
