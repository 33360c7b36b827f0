"""Convert a diffusers scheduler into a schedule or a plan."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ...errors import ArgumentError, ArgumentTypeError, LongStepWarning, suggest
from ...plans.plan import Plan, Row
from ...plans.transforms import with_scaled_result
from ...schedule import Schedule
from ...solver import SOLVERS
from ...solver.build import build_plan
from ...solver.solver import ROUNDINGS
from .config import INERT, NOT_SOLVER_OPTIONS, clip, prediction_type, require_steps
from .lists import listed_grid
from .reading import read
from .schedules import edm


def schedule_from_diffusers(scheduler: Any, *, mu: float | None = None) -> Schedule:
    """See :meth:`diffuse_fast.Schedule.from_diffusers`."""
    _, spec, config = read(scheduler)
    return spec.schedule(config, mu)


def plan_from_diffusers(
    scheduler: Any,
    steps: int | None = None,
    *,
    mu: float | None = None,
    sigmas: Any = None,
    timesteps: Any = None,
    **solver_options: Any,
) -> Plan:
    """See :meth:`diffuse_fast.Plan.from_diffusers`."""
    name, spec, config = read(scheduler)
    for option in solver_options:
        if option in _FROM_CONFIGURATION:
            raise ArgumentError(f"{option} is determined by the configuration of {name}; {_FROM_CONFIGURATION[option]}.")
    solver, options, settled = spec.solver(config)
    schedule = spec.schedule(config, mu)
    if sigmas is None and timesteps is None:
        grid = spec.grid(config, schedule, require_steps(steps))
    else:
        schedule, grid = listed_grid(name, config, schedule, steps, sigmas, timesteps)
    if solver not in SOLVERS:
        raise ArgumentError(f"{name} needs the solver {solver!r}, which this version does not have.{suggest(solver, SOLVERS)}")
    if config.get("final_sigmas_type") == "sigma_min" and schedule.family != "discrete" and spec.schedule is not edm:
        raise ArgumentError(
            f"{name} has final_sigmas_type='sigma_min', which is not supported with a schedule of the family {schedule.family}: "
            f"diffusers ends with a step of zero width, or at a level of another schedule."
        )
    known = SOLVERS[solver].options
    for option, default in spec.options.items():
        if option in NOT_SOLVER_OPTIONS or option in INERT or option in settled:
            continue
        value = config[option]
        if option in known:
            options[option] = value
        elif value != default:
            raise ArgumentError(f"{name} has {option}={value!r}, which is not supported; only {default!r} is.")
    if "use_clipped_model_output" in solver_options:
        if "rederive_epsilon" in solver_options:
            raise ArgumentError("use_clipped_model_output and rederive_epsilon are the same option; give one of them.")
        if options.get("rederive_epsilon") is not False:
            raise ArgumentTypeError(f"{name} has no use_clipped_model_output; leave it out.")
        solver_options["rederive_epsilon"] = solver_options.pop("use_clipped_model_output")
    for option in solver_options:
        if option in options and option in spec.options:
            raise ArgumentError(f"{option} is an option of {name}; change it in the configuration.")
    plan = _diffusers_plan(
        schedule,
        solver,
        prediction_type=prediction_type(name, config, spec.predictions),
        clip=clip(config),
        timesteps=grid.times,
        timestep_rounding=grid.rounding if grid.stages_rounded else "none",
        solver_options={**options, **solver_options},
    )
    if not grid.stages_rounded:  # rows that read a register are second stages
        plan = _with_times(plan, lambda row: row.timestep if row.c else _rounded(row.timestep, grid.rounding))
    if (network_time := grid.network_time) is not None:
        plan = _with_times(plan, lambda row: network_time(row.timestep))
    if grid.final_scale != 1.0:
        plan = with_scaled_result(plan, grid.final_scale)
    return plan if grid.initial_scale is None else dataclasses.replace(plan, initial_scale=grid.initial_scale)


def _diffusers_plan(schedule: Schedule, solver: str, **options: Any) -> Plan:
    """The plan with diffusers' rows. Warns if ``df.plan`` would take some of its steps at first order."""
    plan = build_plan(schedule, solver, guarded=False, **options)
    if plan != build_plan(schedule, solver, **options):
        warnings.warn(
            f"this scheduler takes a step that is too long for {solver}, so its samples may be inaccurate, as in diffusers. Use "
            f"more steps or another spacing, or df.plan(schedule, {solver!r}, ...), which takes such a step at first order.",
            LongStepWarning,
            stacklevel=4,
        )
    return plan


def _with_times(plan: Plan, time_of: Callable[[Row], float]) -> Plan:
    return dataclasses.replace(plan, rows=tuple(dataclasses.replace(row, timestep=time_of(row)) for row in plan.rows))


def _rounded(time: float, rounding: str) -> float:
    return float(ROUNDINGS[rounding](np.array(time)))


# Arguments of df.plan that the scheduler's configuration determines, and what to do instead.
_FROM_CONFIGURATION = {
    "clip": "set clip_sample and clip_sample_range, or thresholding, in the configuration",
    "prediction_type": "set it in the configuration",
    "timestep_spacing": "set it in the configuration",
    "timestep_rounding": "leave it out",
    "time_convention": "leave it out",
    "schedule": "set beta_schedule or trained_betas in the configuration",
    "rho": "set it in the configuration",
    "sigma_min": "set it in the configuration",
    "sigma_max": "set it in the configuration",
}
