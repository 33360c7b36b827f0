"""diffusers' schedulers read from their configuration, against the schedulers themselves."""

from __future__ import annotations

import inspect
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, ArgumentTypeError
from diffuse_fast.interop.diffusers.reading import read
from diffuse_fast.interop.diffusers.schedulers import SCHEDULERS, UNSUPPORTED
from diffuse_fast.kernels.reference import apply_row

pytest.importorskip("diffusers")
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),  # NumPy on torch tensors, in diffusers
    pytest.mark.filterwarnings("ignore:.*algorithm_type.*dpmsolver:FutureWarning"),
    pytest.mark.filterwarnings("ignore::diffuse_fast.errors.LongStepWarning"),  # the few steps here; tests/solver/test_leaps.py
]

BETAS = [{}, {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}]
LEVELS = [{"use_karras_sigmas": True}, {"use_exponential_sigmas": True}, {"use_beta_sigmas": True}]
LU = {"use_lu_lambdas": True}
SIGMA_MIN = {"final_sigmas_type": "sigma_min"}
SPACINGS = [{"timestep_spacing": "leading", "steps_offset": 1}, {"timestep_spacing": "trailing"}, {"timestep_spacing": "linspace"}]

CASES = [
    *(("DDIMScheduler", o) for o in [*SPACINGS[:2], {"set_alpha_to_one": False, "clip_sample": False}]),
    ("DDIMScheduler", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}),
    *(("DDPMScheduler", o) for o in [{}, {"variance_type": "fixed_large", "clip_sample_range": 0.5}]),
    *(("PNDMScheduler", {"skip_prk_steps": True, **o}) for o in SPACINGS[:2]),  # linspace: its previous timestep is wrong
    *(("EulerDiscreteScheduler", o) for o in [*SPACINGS, *LEVELS, {**LEVELS[0], **SPACINGS[0]}, {**LEVELS[1], **SPACINGS[1]}]),
    ("EulerDiscreteScheduler", {"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 10.0}),
    *(("EulerDiscreteScheduler", {"timestep_type": "continuous", "prediction_type": "v_prediction", **o}) for o in [
        *SPACINGS[:2], {"use_karras_sigmas": True, "sigma_min": 0.002, "sigma_max": 70.0, **SPACINGS[0]}]),
    *(("EulerAncestralDiscreteScheduler", o) for o in SPACINGS),
    *(("HeunDiscreteScheduler", o) for o in [*SPACINGS, *LEVELS, {"clip_sample": True}]),
    *(("LMSDiscreteScheduler", o) for o in [*SPACINGS, *LEVELS]),
    *(("KDPM2DiscreteScheduler", o) for o in [*SPACINGS, *LEVELS]),
    *(("KDPM2AncestralDiscreteScheduler", o) for o in [*SPACINGS, *LEVELS[:2]]),
    *(("DPMSolverMultistepScheduler", {"solver_order": n, **o}) for n in (1, 2) for o in [*SPACINGS, *LEVELS, LU]),
    *(("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": n}) for n in (1, 2)),
    *(("DPMSolverSinglestepScheduler", {"solver_order": n, **o}) for n in (1, 2, 3) for o in [{}, *LEVELS]),
    *(("DPMSolverSinglestepScheduler", {"solver_order": n, "algorithm_type": a, "solver_type": k, **SIGMA_MIN}) for n, a, k in [
        (2, "dpmsolver", "midpoint"), (2, "dpmsolver", "heun"), (3, "dpmsolver", "midpoint"), (3, "dpmsolver", "heun"),
        (1, "sde-dpmsolver++", "heun"), (2, "sde-dpmsolver++", "heun"), (3, "sde-dpmsolver++", "midpoint")]),
    *(("DPMSolverSinglestepScheduler", {"solver_order": n, "solver_type": "heun", "lower_order_final": True, **SIGMA_MIN})
      for n in (2, 3)),
    *(("DPMSolverSinglestepScheduler", {"solver_order": n, "algorithm_type": "sde-dpmsolver++"}) for n in (1, 2, 3)),
    ("DPMSolverSinglestepScheduler", {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"}),
    *(("DPMSolverSinglestepScheduler", {"solver_order": 3, "solver_type": "heun", "prediction_type": p})
      for p in ("sample", "v_prediction")),
    ("DPMSolverMultistepScheduler", {"lambda_min_clipped": -3.0}),
    ("DPMSolverMultistepScheduler", {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"}),
    *(("UniPCMultistepScheduler", o) for o in [*SPACINGS, *LEVELS, {"solver_order": 3}]),
    # At sigma 0 the peer has NaN for these.
    ("UniPCMultistepScheduler", {"solver_type": "bh1", "final_sigmas_type": "sigma_min"}),
    ("UniPCMultistepScheduler", {"predict_x0": False, "final_sigmas_type": "sigma_min"}),
    ("UniPCMultistepScheduler", {"use_flow_sigmas": True, "flow_shift": 2.0, "prediction_type": "flow_prediction"}),
    *(("UniPCMultistepScheduler", {"disable_corrector": d, "solver_order": n}) for d, n in [([0], 2), ([1, 3], 3)]),
    *(("IPNDMScheduler", {"num_train_timesteps": n}) for n in (1000, 100)),
    *(("DEISMultistepScheduler", o) for o in [*SPACINGS, *LEVELS]),
    *(("FlowMatchEulerDiscreteScheduler", o) for o in [{}, {"shift": 3.0}, *LEVELS, {"shift": 2.0, "shift_terminal": 0.1}]),
    *(("FlowMatchLCMScheduler", o) for o in [{}, {"shift": 3.0, "scale_factors": [], "upscale_mode": "nearest"}]),
    ("FlowMatchHeunDiscreteScheduler", {"shift": 1.5}),
    *(("EDMEulerScheduler", o) for o in [{}, {"sigma_schedule": "exponential", "prediction_type": "v_prediction"}]),
    *(("EDMDPMSolverMultistepScheduler", {"solver_order": n}) for n in (1, 2, 3)),
    *(("DDIMInverseScheduler", o) for o in [{}, {**SPACINGS[0], "set_alpha_to_one": False}, {**SPACINGS[1], "clip_sample": False}]),
    *(("LCMScheduler", o) for o in [{}, {"original_inference_steps": 70, "clip_sample": True}, {"timestep_scaling": 0.003}]),
    ("LCMScheduler", {"set_alpha_to_one": False, **SPACINGS[0]}),
    ("TCDScheduler", {"original_inference_steps": 70, "prediction_type": "v_prediction"}),
    *(("CMStochasticIterativeScheduler", o) for o in [{}, {"num_train_timesteps": 50, "s_noise": 1.01, "clip_denoised": False}]),
]  # fmt: skip


SLOW_STEPS = [pytest.param(steps, marks=pytest.mark.slow) for steps in (1, 2, 10, 50, 12)]  # 12 does not divide the timesteps
# Each of their steps is two calls.
TWICE = (
    "HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "FlowMatchHeunDiscreteScheduler",
)  # fmt: skip


def every(cases):
    return pytest.mark.parametrize(("name", "options"), [
        pytest.param(n, o, id="-".join([n.removesuffix("Scheduler"), *(f"{k}={v}" for k, v in o.items())])) for n, o in cases
    ])  # fmt: skip


def make(name, options):
    import diffusers

    return getattr(diffusers, name)(**options)


def with_exact_table(scheduler):
    """The scheduler on our float64 table: of its own 1 − alphas_cumprod keeps few digits."""
    import torch

    if "beta_schedule" in scheduler.config and not scheduler.config.get("use_flow_sigmas"):
        config = {**scheduler.config, "_class_name": type(scheduler).__name__, "timestep_type": "discrete"}
        scheduler.alphas_cumprod = torch.tensor(df.Schedule.from_diffusers(config).alphas_cumprod)
        for end in ("final_alpha_cumprod", "initial_alpha_cumprod"):
            if scheduler.config.get("set_alpha_to_one") is False and hasattr(scheduler, end):
                setattr(scheduler, end, scheduler.alphas_cumprod[0])
    return scheduler


def test_the_guide_names_every_scheduler():
    guide = (Path(__file__).parent.parent / "docs" / "coming-from.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\w+", guide))
    assert {name.removesuffix("Scheduler") for name in SCHEDULERS} <= named


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_table_has_every_option_and_its_default(name):
    import diffusers

    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters
    assert dict(SCHEDULERS[name].options) == {k: p.default for k, p in parameters.items() if k not in ("self", "args", "kwargs")}


@pytest.mark.parametrize("betas", [BETAS[0], pytest.param(BETAS[1], marks=pytest.mark.slow)], ids=["linear", "scaled"])
@pytest.mark.parametrize("steps", [5, *SLOW_STEPS[:3], 50])
@every(CASES)
def test_grids(name, options, betas, steps):
    if betas and ("beta_schedule" not in SCHEDULERS[name].options or options.get("use_flow_sigmas")):
        return  # without betas
    if steps > options.get("num_train_timesteps", SCHEDULERS[name].options["num_train_timesteps"]):
        return
    if steps == 1 and (name, *options) in (
        ("EDMEulerScheduler", "sigma_schedule", "prediction_type"),
        ("FlowMatchEulerDiscreteScheduler", "shift", "shift_terminal"),
    ):
        pytest.skip("the peer's one step is wrong")
    scheduler = with_exact_table(make(name, {**betas, **options}))
    scheduler.set_timesteps(steps)
    _, peer, config = read(scheduler)
    schedule = peer.schedule(config, None)
    grid = peer.grid(config, schedule, steps)
    assert grid.times.shape == (steps,)
    told = {"none": np.asarray, "nearest": np.round, "down": lambda t: np.floor(t + 1e-6)}[grid.rounding]
    theirs = scheduler.timesteps.numpy().astype(np.float64)
    if name in TWICE:
        theirs = theirs[::2]
    if name == "PNDMScheduler":
        theirs = np.delete(theirs, 2) if steps > 1 else theirs  # its second is told twice
    if name == "DDIMInverseScheduler":
        theirs = theirs[::-1]
    times = told(schedule.network_time(grid.times))
    if grid.network_time is not None:
        times = np.array([*map(grid.network_time, times)])
    # "down" may take the peer's whole timestep, wrong by a rounding, for the one below.
    np.testing.assert_allclose(times, theirs[:steps], rtol=2e-6, atol=1 if grid.rounding == "down" else 2e-4)
    if hasattr(scheduler, "sigmas") and name not in TWICE:
        np.testing.assert_allclose(schedule.noise_level(grid.times), scheduler.sigmas[:steps], rtol=2e-6)


def smooth(x, t):
    return np.tanh(x[..., ::-1] - 0.3) + 0.2 * np.cos(3.0 * x) + 0.1 * np.sin(t / 100.0)


@pytest.mark.parametrize("steps", [5, *SLOW_STEPS])
@every(CASES)
def test_trajectories(name, options, steps):
    compare(name, options, steps)


@pytest.mark.parametrize("steps", [5, *SLOW_STEPS])
@every(
    [
        (name, options)
        for name, options in [
            ("DDIMScheduler", {}),
            ("DDPMScheduler", {}),
            ("LCMScheduler", {}),
            ("DPMSolverMultistepScheduler", {}),
            *(
                ("DPMSolverMultistepScheduler", {"solver_order": 1, "algorithm_type": a})
                for a in ("dpmsolver++", "sde-dpmsolver++")
            ),
            ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
            ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
            ("UniPCMultistepScheduler", {}),
            ("DEISMultistepScheduler", {}),
            ("EDMDPMSolverMultistepScheduler", {}),
            ("DPMSolverSinglestepScheduler", {"solver_order": 1, "prediction_type": "v_prediction"}),
        ]
    ]
)
def test_dynamic_thresholding(name, options, steps):
    # Over the whole schedule the noise form is a difference of terms of size 1e4, in the peer's float32.
    coarse = steps == 1 and (name == "DEISMultistepScheduler" or options.get("algorithm_type") == "dpmsolver")
    # Of the whole sample, so one sample: with channels, as the peer wants them.
    compare(
        name,
        {"thresholding": True, "dynamic_thresholding_ratio": 0.8, "sample_max_value": 1.7, **options},
        steps,
        (1, 3, 4),
        tolerance=1e-3 if coarse else 1e-5,
    )


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_tcd_at_other_eta(eta):
    compare("TCDScheduler", {}, 4, eta=eta)


# Where the one step of the peer goes wrong (see the docstring of interop.diffusers), by class and an option.
ONE_STEP_WRONG = {
    ("DEISMultistepScheduler", "use_karras_sigmas"), ("DEISMultistepScheduler", "use_exponential_sigmas"),
    ("DEISMultistepScheduler", "use_beta_sigmas"), ("EDMEulerScheduler", "sigma_schedule"),
    ("FlowMatchEulerDiscreteScheduler", "shift_terminal"),
}  # fmt: skip


FROM_QUOTIENT = ("DDIMScheduler", "DDIMParallelScheduler", "DDIMInverseScheduler", "PNDMScheduler")


def compare(name, options, steps, shape=(3, 4), *, tolerance=1e-5, given=None, **of_step):
    """Ours by the oracle and the peer's, on the same noise. ``given`` is what a pipeline gives to ``set_timesteps`` in place of
    steps; ``of_step`` are options of its ``step``, and of the plan."""
    import torch

    if steps > options.get("num_train_timesteps", SCHEDULERS[name].options["num_train_timesteps"]):
        return
    if (name, steps) == ("DEISMultistepScheduler", 50) and options.get("use_beta_sigmas"):
        pytest.skip("its closest levels differ by a few roundings of the peer's float32, and the state here is of size 300")
    if steps == 1 and any((name, option) in ONE_STEP_WRONG for option in options):
        pytest.skip("the peer's one step is wrong")

    if steps == 12 and name in FROM_QUOTIENT and options.get("timestep_spacing", "leading") != "leading":
        pytest.skip("the peer takes T // steps for the distance of timesteps that are farther apart")
    if name == "KDPM2AncestralDiscreteScheduler" and steps == 2:
        pytest.skip("between so distant levels the peer's sigma_down is a difference of equal float32 numbers")
    scheduler = with_exact_table(make(name, options))
    grid = given or {"num_inference_steps": steps}
    plan = df.Plan.from_diffusers(scheduler, None if given else steps, **(given or {}), **of_step)
    rng = np.random.default_rng(steps)
    start, noises = rng.standard_normal(shape), rng.standard_normal((plan.nfe, *shape))
    ours, registers = plan.initial_scale * start, [None] * plan.registers
    calls = iter(noises)
    for row in plan.rows:
        outputs = [smooth(ours, row.timestep)] if row.calls_network else []
        z = next(calls) if row.calls_network else None
        ours = apply_row(row, ours, outputs, registers, z=z if row.stochastic else None)
    scheduler.set_timesteps(**grid)
    theirs = torch.tensor(start) * float(getattr(scheduler, "init_noise_sigma", 1.0))
    module = type(scheduler).__module__
    for i, t in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(theirs, t) if hasattr(scheduler, "scale_model_input") else theirs
        output = torch.tensor(smooth(scaled.numpy().astype(np.float64), float(t)))
        z = torch.tensor(noises[min(i, len(noises) - 1)])
        with mock.patch(f"{module}.randn_tensor", lambda *_, z=z, **__: z) if plan.stochastic else mock.MagicMock():
            theirs = scheduler.step(output, t, theirs, **of_step).prev_sample
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=tolerance * max(1.0, np.abs(ours).max()))


@pytest.mark.parametrize("steps", [1, 2, 5, 10])
def test_learned_variance_of_ddpm(steps):
    import torch

    scheduler = with_exact_table(make("DDPMScheduler", {"variance_type": "learned_range"}))
    plan = df.Plan.from_diffusers(scheduler, steps)
    rng = np.random.default_rng(steps)
    ours, noises = rng.standard_normal((2, 3, 4)), rng.standard_normal((steps, 2, 3, 4))
    theirs = torch.tensor(ours)
    scheduler.set_timesteps(steps)
    for row, t, z in zip(plan.rows, scheduler.timesteps, noises, strict=True):
        ours = apply_row(row, ours, [smooth(ours, row.timestep)], z=z if row.stochastic else None, v=np.tanh(ours))
        output = torch.tensor(np.concatenate([smooth(theirs.numpy(), float(t)), np.tanh(theirs.numpy())], axis=1))
        with mock.patch(f"{type(scheduler).__module__}.randn_tensor", lambda *_, z=z, **__: torch.tensor(z)):
            theirs = scheduler.step(output, int(t), theirs).prev_sample
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-5 * max(1.0, np.abs(ours).max()))


@pytest.mark.parametrize("options", [{}, {"snr": 0.2, "correct_steps": 2, "sigma_max": 50.0, "sampling_eps": 1e-3}])
@pytest.mark.parametrize("steps", [2, 5, 20])
def test_score_sde_ve(steps, options):
    # As its pipeline runs it, which has loops of its own; of one sample, since it averages norms over the batch.
    import torch

    scheduler = make("ScoreSdeVeScheduler", options)
    plan = df.Plan.from_diffusers(scheduler, steps)
    scheduler.set_timesteps(steps)
    scheduler.set_sigmas(steps)
    # Its levels without the rounding to float32, to which a state of that size is sensitive.
    low, high = (math.log(scheduler.config[name]) for name in ("sigma_min", "sigma_max"))
    scheduler.discrete_sigmas = torch.exp(torch.linspace(low, high, steps, dtype=torch.float64))
    scheduler.sigmas = torch.exp(low + torch.linspace(1, scheduler.config.sampling_eps, steps, dtype=torch.float64) * (high - low))
    rng = np.random.default_rng(steps)
    start, noises = rng.standard_normal((1, 12)), rng.standard_normal((len(plan.rows), 1, 12))

    def score(x, sigma):
        return (smooth(x, sigma) - x) / sigma**2

    ours = plan.initial_scale * start
    for row, z in zip(plan.rows, noises, strict=True):
        ours = apply_row(row, ours, [score(ours, row.timestep)], z=z if row.stochastic else None)
    theirs, left = torch.tensor(start) * scheduler.init_noise_sigma, iter(torch.tensor(noises))
    with mock.patch(f"{type(scheduler).__module__}.randn_tensor", lambda *_, **__: next(left)):
        for t, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=True):
            for _ in range(scheduler.config.correct_steps):
                output = torch.tensor(score(theirs.numpy(), float(sigma)))
                theirs = scheduler.step_correct(output, theirs).prev_sample
            out = scheduler.step_pred(torch.tensor(score(theirs.numpy(), float(sigma))), t, theirs)
            theirs = out.prev_sample
    np.testing.assert_allclose(ours, out.prev_sample_mean.numpy(), rtol=0, atol=1e-5 * max(1.0, np.abs(ours).max()))


# A value of every option that is not its default.
OTHER = {
    "num_train_timesteps": 600, "beta_start": 3e-4, "beta_end": 0.015, "beta_schedule": "scaled_linear",
    "trained_betas": list(np.linspace(2e-4, 0.015, 1000)), "rescale_betas_zero_snr": True, "clip_sample": True,
    "clip_sample_range": 0.4, "prediction_type": "v_prediction", "thresholding": True, "dynamic_thresholding_ratio": 0.8,
    "sample_max_value": 1.7, "use_karras_sigmas": True, "use_exponential_sigmas": True, "use_beta_sigmas": True,
    "use_flow_sigmas": True, "flow_shift": 3.0, "use_dynamic_shifting": True, "time_shift_type": "linear",
    "timestep_spacing": "trailing", "steps_offset": 2, "sigma_min": 0.0625, "sigma_max": 12.0, "sigma_data": 0.7,
    "sigma_schedule": "exponential", "rho": 5.0, "final_sigmas_type": "sigma_min", "set_alpha_to_one": False,
    "variance_type": "fixed_large", "original_inference_steps": 40, "timestep_scaling": 5.0, "skip_prk_steps": True,
    "interpolation_type": "log_linear", "timestep_type": "continuous", "algorithm_type": "sde-dpmsolver++", "solver_order": 3,
    "solver_type": "heun", "lower_order_final": False, "euler_at_final": True, "lambda_min_clipped": -3.0, "use_lu_lambdas": True,
    "predict_x0": False, "disable_corrector": [1], "solver_p": "another scheduler", "shift": 2.0, "shift_terminal": 0.123,
    "base_shift": 0.3, "max_shift": 1.0, "base_image_seq_len": 128, "max_image_seq_len": 2048, "invert_sigmas": True,
    "scale_factors": [0.5, 1.0], "upscale_mode": "nearest",
    "stochastic_sampling": True, "s_noise": 1.01, "clip_denoised": False, "snr": 0.2, "sampling_eps": 1e-3, "correct_steps": 2,
}  # fmt: skip
# What an option needs beside it to have a meaning, and what it takes where the default is that value.
BESIDE = {
    "flow_shift": {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
    "use_flow_sigmas": {"prediction_type": "flow_prediction"}, "clip_sample_range": {"clip_sample": True},
    "dynamic_thresholding_ratio": {"thresholding": True}, "sample_max_value": {"thresholding": True},
    "rescale_betas_zero_snr": {"prediction_type": "v_prediction", "timestep_spacing": "trailing", **BETAS[1]},
    "timestep_type": {"prediction_type": "v_prediction"}, "steps_offset": {"timestep_spacing": "leading"},
    "shift_terminal": {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
    "use_dynamic_shifting": {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
    # At sigma 0 the peer has NaN.
    "predict_x0": {"final_sigmas_type": "sigma_min"}, ("UniPCMultistepScheduler", "lower_order_final"): SIGMA_MIN,
}  # fmt: skip
OTHERWISE = {"clip_sample": False, "beta_schedule": "linear", "lower_order_final": True, "set_alpha_to_one": True}


@pytest.mark.parametrize(("name", "option"), [(name, option) for name, peer in SCHEDULERS.items() for option in peer.options])
def test_every_option_is_honoured_or_refused_by_name(name, option):
    """The numbers with the option are the peer's with it: also where it changes none of them. Or it is refused."""
    peer = SCHEDULERS[name]
    value = OTHER[option] if peer.options[option] != OTHER[option] else OTHERWISE[option]
    options = {**{k: v for k, v in BESIDE.get((name, option), BESIDE.get(option, {})).items() if k in peer.options}, option: value}
    config = {"_class_name": name, **options}
    try:
        plan = df.Plan.from_diffusers(config, 4)
    except ArgumentError as error:
        assert any(f"{given}" in str(error) for given in options)  # this, or what it needs beside it
        return
    assert plan.steps == 4
    if name == "ScoreSdeVeScheduler":
        return  # test_score_sde_ve
    if (name, option) == ("PNDMScheduler", "prediction_type"):
        return  # it combines v where the paper combines ε: tests/solver has that
    # With 2^-24 for no signal its sigmas begin at 4096, in float32.
    compare(name, options, 4, (1, 3, 4), tolerance=1e-4 if option == "rescale_betas_zero_snr" else 1e-5)


def test_an_option_that_a_newer_diffusers_has_is_refused():
    import diffusers

    class DDIMScheduler(diffusers.DDIMScheduler):
        @diffusers.configuration_utils.register_to_config
        def __init__(self, num_train_timesteps=1000, use_karras_sigmas=False):  # another class's, and so known as a name
            super().__init__(num_train_timesteps)

    with pytest.raises(ArgumentError, match="DDIMScheduler has use_karras_sigmas=True"):
        df.Plan.from_diffusers(DDIMScheduler(use_karras_sigmas=True), 5)
    df.Plan.from_diffusers(DDIMScheduler(), 5)


def test_options_of_a_step():
    config = {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "clip_sample": False}
    plan = df.Plan.from_diffusers(config, 10, eta=0.5, rederive_epsilon=True)
    schedule = df.Schedule.scaled_linear(1000, 1e-4, 0.02)
    wanted = df.plan(schedule, "ddim", 10, prediction_type="epsilon", eta=0.5, rederive_epsilon=True)
    assert plan.rows == wanted.rows


def test_stable_diffusion_s_own_configuration():
    config = {
        "_class_name": "DDIMScheduler", "_diffusers_version": "0.6.0", "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "beta_start": 0.00085, "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
        "trained_betas": None, "clip_sample": False,
    }  # fmt: skip
    assert df.Schedule.from_diffusers(config) == df.Schedule.scaled_linear()
    plan = df.Plan.from_diffusers(config, 50)
    assert plan.timesteps[[0, -1]].tolist() == [981.0, 1.0]
    assert plan.marginals[-1][0] == pytest.approx(df.Schedule.scaled_linear().alpha(0))


def test_a_dynamic_shift_is_given_by_mu():
    scheduler = make("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True, "shift": 3.0})
    scheduler.set_timesteps(7, mu=0.8)
    grid = SCHEDULERS["FlowMatchEulerDiscreteScheduler"].grid
    schedule = df.Schedule.from_diffusers(scheduler, mu=0.8)
    np.testing.assert_allclose(grid(dict(scheduler.config), schedule, 7).times, scheduler.timesteps, rtol=1e-6)
    with pytest.raises(ArgumentError, match="give mu="):
        df.Schedule.from_diffusers(scheduler)
    with pytest.raises(ArgumentError, match="mu is given"):
        df.Schedule.from_diffusers(make("DDIMScheduler", {}), mu=1.0)


EDM = {"_class_name": "EDMDPMSolverMultistepScheduler", "solver_order": 1}


@pytest.mark.parametrize(("name", "step"), [
    (name, n) for name in ("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler") for n in (1, 5)
])  # fmt: skip
def test_a_dynamic_shift_of_flow_sigmas(name, step):
    options = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    scheduler = make(name, {**options, "use_dynamic_shifting": True})
    scheduler.set_timesteps(step, mu=0.7)
    plan = df.Plan.from_diffusers(scheduler, step, mu=0.7)
    levels = [sigma / (alpha + sigma) for alpha, sigma in plan.marginals]
    np.testing.assert_allclose(levels, scheduler.sigmas, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"_class_name": "UniPCMultistepScheduler", "use_dynamic_shifting": True}, "needs use_flow_sigmas=True"),
        (
            {"_class_name": "UniPCMultistepScheduler", "use_dynamic_shifting": True, "use_flow_sigmas": True,
             "time_shift_type": "linear"}, "time_shift_type='linear'",
        ),
        ({"_class_name": "DEISMultistepScheduler", "use_flow_sigmas": True}, "use_flow_sigmas=True is not supported for DEIS"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift_terminal": 0.1}, "shift_terminal=0.1 needs at least 2 steps"),
        ({"_class_name": "EulerDiscreteScheduler", "rescale_betas_zero_snr": True}, "rescale_betas_zero_snr=True is not supported"),
        ({"thresholding": True, "sample_max_value": 0.5}, "sample_max_value 0.5"),
        ({"thresholding": True, "dynamic_thresholding_ratio": 0.0}, "dynamic_thresholding_ratio is 0.0"),
        ({"_class_name": "DDPMScheduler", "variance_type": "learned"}, "variance_type='learned' is not supported.*logarithm"),
        ({"_class_name": "TCDScheduler", "thresholding": True}, "thresholding=True is not supported.*TCDScheduler"),
        ({"_class_name": "TCDScheduler", "clip_sample": True}, "clip_sample=True is not supported.*TCDScheduler"),
        ({"_class_name": "LCMScheduler", "original_inference_steps": 4}, "steps is 5; original_inference_steps allows 1 to 4"),
        ({"_class_name": "LCMScheduler", "original_inference_steps": 1001}, "original_inference_steps is 1001"),
        ({"_class_name": "CMStochasticIterativeScheduler", "num_train_timesteps": 4}, "steps is 5; num_train_timesteps"),
        (
            {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++", "solver_order": 3},
            "solver_order=3.*not supported.*k-diffusion",
        ),
        (
            {"_class_name": "DPMSolverSinglestepScheduler", "algorithm_type": "sde-dpmsolver++", "solver_order": 3,
             "solver_type": "heun"},
            "solver_type='heun' with solver_order=3.*sign error",
        ),
        ({"_class_name": "DPMSolverSinglestepScheduler", "algorithm_type": "unipc"}, "algorithm_type is 'unipc'"),
        ({"_class_name": "DPMSolverSinglestepScheduler", "solver_order": 4}, "solver_order is 4"),
        ({"_class_name": "DPMSolverSinglestepScheduler", "solver_order": 1, "variance_type": "learned"}, "variance_type='learned'"),
        ({"_class_name": "EulerDiscreteScheduler", "interpolation_type": "log_linear"}, "interpolation_type='log_linear'"),
        ({"beta_schedule": "laplace"}, "beta_schedule is 'laplace'"),
        ({"prediction_type": "noise"}, "prediction_type='noise'"),
        ({"timestep_spacing": "random"}, "timestep_spacing 'random'"),
        ({"clip_samples": True}, "option 'clip_samples'.*Did you mean 'clip_sample"),
        ({"_class_name": "DDPMScheduler", "variance_type": "fixed_large_log"}, "variance_type is 'fixed_large_log'"),
        ({"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver"}, "algorithm_type='sde-dpmsolver'"),
        ({"_class_name": "DPMSolverMultistepScheduler", "solver_order": 1, "use_karras_sigmas": True, "use_beta_sigmas": True},
         "use_karras_sigmas and use_beta_sigmas"),
        ({**EDM, "sigma_schedule": "cosine"}, "sigma_schedule is 'cosine'"),
        ({"_class_name": "FlowMatchLCMScheduler", "scale_factors": [0.5, 1.0]}, "scale_factors=.*size"),
        ({**EDM, "prediction_type": "sample"}, "prediction_type='sample'"),
        ({"_class_name": "EulerDiscretScheduler"}, "unknown scheduler 'EulerDiscretScheduler'.*Did you mean"),
        ({"_class_name": "VQDiffusionScheduler"}, "VQDiffusionScheduler is not supported.*discrete tokens"),
        ({"_class_name": "IPNDMScheduler", "trained_betas": [0.5]}, "trained_betas is not supported.*IPNDMScheduler"),
        ({"_class_name": "IPNDMScheduler", "num_train_timesteps": 4}, "steps is 5; num_train_timesteps"),
        ({"_class_name": "UniPCMultistepScheduler", "disable_corrector": [-1]}, "disable_corrector is -1"),
        ({"_class_name": None}, "lacks '_class_name'"),
    ],
)  # fmt: skip
def test_what_is_not_honoured_is_named(config, says):
    with pytest.raises(ArgumentError, match=says):
        df.Plan.from_diffusers({"_class_name": "DDIMScheduler", **config}, 1 if "needs at least 2 steps" in says else 5)


def test_other_bad_input():
    config = {"_class_name": "DDIMScheduler"}
    with pytest.raises(ArgumentTypeError, match="the scheduler is a int"):
        df.Schedule.from_diffusers(3)
    with pytest.raises(ArgumentError, match="steps is 0"):
        df.Plan.from_diffusers(config, 0)
    with pytest.raises(ArgumentError, match="set_alpha_to_one is an option of DDIMScheduler"):
        df.Plan.from_diffusers(config, 5, set_alpha_to_one=False)
    with pytest.raises(ArgumentTypeError, match="no option 'etta'"):
        df.Plan.from_diffusers(config, 5, etta=1.0)


def test_every_other_scheduler_is_refused_by_name():
    import diffusers

    there = {name for module in (diffusers, diffusers.schedulers) for name in dir(module) if name.endswith("Scheduler")}
    assert there == SCHEDULERS.keys() | UNSUPPORTED.keys()
    for name in UNSUPPORTED:
        with pytest.raises(ArgumentError, match=name):
            df.Schedule.from_diffusers({"_class_name": name})


LINE = [999, 800, 500, 250, 20]


@pytest.mark.parametrize(("name", "options", "given"), [
    # What Flux's pipeline gives, and its dynamic shift.
    ("FlowMatchEulerDiscreteScheduler", {}, {"sigmas": np.linspace(1, 1 / 4, 4)}),
    ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True}, {"sigmas": np.linspace(1, 1 / 5, 5), "mu": 1.15}),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, {"sigmas": [1.0, 0.7, 0.2]}),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0, "use_karras_sigmas": True}, {"sigmas": [1.0, 0.7, 0.2]}),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, {"timesteps": [1000.0, 700.0, 200.0]}),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, {"sigmas": [1.0, 0.7, 0.2], "timesteps": [990.0, 720.0, 310.0]}),
    ("FlowMatchLCMScheduler", {"shift": 2.0}, {"sigmas": [1.0, 0.7, 0.2]}),
    ("UniPCMultistepScheduler", {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"},
     {"sigmas": np.linspace(1, 1 / 5, 5)}),
    # The list of Align Your Steps for Stable Diffusion, and one in between.
    ("EulerDiscreteScheduler", BETAS[1], {"sigmas": [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.0]}),
    ("EulerDiscreteScheduler", {**BETAS[1], **SPACINGS[0]}, {"sigmas": [7.0, 2.5, 0.4, 0.0]}),
    *((name, options, {"timesteps": LINE}) for name, options in [
        ("EulerDiscreteScheduler", {}), ("EulerDiscreteScheduler", SPACINGS[0]), ("HeunDiscreteScheduler", {}),
        ("DDPMScheduler", {}), ("DPMSolverMultistepScheduler", {}), ("DPMSolverSinglestepScheduler", {}),
    ]),
    ("EulerDiscreteScheduler", SIGMA_MIN, {"timesteps": [999.0, 433.5, 20.25]}),
    ("LCMScheduler", {}, {"timesteps": [999, 759, 499, 259]}),
    ("TCDScheduler", {}, {"timesteps": [999, 759, 499, 259]}),
    ("CMStochasticIterativeScheduler", {}, {"timesteps": [22, 0]}),
])  # fmt: skip
def test_a_pipelines_own_list(name, options, given):
    calls = max(len(values) for option, values in given.items() if option != "mu")
    # Published levels are rounded out of the table, whose end is taken here.
    compare(name, options, calls, given=given, tolerance=1e-3 if 14.615 in list(given.get("sigmas", ())) else 1e-5)


@pytest.mark.parametrize(("config", "arguments", "says"), [
    ({}, {"timesteps": LINE}, "DDIMScheduler does not take timesteps.*df.plan"),
    ({}, {"sigmas": [1.0, 0.0]}, "DDIMScheduler does not take sigmas"),
    ({"_class_name": "EulerDiscreteScheduler"}, {"sigmas": [9.0, 1.0]}, "sigmas ends at 1.*append 0"),
    ({"_class_name": "EulerDiscreteScheduler"}, {"sigmas": [9.0, 1.0, 0.0], "timesteps": LINE}, "both given"),
    ({"_class_name": "EulerDiscreteScheduler"}, {"timesteps": LINE, "steps": 4}, "steps is 4, but the list given has 5"),
    ({"_class_name": "EulerDiscreteScheduler"}, {"timesteps": LINE[::-1]}, "decreasing list"),
    ({"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True}, {"timesteps": LINE}, "spacing over noise levels"),
    ({"_class_name": "DDPMScheduler"}, {"timesteps": [900.5, 3]}, "takes integers"),
    ({"_class_name": "CMStochasticIterativeScheduler"}, {"timesteps": [40, 0]}, "from 0 to 39"),
    ({"_class_name": "UniPCMultistepScheduler"}, {"sigmas": [1.0, 0.5]}, "use_flow_sigmas=True"),
    ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, {"sigmas": [1.0, 0.5], "timesteps": [900.0]}, "2 values and timesteps 1"),
    ({}, {}, "steps is missing"),
    ({}, {"steps": 5, "clip": (-1, 1)}, "clip is determined by the configuration of DDIMScheduler; set clip_sample"),
    ({}, {"steps": 5, "prediction_type": "sample"}, "prediction_type is determined by the configuration"),
    ({}, {"steps": 5, "timestep_rounding": "down"}, "timestep_rounding is determined by the configuration"),
    ({}, {"steps": 5, "use_clipped_model_output": True, "rederive_epsilon": True}, "the same option"),
    ({"_class_name": "EulerDiscreteScheduler"}, {"steps": 5, "use_clipped_model_output": True}, "has no use_clipped_model_output"),
])  # fmt: skip
def test_arguments_that_cannot_be_honoured_are_named(config, arguments, says):
    with pytest.raises((ArgumentError, ArgumentTypeError), match=says):
        df.Plan.from_diffusers({"_class_name": "DDIMScheduler", **config}, **arguments)


@pytest.mark.parametrize("rederive", [False, True])
def test_a_guided_output_beside_a_clipped_prediction_is_the_peers(rederive):
    """Outputs that leave the range: epsilon is the network's own unless use_clipped_model_output."""
    import torch

    for name in ("DDIMScheduler", "DDIMInverseScheduler"):
        scheduler = with_exact_table(make(name, {"clip_sample": True}))
        scheduler.set_timesteps(10)
        inverse = name == "DDIMInverseScheduler"
        if inverse and rederive:
            continue  # its step has no such argument
        options = {} if inverse else {"use_clipped_model_output": rederive}
        row = df.Plan.from_diffusers(scheduler, 10, **options).rows[4]
        x, m = np.random.default_rng(0).standard_normal((2, 3, 4)) * 3.0
        theirs = scheduler.step(torch.tensor(m), int(scheduler.timesteps[4]), torch.tensor(x), **options).prev_sample
        np.testing.assert_allclose(apply_row(row, x, [m]), theirs, rtol=1e-6)


def test_unipc_in_the_noise_form_does_not_threshold():
    options = {"thresholding": True, "dynamic_thresholding_ratio": 0.8, "sample_max_value": 1.7, "predict_x0": False, **SIGMA_MIN}
    compare("UniPCMultistepScheduler", options, 5, (1, 3, 4))


@pytest.mark.parametrize(("steps", "every"), [(3, 13), (7, 5), (11, 3), (40, 1)])
def test_a_consistency_model_is_called_at_every_so_many_th_level(steps, every):
    """diffusers: timesteps arange(steps)·(40 // steps), of Karras' 40 levels from 80 to 0.002."""
    plan = df.Plan.from_diffusers({"_class_name": "CMStochasticIterativeScheduler"}, steps)
    levels = (80 ** (1 / 7) + np.arange(40) / 39 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    called = [sigma / alpha for alpha, sigma in plan.marginals[:-1]]
    np.testing.assert_allclose(called, levels[np.arange(steps) * every], rtol=1e-12)


def test_a_published_list_of_levels_is_brought_back_to_both_ends():
    """Align Your Steps writes 14.615 and 0.029 for the first and the last level of Stable Diffusion, 14.6146 and 0.02917."""
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    cumulative = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    low, high = (np.sqrt((1 - cumulative[i]) / cumulative[i]) for i in (0, -1))
    plan = df.Plan.from_diffusers({"_class_name": "EulerDiscreteScheduler", **betas}, sigmas=[14.615, 3.0, 0.5, 0.029, 0.0])
    called = [sigma / alpha for alpha, sigma in plan.marginals[:-1]]
    np.testing.assert_allclose(called, [high, 3.0, 0.5, low], rtol=1e-9)


def test_ipndm_of_every_timestep():
    plan = df.Plan.from_diffusers({"_class_name": "IPNDMScheduler"}, 1000)
    scheduler = make("IPNDMScheduler", {})
    scheduler.set_timesteps(1000)
    np.testing.assert_allclose(plan.timesteps, scheduler.timesteps, atol=2e-5)  # the peer has them in float32


@pytest.mark.parametrize(("name", "options", "inert"), [
    *(("DPMSolverMultistepScheduler", {"solver_order": 1}, o) for o in [
        {"solver_type": "heun"}, {"lower_order_final": False}, {"euler_at_final": True}]),
    ("EDMDPMSolverMultistepScheduler", {"solver_order": 1}, {"solver_type": "heun"}),
    # What configurations of other classes carry along.
    ("DPMSolverMultistepScheduler", {}, {"variance_type": "fixed_small"}),
    ("DPMSolverMultistepScheduler", SIGMA_MIN, {"algorithm_type": "deis", "solver_type": "logrho"}),
    ("DPMSolverSinglestepScheduler", SIGMA_MIN, {"algorithm_type": "deis", "solver_type": "bh2", "variance_type": "fixed_large"}),
    ("DEISMultistepScheduler", {}, {"algorithm_type": "dpmsolver++", "solver_type": "midpoint"}),
    ("UniPCMultistepScheduler", {}, {"solver_type": "midpoint"}),
])  # fmt: skip
def test_an_option_that_changes_nothing_is_not_refused(name, options, inert):
    with_it, without = (df.Plan.from_diffusers({"_class_name": name, **options, **more}, 5) for more in (inert, {}))
    assert with_it.rows == without.rows
    compare(name, {**options, **inert}, 5)  # nor does it change the peer's numbers


def test_where_a_configuration_may_be(tmp_path):
    scheduler = make("DDIMScheduler", {"beta_schedule": "scaled_linear"})
    wanted = df.Plan.from_diffusers(scheduler, 5)
    pipeline = tmp_path / "pipeline"
    scheduler.save_pretrained(pipeline / "scheduler")
    file = pipeline / "scheduler" / "scheduler_config.json"
    for place in (pipeline, file.parent, file, str(file)):
        assert df.Plan.from_diffusers(place, 5) == wanted
        assert df.Schedule.from_diffusers(place).num_train_timesteps == 1000
    for config in (type(scheduler).from_pretrained(file.parent), json.loads(file.read_text())):
        assert df.Plan.from_diffusers(config, 5) == wanted
    with pytest.raises(ArgumentError, match="give the scheduler itself"):
        df.Plan.from_diffusers({k: v for k, v in scheduler.config.items() if k != "_class_name"}, 5)
    with pytest.raises(ArgumentError, match=r"cannot read .*nothing"):
        df.Plan.from_diffusers(tmp_path / "nothing", 5)
    file.write_text("{")
    with pytest.raises(ArgumentError, match=r"is not a valid scheduler_config.json"):
        df.Plan.from_diffusers(file, 5)


def by_plan(schedule, solver, steps=5, **options):
    return lambda: df.plan(schedule, solver, steps, **{"prediction_type": schedule.prediction_types[0], **options})


ALPHAS = df.Schedule.scaled_linear().alphas_cumprod
ADVICE = {  # what each refusal says to take instead
    "CosineDPMSolverMultistepScheduler": by_plan(df.Schedule.edm(), "dpmpp_2m_sde"),
    "DPMSolverSDEScheduler": by_plan(df.Schedule.linear(), "dpmpp_2m_sde"),
    "DPMSolverMultistepInverseScheduler": by_plan(df.Schedule.linear(), "ddim_inverse"),
    "SASolverScheduler": by_plan(df.Schedule.linear(), "dpmpp_3m_sde"),
    "RePaintScheduler": lambda: by_plan(df.Schedule.linear(), "ddpm")().with_known_region(),
    "CogVideoXDDIMScheduler": by_plan(df.Schedule.from_alphas_cumprod(ALPHAS), "ddim"),
    "CogVideoXDPMScheduler": by_plan(df.Schedule.from_alphas_cumprod(ALPHAS), "dpmpp_2m_sde"),
    "UnCLIPScheduler": lambda: df.Plan.from_diffusers({"_class_name": "DDPMScheduler"}, 5),
    "DDPMWuerstchenScheduler": by_plan(df.Schedule.cosine(), "ddpm"),
    "KarrasVeScheduler": by_plan(df.Schedule.edm(), "heun"),
    "ScoreSdeVpScheduler": by_plan(df.Schedule.vp_sde(), "euler_maruyama"),
    "LTXEulerAncestralRFScheduler": by_plan(df.Schedule.flow(), "euler_ancestral", None, timesteps=1000 * np.linspace(1, 1 / 5, 5)),
    "MiniMaxH3Scheduler": by_plan(df.Schedule.flow(), "flow_euler"),
}


@pytest.mark.parametrize("name", [name for name, why in UNSUPPORTED.items() if name in ADVICE or "Use" in why])
def test_the_advice_of_a_refusal_can_be_followed(name):
    plan = ADVICE[name]()
    assert name == "UnCLIPScheduler" or f"{plan.solver}" in UNSUPPORTED[name]
    assert plan.steps == 5


@pytest.mark.parametrize(("config", "advised"), [
    ({"_class_name": "DEISMultistepScheduler", "use_flow_sigmas": True}, by_plan(df.Schedule.flow(), "dpmpp_2m")),
    ({"_class_name": "DDPMScheduler", "variance_type": "learned"}, by_plan(df.Schedule.linear(), "ddpm", variance_type="learned")),
    ({"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++", "solver_order": 3},
     by_plan(df.Schedule.linear(), "dpmpp_3m_sde")),
    ({"_class_name": "DPMSolverSinglestepScheduler", "algorithm_type": "sde-dpmsolver++", "solver_order": 3, "solver_type": "heun"},
     by_plan(df.Schedule.linear(), "dpmsolver_singlestep", algorithm_type="sde-dpmsolver++", solver_order=3, solver_type="heun")),
])  # fmt: skip
def test_the_advice_about_an_option_can_be_followed(config, advised):
    plan = advised()
    with pytest.raises(ArgumentError, match=f"Use df.plan with {plan.solver}"):
        df.Plan.from_diffusers(config, 5)


def test_diffusers_is_not_needed():
    code = (
        "import sys, diffuse_fast as df; df.Plan.from_diffusers({'_class_name': 'DDIMScheduler'}, 5); "
        "print([m for m in ('diffusers', 'torch') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "[]", run.stderr
