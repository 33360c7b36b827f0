"""The start and the end of a plan: in the middle of the schedule, at the clean data, or before it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..errors import ArgumentError, ArgumentTypeError
from ..schedule import Schedule
from .solver import CLEAN, Grid, Point, Solver

# Solver options that determine the end of the plan, under diffusers' names.
OPTIONS = ("final_sigmas_type", "set_alpha_to_one")
WORDS = ("data", "last")
TOLERANCE = 1e-9  # relative error of a time that was computed from its noise level


def check(solver: Solver, schedule: Schedule, begin: Any, end: Any, sigmas: Any, options: Iterable[str]) -> None:
    """Check ``begin`` and ``end``, and that no other argument determines the end too.

    Args:
        options: Names of the solver's options that were given.

    Raises:
        ArgumentError, ArgumentTypeError: an argument is invalid; the message names it.
    """
    if not solver.from_noise and (begin, end) != (None, None):
        raise ArgumentError(
            f"{solver.name} goes from data to noise; begin and end are for the other direction. Give its times "
            f"with timesteps=[...]."
        )
    if isinstance(end, str) and end not in WORDS:
        raise ArgumentError(f"end is {end!r}; it must be 'data', 'last' (of sigmas), or a time.")
    if end == "last" and sigmas is None:
        raise ArgumentError(
            "end is 'last', the last of sigmas, but there are no sigmas. Give the time at which to end, such as end=20.0."
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
    if end is not None and (other := next((name for name in OPTIONS if name in options), None)):
        raise ArgumentError(f"end and {other} both determine the end of the plan; leave one of them out.")


def cut(times: np.ndarray, begin: float | None, end: float | str | None) -> np.ndarray:
    """The times at which the network is called: ``begin`` and the times below it, down to the last above ``end``."""
    if begin is not None:
        times = np.concatenate([[float(begin)], times[times < begin * (1.0 - TOLERANCE)]])
    if end is not None and not isinstance(end, str):
        first, times = times[0], times[times > end * (1.0 + TOLERANCE)]
        if times.size == 0:
            raise ArgumentError(f"the first call is at time {first:g}, but end is {float(end):g}; it must be below.")
    return times


def point(grid: Grid, solver: Solver, end: float | str | None, options: dict[str, Any]) -> Point:
    """The point at which the last step ends.

    Raises:
        ArgumentError: the last call already has less noise, or the schedule has no timestep 0.
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
    if found.lam >= last.lam:  # the last time may be the end of the schedule
        return found
    if math.isclose(found.lam, last.lam, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
        return last
    raise ArgumentError(
        f"the last call is at time {last.time:g}, which has less noise than time {float(end):g}, the end of the plan. Leave it "
        f"out of the grid, or use another end, such as end='data'."
    )


def initial_scale(grid: Grid, begin: float | None) -> float:
    """The factor of the sampler's initial noise. With ``begin`` the sampler takes the state itself (x0 + σ·ε in EDM's schedule)."""
    if begin is None:
        return grid.initial_scale
    return grid.points[0].alpha if grid.schedule.family == "edm" else 1.0
