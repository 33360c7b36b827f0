"""diffusers' schedulers read from their configuration, against the schedulers themselves."""

from __future__ import annotations

import inspect
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, ArgumentTypeError
from diffuse_fast.interop import PEERS, REFUSED, _read
from diffuse_fast.kernels.reference import apply_row

pytest.importorskip("diffusers")
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),  # NumPy on torch tensors, in diffusers
    pytest.mark.filterwarnings("ignore:.*algorithm_type.*dpmsolver:FutureWarning"),
]

BETAS = [
    {},
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
]
LEVELS = [{"use_karras_sigmas": True}, {"use_exponential_sigmas": True}, {"use_beta_sigmas": True}]
LU = {"use_lu_lambdas": True}
SPACINGS = [{"timestep_spacing": "leading", "steps_offset": 1}, {"timestep_spacing": "trailing"}, {"timestep_spacing": "linspace"}]

CASES = [
    *(("DDIMScheduler", o) for o in [*SPACINGS[:2], {"set_alpha_to_one": False, "clip_sample": False}]),
    ("DDIMScheduler", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}),
    *(("DDPMScheduler", o) for o in [{}, {"variance_type": "fixed_large", "clip_sample_range": 0.5}]),
    *(("PNDMScheduler", {"skip_prk_steps": True, **o}) for o in SPACINGS[:2]),  # linspace: its previous timestep is wrong
    *(("EulerDiscreteScheduler", o) for o in [*SPACINGS, *LEVELS, {**LEVELS[0], **SPACINGS[0]}, {**LEVELS[1], **SPACINGS[1]}]),
    ("EulerDiscreteScheduler", {"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 10.0}),
    *(("EulerAncestralDiscreteScheduler", o) for o in SPACINGS),
    *(("HeunDiscreteScheduler", o) for o in [*SPACINGS, *LEVELS, {"clip_sample": True}]),
    *(("LMSDiscreteScheduler", o) for o in [*SPACINGS, *LEVELS]),
    *(("KDPM2DiscreteScheduler", o) for o in [*SPACINGS, *LEVELS[1:]]),
    *(("KDPM2AncestralDiscreteScheduler", o) for o in [*SPACINGS, LEVELS[1]]),
    *(("DPMSolverMultistepScheduler", {"solver_order": n, **o}) for n in (1, 2) for o in [*SPACINGS, *LEVELS, LU]),
    *(("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": n}) for n in (1, 2)),
    ("DPMSolverMultistepScheduler", {"lambda_min_clipped": -3.0}),
    ("DPMSolverMultistepScheduler", {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"}),
    *(("UniPCMultistepScheduler", o) for o in [*SPACINGS, *LEVELS, {"solver_order": 3}]),
    # At sigma 0 the peer has NaN for these.
    ("UniPCMultistepScheduler", {"solver_type": "bh1", "final_sigmas_type": "sigma_min"}),
    ("UniPCMultistepScheduler", {"predict_x0": False, "final_sigmas_type": "sigma_min"}),
    ("UniPCMultistepScheduler", {"use_flow_sigmas": True, "flow_shift": 2.0, "prediction_type": "flow_prediction"}),
    *(("DEISMultistepScheduler", o) for o in [*SPACINGS, *LEVELS]),
    *(("FlowMatchEulerDiscreteScheduler", o) for o in [{}, {"shift": 3.0}, *LEVELS, {"shift": 2.0, "shift_terminal": 0.1}]),
    ("FlowMatchHeunDiscreteScheduler", {"shift": 1.5}),
    *(("EDMEulerScheduler", o) for o in [{}, {"sigma_schedule": "exponential", "prediction_type": "v_prediction"}]),
    *(("EDMDPMSolverMultistepScheduler", {"solver_order": n}) for n in (1, 2, 3)),
]  # fmt: skip


SLOW_STEPS = [pytest.param(steps, marks=pytest.mark.slow) for steps in (2, 10)]
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


@pytest.mark.parametrize("name", PEERS)
def test_the_table_has_every_option_and_its_default(name):
    import diffusers

    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters
    assert dict(PEERS[name].options) == {k: p.default for k, p in parameters.items() if k not in ("self", "args", "kwargs")}


@pytest.mark.parametrize("betas", BETAS, ids=["linear", "scaled"])
@pytest.mark.parametrize("steps", [5, *SLOW_STEPS, 50])
@every(CASES)
def test_grids(name, options, betas, steps):
    flow = name.startswith("Flow")
    if betas and (flow or name.startswith("EDM") or options.get("use_flow_sigmas")):
        return  # without betas
    options = {**betas, **options}
    scheduler = make(name, options)
    if "beta_schedule" in scheduler.config:
        import torch

        # Its grids, and not the rounding of its float32 table, of which 1 − alphas_cumprod keeps few digits.
        exact = df.Schedule.from_diffusers(scheduler).alphas_cumprod if not options.get("use_flow_sigmas") else None
        scheduler.alphas_cumprod = scheduler.alphas_cumprod if exact is None else torch.tensor(exact)
    scheduler.set_timesteps(steps)
    _, peer, config = _read(scheduler)
    schedule = peer.schedule(config, None)
    grid = peer.grid(config, schedule, steps)
    assert grid.times.shape == (steps,)
    told = {"none": np.asarray, "nearest": np.round, "down": lambda t: np.floor(t + 1e-6)}[grid.rounding]
    theirs = scheduler.timesteps.numpy().astype(np.float64)
    if name in TWICE:
        theirs = theirs[::2]
    if name == "PNDMScheduler":
        theirs = np.delete(theirs, 2)  # its second is told twice
    times = told(schedule.network_time(grid.times))
    # "down" may take the peer's whole timestep, wrong by a rounding, for the one below.
    np.testing.assert_allclose(times, theirs[:steps], rtol=2e-6, atol=1 if grid.rounding == "down" else 2e-4)
    if hasattr(scheduler, "sigmas") and name not in TWICE:
        np.testing.assert_allclose(schedule.noise_level(grid.times), scheduler.sigmas[:steps], rtol=2e-6)


def smooth(x, t):
    return np.tanh(x[..., ::-1] - 0.3) + 0.2 * np.cos(3.0 * x) + 0.1 * np.sin(t / 100.0)


@pytest.mark.parametrize("steps", [5, *SLOW_STEPS])
@every(CASES)
def test_trajectories(name, options, steps):
    import torch

    if name == "KDPM2AncestralDiscreteScheduler" and steps == 2:
        pytest.skip("between so distant levels the peer's sigma_down is a difference of equal float32 numbers")
    scheduler = make(name, options)
    try:
        plan = df.Plan.from_diffusers(scheduler, steps)
    except ArgumentError as error:
        if "which this version does not have" in str(error):
            pytest.skip(str(error))
        raise
    if "beta_schedule" in scheduler.config and not options.get("use_flow_sigmas"):
        scheduler.alphas_cumprod = torch.tensor(df.Schedule.from_diffusers(scheduler).alphas_cumprod)
        if scheduler.config.get("set_alpha_to_one") is False:
            scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    rng = np.random.default_rng(steps)
    start, noises = rng.standard_normal((3, 4)), rng.standard_normal((len(plan.rows), 3, 4))
    ours, registers = plan.initial_scale * start, [None] * plan.registers
    for i, row in enumerate(plan.rows):
        outputs = [smooth(ours, row.timestep)] if row.calls_network else []
        ours = apply_row(row, ours, outputs, registers, z=noises[i] if row.stochastic else None)
    scheduler.set_timesteps(steps)
    theirs = torch.tensor(start) * float(getattr(scheduler, "init_noise_sigma", 1.0))
    module = type(scheduler).__module__
    for i, t in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(theirs, t) if hasattr(scheduler, "scale_model_input") else theirs
        output = torch.tensor(smooth(scaled.numpy().astype(np.float64), float(t)))
        z = torch.tensor(noises[min(i, len(noises) - 1)])
        with mock.patch(f"{module}.randn_tensor", lambda *_, z=z, **__: z) if plan.stochastic else mock.MagicMock():
            theirs = scheduler.step(output, t, theirs).prev_sample
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-5 * max(1.0, np.abs(ours).max()))


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
    grid = PEERS["FlowMatchEulerDiscreteScheduler"].grid
    schedule = df.Schedule.from_diffusers(scheduler, mu=0.8)
    np.testing.assert_allclose(grid(dict(scheduler.config), schedule, 7).times, scheduler.timesteps, rtol=1e-6)
    with pytest.raises(ArgumentError, match="give mu="):
        df.Schedule.from_diffusers(scheduler)
    with pytest.raises(ArgumentError, match="mu is given"):
        df.Schedule.from_diffusers(make("DDIMScheduler", {}), mu=1.0)


EDM = {"_class_name": "EDMDPMSolverMultistepScheduler", "solver_order": 1}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"thresholding": True}, "thresholding=True, which is not honoured"),
        ({"beta_schedule": "laplace"}, "beta_schedule is 'laplace'"),
        ({"prediction_type": "noise"}, "prediction_type='noise'"),
        ({"timestep_spacing": "random"}, "timestep_spacing 'random'"),
        ({"clip_samples": True}, "option 'clip_samples'.*Did you mean 'clip_sample"),
        ({"_class_name": "DDPMScheduler", "variance_type": "fixed_large_log"}, "variance_type is 'fixed_large_log'"),
        ({"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver"}, "algorithm_type='sde-dpmsolver'"),
        ({"_class_name": "DPMSolverMultistepScheduler", "solver_order": 1, "euler_at_final": True}, "euler_at_final=True"),
        ({"_class_name": "DPMSolverMultistepScheduler", "solver_order": 1, "use_karras_sigmas": True, "use_beta_sigmas": True},
         "use_karras_sigmas and use_beta_sigmas"),
        ({**EDM, "sigma_schedule": "cosine"}, "sigma_schedule is 'cosine'"),
        ({"_class_name": "KDPM2DiscreteScheduler", "use_karras_sigmas": True}, "use_karras_sigmas=True.*rounds"),
        ({**EDM, "prediction_type": "sample"}, "prediction_type='sample'"),
        ({"_class_name": "VQDiffusionScheduler"}, "'VQDiffusionScheduler' is not known"),
        ({"_class_name": "IPNDMScheduler"}, "IPNDMScheduler has no counterpart"),
        ({"_class_name": None}, "lacks '_class_name'"),
    ],
)  # fmt: skip
def test_what_is_not_honoured_is_named(config, says):
    with pytest.raises(ArgumentError, match=says):
        df.Plan.from_diffusers({"_class_name": "DDIMScheduler", **config}, 5)


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


def test_every_other_scheduler_of_images_is_refused_by_name():
    import diffusers

    for name in REFUSED:
        assert hasattr(diffusers, name) or name == "DPMSolverSDEScheduler"
        with pytest.raises(ArgumentError, match=name):
            df.Schedule.from_diffusers({"_class_name": name})


def test_diffusers_is_not_needed():
    code = (
        "import sys, diffuse_fast as df; df.Plan.from_diffusers({'_class_name': 'DDIMScheduler'}, 5); "
        "print([m for m in ('diffusers', 'torch') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "[]", run.stderr
