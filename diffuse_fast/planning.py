"""The plan that ``df.sample`` follows: fill in what the model declares, and reject arguments that contradict it."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .artifact.document import LEARNED, Document
from .checks import require_int
from .errors import ArgumentError, ArgumentTypeError
from .plans import clip as clips
from .plans.plan import Plan
from .schedule import Schedule
from .solver import plan as make_plan


def plan_for(
    model: Document | None,
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
    """The plan that ``df.sample`` follows with these arguments. ``model`` is None for a bare callable."""
    if solver == LEARNED:
        given = {"schedule": schedule, "prediction_type": prediction_type, "clip": clip, "timestep_spacing": timestep_spacing,
                 "timesteps": timesteps, **solver_options}  # fmt: skip
        return _learned_plan(model, steps, [name for name, value in given.items() if value is not None])
    if model is not None:
        solver_options.setdefault("time_convention", model.time.convention)
        if model.time.dtype != "float32" and timesteps is None:  # the times of a spacing may be fractional
            solver_options.setdefault("timestep_rounding", "nearest")
    return _cached_plan(
        resolve_schedule(schedule, model),
        solver,
        steps,
        prediction_type=resolve_prediction_type(prediction_type, model),
        clip=resolve_clip(clip, model),
        timestep_spacing=timestep_spacing,
        timesteps=timesteps,
        **solver_options,
    )


def resolve_schedule(given: Any, model: Document | None) -> Schedule:
    """The schedule that the caller gives or the model declares.

    Raises:
        ArgumentError: neither is known, or they differ. ArgumentTypeError: not a schedule.
    """
    if given is not None and not isinstance(given, Schedule):
        raise ArgumentTypeError(f"schedule is a {type(given).__name__}; give a df.Schedule.")
    declared = None if model is None else model.schedule
    if given is None:
        return _require("schedule", declared)
    if declared is not None and not declared.same_marginals(given):
        raise ArgumentError(f"schedule is {given!r}, but this model was trained with {declared!r}; leave it out.")
    return given


def resolve_prediction_type(given: Any, model: Document | None) -> str:
    """The prediction type that the caller gives or the model declares.

    Raises:
        ArgumentError: neither is known, or they differ.
    """
    declared = None if model is None else model.prediction_type
    if given is None:
        return _require("prediction_type", declared)
    if declared is not None and given != declared:
        raise ArgumentError(f"prediction_type is {given!r}, but this model predicts {declared!r}; leave it out.")
    return given


def resolve_shape(given: Any, model: Document | None) -> Any:
    """The sample shape that the caller gives or the model declares.

    Raises:
        ArgumentError: neither is known.
    """
    return given if given is not None else _require("shape", None if model is None else model.shape)


def resolve_clip(given: Any, model: Document | None) -> clips.Clip | None:
    """The clip that the caller gives; None is the model's."""
    return model.clip if given is None and model else clips.resolve_clip(given)


def _require(name: str, declared: Any) -> Any:
    if declared is None:
        raise ArgumentError(f"{name} is not known: this model does not declare it; give {name}=.")
    return declared


def _learned_plan(model: Document | None, steps: int | None, contradicting: list[str]) -> Plan:
    """The plan that the artifact holds for this number of steps."""
    if model is None:
        raise ArgumentError(
            "solver is 'learned', but this model is not an artifact, which would hold the plan. Give the plan that df.learn_solver "
            "returned to df.Sampler."
        )
    if contradicting:
        raise ArgumentError(f"solver is 'learned', and its plan determines {contradicting[0]}; leave it out.")
    steps = require_int("steps", steps)
    for plan in model.plans:
        if plan.steps == steps:
            return plan
    available = ", ".join(str(n) for n in sorted(plan.steps for plan in model.plans))
    raise ArgumentError(
        f"{model.name} has no learned plan of {steps} steps; "
        + (f"it has plans of {available}. " if available else "it has no learned plans. ")
        + f"Learn one: diffuse-fast learn-solver MODEL --steps {steps} --out PATH."
    )


def _cached_plan(schedule: Schedule, solver: str, steps: int | None, *, timesteps: Any, **options: Any) -> Plan:
    """The plan, from the cache if its arguments are hashable. Plans are immutable, so they can be shared."""
    try:
        if isinstance(timesteps, list | range | np.ndarray):
            timesteps = tuple(timesteps)
        return _make_plan_cached(schedule, solver, steps, timesteps=timesteps, **options)
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
        return make_plan(schedule, solver, steps, timesteps=timesteps, **options)


# typed=True: steps=True is an error and must not find the plan of steps=1.
_make_plan_cached = functools.lru_cache(maxsize=64, typed=True)(make_plan)
