"""Plans without the guard against long steps, as the papers and other libraries have them."""

from __future__ import annotations

from diffuse_fast.plans.plan import Plan
from diffuse_fast.solver.build import build_plan


def unguarded_plan(
    schedule, solver, steps=None, prediction_type="epsilon", *, clip=None, timestep_spacing=None, timesteps=None, **solver_options
) -> Plan:
    """``df.plan`` with ``guarded=False``."""
    return build_plan(
        schedule,
        solver,
        steps,
        prediction_type=prediction_type,
        clip=clip,
        timestep_spacing=timestep_spacing,
        timesteps=timesteps,
        solver_options=solver_options,
        guarded=False,
    )
