"""The noise schedule that the options of a diffusers scheduler describe: functions ``(config, mu) -> Schedule``."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ...checks import require_number
from ...errors import ArgumentError, suggest
from ...schedule import Schedule
from ...schedule.discrete import DiscreteSchedule
from .config import Config, is_continuous, level_spacing

_BETA_SCHEDULES = {"linear": Schedule.linear, "scaled_linear": Schedule.scaled_linear, "sigmoid": Schedule.sigmoid}


def discrete(terminal: str) -> Callable[[Config, float | None], DiscreteSchedule]:
    """The function that makes a discrete schedule.

    ``terminal`` is the last alphas_cumprod after rescaling to zero terminal SNR: ``zero``, or ``tiny`` for diffusers' 2^-24, which
    keeps its largest sigma finite.
    """

    def schedule(config: Config, mu: float | None) -> DiscreteSchedule:
        _reject_mu(mu)
        count, kind = config["num_train_timesteps"], config["beta_schedule"]
        if config["trained_betas"] is not None:
            made = Schedule.from_betas(config["trained_betas"])
        elif kind == "squaredcos_cap_v2":
            made = Schedule.cosine(count)
        elif kind in _BETA_SCHEDULES:
            made = _BETA_SCHEDULES[kind](count, config["beta_start"], config["beta_end"])
        else:
            known = [*_BETA_SCHEDULES, "squaredcos_cap_v2"]
            raise ArgumentError(f"beta_schedule is {kind!r}, which is not supported.{suggest(str(kind), known)}")
        if config.get("rescale_betas_zero_snr"):
            made = made.rescale_zero_terminal_snr()
            if terminal == "tiny":
                if made.alphas_cumprod[-2] <= 2.0**-24:
                    raise ArgumentError(
                        "rescale_betas_zero_snr=True is not supported with these betas: diffusers sets the last alphas_cumprod to "
                        f"2^-24, which is more than the {made.alphas_cumprod[-2]:.2g} before it."
                    )
                made = Schedule.from_alphas_cumprod([*made.alphas_cumprod[:-1], 2.0**-24])
        return made

    return schedule


def by_noise_level(config: Config, mu: float | None) -> Schedule:
    """The schedule of a scheduler that works on noise levels, with its interpolation between timesteps."""
    if config.get("use_dynamic_shifting"):
        if not config["use_flow_sigmas"]:
            raise ArgumentError("use_dynamic_shifting=True shifts flow sigmas; it needs use_flow_sigmas=True.")
        if config["time_shift_type"] != "exponential":
            asked = config["time_shift_type"]
            raise ArgumentError(f"time_shift_type={asked!r} is not supported; it must be 'exponential', as in diffusers.")
    if config.get("use_flow_sigmas"):
        return Schedule.flow(config["num_train_timesteps"], _shift(config, config["flow_shift"], mu))
    if is_continuous(config):
        table = discrete("tiny")(config, mu)
        low, high = (float(table.noise_level(t)) for t in (table.t_min, table.t_max))
        return Schedule.edm(config["sigma_min"] or low, config["sigma_max"] or high, sigma_data=1.0)
    fractional = config.get("timestep_spacing") == "linspace" and level_spacing(config) is None
    return discrete("tiny")(config, mu).with_interpolation("sigma" if fractional else "log_sigma")


def flow(config: Config, mu: float | None) -> Schedule:
    return Schedule.flow(config["num_train_timesteps"], _shift(config, config["shift"], mu))


def score_sde_ve(config: Config, mu: float | None) -> Schedule:
    _reject_mu(mu)
    return Schedule.ve_sde(config["sigma_min"], config["sigma_max"], config["sampling_eps"])


def sine(config: Config, mu: float | None) -> DiscreteSchedule:
    """IPNDM's schedule: sigma = sin²(π·u/2), u evenly spaced. diffusers' table has one entry per step; this one has all training
    timesteps, and a step is found in it by its noise level."""
    _reject_mu(mu)
    if config["trained_betas"] is not None:
        raise ArgumentError("trained_betas is not supported for IPNDMScheduler, whose steps would then be those of the list.")
    count = config["num_train_timesteps"]
    sigma = sine_sigma(np.arange(1, count + 1) / count)
    return Schedule.from_alphas_cumprod((1.0 - sigma) * (1.0 + sigma))


def sine_sigma(u: np.ndarray) -> np.ndarray:
    return np.sin(0.5 * math.pi * u) ** 2


def edm(config: Config, mu: float | None) -> Schedule:
    _reject_mu(mu)
    return Schedule.edm(config["sigma_min"], config["sigma_max"], config["sigma_data"], config["rho"])


def _shift(config: Config, shift: float, mu: float | None) -> float:
    """The shift of a flow. A dynamic shift is computed from mu: e^mu·σ/(1 + (e^mu − 1)·σ) = e^mu/(e^mu + 1/σ − 1)."""
    if not config.get("use_dynamic_shifting"):
        _reject_mu(mu)
        return shift
    if mu is None:
        raise ArgumentError("use_dynamic_shifting is True, so the shift depends on the size of the sample; give mu=...")
    shifted = require_number("mu", mu)
    return shifted if config["time_shift_type"] == "linear" else math.exp(shifted)


def _reject_mu(mu: float | None) -> None:
    if mu is not None:
        raise ArgumentError("mu is given, but use_dynamic_shifting is not True for this scheduler.")
