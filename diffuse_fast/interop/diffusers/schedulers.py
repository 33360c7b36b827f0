"""The diffusers schedulers that can be converted, with their options, and those that cannot, with the reason."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...schedule import Schedule
from . import grids, schedules, solvers
from .config import (
    BETAS,
    CLIP,
    DPM_MULTISTEP,
    EDM,
    ENDS,
    FLOW,
    LATENT_BETAS,
    LEADING,
    LEVELS,
    LINSPACE,
    PREDICTION,
    THRESHOLD,
    ZERO_SNR,
    Config,
)
from .grids import TimeGrid
from .solvers import RAW_EPSILON, SolverChoice, always

_SAME_PREDICTIONS = {name: name for name in ("epsilon", "sample", "v_prediction")}


@dataclass(frozen=True)
class SchedulerSpec:
    """How to convert a scheduler class.

    Attributes:
        options: Its options and their defaults.
        schedule: ``schedule(config, mu)``, its noise schedule.
        grid: ``grid(config, schedule, steps)``, the times at which it calls the network.
        solver: ``solver(config)``, the equivalent solver.
        predictions: Maps its prediction types to ours; or the only prediction type.
    """

    options: Mapping[str, Any]
    schedule: Callable[[Config, float | None], Schedule]
    grid: Callable[[Config, Schedule, int], TimeGrid]
    solver: Callable[[Config], SolverChoice]
    predictions: Mapping[str, str] | str = dataclasses.field(default_factory=lambda: dict(_SAME_PREDICTIONS))


_K_DIFFUSION = {**PREDICTION, **LEVELS, **LINSPACE}
_DPM = {
    **BETAS, **ZERO_SNR, **PREDICTION, **THRESHOLD, **LEVELS, **FLOW, **LINSPACE, "solver_order": 2,
    "lower_order_final": True,
}  # fmt: skip
_DISTILLED = {
    **LATENT_BETAS, "beta_schedule": "scaled_linear", **ZERO_SNR, **CLIP, "clip_sample": False, **PREDICTION, **THRESHOLD,
    **LEADING, "original_inference_steps": 50, "set_alpha_to_one": True, "timestep_scaling": 10.0,
}  # fmt: skip
_DDIM = {**BETAS, **ZERO_SNR, **CLIP, **PREDICTION, **THRESHOLD, **LEADING, "set_alpha_to_one": True}
_DDPM = {**BETAS, **ZERO_SNR, **CLIP, **PREDICTION, **THRESHOLD, **LEADING, "variance_type": "fixed_small"}
_FLOW_MATCH = {
    **LEVELS, "num_train_timesteps": 1000, "shift": 1.0, "use_dynamic_shifting": False, "base_shift": 0.5, "max_shift": 1.15,
    "base_image_seq_len": 256, "max_image_seq_len": 4096, "invert_sigmas": False, "shift_terminal": None,
    "time_shift_type": "exponential",
}  # fmt: skip
_EDM_PREDICTIONS = {"epsilon": "edm", "v_prediction": "v_prediction"}  # EDM's F and −F, scaled by sigma_data

SCHEDULERS: dict[str, SchedulerSpec] = {
    "DDIMScheduler": SchedulerSpec(_DDIM, schedules.discrete("zero"), grids.closed, always("ddim", **RAW_EPSILON)),
    "DDIMParallelScheduler": SchedulerSpec(_DDIM, schedules.discrete("zero"), grids.closed, always("ddim", **RAW_EPSILON)),
    "DDPMScheduler": SchedulerSpec(_DDPM, schedules.discrete("zero"), grids.closed, solvers.ddpm),
    "DDPMParallelScheduler": SchedulerSpec(_DDPM, schedules.discrete("zero"), grids.closed, solvers.ddpm),
    "DDIMInverseScheduler": SchedulerSpec(
        {k: v for k, v in _DDIM.items() if k not in THRESHOLD},
        schedules.discrete("zero"), grids.closed, always("ddim_inverse", **RAW_EPSILON),
    ),
    "LCMScheduler": SchedulerSpec(_DISTILLED, schedules.discrete("zero"), grids.distilled, solvers.lcm),
    "TCDScheduler": SchedulerSpec(_DISTILLED, schedules.discrete("zero"), grids.distilled, solvers.tcd),
    "PNDMScheduler": SchedulerSpec(
        {**BETAS, **PREDICTION, **LEADING, "skip_prk_steps": False, "set_alpha_to_one": False},
        schedules.discrete("zero"), grids.closed, always("pndm"),
    ),
    "EulerDiscreteScheduler": SchedulerSpec(
        {**BETAS, **ZERO_SNR, **_K_DIFFUSION, **ENDS, "interpolation_type": "linear", "timestep_type": "discrete",
         "final_sigmas_type": "zero"},
        schedules.by_noise_level, grids.fractional, always("euler"),
    ),
    "EulerAncestralDiscreteScheduler": SchedulerSpec(
        {**BETAS, **ZERO_SNR, **PREDICTION, **LINSPACE}, schedules.by_noise_level, grids.fractional, always("euler_ancestral")
    ),
    "HeunDiscreteScheduler": SchedulerSpec(
        {**LATENT_BETAS, **_K_DIFFUSION, **CLIP, "clip_sample": False}, schedules.by_noise_level, grids.fractional, always("heun")
    ),
    "KDPM2DiscreteScheduler": SchedulerSpec(
        {**LATENT_BETAS, **_K_DIFFUSION}, schedules.by_noise_level, grids.two_stage, always("dpm_2")
    ),
    "KDPM2AncestralDiscreteScheduler": SchedulerSpec(
        {**LATENT_BETAS, **_K_DIFFUSION}, schedules.by_noise_level, grids.two_stage, always("dpm_2", eta=1.0)
    ),
    "LMSDiscreteScheduler": SchedulerSpec({**BETAS, **_K_DIFFUSION}, schedules.by_noise_level, grids.fractional, always("lms")),
    "DPMSolverMultistepScheduler": SchedulerSpec(
        {**_DPM, **DPM_MULTISTEP, "use_lu_lambdas": False, "lambda_min_clipped": -math.inf, "variance_type": None},
        schedules.by_noise_level, grids.open_ended, solvers.multistep,
    ),
    "DPMSolverSinglestepScheduler": SchedulerSpec(
        {**{k: v for k, v in _DPM.items() if k not in (*ZERO_SNR, *LINSPACE)}, "lower_order_final": False,
         "algorithm_type": "dpmsolver++", "solver_type": "midpoint", "final_sigmas_type": "zero", "lambda_min_clipped": -math.inf,
         "variance_type": None},
        schedules.by_noise_level, grids.open_ended, solvers.singlestep,
    ),
    "IPNDMScheduler": SchedulerSpec(
        {"num_train_timesteps": 1000, "trained_betas": None},
        schedules.sine, grids.sine_grid, always("ipndm", zero_initial_data=True), "v_prediction",
    ),
    "UniPCMultistepScheduler": SchedulerSpec(
        {**_DPM, **ENDS, "predict_x0": True, "solver_type": "bh2", "disable_corrector": [], "solver_p": None,
         "final_sigmas_type": "zero", "shift_terminal": None},
        schedules.by_noise_level, grids.open_ended, solvers.unipc,
    ),
    "DEISMultistepScheduler": SchedulerSpec(
        {**{k: v for k, v in _DPM.items() if k not in ZERO_SNR}, "algorithm_type": "deis", "solver_type": "logrho"},
        schedules.by_noise_level, grids.open_ended, solvers.deis,
    ),
    "FlowMatchEulerDiscreteScheduler": SchedulerSpec(
        {**_FLOW_MATCH, "stochastic_sampling": False}, schedules.flow, grids.flow_match, always("flow_euler"), "flow"
    ),
    "FlowMatchLCMScheduler": SchedulerSpec(
        {**_FLOW_MATCH, "scale_factors": None, "upscale_mode": "bicubic"},
        schedules.flow, grids.flow_match, solvers.flow_lcm, "flow",
    ),
    "FlowMatchHeunDiscreteScheduler": SchedulerSpec(
        {"num_train_timesteps": 1000, "shift": 1.0}, schedules.flow, grids.flow_match, always("flow_heun"), "flow"
    ),
    "CMStochasticIterativeScheduler": SchedulerSpec(
        {"num_train_timesteps": 40, "sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5, "s_noise": 1.0, "rho": 7.0,
         "clip_denoised": True},
        schedules.edm, grids.consistency, always("consistency"), "edm",
    ),
    "ScoreSdeVeScheduler": SchedulerSpec(
        {"num_train_timesteps": 2000, "snr": 0.15, "sigma_min": 0.01, "sigma_max": 1348.0, "sampling_eps": 1e-5,
         "correct_steps": 1},
        schedules.score_sde_ve, grids.score_sde_ve_grid, always("langevin_pc"), "score",
    ),
    "EDMEulerScheduler": SchedulerSpec({**EDM, **PREDICTION}, schedules.edm, grids.edm_grid, always("euler"), _EDM_PREDICTIONS),
    "EDMDPMSolverMultistepScheduler": SchedulerSpec(
        {**EDM, **PREDICTION, **THRESHOLD, **DPM_MULTISTEP, "solver_order": 2, "lower_order_final": True},
        schedules.edm, grids.edm_grid, solvers.multistep, _EDM_PREDICTIONS,
    ),
}  # fmt: skip

# Schedulers that have no equivalent here, with the reason and an alternative.
UNSUPPORTED = {
    "CosineDPMSolverMultistepScheduler": "its noise comes from a Brownian tree. Use df.plan with dpmpp_2m_sde.",
    "DPMSolverSDEScheduler": "its noise comes from a Brownian tree. Use df.plan with dpmpp_2m_sde.",
    "DPMSolverMultistepInverseScheduler": "only DDIM has an inverse here. Use df.plan with ddim_inverse.",
    "SASolverScheduler": "SA-Solver is not implemented. Use df.plan with dpmpp_2m_sde or dpmpp_3m_sde.",
    "RePaintScheduler": "it jumps back and mixes in a known region. Use df.sample with solver='ddpm', known= and mask=.",
    "CogVideoXDDIMScheduler": "its schedule is shifted by snr_shift_scale. Use df.plan with ddim on Schedule.from_alphas_cumprod.",
    "CogVideoXDPMScheduler": "its schedule is shifted by snr_shift_scale. Use df.plan with dpmpp_2m_sde on "
    "Schedule.from_alphas_cumprod.",
    "UnCLIPScheduler": "its documentation recommends DDPMScheduler, which is supported.",
    "DDPMWuerstchenScheduler": "its continuous cosine schedule is not implemented. Use df.plan with ddpm on Schedule.cosine.",
    "KarrasVeScheduler": "it is deprecated in diffusers. Use df.plan with heun on Schedule.edm.",
    "ScoreSdeVpScheduler": "it is deprecated in diffusers. Use df.plan with euler_maruyama on Schedule.vp_sde.",
    "LTXEulerAncestralRFScheduler": "its levels come from its pipeline. Use df.plan with euler_ancestral on Schedule.flow, and "
    "1000 times its sigmas as timesteps.",
    "MiniMaxH3Scheduler": "its shift comes from its pipeline. Use df.plan with flow_euler on Schedule.flow.",
    "SCMScheduler": "its network takes TrigFlow's angle, a schedule that is not implemented.",
    **dict.fromkeys(
        ("FlowMapEulerDiscreteScheduler", "HeliosScheduler", "HeliosDMDScheduler", "PiflowScheduler", "RFD4ProteinaScheduler",
         "ConsistencyDecoderScheduler"),
        "its method is specific to the models of its pipeline and is not implemented.",
    ),
    **dict.fromkeys(
        ("AmusedScheduler", "BlockRefinementScheduler", "DiscreteDDIMScheduler", "EntropyBoundScheduler", "VQDiffusionScheduler"),
        "it samples discrete tokens; plans are for continuous states.",
    ),
}  # fmt: skip
