"""The plan that ``df.sample`` follows: what a model says of itself need not be said again, and is not contradicted."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .artifact.document import LEARNED, Document
from .errors import ArgumentError, ArgumentTypeError
from .plans.plan import DynamicThreshold, Plan
from .schedule import Schedule
from .solver import WHOLE, checked_clip
from .solver import plan as make_plan


def plan_for(
    known: Document | None,
    solver: str,
    steps: int | None,
    *,
    schedule: Any = None,
    prediction_type: Any = None,
    clip: Any = None,
    timestep_spacing: Any = None,
    timesteps: Any = None,
    **solver_options: Any,
) -> Plan:
    """The plan that ``sample`` follows with these arguments."""
    grid = {"schedule": schedule, "prediction_type": prediction_type, "clip": clip, "timestep_spacing": timestep_spacing,
            "timesteps": timesteps, **solver_options}  # fmt: skip
    if solver == LEARNED:
        return _learned(known, steps, [name for name, value in grid.items() if value is not None])
    return _hand_made(known, solver, steps, **grid)


def _hand_made(
    known: Document | None,
    solver: str,
    steps: int | None,
    *,
    schedule: Any,
    prediction_type: Any,
    clip: Any,
    timesteps: Any,
    **options: Any,
) -> Plan:
    """The plan of a solver, with what the artifact knows."""
    if known is not None:
        options.setdefault("time_convention", known.time.convention)
        if known.time.dtype != "float32" and timesteps is None:  # a named spacing may lie between whole timesteps
            options.setdefault("timestep_rounding", "nearest")
    return _plan(
        told("schedule", schedule, known),
        solver,
        steps,
        prediction_type=told("prediction_type", prediction_type, known),
        clip=bounds(clip, known),
        timesteps=timesteps,
        **options,
    )


def _learned(model: Document | None, steps: int | None, contradicting: list[str]) -> Plan:
    """The artifact's own plan for this number of steps."""
    if model is None:
        raise ArgumentError(
            "solver is 'learned', which is a plan that an artifact holds; this model is none. Give the plan that df.learn_solver "
            "returned to df.Sampler."
        )
    if contradicting:
        raise ArgumentError(f"solver is 'learned', and its plan says already what {contradicting[0]} would; leave it out.")
    if isinstance(steps, bool) or not isinstance(steps, WHOLE):
        raise ArgumentTypeError(f"steps is {steps!r}; it must be a whole number.")
    for plan in model.plans:
        if plan.steps == steps:
            return plan
    there = ", ".join(str(n) for n in sorted(plan.steps for plan in model.plans))
    raise ArgumentError(
        f"{model.name} has no learned plan of {steps} steps; "
        + (f"it has plans of {there}. " if there else "it has none at all. ")
        + f"Learn one: diffuse-fast learn-solver MODEL --steps {steps} --out PATH."
    )


def _plan(schedule: Schedule, solver: str, steps: int | None, *, timesteps: Any, **options: Any) -> Plan:
    """The plan, from those made before where there it is: plans are immutable."""
    try:
        if isinstance(timesteps, list | range | np.ndarray):
            timesteps = tuple(timesteps)
        return _made(schedule, solver, steps, timesteps=timesteps, **options)
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
        return make_plan(schedule, solver, steps, timesteps=timesteps, **options)


# Typed: steps=True is refused, and must not find the plan of steps=1.
_made = functools.lru_cache(maxsize=64, typed=True)(make_plan)


def told(name: str, given: Any, model: Document | None) -> Any:
    value = given if given is not None else getattr(model, name, None)
    if value is None:
        raise ArgumentError(f"{name} is not known: this model does not say it; give {name}=.")
    if given is not None and name == "schedule" and not isinstance(given, Schedule):
        raise ArgumentTypeError(f"schedule is a {type(given).__name__}; give a df.Schedule.")
    known = getattr(model, name, None)
    if given is not None and known is not None:
        if name == "schedule" and not known.same_marginals(given):
            raise ArgumentError(f"schedule is {given!r}, but this model was trained with {known!r}; leave it out.")
        if name == "prediction_type" and given != known:
            raise ArgumentError(f"prediction_type is {given!r}, but this model predicts {known!r}; leave it out.")
    return value


def bounds(clip: Any, model: Document | None) -> tuple[float, float] | DynamicThreshold | None:
    return model.clip if clip is None and model else checked_clip(clip)
