"""Time grids from the ``sigmas`` or ``timesteps`` that a pipeline passes to a scheduler's ``set_timesteps``."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ...errors import ArgumentError, ArgumentTypeError
from ...schedule import Schedule
from .config import Config, is_continuous, level_spacing, require_steps
from .grids import TimeGrid, flow_match, flow_times, spaced_times
from .schedules import discrete

# Schedulers whose set_timesteps accepts each list.
_TAKE_TIMESTEPS = {
    "DDPMScheduler", "DDPMParallelScheduler", "LCMScheduler", "TCDScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler",
    "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "CMStochasticIterativeScheduler",
    "FlowMatchEulerDiscreteScheduler", "FlowMatchLCMScheduler",
}  # fmt: skip
_TAKE_SIGMAS = {
    "EulerDiscreteScheduler", "UniPCMultistepScheduler", "FlowMatchEulerDiscreteScheduler", "FlowMatchLCMScheduler",
}  # fmt: skip
# Published lists of noise levels are rounded: an end may be this far outside the schedule, relatively.
_TOLERANCE = 1e-2


def listed_grid(
    name: str, config: Config, schedule: Schedule, steps: int | None, sigmas: Any, timesteps: Any
) -> tuple[Schedule, TimeGrid]:
    """The grid for a pipeline's ``sigmas`` or ``timesteps``, and the schedule that its times refer to."""
    for option, values, takers in (("sigmas", sigmas, _TAKE_SIGMAS), ("timesteps", timesteps, _TAKE_TIMESTEPS)):
        if values is not None and name not in takers:
            raise ArgumentError(
                f"{name} does not take {option}; these schedulers do: {', '.join(sorted(takers))}. Give steps instead, or give "
                f"{option} to df.plan."
            )
    matches_flow = name.startswith("FlowMatch")
    if sigmas is not None and timesteps is not None and not matches_flow:
        raise ArgumentError("sigmas and timesteps are both given; give one of them.")
    levels = None if sigmas is None else _falling_list("sigmas", sigmas)
    times = None if timesteps is None else _falling_list("timesteps", timesteps)
    end = int(name == "EulerDiscreteScheduler" and levels is not None)  # the network is not called at the last level
    listed = levels if times is None else times
    assert listed is not None
    calls = len(listed) - end
    if steps is not None and require_steps(steps) != calls:
        raise ArgumentError(f"steps is {steps}, but the list given has {calls}; leave steps out.")
    if matches_flow:
        return schedule, _from_flow_match_list(config, schedule, levels, times)
    if level_spacing(config) is not None:
        raise ArgumentError(f"{name} has a spacing over noise levels, which is not supported with a list; give one of them.")
    if name == "UniPCMultistepScheduler":
        if not config["use_flow_sigmas"]:
            raise ArgumentError("sigmas needs use_flow_sigmas=True, as in diffusers; set it in the configuration, or give steps.")
        return schedule, TimeGrid(flow_times(config, schedule, calls, levels), "down", initial_scale=1.0)
    if levels is not None:
        return _from_euler_levels(config, schedule, levels)
    assert times is not None
    return _from_timesteps(name, config, schedule, times)


def _from_flow_match_list(config: Config, schedule: Schedule, levels: np.ndarray | None, times: np.ndarray | None) -> TimeGrid:
    """The network receives ``timesteps`` unchanged. The levels are shifted; they default to timesteps/num_train_timesteps."""
    if levels is None:
        assert times is not None
        levels = times / config["num_train_timesteps"]
    elif times is not None and len(times) != len(levels):
        raise ArgumentError(f"sigmas has {len(levels)} values and timesteps {len(times)}; their lengths must match.")
    grid = flow_match(config, schedule, len(levels), levels)
    if times is None:
        return grid
    return dataclasses.replace(grid, network_time=lambda time: float(times[int(np.abs(grid.times - time).argmin())]))


def _from_euler_levels(config: Config, schedule: Schedule, levels: np.ndarray) -> tuple[Schedule, TimeGrid]:
    if levels[-1] != 0.0:
        raise ArgumentError(
            f"sigmas ends at {levels[-1]:g}, where diffusers would stop and leave that noise; append 0 to end at the data."
        )
    if is_continuous(config):
        raise ArgumentError("sigmas together with timestep_type='continuous' is not supported; give steps.")
    table = discrete("tiny")(config, None).with_interpolation("log_sigma")
    low, high = (float(table.noise_level(t)) for t in (table.t_min, table.t_max))
    inside = levels[:-1].copy()
    inside[0] = high if high < inside[0] < (1.0 + _TOLERANCE) * high else inside[0]
    inside[-1] = low if (1.0 - _TOLERANCE) * low < inside[-1] < low else inside[-1]
    times = table.timestep_at_noise_level(inside)
    initial = 1.0 if config["timestep_spacing"] == "leading" else float(table.sigma(times[0]))
    return table, TimeGrid(times, initial_scale=initial)


def _from_timesteps(name: str, config: Config, schedule: Schedule, times: np.ndarray) -> tuple[Schedule, TimeGrid]:
    if name == "CMStochasticIterativeScheduler":  # indices of its training levels
        if np.any(times != np.round(times)) or times[-1] < 0 or times[0] >= config["num_train_timesteps"]:
            last = config["num_train_timesteps"] - 1
            raise ArgumentError(f"timesteps are {times.tolist()}; they must be integers from 0 to {last}.")
        training = spaced_times(schedule, "karras", config["num_train_timesteps"])
        return schedule, TimeGrid(training[times[::-1].astype(int)], network_time=lambda time: 1000.0 * time)
    if config.get("use_flow_sigmas") or is_continuous(config):
        raise ArgumentError(f"timesteps of {name} with flow or continuous noise levels are not supported; give steps.")
    if name in ("EulerDiscreteScheduler", "HeunDiscreteScheduler"):
        plain = discrete("tiny")(config, None).with_interpolation("sigma")
        initial = 1.0 if config["timestep_spacing"] == "leading" else float(plain.sigma(times[0]))
        final = 1.0 / float(plain.alpha(0.0)) if config.get("final_sigmas_type") == "sigma_min" else 1.0
        return plain, TimeGrid(times, initial_scale=initial, final_scale=final)
    if np.any(times != np.round(times)):
        raise ArgumentError(f"timesteps are {times.tolist()}; {name} takes integers.")
    return schedule, TimeGrid(times)


def _falling_list(option: str, values: Any) -> np.ndarray:
    try:
        listed = np.asarray(values)
        if listed.dtype.kind not in "iuf":
            raise TypeError
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"{option} is {values!r}; it must be a list of numbers.") from None
    listed = listed.astype(np.float64)
    if listed.ndim != 1 or listed.size == 0 or not np.isfinite(listed).all() or np.any(np.diff(listed) >= 0.0):
        raise ArgumentError(f"{option} is {values!r}; it must be a strictly decreasing list of finite numbers.")
    return listed
