"""Solvers: pure functions that write plans. One small file per solver; this page only finds them and checks arguments.

>>> import diffuse_fast as df
>>> plan = df.plan(df.Schedule.linear(), "ddim", 4, prediction_type="epsilon")
>>> plan.timesteps.tolist()
[750.0, 500.0, 250.0, 0.0]
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from ..errors import ArgumentError, ArgumentTypeError, PlanError, near
from ..plan import Plan
from ..schedule import Schedule
from . import (
    ddim,
    ddpm,
    deis,
    dpmpp_2m,
    dpmpp_2m_sde,
    dpmpp_3m,
    dpmpp_3m_sde,
    dpmsolver_2m,
    dpmsolver_3m,
    euler,
    ipndm,
    lms,
    pndm,
    spacing,
    unipc,
)  # fmt: skip
from .solver import Option, Point, Problem, Solver

WHOLE = (int, np.integer)
NUMBER = (int, float, np.integer, np.floating)

MODULES = (
    ddim, ddpm, deis, dpmpp_2m, dpmpp_2m_sde, dpmpp_3m, dpmpp_3m_sde, dpmsolver_2m, dpmsolver_3m, euler, ipndm, lms, pndm, unipc
)  # fmt: skip
SOLVERS: dict[str, Solver] = {module.SOLVER.name: module.SOLVER for module in MODULES}


def solvers() -> dict[str, Solver]:
    """The solvers there are, by name: order, network evaluations per step, registers, stochastic or not, paper,
    options.

    Example:
        >>> import diffuse_fast as df
        >>> df.solvers()["ddim"].order, sorted(df.solvers()["ddpm"].options)
        (1, ['steps_offset', 'variance_type'])
    """
    return dict(SOLVERS)


def plan(
    schedule: Schedule,
    solver: str,
    steps: int | None = None,
    *,
    prediction_type: str,
    clip: tuple[float, float] | None = None,
    timestep_spacing: str | None = None,
    timesteps: Any = None,
    **solver_options: Any,
) -> Plan:
    """The table of a solver for a schedule: when to call the network, and what to do with each answer.

    Everything about the endpoints is resolved here; sampling only applies the rows.

    Args:
        schedule: The noise schedule of the model.
        solver: Name of the solver; :func:`solvers` lists them.
        steps: Number of steps, 1 to ``schedule.num_train_timesteps``. May be left out where ``timesteps`` says it.
        prediction_type: What the network predicts: ``epsilon``, ``sample`` or ``v_prediction``.
        clip: Bounds ``(lo, hi)`` of the data prediction; None does not clip.
        timestep_spacing: ``leading``, ``trailing`` or ``linspace`` (``solvers/spacing.py`` has the formulas); None
            is the solver's default.
        timesteps: Instead of a spacing, the timesteps themselves: falling, in [0, num_train_timesteps − 1],
            fractional allowed.
        **solver_options: Options of the solver, under diffusers' names.

    Returns:
        An immutable :class:`~diffuse_fast.plan.Plan`. Its ``options`` record every option, defaults included.

    Raises:
        ArgumentError: a value is unknown, out of range or contradicts another; the message names it.
        ArgumentTypeError: a value of the wrong type, or an option that the solver does not have.
        PlanError: solver, schedule and prediction type make no sense together.

    Example:
        >>> import diffuse_fast as df
        >>> plan = df.plan(df.Schedule.cosine(), "ddpm", 10, prediction_type="v_prediction", clip=(-1, 1),
        ...                timestep_spacing="trailing", variance_type="fixed_large")
        >>> plan.nfe, plan.stochastic, plan.exact_marginal
        (10, True, False)
    """
    if not isinstance(schedule, Schedule):
        raise ArgumentTypeError(
            f"schedule is {schedule!r}; it must be a diffuse_fast.Schedule, such as Schedule.linear()."
        )
    if not isinstance(solver, str) or solver not in SOLVERS:
        raise ArgumentError(f"solver {solver!r} is not known.{near(str(solver), SOLVERS)}")
    chosen = SOLVERS[solver]
    if prediction_type not in chosen.prediction_types:
        raise ArgumentError(
            f"prediction_type is {prediction_type!r}; {solver} takes {', '.join(chosen.prediction_types)}."
        )
    options = _options(chosen, solver_options)
    lo, hi = _bounds(clip)
    if timesteps is None:
        name = chosen.timestep_spacing if timestep_spacing is None else timestep_spacing
        times = _spaced(schedule, steps, name, options.get("steps_offset", 0))
        options["timestep_spacing"] = name
    else:
        if timestep_spacing is not None:
            raise ArgumentError(
                "timesteps and timestep_spacing both say where the network is called; give one of them."
            )
        if options.get("steps_offset", 0) != 0:
            raise ArgumentError("steps_offset shifts a leading spacing; with timesteps, shift them yourself.")
        times = _custom(schedule, steps, timesteps)
    log_alpha = schedule.log_alpha(times)
    _check_marginals(times, log_alpha, prediction_type)
    problem = Problem(
        schedule=schedule,
        points=tuple(map(Point, *(a.tolist() for a in (times, log_alpha, schedule.alpha(times), schedule.sigma(times))))),
        prediction_type=prediction_type,
        lo=lo,
        hi=hi,
    )
    table = chosen.table(problem, **{name: options[name] for name in chosen.options})
    return Plan(
        solver=solver,
        steps=len(times),
        prediction_type=prediction_type,
        rows=table.rows,
        registers=table.registers,
        initial_scale=table.initial_scale,
        marginals=table.marginals,
        deviation=table.deviation,
        options=tuple(sorted(options.items())),
    )


def _options(solver: Solver, given: dict[str, Any]) -> dict[str, Any]:
    for name in given:
        if name not in solver.options:
            raise ArgumentTypeError(f"{solver.name} has no option {name!r}.{near(name, solver.options)}")
    return {name: _option(name, option, given.get(name, option.default)) for name, option in solver.options.items()}


def _option(name: str, option: Option, value: Any) -> bool | int | float | str:
    default = option.default
    if isinstance(default, bool):
        if not isinstance(value, bool | np.bool_):
            raise ArgumentTypeError(f"{name} is {value!r}; it must be True or False.")
        return bool(value)
    if isinstance(default, str):
        if value not in option.choices:
            raise ArgumentError(f"{name} is {value!r}; it must be one of {', '.join(option.choices)}.")
        return value
    whole = isinstance(default, int)
    if isinstance(value, bool) or not isinstance(value, WHOLE if whole else NUMBER):
        raise ArgumentTypeError(f"{name} is {value!r}; it must be a {'whole ' if whole else ''}number.")
    if not math.isfinite(value) or (option.minimum is not None and value < option.minimum):
        raise ArgumentError(f"{name} is {value!r}; it must be finite, and at least {option.minimum}.")
    if option.maximum is not None and value > option.maximum:
        raise ArgumentError(f"{name} is {value!r}; it must be at most {option.maximum}.")
    return int(value) if whole else float(value)


def _bounds(clip: Any) -> tuple[float, float]:
    if clip is None:
        return -math.inf, math.inf
    try:
        lo, hi = (float(bound) for bound in clip)
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"clip is {clip!r}; it must be None or a pair (lo, hi) of numbers.") from None
    if not lo < hi:
        raise ArgumentError(f"clip is {clip!r}; its lower bound must be below its upper bound.")
    return lo, hi


def _steps(schedule: Schedule, steps: Any) -> int:
    if isinstance(steps, bool) or not isinstance(steps, WHOLE):
        raise ArgumentTypeError(f"steps is {steps!r}; it must be a whole number.")
    if not 1 <= steps <= schedule.num_train_timesteps:
        raise ArgumentError(f"steps is {steps}; this schedule allows 1 to {schedule.num_train_timesteps}.")
    return int(steps)


def _spaced(schedule: Schedule, steps: Any, name: str, steps_offset: int) -> np.ndarray:
    if steps is None:
        raise ArgumentError("neither steps nor timesteps is given; say one of them.")
    if not isinstance(name, str) or name not in spacing.SPACINGS:
        raise ArgumentError(f"timestep_spacing {name!r} is not known.{near(str(name), spacing.SPACINGS)}")
    return spacing.grid(name, schedule.num_train_timesteps, _steps(schedule, steps), steps_offset)


def _custom(schedule: Schedule, steps: Any, timesteps: Any) -> np.ndarray:
    try:
        times = np.asarray(timesteps)
        if times.dtype.kind not in "iuf":
            raise TypeError
        times = times.astype(np.float64)
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"timesteps is {timesteps!r}; it must be a sequence of numbers.") from None
    if times.ndim != 1 or times.size == 0:
        raise ArgumentError(f"timesteps has shape {times.shape}; it must be a sequence of at least one timestep.")
    if steps is not None and _steps(schedule, steps) != times.size:
        raise ArgumentError(f"steps is {steps}, but timesteps has {times.size}; leave one of them out.")
    last = schedule.num_train_timesteps - 1
    if not np.all((times >= 0) & (times <= last)):
        ends = f"{float(times.min())!r} to {float(times.max())!r}"
        raise ArgumentError(f"timesteps must be from 0 to {last}; they are from {ends}.")
    for before, after in pairwise(times):
        if not after < before:
            raise ArgumentError(f"timesteps must fall; {float(after)!r} comes after {float(before)!r}.")
    return times


def _check_marginals(times: np.ndarray, log_alpha: np.ndarray, prediction_type: str) -> None:
    if prediction_type == "epsilon" and math.exp(log_alpha[0]) == 0.0:
        raise PlanError(
            f"at the first timestep ({times[0]:g}) the schedule has zero signal-to-noise ratio: a network that "
            f"predicts epsilon says nothing there. Use a model that predicts v or the sample, or another schedule."
        )
    for i in np.flatnonzero(~(log_alpha[1:] > log_alpha[:-1]))[:1]:
        raise ArgumentError(
            f"timesteps {float(times[i])!r} and {float(times[i + 1])!r} have the same alpha; take them farther apart."
        )
