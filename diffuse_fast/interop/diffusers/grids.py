"""The times at which a diffusers scheduler calls its network: functions ``(config, schedule, steps) -> TimeGrid``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import ArgumentError
from ...schedule import Schedule
from ...solver import spacing
from .config import Config, level_spacing
from .schedules import discrete, sine_sigma


@dataclass(frozen=True)
class TimeGrid:
    """The times at which a scheduler calls its network, and the scales of its first and last state.

    Attributes:
        times: In the unit of the schedule, decreasing.
        rounding: ``timestep_rounding`` of :func:`diffuse_fast.plan`.
        stages_rounded: Whether times of intermediate stages are rounded too.
        initial_scale: The plan's initial scale; None keeps the solver's.
        network_time: Maps a time in the schedule's convention to the network's input; None leaves it unchanged.
        final_scale: Ratio of the scheduler's last state to that of the plan.
    """

    times: np.ndarray
    rounding: str = "none"
    stages_rounded: bool = True
    initial_scale: float | None = None
    network_time: Callable[[float], float] | None = None
    final_scale: float = 1.0


def spaced_times(schedule: Schedule, name: str, steps: int, style: str = "closed", **options: Any) -> np.ndarray:
    """The times of a named spacing."""
    return spacing.grid(spacing.resolve(schedule, name, **options), schedule, steps, style)


def closed(config: Config, schedule: Schedule, steps: int) -> TimeGrid:
    """DDIM, DDPM and PNDM: integer timesteps."""
    name, offset = config["timestep_spacing"], config["steps_offset"]
    return TimeGrid(spaced_times(schedule, name, steps, steps_offset=offset if name == "leading" else 0))


def fractional(config: Config, schedule: Schedule, steps: int) -> TimeGrid:
    """The k-diffusion family: fractional timesteps. A spacing over noise levels has the ends of the plain grid."""
    name, level = config["timestep_spacing"], level_spacing(config)
    plain = discrete("tiny")(config, None).with_interpolation("sigma")
    times = spaced_times(plain, name, steps, "fractional", steps_offset=config["steps_offset"] if name == "leading" else 0)
    levels = plain.noise_level(times)
    if level is not None:
        high = float(levels[0]) if config.get("sigma_max") is None else config["sigma_max"]
        low = float(levels[-1]) if config.get("sigma_min") is None else config["sigma_min"]
        if steps > 1:
            times = spaced_times(schedule, level, steps, sigma_min=low, sigma_max=high)
        else:
            times = schedule.timestep_at_noise_level(np.array([high]))
    elif schedule.family == "edm":
        times = levels
    # k-diffusion's state x0 + σ·ε is 1/alpha times the state here. At the data both are the same.
    final = 1.0 / float(plain.alpha(0.0)) if config.get("final_sigmas_type") == "sigma_min" else 1.0
    # init_noise_sigma is sqrt(sigma_max² + 1) with leading spacing, which is 1 on the scale of the state here, else sigma_max.
    initial = 1.0 if name == "leading" else float(schedule.sigma(times[0]))
    return TimeGrid(times, initial_scale=initial, final_scale=final)


def two_stage(config: Config, schedule: Schedule, steps: int) -> TimeGrid:
    """DPM-2. With Karras levels the network's timesteps are integers on the grid and fractional at the intermediate stages."""
    grid = fractional(config, schedule, steps)
    return dataclasses.replace(grid, rounding="nearest", stages_rounded=False) if config["use_karras_sigmas"] else grid


def open_ended(config: Config, schedule: Schedule, steps: int) -> TimeGrid:
    """The DPM-Solver family: integer timesteps. A spacing over noise levels spans the whole schedule."""
    level = level_spacing(config)
    if config["use_flow_sigmas"]:
        if level is not None:
            raise ArgumentError("use_flow_sigmas=True together with a spacing over noise levels is not supported.")
        return TimeGrid(flow_times(config, schedule, steps), "down", initial_scale=1.0)
    if level is not None:
        rounded = level in ("karras", "log_snr") and not (
            "use_lu_lambdas" in config and config["beta_schedule"] == "squaredcos_cap_v2"
        )
        times = spaced_times(schedule, level, steps, sigma_min=config.get("sigma_min"), sigma_max=config.get("sigma_max"))
        return TimeGrid(times, "nearest" if rounded else "down")
    name = config.get("timestep_spacing", "linspace")  # DPMSolverSinglestep has no timestep_spacing
    offset = config["steps_offset"] if name == "leading" else 0
    clipped = _without_low_snr(config, schedule)
    if clipped is not schedule and name == "trailing":
        raise ArgumentError("lambda_min_clipped together with timestep_spacing='trailing' is not supported.")
    return TimeGrid(spaced_times(clipped, name, steps, "open", steps_offset=offset))


def _without_low_snr(config: Config, schedule: Schedule) -> Schedule:
    """The schedule without the last timesteps, whose half log-SNR is below ``lambda_min_clipped``."""
    alphas_cumprod = schedule.alphas_cumprod  # type: ignore[attr-defined]  # guaranteed by the scheduler class
    half = 0.5 * schedule.log_snr(np.arange(len(alphas_cumprod)))
    keep = int(np.count_nonzero(half >= config.get("lambda_min_clipped", -math.inf)))
    return schedule if keep == len(alphas_cumprod) else Schedule.from_alphas_cumprod(alphas_cumprod[:keep])


def flow_times(config: Config, schedule: Schedule, steps: int, sigmas: np.ndarray | None = None) -> np.ndarray:
    """Times of the DPM-Solver family with ``use_flow_sigmas``."""
    count = schedule.num_train_timesteps  # type: ignore[attr-defined]  # guaranteed by the scheduler class
    if "shift_terminal" in config:  # UniPC
        even = np.linspace(1.0, 1.0 / count, steps + 1)[:-1] if sigmas is None else sigmas
        sigma = schedule.shifted(even)  # type: ignore[attr-defined]  # guaranteed by the scheduler class
        sigma = _stretched(sigma, config["shift_terminal"])
        sigma[0] -= 1e-6 if abs(sigma[0] - 1.0) < 1e-6 else 0.0
    else:
        even = 1.0 - np.linspace(1.0, 1.0 / count, steps + 1)
        sigma = schedule.shifted(even)[::-1][:-1]  # type: ignore[attr-defined]  # guaranteed by the scheduler class
    return sigma * count


def _stretched(sigma: np.ndarray, terminal: float | None) -> np.ndarray:
    """Stretch levels about 1 so that the last is ``shift_terminal``."""
    if not terminal:
        return sigma
    if sigma[-1] == 1.0:
        raise ArgumentError(f"shift_terminal={terminal!r} needs at least 2 steps: the only level of one step is 1.")
    return 1.0 - (1.0 - sigma) * (1.0 - terminal) / (1.0 - sigma[-1])


def flow_match(config: Config, schedule: Schedule, steps: int, sigmas: np.ndarray | None = None) -> TimeGrid:
    """Flow matching. ``sigmas`` replace the even levels."""
    # diffusers shifts the smallest level when the scheduler is made, unless the shift depends on the size of the sample.
    shifted = schedule.shifted  # type: ignore[attr-defined]  # guaranteed by the scheduler class
    count = config["num_train_timesteps"]
    low = 1.0 / count if config.get("use_dynamic_shifting") else shifted(1.0 / count)
    sigma = _stretched(shifted(np.linspace(1.0, low, steps) if sigmas is None else sigmas), config.get("shift_terminal"))
    level = level_spacing(config)
    if level is None or steps == 1:
        times = sigma * count
    else:
        times = spaced_times(schedule, level, steps, sigma_min=float(sigma[-1]), sigma_max=float(sigma[0]))
    return TimeGrid(times, initial_scale=1.0)


def edm_grid(config: Config, schedule: Schedule, steps: int) -> TimeGrid:
    """EDM: Karras or exponential levels. The initial state includes data of unit variance."""
    name = config["sigma_schedule"]
    if name not in ("karras", "exponential"):
        raise ArgumentError(f"sigma_schedule is {name!r}; it must be 'karras' or 'exponential'.")
    high = config["sigma_max"]
    return TimeGrid(spaced_times(schedule, name, steps), initial_scale=math.hypot(high, 1.0) * schedule.alpha(high))


def distilled(config: Config, schedule: Schedule, steps: int) -> TimeGrid:
    """LCM and TCD: a subset of the timesteps that the model was distilled on."""
    train, original = config["num_train_timesteps"], config["original_inference_steps"]
    if not 1 <= original <= train:
        raise ArgumentError(f"original_inference_steps is {original!r}; it must be from 1 to num_train_timesteps, {train}.")
    if steps > original:
        raise ArgumentError(f"steps is {steps}; original_inference_steps allows 1 to {original}.")
    falling = np.arange(original, 0, -1) * (train // original) - 1
    return TimeGrid(falling[np.floor(np.linspace(0, original, steps, endpoint=False)).astype(int)].astype(np.float64))


def consistency(config: Config, schedule: Schedule, steps: int) -> TimeGrid:
    """Consistency models: every k-th level of the training grid, from the largest. The network's time is 250·log(σ)."""
    train = config["num_train_timesteps"]
    if steps > train:
        raise ArgumentError(f"steps is {steps}; num_train_timesteps allows 1 to {train}.")
    training = spaced_times(schedule, "karras", train)
    return TimeGrid(training[:: train // steps][:steps], network_time=lambda time: 1000.0 * time)


def sine_grid(config: Config, schedule: Schedule, steps: int) -> TimeGrid:
    """IPNDM. The network's time is the angle of (alpha, sigma), divided by π/2."""
    if steps > config["num_train_timesteps"]:
        raise ArgumentError(f"steps is {steps}; num_train_timesteps allows 1 to {config['num_train_timesteps']}.")
    sigma = sine_sigma(np.arange(steps, 0, -1) / steps)
    with np.errstate(divide="ignore"):
        level = sigma / np.sqrt((1.0 - sigma) * (1.0 + sigma))
    level = np.maximum(level[1:], schedule.noise_level(schedule.t_min))  # rounding may put the last level below
    times = np.append(schedule.t_max, schedule.timestep_at_noise_level(level))

    def network_time(time: float) -> float:
        return 2.0 / math.pi * math.atan2(float(schedule.sigma(time)), float(schedule.alpha(time)))

    return TimeGrid(times, network_time=network_time)


def score_sde_ve_grid(config: Config, schedule: Schedule, steps: int) -> TimeGrid:
    """ScoreSdeVe: levels even in log(σ) down to sigma_min. The levels given to the network end at t = sampling_eps instead."""
    low, log_ratio = config["sigma_min"], math.log(config["sigma_max"] / config["sigma_min"])

    def network_time(sigma: float) -> float:
        t = math.log(sigma / low) / log_ratio
        return low * math.exp(log_ratio * (1.0 - (1.0 - t) * (1.0 - config["sampling_eps"])))

    return TimeGrid(np.linspace(1.0, 0.0, steps) if steps > 1 else np.ones(1), network_time=network_time)
