"""The times at which a plan calls the network: from a named spacing, a list of times, or a list of noise levels."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from ..checks import to_vector
from ..errors import ArgumentError
from ..schedule import Schedule
from . import ends, spacing
from .options import require_steps
from .solver import Solver


def from_spacing(
    schedule: Schedule, solver: Solver, steps: int, name: str | None, options: dict[str, Any], begin: float | None
) -> tuple[spacing.Spacing, np.ndarray]:
    """The times of a named spacing, or of the default one.

    Args:
        schedule, solver: They determine the default spacing.
        steps: Number of times.
        name: Name of the spacing; None selects the default, or ``trailing`` where the default starts too late.
        options: Keyword arguments of :func:`spacing.resolve`.
        begin: Where sampling starts, if not from pure noise.

    Returns:
        The spacing that was used, and the times (steps,).

    Raises:
        ArgumentError: the named spacing starts in the middle of the schedule, or an argument is out of range.
    """
    chosen = spacing.resolve(
        schedule, name if name is not None else schedule.timestep_spacing or solver.timestep_spacing, **options
    )
    times = spacing.grid(chosen, schedule, steps, solver.grid)
    if begin is not None or not spacing.starts_in_the_middle(chosen, schedule, times):
        return chosen, times
    if name is None and not chosen.steps_offset:
        chosen = spacing.resolve(schedule, "trailing", **options)
        return chosen, spacing.grid(chosen, schedule, steps, solver.grid)
    count = schedule.num_train_timesteps  # type: ignore[attr-defined]  # only a discrete schedule starts in the middle
    advice = "timestep_spacing='trailing'" + (", and leave steps_offset out" if chosen.steps_offset else "")
    raise ArgumentError(
        f"{chosen.name} spacing with {steps} steps starts at timestep {times[0]:g} of {count}, in the middle of the schedule, but "
        f"sampling starts from pure noise. Use {advice}; or use begin={times[0]:g} to start there from data plus noise."
    )


def reject_spacing_options(timesteps: Any, sigmas: Any, timestep_spacing: Any, *, steps_offset: int, **options: Any) -> None:
    """Raise an ArgumentError if a list of times or noise levels is combined with another grid, or with options of a spacing."""
    given = [n for n, v in (("timesteps", timesteps), ("sigmas", sigmas), ("timestep_spacing", timestep_spacing)) if v is not None]
    if len(given) > 1:
        raise ArgumentError(f"{' and '.join(given)} all determine the times of the network calls; give one of them.")
    if steps_offset != 0:
        raise ArgumentError(f"steps_offset is an option of leading spacing; with {given[0]}, shift the values themselves.")
    for name, value in options.items():
        if value is not None:
            raise ArgumentError(f"{name} is an option of a spacing; leave it out with {given[0]}.")


def from_timesteps(schedule: Schedule, steps: Any, timesteps: Any) -> np.ndarray:
    """A list of times, checked.

    Raises:
        ArgumentError: they do not decrease, are out of range, or ``steps`` is not their number.
    """
    times = _decreasing("timesteps", timesteps)
    _check_count(steps, "timesteps", times)
    try:  # so that the error names the argument
        schedule.log_alpha(times)
    except ArgumentError as error:
        raise ArgumentError(f"timesteps go from {float(times[0])!r} to {float(times[-1])!r}: {error}") from None
    return times


def from_sigmas(
    schedule: Schedule, steps: Any, sigmas: Any, end: float | str | None, ends_itself: bool
) -> tuple[np.ndarray, float | str | None]:
    """The times of a list of noise levels, and where the plan ends.

    Args:
        schedule: The noise schedule.
        steps: Number of network calls, or None.
        sigmas: Noise levels, decreasing; a last 0 is the data.
        end: As for :func:`diffuse_fast.plan`.
        ends_itself: Whether the solver or one of its options determines the end.

    Raises:
        ArgumentError: the levels do not decrease, are out of range, are ambiguous, or ``steps`` is not their number.
    """
    levels = _decreasing("sigmas", sigmas)
    if levels[-1] == 0.0:
        if end not in (None, *ends.WORDS):
            raise ArgumentError(f"sigmas ends in 0, which is the data, but end is {end!r}; leave one of them out.")
        levels, end = levels[:-1], end if ends_itself else "data"
    elif end is None and not ends_itself:
        raise ArgumentError(
            f"sigmas ends in {float(levels[-1])!r}, which is ambiguous. Give end='data' to call the network there and continue to "
            f"the clean data, or end='last' to stop there. A last 0 means end='data' too."
        )
    if levels.size == 0:
        raise ArgumentError(f"sigmas is {sigmas!r}; it must have a noise level above 0.")
    if schedule.family == "discrete" and math.isfinite(high := schedule.noise_level(schedule.t_max)):
        # Published lists are rounded, e.g. to 14.615 and 0.029 for 14.6146 and 0.02917. Clamp their ends to the schedule.
        low = schedule.noise_level(schedule.t_min)
        levels[0] = high if high < levels[0] < 1.001 * high else levels[0]
        levels[-1] = low if 0.99 * low < levels[-1] < low else levels[-1]
    try:
        times = schedule.timestep_at_noise_level(levels)
    except ArgumentError as error:
        raise ArgumentError(f"sigmas go from {float(levels[0])!r} to {float(levels[-1])!r}: {error}") from None
    if end == "last":
        if times.size == 1:
            raise ArgumentError(f"sigmas is {sigmas!r} and end is 'last'; at least one noise level must come before the last.")
        times, end = times[:-1], float(times[-1])
    _check_count(steps, "sigmas", times)
    return times, end


def _decreasing(name: str, values: Any) -> np.ndarray:
    array = to_vector(name, values).copy()  # the caller clamps its ends
    for before, after in pairwise(array):
        if not after < before:
            raise ArgumentError(f"{name} must decrease; {float(after)!r} comes after {float(before)!r}.")
    return array


def _check_count(steps: Any, name: str, values: np.ndarray) -> None:
    if steps is not None and require_steps(steps) != values.size:
        raise ArgumentError(f"steps is {steps}, but {name} has {values.size}; leave one of them out.")
