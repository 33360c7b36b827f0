"""Euler's method in σ = sigma/alpha: Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models"
(arXiv:2206.00364), Algorithm 1 without the correction; k-diffusion's ``sample_euler``, diffusers' EulerDiscreteScheduler.

With x/alpha for the state, as k-diffusion keeps it, x' = x + (σ' − σ)·(x − x0)/σ. In the scale in which the state is kept::

    x' = (sigma'/sigma)·x + (alpha' − alpha·sigma'/sigma)·x0

which is DDIM at eta = 0 (with ``rederive_epsilon``, where x0 is clipped). Churn is an option of ``heun``.
"""

from __future__ import annotations

from itertools import pairwise

from . import multistep
from .solver import Problem, Solver, Table


def table(problem: Problem, *, final_sigmas_type: str, steps_offset: int) -> Table:
    points = multistep.ending(problem, final_sigmas_type)
    transfers = [multistep.by_data(now, then, ()) for now, then in pairwise(points)]
    return multistep.table(problem, points, transfers, "data")


SOLVER = Solver(
    name="euler",
    order=1,
    nfe_per_step=1,
    registers=0,
    stochastic=False,
    paper="Karras et al. 2022, Elucidating the Design Space of Diffusion-Based Generative Models, arXiv:2206.00364",
    timestep_spacing="linspace",
    options={"final_sigmas_type": multistep.FINAL_SIGMAS_TYPE, "steps_offset": multistep.STEPS_OFFSET},
    table=table,
    grid="fractional",
)
