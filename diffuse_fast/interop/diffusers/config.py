"""Options that several diffusers schedulers share: their defaults, and how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...checks import require_int
from ...errors import ArgumentError
from ...plans.plan import DynamicThreshold
from ...solver import spacing

Config = dict[str, Any]

# ---- defaults -----------------------------------------------------------------------------------

BETAS = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear", "trained_betas": None}
LATENT_BETAS = {**BETAS, "beta_start": 0.00085, "beta_end": 0.012}
ZERO_SNR = {"rescale_betas_zero_snr": False}
CLIP = {"clip_sample": True, "clip_sample_range": 1.0}
THRESHOLD = {"thresholding": False, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0}
PREDICTION = {"prediction_type": "epsilon"}
LEVELS = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
FLOW = {"use_flow_sigmas": False, "flow_shift": 1.0, "use_dynamic_shifting": False, "time_shift_type": "exponential"}
LEADING = {"timestep_spacing": "leading", "steps_offset": 0}
LINSPACE = {"timestep_spacing": "linspace", "steps_offset": 0}
ENDS = {"sigma_min": None, "sigma_max": None}
DPM_MULTISTEP = {"algorithm_type": "dpmsolver++", "solver_type": "midpoint", "euler_at_final": False, "final_sigmas_type": "zero"}
EDM = {
    "sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5, "sigma_schedule": "karras", "num_train_timesteps": 1000, "rho": 7.0,
    "final_sigmas_type": "zero",
}  # fmt: skip

# Options that determine the schedule, the time grid, the clip or the prediction type, not the solver.
NOT_SOLVER_OPTIONS = {
    *BETAS, *ZERO_SNR, *CLIP, *PREDICTION, *LEVELS, *FLOW, *LINSPACE, *ENDS, "use_lu_lambdas", "lambda_min_clipped",
    "sigma_data", "sigma_schedule", "rho", "shift", "shift_terminal", *THRESHOLD, "clip_denoised", "original_inference_steps",
    "sampling_eps", "timestep_type",
}  # fmt: skip
# Options without an effect on the scheduler itself: pipelines compute mu from them.
INERT = {"base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len"}

_LEVEL_SPACINGS = {
    "use_karras_sigmas": "karras",
    "use_exponential_sigmas": "exponential",
    "use_beta_sigmas": "beta_sigmas",
    "use_lu_lambdas": "log_snr",
}

# ---- reading ------------------------------------------------------------------------------------


def prediction_type(name: str, config: Config, predictions: Mapping[str, str] | str) -> str:
    """The prediction type of a scheduler's networks. ``predictions`` maps diffusers' names to ours, or is the only type."""
    if isinstance(predictions, str):
        return predictions
    if config.get("use_flow_sigmas"):
        predictions = {"flow_prediction": "flow"}
    given = config["prediction_type"]
    if given not in predictions:
        raise ArgumentError(f"{name} has prediction_type={given!r}; it must be {' or '.join(map(repr, predictions))}.")
    return predictions[given]


def clip(config: Config) -> tuple[float, float] | DynamicThreshold | None:
    """The clip of the data prediction, as ``df.plan`` takes it."""
    # UniPC in the noise form makes no data prediction, so there is nothing to threshold.
    if config.get("thresholding", False) and config.get("predict_x0", True):
        ratio, largest = config["dynamic_thresholding_ratio"], config["sample_max_value"]
        try:
            return DynamicThreshold(ratio, largest)
        except ArgumentError as error:
            raise ArgumentError(f"dynamic_thresholding_ratio is {ratio!r} and sample_max_value {largest!r}: {error}") from None
    if config.get("clip_denoised", False):
        return -1.0, 1.0
    if not config.get("clip_sample", False):
        return None
    bound = float(config["clip_sample_range"])
    return -bound, bound


def level_spacing(config: Config) -> str | None:
    """The spacing over noise levels that the configuration selects, or None."""
    selected = [option for option in _LEVEL_SPACINGS if config.get(option)]
    if len(selected) > 1:
        raise ArgumentError(f"{' and '.join(selected)} are all True; at most one may be.")
    return _LEVEL_SPACINGS[selected[0]] if selected else None


def is_continuous(config: Config) -> bool:
    """Whether the network's time is log(σ)/4 for any σ: EDM's convention, with sigma_data 1 because x is scaled by 1/sqrt(σ² + 1).

    In diffusers ``timestep_type="continuous"`` has an effect only with v-prediction.
    """
    return config.get("timestep_type") == "continuous" and config["prediction_type"] == "v_prediction"


def require_steps(steps: Any) -> int:
    """``steps`` as an int, checked before any grid is computed."""
    if steps is None:
        raise ArgumentError("steps is missing; give steps, or the timesteps or sigmas of the pipeline.")
    steps = require_int("steps", steps, 1)
    if steps > spacing.MAX_STEPS:
        raise ArgumentError(f"steps is {steps}; a plan has at most {spacing.MAX_STEPS}.")
    return steps
