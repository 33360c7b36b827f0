"""Where a plan begins and where it ends: in the middle of the schedule, at the clean data, or before it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..errors import ArgumentError, ArgumentTypeError
from ..schedule import Schedule
from .solver import CLEAN, Grid, Point, Solver

# Options of solvers that say where the plan ends, under diffusers' names.
OPTIONS = ("final_sigmas_type", "set_alpha_to_one")
WORDS = ("data", "last")
NEAR = 1e-9  # a time found by its noise level is that close to the one meant, relatively


def check(solver: Solver, schedule: Schedule, begin: Any, end: Any, sigmas: Any, options: Iterable[str]) -> None:
    """Checks ``begin`` and ``end``, and that nothing else says the same.

    Args:
        options: Names of the solver's options that were given.

    Raises:
        ArgumentError, ArgumentTypeError: the message names what is wrong.
    """
    if not solver.from_noise and (begin, end) != (None, None):
        raise ArgumentError(
            f"{solver.name} goes from data to noise; begin and end are those of the other way. Give its times with timesteps=[...]."
        )
    if isinstance(end, str) and end not in WORDS:
        raise ArgumentError(f"end is {end!r}; it must be 'data', 'last' (of sigmas), or a time.")
    if end == "last" and sigmas is None:
        raise ArgumentError(
            "end is 'last', which is the last of sigmas. Every time of another grid is called; give a time to end at, as end=20.0."
        )
    for name, time in (("begin", begin), ("end", end)):
        if time is None or isinstance(time, str):
            continue
        if isinstance(time, bool) or not isinstance(time, int | float | np.integer | np.floating):
            raise ArgumentTypeError(f"{name} is {time!r}; it must be a time of the schedule.")
        try:
            schedule.log_alpha(time)
        except ArgumentError as error:
            raise ArgumentError(f"{name} is {time!r}: {error}") from None
    if end is not None and (said := next((name for name in OPTIONS if name in options), None)):
        raise ArgumentError(f"end and {said} both say where the plan ends; leave one of them out.")


def cut(times: np.ndarray, begin: float | None, end: float | str | None) -> np.ndarray:
    """The part of a grid that is called: ``begin`` and the times below it, down to the last above ``end``."""
    if begin is not None:
        times = np.concatenate([[float(begin)], times[times < begin * (1.0 - NEAR)]])
    if end is not None and not isinstance(end, str):
        first, times = times[0], times[times > end * (1.0 + NEAR)]
        if times.size == 0:
            raise ArgumentError(f"the first call is at time {first:g}, and end is {float(end):g}; it must be below.")
    return times


def point(grid: Grid, solver: Solver, end: float | str | None, options: dict[str, Any]) -> Point:
    """Where the last step goes.

    Raises:
        ArgumentError: the last call has less noise already, or the schedule has no timestep 0.
    """
    schedule = grid.schedule
    if end is None and solver.from_noise:
        if options.get("set_alpha_to_one") is False:
            if schedule.family != "discrete":
                raise ArgumentError(f"set_alpha_to_one=False ends at timestep 0, which the family {schedule.family} does not have.")
            end = 0.0
        elif options.get("final_sigmas_type") == "sigma_min":
            end = schedule.t_min
    if end is None or isinstance(end, str):
        return CLEAN
    (found,) = grid.at_times(np.array([float(end)]))
    if found.sigma == 0.0:
        return CLEAN
    last = grid.points[-1]
    if found.lam >= last.lam:  # the grid may end where the schedule does
        return found
    if math.isclose(found.lam, last.lam, rel_tol=NEAR, abs_tol=NEAR):
        return last
    raise ArgumentError(
        f"the last call is at time {last.time:g}, which has less noise than time {float(end):g}, where the plan is to end. Leave "
        f"it out of the grid, or end elsewhere, as with end='data'."
    )


def initial_scale(grid: Grid, begin: float | None) -> float:
    """What the noise that a sampler is given is multiplied by. At ``begin`` that is no noise, but the state itself: in EDM's
    schedule x0 + σ·ε."""
    if begin is None:
        return grid.initial_scale
    return grid.points[0].alpha if grid.schedule.family == "edm" else 1.0
