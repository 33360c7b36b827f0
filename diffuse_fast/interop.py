"""diffusers' schedulers as schedules and plans, read from their configuration; diffusers itself is not needed.

``PEERS`` says for each scheduler class which solver it is here, what its options are and their defaults. An option is honoured
in one of four ways: the schedule, the grid or the clip is made from it; it is an option of the solver, under the same name;
it has its default; or it changes nothing by itself (``INERT``). Anything else is an error that names it. What is an option of
another class only has no effect in diffusers, whose configurations carry such along when one class is made from another's; here it
has none either.

Where the numbers differ from the peer's, it is by design:

* its tables are float32, and its cosine table takes 1 − alphas_cumprod from rounded numbers; ours are float64;
* DDIM and PNDM take their previous timestep from T // steps, which is not the grid's with ``linspace``, nor with ``trailing`` where
  steps does not divide T; ours is the grid's (diffusers #9261);
* PNDM's Runge-Kutta start takes T // steps // 2 for half its step, also where T // steps is odd; ours ends at the grid's timestep;
* DDPM whose last timestep is not 0 adds noise to its result, which only ``fixed_large`` shows; ours does not (Algorithm 2, line 3);
* UniPC has NaN at sigma 0 with ``bh1``, ``predict_x0=False`` or ``lower_order_final=False``; ours ends with a step of first order;
* PNDM combines what the network says as it is, also v, of several states; ours combines the ε's, as the paper does;
* DPMSolverSinglestep thresholds with another timestep's alpha where ``algorithm_type`` is ``dpmsolver``; ours with its own;
* its ``trailing`` grids have one timestep too many, −1, for some counts; ours have not;
* where it rounds a time down that is whole but for a rounding error, ours stays;
* DDIMInverse with ``trailing`` takes the timestep before from T // steps; ours is the grid's;
* DEIS with a spacing over noise levels and one step stays where it is; ours goes to the cleanest timestep;
* EDM schedulers with ``exponential`` and one step start at the smallest level; ours start at the largest;
* a list of ``sigmas`` for Euler whose first or last is rounded out of the schedule is brought back to its end;
* ScoreSdeVe of one step takes its only noise level for the smallest; ours is the largest, where it starts. Its corrector averages
  norms over the batch, ours has one per sample.

A step that is too long for its solver (``solver/leaps.py``) is taken as diffusers takes it, with a ``LongStepWarning``;
``diffuse_fast.plan`` takes it at first order.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import ArgumentError, ArgumentTypeError, LongStepWarning, suggest
from .plans.plan import DynamicThreshold, Plan
from .schedule import Schedule
from .schedule.checks import number
from .schedule.discrete import DiscreteSchedule
from .solver import SOLVERS, ends, spacing
from .solver import plan as solver_plan
from .solver.solver import ROUNDINGS

# ---- the options that schedulers share, and their defaults ----------------------------------------------

_BETAS = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear", "trained_betas": None}
_LATENT_BETAS = {**_BETAS, "beta_start": 0.00085, "beta_end": 0.012}
_ZERO_SNR = {"rescale_betas_zero_snr": False}
_CLIP = {"clip_sample": True, "clip_sample_range": 1.0}
_THRESHOLD = {"thresholding": False, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0}
_PREDICTION = {"prediction_type": "epsilon"}
_LEVELS = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
_FLOW = {"use_flow_sigmas": False, "flow_shift": 1.0, "use_dynamic_shifting": False, "time_shift_type": "exponential"}
_LEADING = {"timestep_spacing": "leading", "steps_offset": 0}
_LINSPACE = {"timestep_spacing": "linspace", "steps_offset": 0}
_ENDS = {"sigma_min": None, "sigma_max": None}
_EDM = {
    "sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5, "sigma_schedule": "karras", "num_train_timesteps": 1000, "rho": 7.0,
    "final_sigmas_type": "zero",
}  # fmt: skip

# What the schedule, the grid, the clip and the prediction type are made of.
_MADE_FROM = {
    *_BETAS, *_ZERO_SNR, *_CLIP, *_PREDICTION, *_LEVELS, *_FLOW, *_LINSPACE, *_ENDS, "use_lu_lambdas", "lambda_min_clipped",
    "sigma_data", "sigma_schedule", "rho", "shift", "shift_terminal", *_THRESHOLD, "clip_denoised", "original_inference_steps",
    "sampling_eps", "timestep_type",
}  # fmt: skip
# What changes nothing by itself: pipelines make their mu of it.
INERT = {"base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len"}

_LEVEL_OPTIONS = {
    "use_karras_sigmas": "karras",
    "use_exponential_sigmas": "exponential",
    "use_beta_sigmas": "beta_sigmas",
    "use_lu_lambdas": "log_snr",
}
_BETA_SCHEDULES = {"linear": Schedule.linear, "scaled_linear": Schedule.scaled_linear, "sigmoid": Schedule.sigmoid}
_PREDICTIONS = {t: t for t in ("epsilon", "sample", "v_prediction")}

Config = dict[str, Any]


@dataclass(frozen=True)
class _Grid:
    """Where a scheduler calls its network.

    Attributes:
        times: In the schedule's unit.
        rounding: ``timestep_rounding`` of :func:`diffuse_fast.plan`.
        stages_rounded: Whether it holds for the stages between the grid's times too.
        initial_scale: Of the plan; None is the solver's.
        told: What the network is told of the time, from what the schedule would tell it; None is the same.
        final_scale: What the scheduler's last state is of the one here.
    """

    times: np.ndarray
    rounding: str = "none"
    stages_rounded: bool = True
    initial_scale: float | None = None
    told: Callable[[float], float] | None = None
    final_scale: float = 1.0


# A solver, options of it, and the peer's options that are settled by it.
_Choice = tuple[str, dict[str, Any], tuple[str, ...]]


@dataclass(frozen=True)
class Peer:
    """A scheduler class.

    Attributes:
        options: Its options and their defaults.
        schedule: What schedule its options say.
        grid: ``grid(config, schedule, steps, mu)``.
        solver: The solver it is here, options of it that the class itself fixes, and which of its own options that settles.
        predictions: Its prediction types, and what they are here; or what all its networks predict.
    """

    options: Mapping[str, Any]
    schedule: Callable[[Config, float | None], Schedule]
    grid: Callable[[Config, Schedule, int], _Grid]
    solver: Callable[[Config], _Choice]
    predictions: Mapping[str, str] | str = dataclasses.field(default_factory=lambda: _PREDICTIONS)


# ---- public ---------------------------------------------------------------------------------------------


def schedule_from_diffusers(scheduler: Any, *, mu: float | None = None) -> Schedule:
    """See :meth:`diffuse_fast.Schedule.from_diffusers`."""
    _, peer, config = _read(scheduler)
    return peer.schedule(config, mu)


def plan_from_diffusers(
    scheduler: Any,
    steps: int | None = None,
    *,
    mu: float | None = None,
    sigmas: Any = None,
    timesteps: Any = None,
    **solver_options: Any,
) -> Plan:
    """See :meth:`diffuse_fast.Plan.from_diffusers`."""
    name, peer, config = _read(scheduler)
    for option in solver_options:
        if option in _FROM_CONFIGURATION:
            raise ArgumentError(f"{option} follows from the configuration of {name}; {_FROM_CONFIGURATION[option]}.")
    solver, options, settled = peer.solver(config)
    schedule = peer.schedule(config, mu)
    if sigmas is None and timesteps is None:
        grid = peer.grid(config, schedule, _whole(steps))
    else:
        schedule, grid = _given(name, config, schedule, steps, sigmas, timesteps)
    if solver not in SOLVERS:
        raise ArgumentError(f"{name} is the solver {solver!r} here, which this version does not have.{suggest(solver, SOLVERS)}")
    if config.get("final_sigmas_type") == "sigma_min" and schedule.family != "discrete" and peer.schedule is not _edm:
        raise ArgumentError(
            f"{name} has final_sigmas_type='sigma_min', which is not honoured with a schedule of the family {schedule.family}: "
            f"there it ends with a step of no width, or at a level of another schedule."
        )
    known = SOLVERS[solver].options
    for option, default in peer.options.items():
        if option in _MADE_FROM or option in INERT or option in settled:
            continue
        value = config[option]
        if option in known:
            options[option] = value
        elif value != default:
            raise ArgumentError(f"{name} has {option}={value!r}, which is not honoured here; only {default!r} is.")
    if "use_clipped_model_output" in solver_options:
        if "rederive_epsilon" in solver_options:
            raise ArgumentError("use_clipped_model_output and rederive_epsilon are the same option; give one of them.")
        if options.get("rederive_epsilon") is not False:
            raise ArgumentTypeError(f"{name} has no use_clipped_model_output; leave it out.")
        solver_options["rederive_epsilon"] = solver_options.pop("use_clipped_model_output")
    for option in solver_options:
        if option in options and option in peer.options:
            raise ArgumentError(f"{option} is an option of {name}; change it there.")
    plan = make_plan(
        schedule,
        solver,
        prediction_type=_prediction(name, peer, config),
        clip=_clip(config),
        timesteps=grid.times,
        timestep_rounding=grid.rounding if grid.stages_rounded else "none",
        **{**options, **solver_options},
    )
    if not grid.stages_rounded:  # a second stage has the register of the first among its terms
        rounded = (r if r.c else dataclasses.replace(r, timestep=_rounded(r.timestep, grid.rounding)) for r in plan.rows)
        plan = dataclasses.replace(plan, rows=tuple(rounded))
    if grid.told is not None:
        plan = dataclasses.replace(plan, rows=tuple(dataclasses.replace(r, timestep=grid.told(r.timestep)) for r in plan.rows))
    if grid.final_scale != 1.0:
        plan = ends.scaled(plan, grid.final_scale)
    return plan if grid.initial_scale is None else dataclasses.replace(plan, initial_scale=grid.initial_scale)


def make_plan(schedule: Schedule, solver: str, **options: Any) -> Plan:
    """The plan with diffusers' rows, and a warning where ``diffuse_fast.plan`` has others."""
    plan = solver_plan(schedule, solver, _guarded=False, **options)
    if plan != solver_plan(schedule, solver, **options):
        warnings.warn(
            f"this scheduler takes a step that is too long for {solver}, and its samples may be far off, as in diffusers. Take "
            f"more steps or another spacing there, or df.plan(schedule, {solver!r}, ...), which takes such a step at first order.",
            LongStepWarning,
            stacklevel=4,
        )
    return plan


def _rounded(time: float, rounding: str) -> float:
    return float(ROUNDINGS[rounding](np.array(time)))


# Arguments of df.plan that a scheduler's configuration decides, and what to do instead of giving them.
_FROM_CONFIGURATION = {
    "clip": "set clip_sample and clip_sample_range, or thresholding, there",
    "prediction_type": "set it there",
    "timestep_spacing": "set it there",
    "timestep_rounding": "it is the scheduler's own; leave it out",
    "time_convention": "it is the scheduler's own; leave it out",
    "schedule": "set beta_schedule or trained_betas there",
    "rho": "set it there",
    "sigma_min": "set it there",
    "sigma_max": "set it there",
}


# ---- reading a configuration ----------------------------------------------------------------------------


def _read(scheduler: Any) -> tuple[str, Peer, Config]:
    if isinstance(scheduler, str | os.PathLike):
        scheduler = _of_file(Path(scheduler))
    given = getattr(scheduler, "config", scheduler)
    if not isinstance(given, Mapping):
        raise ArgumentTypeError(
            f"the scheduler is a {type(scheduler).__name__}; it must be a diffusers scheduler, its configuration as a dict, or the "
            f"path of a scheduler_config.json or of a folder that holds one."
        )
    name = given.get("_class_name") if given is scheduler else type(scheduler).__name__
    if not isinstance(name, str | None):
        raise ArgumentTypeError(f"the configuration's '_class_name' is {name!r}; it must be the name of a class.")
    if name is None:
        raise ArgumentError(
            "the configuration lacks '_class_name', as scheduler.config does; give the scheduler itself, or add the name of its "
            "class."
        )
    if name in REFUSED:
        raise ArgumentError(f"{name} has no counterpart here: {REFUSED[name]}")
    if name not in PEERS:
        raise ArgumentError(f"the scheduler {name!r} is not known.{suggest(str(name), PEERS)}")
    peer = PEERS[name]
    if given is not scheduler:
        _check_signature(name, peer, type(scheduler), given)
    anywhere = {option for other in PEERS.values() for option in other.options}
    for option in given:
        if option not in anywhere and not option.startswith("_"):
            raise ArgumentError(f"{name} has the option {option!r}, which is not known here.{suggest(option, peer.options)}")
    config = {**peer.options, **{option: value for option, value in given.items() if option in peer.options}}
    for option, value in config.items():
        if not _fits(option, value, peer.options[option]):
            usual = peer.options[option]
            raise ArgumentTypeError(f"{name} has {option}={value!r}, which is no value of it; its default is {usual!r}.")
    return name, peer, config


def _of_file(path: Path) -> Any:
    """The configuration in a JSON file, in a scheduler's folder, or in a pipeline's."""
    file = path
    if path.is_dir():
        names = ("scheduler_config.json", "scheduler/scheduler_config.json")
        file = next((path / name for name in names if (path / name).is_file()), path / names[0])
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArgumentError(f"cannot read the scheduler's configuration at {str(file)!r}: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise ArgumentError(f"{str(file)!r} is no scheduler_config.json: {error}") from None


# Numbers or None; the other options whose default is None are None or a text, or a list of betas.
_NUMBER_OR_NONE = (*_ENDS, "shift_terminal")


def _fits(option: str, value: Any, default: Any) -> bool:
    """Whether a value is of the type of the default; what may be more than one thing is looked at where it is used."""
    if isinstance(default, bool):
        return isinstance(value, bool | np.bool_)
    if isinstance(default, int | float) or (option in _NUMBER_OR_NONE and value is not None):
        return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if option == "trained_betas":
        return not isinstance(value, str)
    return isinstance(value, str) if isinstance(default, str) else True


def _check_signature(name: str, peer: Peer, scheduler: type, given: Mapping[str, Any]) -> None:
    """Refuses what an installed diffusers newer than this page may have: an option of the class that is not in its ``Peer``."""
    for option, parameter in inspect.signature(scheduler).parameters.items():
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if named and option not in peer.options and given.get(option, parameter.default) != parameter.default:
            raise ArgumentError(f"{name} has {option}={given[option]!r}, an option that is not known here; only its default is.")


def _prediction(name: str, peer: Peer, config: Config) -> str:
    if isinstance(peer.predictions, str):
        return peer.predictions
    predictions = {"flow_prediction": "flow"} if config.get("use_flow_sigmas") else peer.predictions
    prediction = config["prediction_type"]
    if prediction not in predictions:
        raise ArgumentError(f"{name} has prediction_type={prediction!r}; here it may be {' or '.join(map(repr, predictions))}.")
    return predictions[prediction]


def _clip(config: Config) -> tuple[float, float] | DynamicThreshold | None:
    # UniPC in the noise form makes no data prediction, and has nothing to threshold.
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


def _whole(steps: Any) -> int:
    if steps is None:
        raise ArgumentError("steps is missing; give steps, or the timesteps or sigmas of the pipeline.")
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
        raise ArgumentError(f"steps is {steps!r}; it must be a whole number from 1.")
    if steps > spacing.MAX_STEPS:  # before a grid is laid that spacing.grid does not lay
        raise ArgumentError(f"steps is {steps}; a plan has at most {spacing.MAX_STEPS}.")
    return int(steps)


# ---- schedules ------------------------------------------------------------------------------------------


def _discrete(zero: str) -> Callable[[Config, float | None], DiscreteSchedule]:
    """Discrete schedules; ``zero`` says what is left of the signal where it is rescaled away: ``exact`` or ``tiny``."""

    def schedule(config: Config, mu: float | None) -> DiscreteSchedule:
        _no_mu(mu)
        count, kind = config["num_train_timesteps"], config["beta_schedule"]
        if config["trained_betas"] is not None:
            made = Schedule.from_betas(config["trained_betas"])
        elif kind == "squaredcos_cap_v2":
            made = Schedule.cosine(count)
        elif kind in _BETA_SCHEDULES:
            made = _BETA_SCHEDULES[kind](count, config["beta_start"], config["beta_end"])
        else:
            known = [*_BETA_SCHEDULES, "squaredcos_cap_v2"]
            raise ArgumentError(f"beta_schedule is {kind!r}, which is not honoured here.{suggest(str(kind), known)}")
        if config.get("rescale_betas_zero_snr"):
            made = made.rescale_zero_terminal_snr()
            if zero == "tiny":  # the peer's stand-in for 0, so that its first sigma is finite
                if made.alphas_cumprod[-2] <= 2.0**-24:
                    raise ArgumentError(
                        "rescale_betas_zero_snr=True is not honoured with these betas: diffusers has 2^-24 for 0 as the last of "
                        f"its alphas_cumprod, which is more than the {made.alphas_cumprod[-2]:.2g} before it."
                    )
                made = Schedule.from_alphas_cumprod([*made.alphas_cumprod[:-1], 2.0**-24])
        return made

    return schedule


def _levelled(config: Config, mu: float | None) -> Schedule:
    """The schedule of a scheduler that works on noise levels: what is between the timesteps is read as it does."""
    if config.get("use_dynamic_shifting"):
        if not config["use_flow_sigmas"]:
            raise ArgumentError("use_dynamic_shifting=True shifts flow sigmas; without use_flow_sigmas=True there are none.")
        if config["time_shift_type"] != "exponential":
            asked = config["time_shift_type"]
            raise ArgumentError(f"time_shift_type={asked!r} is not honoured; here, as there, it must be 'exponential'.")
    if config.get("use_flow_sigmas"):
        return Schedule.flow(config["num_train_timesteps"], _shift(config, config["flow_shift"], mu))
    if _continuous(config):
        table = _discrete("tiny")(config, mu)
        low, high = (float(table.noise_level(t)) for t in (table.t_min, table.t_max))
        return Schedule.edm(config["sigma_min"] or low, config["sigma_max"] or high, sigma_data=1.0)
    fractional = config.get("timestep_spacing") == "linspace" and _level(config) is None
    return _discrete("tiny")(config, mu).with_interpolation("sigma" if fractional else "log_sigma")


def _continuous(config: Config) -> bool:
    """Whether the network is told log(σ)/4, and takes any σ: EDM's convention, with sigma_data 1 since x is scaled by
    1/sqrt(σ² + 1). The peer has it for v alone; with other predictions the option does nothing there."""
    return config.get("timestep_type") == "continuous" and config["prediction_type"] == "v_prediction"


def _flow(config: Config, mu: float | None) -> Schedule:
    return Schedule.flow(config["num_train_timesteps"], _shift(config, config["shift"], mu))


def _score_sde_ve(config: Config, mu: float | None) -> Schedule:
    _no_mu(mu)
    return Schedule.ve_sde(config["sigma_min"], config["sigma_max"], config["sampling_eps"])


def _sine(config: Config, mu: float | None) -> DiscreteSchedule:
    """IPNDM's: sigma = sin²(π·u/2), u even from 1 down. Its table has one entry per step; any u is found in this one of the
    training's, by its noise level."""
    _no_mu(mu)
    if config["trained_betas"] is not None:
        raise ArgumentError("trained_betas is given, which is not honoured for IPNDMScheduler, whose steps are then the list's.")
    count = config["num_train_timesteps"]
    sigma = _sine_sigma(np.arange(1, count + 1) / count)
    return Schedule.from_alphas_cumprod((1.0 - sigma) * (1.0 + sigma))


def _sine_sigma(u: np.ndarray) -> np.ndarray:
    return np.sin(0.5 * math.pi * u) ** 2


def _edm(config: Config, mu: float | None) -> Schedule:
    _no_mu(mu)
    return Schedule.edm(config["sigma_min"], config["sigma_max"], config["sigma_data"], config["rho"])


def _shift(config: Config, shift: float, mu: float | None) -> float:
    """A dynamic shift is mu's: e^mu·σ/(1 + (e^mu − 1)·σ) is the peer's e^mu/(e^mu + 1/σ − 1)."""
    if not config.get("use_dynamic_shifting"):
        _no_mu(mu)
        return shift
    if mu is None:
        raise ArgumentError("use_dynamic_shifting is True, so the shift depends on the sample's size; give mu=...")
    shifted = number("mu", mu)
    return shifted if config["time_shift_type"] == "linear" else math.exp(shifted)


def _no_mu(mu: float | None) -> None:
    if mu is not None:
        raise ArgumentError("mu is given, but this scheduler has no use_dynamic_shifting=True.")


# ---- grids ----------------------------------------------------------------------------------------------


def _level(config: Config) -> str | None:
    """The spacing over noise levels that the configuration asks for."""
    asked = [option for option in _LEVEL_OPTIONS if config.get(option)]
    if len(asked) > 1:
        raise ArgumentError(f"{' and '.join(asked)} are all True; one of them can be.")
    return _LEVEL_OPTIONS[asked[0]] if asked else None


def _lay(schedule: Schedule, name: str, steps: int, style: str = "closed", **options: Any) -> np.ndarray:
    return spacing.grid(spacing.checked(schedule, name, **options), schedule, steps, style)


def _closed(config: Config, schedule: Schedule, steps: int) -> _Grid:
    name, offset = config["timestep_spacing"], config["steps_offset"]
    return _Grid(_lay(schedule, name, steps, steps_offset=offset if name == "leading" else 0))


def _fractional(config: Config, schedule: Schedule, steps: int) -> _Grid:
    """The k-diffusion family. Its levels span what the plain grid spans."""
    name, level = config["timestep_spacing"], _level(config)
    plain = _discrete("tiny")(config, None).with_interpolation("sigma")
    times = _lay(plain, name, steps, "fractional", steps_offset=config["steps_offset"] if name == "leading" else 0)
    levels = plain.noise_level(times)
    if level is not None:
        high = float(levels[0]) if config.get("sigma_max") is None else config["sigma_max"]
        low = float(levels[-1]) if config.get("sigma_min") is None else config["sigma_min"]
        if steps > 1:
            times = _lay(schedule, level, steps, sigma_min=low, sigma_max=high)
        else:
            times = schedule.timestep_at_noise_level(np.array([high]))
    elif schedule.family == "edm":
        times = levels
    # k-diffusion's state is x0 + σ·ε, of which the state here is alpha times: that shows where it ends with noise.
    final = 1.0 / float(plain.alpha(0.0)) if config.get("final_sigmas_type") == "sigma_min" else 1.0
    # init_noise_sigma: sigma_max alone, or with the data's unit variance, which in the state's scale is 1.
    initial = 1.0 if name == "leading" else float(schedule.sigma(times[0]))
    return _Grid(times, initial_scale=initial, final_scale=final)


def _two_stage(config: Config, schedule: Schedule, steps: int) -> _Grid:
    """With Karras levels the network is told whole timesteps at the points of the grid, and fractional ones in between."""
    grid = _fractional(config, schedule, steps)
    return dataclasses.replace(grid, rounding="nearest", stages_rounded=False) if config["use_karras_sigmas"] else grid


def _open(config: Config, schedule: Schedule, steps: int) -> _Grid:
    """The DPM-Solver family. Its levels span the whole schedule, and its network is told whole timesteps."""
    level = _level(config)
    if config["use_flow_sigmas"]:
        if level is not None:
            raise ArgumentError("use_flow_sigmas=True together with a spacing over noise levels is not honoured here.")
        return _Grid(_flow_levels(config, schedule, steps), "down", initial_scale=1.0)
    if level is not None:
        rounded = level in ("karras", "log_snr") and not (
            "use_lu_lambdas" in config and config["beta_schedule"] == "squaredcos_cap_v2"
        )
        times = _lay(schedule, level, steps, sigma_min=config.get("sigma_min"), sigma_max=config.get("sigma_max"))
        return _Grid(times, "nearest" if rounded else "down")
    name = config.get("timestep_spacing", "linspace")  # DPMSolverSinglestep has no other
    offset = config["steps_offset"] if name == "leading" else 0
    clipped = _clipped(config, schedule)
    if clipped is not schedule and name == "trailing":
        raise ArgumentError("lambda_min_clipped together with timestep_spacing='trailing' is not honoured here.")
    return _Grid(_lay(clipped, name, steps, "open", steps_offset=offset))


def _clipped(config: Config, schedule: Schedule) -> Schedule:
    """The schedule without its last timesteps, whose half log-SNR is below ``lambda_min_clipped``."""
    alphas_cumprod = schedule.alphas_cumprod  # type: ignore[attr-defined]  # the class says the family
    half = 0.5 * schedule.log_snr(np.arange(len(alphas_cumprod)))
    keep = int(np.count_nonzero(half >= config.get("lambda_min_clipped", -math.inf)))
    return schedule if keep == len(alphas_cumprod) else Schedule.from_alphas_cumprod(alphas_cumprod[:keep])


def _flow_levels(config: Config, schedule: Schedule, steps: int, sigmas: np.ndarray | None = None) -> np.ndarray:
    count = schedule.num_train_timesteps  # type: ignore[attr-defined]  # the class says the family
    if "shift_terminal" in config:  # UniPC
        even = np.linspace(1.0, 1.0 / count, steps + 1)[:-1] if sigmas is None else sigmas
        sigma = schedule.shifted(even)  # type: ignore[attr-defined]  # the class says the family
        sigma = _stretched(sigma, config["shift_terminal"])
        sigma[0] -= 1e-6 if abs(sigma[0] - 1.0) < 1e-6 else 0.0
    else:
        even = 1.0 - np.linspace(1.0, 1.0 / count, steps + 1)
        sigma = schedule.shifted(even)[::-1][:-1]  # type: ignore[attr-defined]  # the class says the family
    return sigma * count


def _stretched(sigma: np.ndarray, terminal: float | None) -> np.ndarray:
    """Levels stretched about 1 so that the last is ``shift_terminal``."""
    if not terminal:
        return sigma
    if sigma[-1] == 1.0:
        raise ArgumentError(f"shift_terminal={terminal!r} needs 2 steps: the one level of one step is 1, and is not moved.")
    return 1.0 - (1.0 - sigma) * (1.0 - terminal) / (1.0 - sigma[-1])


def _flow_match(config: Config, schedule: Schedule, steps: int, sigmas: np.ndarray | None = None) -> _Grid:
    # The smallest level was shifted when the scheduler was made, unless the shift depends on the sample's size.
    shifted = schedule.shifted  # type: ignore[attr-defined]  # the class says the family
    count = config["num_train_timesteps"]
    low = 1.0 / count if config.get("use_dynamic_shifting") else shifted(1.0 / count)
    sigma = _stretched(shifted(np.linspace(1.0, low, steps) if sigmas is None else sigmas), config.get("shift_terminal"))
    level = _level(config)
    if level is None or steps == 1:
        times = sigma * count
    else:
        times = _lay(schedule, level, steps, sigma_min=float(sigma[-1]), sigma_max=float(sigma[0]))
    return _Grid(times, initial_scale=1.0)


def _edm_grid(config: Config, schedule: Schedule, steps: int) -> _Grid:
    name = config["sigma_schedule"]
    if name not in ("karras", "exponential"):
        raise ArgumentError(f"sigma_schedule is {name!r}; it may be 'karras' or 'exponential'.")
    high = config["sigma_max"]
    return _Grid(_lay(schedule, name, steps), initial_scale=math.hypot(high, 1.0) * schedule.alpha(high))


def _distilled(config: Config, schedule: Schedule, steps: int) -> _Grid:
    """LCM and TCD: of the timesteps that the model was distilled on."""
    train, original = config["num_train_timesteps"], config["original_inference_steps"]
    if not 1 <= original <= train:
        raise ArgumentError(f"original_inference_steps is {original!r}; it must be from 1 to num_train_timesteps, {train}.")
    if steps > original:
        raise ArgumentError(f"steps is {steps}; original_inference_steps allows 1 to {original}.")
    falling = np.arange(original, 0, -1) * (train // original) - 1
    return _Grid(falling[np.floor(np.linspace(0, original, steps, endpoint=False)).astype(int)].astype(np.float64))


def _consistency(config: Config, schedule: Schedule, steps: int) -> _Grid:
    """Every k-th level of the training grid, from the largest. The network is told 250·log(σ)."""
    train = config["num_train_timesteps"]
    if steps > train:
        raise ArgumentError(f"steps is {steps}; num_train_timesteps allows 1 to {train}.")
    training = _lay(schedule, "karras", train)
    return _Grid(training[:: train // steps][:steps], told=lambda time: 1000.0 * time)


def _sine_grid(config: Config, schedule: Schedule, steps: int) -> _Grid:
    """The network is told the angle of (alpha, sigma) over π/2."""
    if steps > config["num_train_timesteps"]:
        raise ArgumentError(f"steps is {steps}; num_train_timesteps allows 1 to {config['num_train_timesteps']}.")
    sigma = _sine_sigma(np.arange(steps, 0, -1) / steps)
    with np.errstate(divide="ignore"):
        level = sigma / np.sqrt((1.0 - sigma) * (1.0 + sigma))
    level = np.maximum(level[1:], schedule.noise_level(schedule.t_min))  # with as many steps as timesteps, equal but for rounding
    times = np.append(schedule.t_max, schedule.timestep_at_noise_level(level))
    return _Grid(times, told=lambda time: 2.0 / math.pi * math.atan2(float(schedule.sigma(time)), float(schedule.alpha(time))))


def _score_sde_ve_grid(config: Config, schedule: Schedule, steps: int) -> _Grid:
    """The levels are even in log(σ) down to sigma_min; those that the network is told end at t = sampling_eps instead."""
    low, log_ratio = config["sigma_min"], math.log(config["sigma_max"] / config["sigma_min"])

    def told(sigma: float) -> float:
        t = math.log(sigma / low) / log_ratio
        return low * math.exp(log_ratio * (1.0 - (1.0 - t) * (1.0 - config["sampling_eps"])))

    return _Grid(np.linspace(1.0, 0.0, steps) if steps > 1 else np.ones(1), told=told)


# ---- grids that a pipeline gives ------------------------------------------------------------------------

_TAKE_TIMESTEPS = {  # what set_timesteps has an argument for
    "DDPMScheduler", "DDPMParallelScheduler", "LCMScheduler", "TCDScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler",
    "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "CMStochasticIterativeScheduler",
    "FlowMatchEulerDiscreteScheduler", "FlowMatchLCMScheduler",
}  # fmt: skip
_TAKE_SIGMAS = {
    "EulerDiscreteScheduler", "UniPCMultistepScheduler", "FlowMatchEulerDiscreteScheduler", "FlowMatchLCMScheduler",
}  # fmt: skip
_LISTED = 1e-2  # published lists of noise levels are rounded; how far an end may lie outside of the schedule, relatively


def _given(name: str, config: Config, schedule: Schedule, steps: int | None, sigmas: Any, timesteps: Any) -> tuple[Schedule, _Grid]:
    """The grid of a pipeline's own ``sigmas`` or ``timesteps``, as the scheduler's ``set_timesteps`` takes them, and the schedule
    to read it by."""
    for option, values, takers in (("sigmas", sigmas, _TAKE_SIGMAS), ("timesteps", timesteps, _TAKE_TIMESTEPS)):
        if values is not None and name not in takers:
            raise ArgumentError(
                f"{option} is given, which {name} does not take; it may be given to {', '.join(sorted(takers))}. Leave it out and "
                f"give steps, or give {option} to df.plan."
            )
    flow_match = name.startswith("FlowMatch")
    if sigmas is not None and timesteps is not None and not flow_match:
        raise ArgumentError("sigmas and timesteps are both given; give one of them.")
    levels = None if sigmas is None else _falling_list("sigmas", sigmas)
    times = None if timesteps is None else _falling_list("timesteps", timesteps)
    end = int(name == "EulerDiscreteScheduler" and levels is not None)  # its last level is not a call
    listed = levels if times is None else times
    assert listed is not None
    calls = len(listed) - end
    if steps is not None and _whole(steps) != calls:
        raise ArgumentError(f"steps is {steps}, but the list given has {calls}; leave steps out.")
    if flow_match:
        return schedule, _flow_match_list(config, schedule, levels, times)
    if _level(config) is not None:
        raise ArgumentError(f"{name} has a spacing over noise levels, which is not honoured with a list; give one of them.")
    if name == "UniPCMultistepScheduler":
        if not config["use_flow_sigmas"]:
            raise ArgumentError("sigmas needs use_flow_sigmas=True, as in diffusers; set it in the configuration, or give steps.")
        return schedule, _Grid(_flow_levels(config, schedule, calls, levels), "down", initial_scale=1.0)
    if levels is not None:
        return _euler_levels(config, schedule, levels)
    assert times is not None
    return _timesteps_of(name, config, schedule, times)


def _flow_match_list(config: Config, schedule: Schedule, levels: np.ndarray | None, times: np.ndarray | None) -> _Grid:
    """Timesteps are told to the network as they are; the levels, which follow from them where none are given, are shifted."""
    if levels is None:
        assert times is not None
        levels = times / config["num_train_timesteps"]
    elif times is not None and len(times) != len(levels):
        raise ArgumentError(f"sigmas has {len(levels)} values and timesteps {len(times)}; they must be as many.")
    grid = _flow_match(config, schedule, len(levels), levels)
    if times is None:
        return grid
    return dataclasses.replace(grid, told=lambda time: float(times[int(np.abs(grid.times - time).argmin())]))


def _euler_levels(config: Config, schedule: Schedule, levels: np.ndarray) -> tuple[Schedule, _Grid]:
    if levels[-1] != 0.0:
        raise ArgumentError(
            f"sigmas ends at {levels[-1]:g}, where diffusers would stop and leave that noise; append 0, to end at the data."
        )
    if _continuous(config):
        raise ArgumentError("sigmas together with timestep_type='continuous' is not honoured here; give steps.")
    table = _discrete("tiny")(config, None).with_interpolation("log_sigma")
    low, high = (float(table.noise_level(t)) for t in (table.t_min, table.t_max))
    inside = levels[:-1].copy()
    inside[0] = high if high < inside[0] < (1.0 + _LISTED) * high else inside[0]
    inside[-1] = low if (1.0 - _LISTED) * low < inside[-1] < low else inside[-1]
    times = table.timestep_at_noise_level(inside)
    initial = 1.0 if config["timestep_spacing"] == "leading" else float(table.sigma(times[0]))
    return table, _Grid(times, initial_scale=initial)


def _timesteps_of(name: str, config: Config, schedule: Schedule, times: np.ndarray) -> tuple[Schedule, _Grid]:
    if name == "CMStochasticIterativeScheduler":  # which of its training levels
        if np.any(times != np.round(times)) or times[-1] < 0 or times[0] >= config["num_train_timesteps"]:
            last = config["num_train_timesteps"] - 1
            raise ArgumentError(f"timesteps are {times.tolist()}; they must be whole numbers from 0 to {last}.")
        training = _lay(schedule, "karras", config["num_train_timesteps"])
        return schedule, _Grid(training[times[::-1].astype(int)], told=lambda time: 1000.0 * time)
    if config.get("use_flow_sigmas") or _continuous(config):
        raise ArgumentError(f"timesteps of {name} with flow or continuous noise levels are not honoured; give steps.")
    if name in ("EulerDiscreteScheduler", "HeunDiscreteScheduler"):
        plain = _discrete("tiny")(config, None).with_interpolation("sigma")
        initial = 1.0 if config["timestep_spacing"] == "leading" else float(plain.sigma(times[0]))
        final = 1.0 / float(plain.alpha(0.0)) if config.get("final_sigmas_type") == "sigma_min" else 1.0
        return plain, _Grid(times, initial_scale=initial, final_scale=final)
    if np.any(times != np.round(times)):
        raise ArgumentError(f"timesteps are {times.tolist()}; {name} takes whole ones.")
    return schedule, _Grid(times)


def _falling_list(option: str, values: Any) -> np.ndarray:
    try:
        listed = np.asarray(values)
        if listed.dtype.kind not in "iuf":
            raise TypeError
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"{option} is {values!r}; it must be a list of numbers.") from None
    listed = listed.astype(np.float64)
    if listed.ndim != 1 or listed.size == 0 or not np.isfinite(listed).all() or np.any(np.diff(listed) >= 0.0):
        raise ArgumentError(f"{option} is {values!r}; it must be a falling list of finite numbers.")
    return listed


# ---- solvers --------------------------------------------------------------------------------------------


def _is(solver: str, **options: Any) -> Callable[[Config], _Choice]:
    return lambda config: (solver, dict(options), ())


def _ddpm(config: Config) -> _Choice:
    # The same standard deviation, kept as a logarithm.
    variance = {"fixed_small_log": "fixed_small"}.get(config["variance_type"], config["variance_type"])
    if variance == "learned":
        raise ArgumentError(
            "variance_type='learned' is not honoured here: diffusers takes the network's second half for the variance itself, and "
            "not for its logarithm as Improved DDPM has it. Take ddpm by df.plan, or variance_type='learned_range'."
        )
    return "ddpm", {"variance_type": variance}, ("variance_type",)


# ε as the network predicts it, also beside a clipped x0: use_clipped_model_output=False.
_RAW: dict[str, Any] = {"rederive_epsilon": False}
# Of x0 alone, thresholded or not: hence ε from it.
_FIRST: dict[str, Any] = {"rederive_epsilon": True}
_MULTISTEP: dict[tuple[str, int], tuple[str, dict[str, Any]]] = {
    ("dpmsolver++", 1): ("ddim", _FIRST),
    ("dpmsolver++", 2): ("dpmpp_2m", {}),
    ("dpmsolver++", 3): ("dpmpp_3m", {"halved_curvature": True}),
    ("dpmsolver", 1): ("ddim", _FIRST),
    ("dpmsolver", 2): ("dpmsolver_2m", {}),
    ("dpmsolver", 3): ("dpmsolver_3m", {"halved_curvature": True}),
    ("sde-dpmsolver++", 1): ("ddim", {**_FIRST, "eta": 1.0}),
    ("sde-dpmsolver++", 2): ("dpmpp_2m_sde", {}),
}


# Values that diffusers replaces by its default, since configurations are handed from class to class.
_REPLACED: dict[str, dict[str, tuple[str, ...]]] = {
    "dpmpp": {"algorithm_type": ("deis",), "solver_type": ("logrho", "bh1", "bh2")},
    "deis": {"algorithm_type": ("dpmsolver", "dpmsolver++"), "solver_type": ("midpoint", "heun", "bh1", "bh2")},
    "unipc": {"solver_type": ("midpoint", "heun", "logrho")},
}


def _replaced(config: Config, defaults: Mapping[str, Any], values: Mapping[str, tuple[str, ...]]) -> None:
    for option, others in values.items():
        if config.get(option) in others:
            config[option] = defaults[option]


def _multistep(config: Config) -> _Choice:
    _replaced(config, _DPM_MULTISTEP, _REPLACED["dpmpp"])
    asked = config["algorithm_type"], config["solver_order"]
    if asked == ("sde-dpmsolver++", 3):
        raise ArgumentError(
            "solver_order=3 with algorithm_type='sde-dpmsolver++' is not honoured here: that step of diffusers has a sign wrong "
            "(docs/decisions/0003-third-order-multistep.md). Take dpmpp_3m_sde by df.plan, which is k-diffusion's."
        )
    if asked not in _MULTISTEP:
        raise ArgumentError(
            f"algorithm_type={asked[0]!r} with solver_order={asked[1]!r} is not honoured here; there are "
            f"{', '.join(f'{a} of order {o}' for a, o in _MULTISTEP)}."
        )
    solver, options = _MULTISTEP[asked]
    first = ("solver_type", "lower_order_final", "euler_at_final") if asked[1] == 1 else ()  # nothing to choose or to lower
    return solver, dict(options), ("algorithm_type", "solver_order", *first, *_variance(config))


def _variance(config: Config) -> tuple[str, ...]:
    """``variance_type`` where it is settled: DPM-Solvers only drop a learned variance, and take any other value for none."""
    return () if config.get("variance_type") in ("learned", "learned_range") else ("variance_type",)


def _singlestep(config: Config) -> _Choice:
    _replaced(config, _DPM_MULTISTEP, _REPLACED["dpmpp"])
    asked = config["algorithm_type"], config["solver_order"], config["solver_type"]
    if asked == ("sde-dpmsolver++", 3, "heun"):
        raise ArgumentError(
            "solver_type='heun' with solver_order=3 and algorithm_type='sde-dpmsolver++' is not honoured here: that step of "
            "diffusers has a sign wrong (docs/decisions/0003-third-order-multistep.md). Take dpmsolver_singlestep by df.plan."
        )
    return "dpmsolver_singlestep", {}, _variance(config)


def _unipc(config: Config) -> _Choice:
    _replaced(config, {"solver_type": "bh2"}, _REPLACED["unipc"])
    return "unipc", {}, ()


def _deis(config: Config) -> _Choice:
    _replaced(config, {"algorithm_type": "deis", "solver_type": "logrho"}, _REPLACED["deis"])
    if config["use_flow_sigmas"]:
        raise ArgumentError(
            "use_flow_sigmas=True is not honoured for DEISMultistepScheduler: its last step goes nowhere, and leaves the noise of "
            "its last level. Take dpmpp_2m by df.plan on Schedule.flow, which ends at the data."
        )
    return "deis", {}, ()


def _tcd(config: Config) -> _Choice:
    for option in ("clip_sample", "thresholding"):
        if config[option]:
            raise ArgumentError(f"{option}=True is not honoured here: TCDScheduler has the option, and does not clip.")
    # Of these it has the names only: it always ends at timestep 0.
    return "tcd", {"set_alpha_to_one": False}, ("set_alpha_to_one", "timestep_scaling")


def _flow_lcm(config: Config) -> _Choice:
    if config["scale_factors"]:
        asked = config["scale_factors"]
        raise ArgumentError(f"scale_factors={asked!r} is not honoured here: the sample would change its size between steps.")
    return "flow_euler", {"stochastic_sampling": True}, ("scale_factors", "upscale_mode")


def _lcm(config: Config) -> _Choice:
    return "lcm", {}, ("set_alpha_to_one",)  # it has the name only: it always ends at the data


# ---- the table ------------------------------------------------------------------------------------------

_K_DIFFUSION = {**_PREDICTION, **_LEVELS, **_LINSPACE}
_DPM = {
    **_BETAS, **_ZERO_SNR, **_PREDICTION, **_THRESHOLD, **_LEVELS, **_FLOW, **_LINSPACE, "solver_order": 2,
    "lower_order_final": True,
}  # fmt: skip
_DPM_MULTISTEP = {"algorithm_type": "dpmsolver++", "solver_type": "midpoint", "euler_at_final": False, "final_sigmas_type": "zero"}
_DISTILLED = {
    **_LATENT_BETAS, "beta_schedule": "scaled_linear", **_ZERO_SNR, **_CLIP, "clip_sample": False, **_PREDICTION, **_THRESHOLD,
    **_LEADING, "original_inference_steps": 50, "set_alpha_to_one": True, "timestep_scaling": 10.0,
}  # fmt: skip
_DDIM = {**_BETAS, **_ZERO_SNR, **_CLIP, **_PREDICTION, **_THRESHOLD, **_LEADING, "set_alpha_to_one": True}
_DDPM = {**_BETAS, **_ZERO_SNR, **_CLIP, **_PREDICTION, **_THRESHOLD, **_LEADING, "variance_type": "fixed_small"}
_FLOW_MATCH = {
    **_LEVELS, "num_train_timesteps": 1000, "shift": 1.0, "use_dynamic_shifting": False, "base_shift": 0.5, "max_shift": 1.15,
    "base_image_seq_len": 256, "max_image_seq_len": 4096, "invert_sigmas": False, "shift_terminal": None,
    "time_shift_type": "exponential",
}  # fmt: skip
_EDM_PREDICTIONS = {"epsilon": "edm", "v_prediction": "v_prediction"}  # with sigma_data, they are F and −F of EDM

PEERS: dict[str, Peer] = {
    "DDIMScheduler": Peer(_DDIM, _discrete("exact"), _closed, _is("ddim", **_RAW)),
    "DDIMParallelScheduler": Peer(_DDIM, _discrete("exact"), _closed, _is("ddim", **_RAW)),
    "DDPMScheduler": Peer(_DDPM, _discrete("exact"), _closed, _ddpm),
    "DDPMParallelScheduler": Peer(_DDPM, _discrete("exact"), _closed, _ddpm),
    "DDIMInverseScheduler": Peer(
        {k: v for k, v in _DDIM.items() if k not in _THRESHOLD}, _discrete("exact"), _closed, _is("ddim_inverse", **_RAW)
    ),
    "LCMScheduler": Peer(_DISTILLED, _discrete("exact"), _distilled, _lcm),
    "TCDScheduler": Peer(_DISTILLED, _discrete("exact"), _distilled, _tcd),
    "PNDMScheduler": Peer(
        {**_BETAS, **_PREDICTION, **_LEADING, "skip_prk_steps": False, "set_alpha_to_one": False},
        _discrete("exact"), _closed, _is("pndm"),
    ),
    "EulerDiscreteScheduler": Peer(
        {**_BETAS, **_ZERO_SNR, **_K_DIFFUSION, **_ENDS, "interpolation_type": "linear", "timestep_type": "discrete",
         "final_sigmas_type": "zero"},
        _levelled, _fractional, _is("euler"),
    ),
    "EulerAncestralDiscreteScheduler": Peer(
        {**_BETAS, **_ZERO_SNR, **_PREDICTION, **_LINSPACE}, _levelled, _fractional, _is("euler_ancestral")
    ),
    "HeunDiscreteScheduler": Peer(
        {**_LATENT_BETAS, **_K_DIFFUSION, **_CLIP, "clip_sample": False}, _levelled, _fractional, _is("heun")
    ),
    "KDPM2DiscreteScheduler": Peer({**_LATENT_BETAS, **_K_DIFFUSION}, _levelled, _two_stage, _is("dpm_2")),
    "KDPM2AncestralDiscreteScheduler": Peer({**_LATENT_BETAS, **_K_DIFFUSION}, _levelled, _two_stage, _is("dpm_2", eta=1.0)),
    "LMSDiscreteScheduler": Peer({**_BETAS, **_K_DIFFUSION}, _levelled, _fractional, _is("lms")),
    "DPMSolverMultistepScheduler": Peer(
        {**_DPM, **_DPM_MULTISTEP, "use_lu_lambdas": False, "lambda_min_clipped": -math.inf, "variance_type": None},
        _levelled, _open, _multistep,
    ),
    "DPMSolverSinglestepScheduler": Peer(
        {**{k: v for k, v in _DPM.items() if k not in (*_ZERO_SNR, *_LINSPACE)}, "lower_order_final": False,
         "algorithm_type": "dpmsolver++", "solver_type": "midpoint", "final_sigmas_type": "zero", "lambda_min_clipped": -math.inf,
         "variance_type": None},
        _levelled, _open, _singlestep,
    ),
    "IPNDMScheduler": Peer(
        {"num_train_timesteps": 1000, "trained_betas": None}, _sine, _sine_grid, _is("ipndm", zero_initial_data=True),
        "v_prediction",
    ),
    "UniPCMultistepScheduler": Peer(
        {**_DPM, **_ENDS, "predict_x0": True, "solver_type": "bh2", "disable_corrector": [], "solver_p": None,
         "final_sigmas_type": "zero", "shift_terminal": None},
        _levelled, _open, _unipc,
    ),
    "DEISMultistepScheduler": Peer(
        {**{k: v for k, v in _DPM.items() if k not in _ZERO_SNR}, "algorithm_type": "deis", "solver_type": "logrho"},
        _levelled, _open, _deis,
    ),
    "FlowMatchEulerDiscreteScheduler": Peer(
        {**_FLOW_MATCH, "stochastic_sampling": False}, _flow, _flow_match, _is("flow_euler"), "flow"
    ),
    "FlowMatchLCMScheduler": Peer(
        {**_FLOW_MATCH, "scale_factors": None, "upscale_mode": "bicubic"},
        _flow, _flow_match, _flow_lcm, "flow",
    ),
    "FlowMatchHeunDiscreteScheduler": Peer(
        {"num_train_timesteps": 1000, "shift": 1.0}, _flow, _flow_match, _is("flow_heun"), "flow"
    ),
    "CMStochasticIterativeScheduler": Peer(
        {"num_train_timesteps": 40, "sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5, "s_noise": 1.0, "rho": 7.0,
         "clip_denoised": True},
        _edm, _consistency, _is("consistency"), "edm",
    ),
    "ScoreSdeVeScheduler": Peer(
        {"num_train_timesteps": 2000, "snr": 0.15, "sigma_min": 0.01, "sigma_max": 1348.0, "sampling_eps": 1e-5,
         "correct_steps": 1},
        _score_sde_ve, _score_sde_ve_grid, _is("langevin_pc"), "score",
    ),
    "EDMEulerScheduler": Peer({**_EDM, **_PREDICTION}, _edm, _edm_grid, _is("euler"), _EDM_PREDICTIONS),
    "EDMDPMSolverMultistepScheduler": Peer(
        {**_EDM, **_PREDICTION, **_THRESHOLD, **_DPM_MULTISTEP, "solver_order": 2, "lower_order_final": True},
        _edm, _edm_grid, _multistep, _EDM_PREDICTIONS,
    ),
}  # fmt: skip

# Schedulers whose numbers no solver here gives, and why.
REFUSED = {
    "CosineDPMSolverMultistepScheduler": "it draws its noise from a Brownian tree. Take dpmpp_2m_sde by df.plan.",
    "DPMSolverSDEScheduler": "it draws its noise from a Brownian tree. Take dpmpp_2m_sde by df.plan.",
    "DPMSolverMultistepInverseScheduler": "of the solvers here only DDIM's runs from data to noise. Take ddim_inverse by df.plan.",
    "SASolverScheduler": "no solver here is SA-Solver. Take dpmpp_2m_sde or dpmpp_3m_sde by df.plan.",
    "RePaintScheduler": "it jumps back and mixes a known region in. Take ddpm by df.plan, and Plan.with_known_region.",
    "CogVideoXDDIMScheduler": "its schedule is shifted by a snr_shift_scale. Take ddim by df.plan on Schedule.from_alphas_cumprod.",
    "CogVideoXDPMScheduler": "its schedule is shifted by a snr_shift_scale. Take dpmpp_2m_sde by df.plan on "
    "Schedule.from_alphas_cumprod.",
    "UnCLIPScheduler": "its own documentation says not to use it but DDPMScheduler, which is honoured.",
    "DDPMWuerstchenScheduler": "its schedule is a continuous cosine, which is none here. Take ddpm by df.plan on Schedule.cosine.",
    "KarrasVeScheduler": "it is deprecated in diffusers and kept as a name. Take heun by df.plan on Schedule.edm.",
    "ScoreSdeVpScheduler": "it is deprecated in diffusers and kept as a name. Take euler_maruyama by df.plan on Schedule.vp_sde.",
    "LTXEulerAncestralRFScheduler": "its levels come from its pipeline. Take euler_ancestral by df.plan on Schedule.flow, with "
    "1000 times its sigmas as timesteps.",
    "MiniMaxH3Scheduler": "its shift is that of its pipeline. Take flow_euler by df.plan on Schedule.flow.",
    "SCMScheduler": "its network's input is TrigFlow's angle, a schedule that is none here.",
    **dict.fromkeys(
        ("FlowMapEulerDiscreteScheduler", "HeliosScheduler", "HeliosDMDScheduler", "PiflowScheduler", "RFD4ProteinaScheduler",
         "ConsistencyDecoderScheduler"),
        "no solver here is its method, which belongs to the models of its pipeline.",
    ),
    **dict.fromkeys(
        ("AmusedScheduler", "BlockRefinementScheduler", "DiscreteDDIMScheduler", "EntropyBoundScheduler", "VQDiffusionScheduler"),
        "it draws discrete tokens, and the step here is of continuous states.",
    ),
}  # fmt: skip
