"""Time grids, against diffusers and against their definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, ArgumentTypeError, PlanError
from diffuse_fast.solver.spacing import LEVELS, SPACINGS, beta_quantile, grid, resolve

# The peer makes NumPy arrays of tensors in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STEPS = (1, 2, 3, 5, 7, 10, 30, 50, 99, 100, 333, 600, 999, 1000)
LINEAR = df.Schedule.linear()
SCHEDULES = {
    "discrete": LINEAR,
    "edm": df.Schedule.edm(),
    "flow": df.Schedule.flow(shift=3.0),
    "vp_sde": df.Schedule.vp_sde(),
    "sub_vp_sde": df.Schedule.sub_vp_sde(),
    "ve_sde": df.Schedule.ve_sde(),
}


def timesteps(spacing, steps, train=1000, **options):
    schedule = df.Schedule.linear(train)
    return df.plan(schedule, "ddim", steps, prediction_type="epsilon", timestep_spacing=spacing, **options).timesteps


def lay(schedule, spacing, steps, style="closed", **options):
    return grid(resolve(schedule, spacing, **options), schedule, steps, style)


# ---- integer timesteps --------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_grids_are_those_of_diffusers(spacing, steps):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    theirs = scheduler.timesteps.numpy()
    # The peer's arange over floats sometimes has one timestep too many, −1.
    np.testing.assert_array_equal(lay(LINEAR, spacing, steps), theirs[:steps])
    assert np.all(theirs[steps:] == -1)


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 30, 99, 333, 998])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize(
    ("style", "peer"),
    [("open", "DPMSolverMultistep"), ("open", "UniPCMultistep"), ("open", "DEISMultistep"), ("fractional", "EulerDiscrete"),
     ("fractional", "EulerAncestralDiscrete"), ("fractional", "LMSDiscrete"), ("closed", "PNDM")],
)  # fmt: skip
def test_every_convention_is_that_of_its_solver(style, peer, spacing, steps):
    import diffusers

    if peer == "PNDM" and steps < 3:
        pytest.skip("the peer's warm-up needs three steps")
    scheduler = getattr(diffusers, f"{peer}Scheduler")(timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    # PNDM keeps its plain grid beside the one with its warm-up.
    theirs = scheduler._timesteps[::-1] if peer == "PNDM" else scheduler.timesteps.numpy()
    np.testing.assert_allclose(lay(LINEAR, spacing, steps, style), theirs[:steps], rtol=1e-6)


@pytest.mark.parametrize("train", [1, 2, 17, 1000])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_grids_fall_within_the_schedule(spacing, train):
    schedule = df.Schedule.linear(train)
    for steps in range(1, train + 1):
        t = lay(schedule, spacing, steps)
        assert len(t) == steps
        assert np.all(np.diff(t) < 0)
        assert t[0] <= train - 1
        assert t[-1] >= 0
        np.testing.assert_array_equal(t, np.round(t))
        if spacing == "trailing" or (spacing == "linspace" and steps > 1):
            assert t[0] == train - 1
        if 1 < steps < train and spacing != "trailing":
            opened = lay(schedule, spacing, steps, "open")
            np.testing.assert_array_equal(opened, lay(schedule, spacing, steps + 1)[:-1])


def test_leading_is_the_default_and_has_an_offset():
    np.testing.assert_array_equal(timesteps(None, 10), np.arange(900, -1, -100))
    np.testing.assert_array_equal(timesteps(None, 10, steps_offset=1), np.arange(901, 0, -100))


# Where the grid starts follows from its formula: (N − 1)·⌊T/N⌋ of leading; of the "open" solvers N·⌊T/(N + 1)⌋.
STARTS = {
    "closed": {1: 0, 2: 500, 4: 750, 5: 800, 9: 888, 10: 900, 20: 950, 334: 666, 501: 500, 1000: 999},
    "open": {1: 500, 5: 830, 8: 888, 9: 900, 19: 950, 334: 668},
}


@pytest.mark.parametrize("train", [1000, 100])
@pytest.mark.parametrize(("solver", "style"), [("ddim", "closed"), ("ddpm", "closed"), ("dpmpp_2m", "open"), ("euler", "closed")])
def test_no_grid_starts_in_the_middle_of_the_schedule_from_pure_noise(solver, style, train):
    schedule = df.Schedule.linear(train)
    starts = STARTS[style] if train == 1000 else {3: 66, 10: 90, 51: 50} if style == "closed" else {3: 75, 9: 90, 51: 51}
    for steps, start in starts.items():
        leads = start >= 0.9 * train
        call = {"schedule": schedule, "solver": solver, "steps": steps, "prediction_type": "epsilon"}
        if leads:
            assert df.plan(**call, timestep_spacing="leading").timesteps[0] == start
        else:
            with pytest.raises(ArgumentError, match=f"starts at timestep {start} of {train}.*timestep_spacing='trailing'"):
                df.plan(**call, timestep_spacing="leading")
        if df.solvers()[solver].timestep_spacing == "leading":  # what is taken where no spacing is named
            default = df.plan(**call)
            assert default == df.plan(**call, timestep_spacing="leading" if leads else "trailing")
            assert default.timesteps[0] == (start if leads else train - 1)


def test_linspace_of_one_step_starts_at_the_noise():
    # Its one timestep is 0, from which a network that is told 0 returns the noise.
    default = df.plan(LINEAR, "euler", 1, prediction_type="epsilon")
    assert default.timesteps.tolist() == [999.0] and dict(default.options)["timestep_spacing"] == "trailing"
    assert df.plan(LINEAR, "euler", 2, prediction_type="epsilon").timesteps.tolist() == [999.0, 0.0]
    with pytest.raises(ArgumentError, match=r"linspace spacing with 1 steps.*starts at timestep 0 of 1000.*'trailing'"):
        df.plan(LINEAR, "euler", 1, prediction_type="epsilon", timestep_spacing="linspace")
    assert df.plan(df.Schedule.linear(5), "ddim", 5, prediction_type="epsilon").timesteps[0] == 4  # the last there is


def test_an_offset_does_not_choose_another_spacing():
    with pytest.raises(ArgumentError, match=r"starts at timestep 751 of 1000.*'trailing', and leave steps_offset out"):
        df.plan(LINEAR, "ddim", 4, prediction_type="epsilon", steps_offset=1)
    assert df.plan(LINEAR, "ddim", 10, prediction_type="epsilon", steps_offset=1).timesteps[0] == 901


def test_a_sample_of_few_steps_reaches_the_data():
    """Data N(0.3, 0.5²): the mean of ``ddim``'s samples in closed form, through the optimal network, which is affine in x."""
    mean, spread = 0.3, 0.5
    for steps in (1, 2, 4, 334):

        def network(x, t):
            alpha, sigma = (np.asarray(f(t)).reshape(-1, 1) for f in (LINEAR.alpha, LINEAR.sigma))
            return (sigma * (x - alpha * mean) / ((alpha * spread) ** 2 + sigma**2)).astype(np.float32)

        x = df.sample(network, 4096, steps, seed=0, shape=(1,), schedule=LINEAR, prediction_type="epsilon")
        assert abs(x.mean() - mean) < 0.02  # from 500 on in two steps it was off by 0.3
        assert x.std() < 0.55


# ---- noise levels ---------------------------------------------------------------------------------------


OPTION = {
    "karras": "use_karras_sigmas",
    "exponential": "use_exponential_sigmas",
    "beta_sigmas": "use_beta_sigmas",
    "log_snr": "use_lu_lambdas",
}
BETAS = {
    "linear": (LINEAR, {"beta_schedule": "linear"}),
    "scaled": (df.Schedule.scaled_linear(), {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}),
}


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 50])
@pytest.mark.parametrize("spacing", LEVELS)
@pytest.mark.parametrize("betas", list(BETAS))
def test_levels_are_those_of_diffusers(betas, spacing, steps):
    import torch
    from diffusers import DPMSolverMultistepScheduler

    schedule, config = BETAS[betas]
    schedule = schedule.with_interpolation("log_sigma")
    scheduler = DPMSolverMultistepScheduler(**config, **{OPTION[spacing]: True})
    # Its own table of alphas_cumprod is float32, of which 1 − alphas_cumprod keeps few digits at the clean end.
    scheduler.alphas_cumprod = torch.tensor(schedule.alphas_cumprod)
    scheduler.set_timesteps(steps)
    rounding = "nearest" if spacing in ("karras", "log_snr") else "down"
    plan = df.plan(schedule, "ddim", steps, prediction_type="epsilon", timestep_spacing=spacing, timestep_rounding=rounding)
    ours = [sigma / alpha for alpha, sigma in plan.marginals[:-1]]
    np.testing.assert_allclose(ours, scheduler.sigmas[:-1], rtol=1e-6)
    # The last of the grid is timestep 0 but for a rounding, and the peer's rounding down may make it either.
    np.testing.assert_allclose(plan.timesteps, scheduler.timesteps, rtol=0, atol=0 if rounding == "nearest" else 1)
    assert np.mean(plan.timesteps == scheduler.timesteps.numpy()) >= 1 - 2 / steps


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 50])
@pytest.mark.parametrize("spacing", LEVELS[:3])
@pytest.mark.parametrize("laid", ["leading", "trailing", "linspace"])
def test_euler_takes_its_levels_from_another_grid(laid, spacing, steps):
    import torch
    from diffusers import EulerDiscreteScheduler

    schedule = LINEAR.with_interpolation("log_sigma")
    scheduler = EulerDiscreteScheduler(beta_schedule="linear", timestep_spacing=laid, **{OPTION[spacing]: True})
    scheduler.alphas_cumprod = torch.tensor(schedule.alphas_cumprod)
    scheduler.set_timesteps(steps)
    ends = lay(LINEAR, laid, steps, "fractional")[[0, -1]]
    high, low = LINEAR.noise_level(ends)
    if steps == 1:  # an interval of nothing, in which the peer has one point
        low = high / 2
    t = lay(schedule, spacing, steps, sigma_min=low, sigma_max=high)
    np.testing.assert_allclose(schedule.noise_level(t), scheduler.sigmas[:-1], rtol=1e-6)
    np.testing.assert_allclose(t, scheduler.timesteps, rtol=2e-6, atol=2e-4)


@pytest.mark.parametrize("steps", [1, 2, 5, 18, 100])
@pytest.mark.parametrize("spacing", ["karras", "exponential"])
def test_edm_is_that_of_diffusers(spacing, steps):
    from diffusers import EDMEulerScheduler

    scheduler = EDMEulerScheduler(sigma_schedule=spacing)
    scheduler.set_timesteps(steps)
    if steps == 1 and spacing == "exponential":
        scheduler.sigmas[0] = 80.0  # the peer's single step starts at sigma_min
        scheduler.timesteps = scheduler.precondition_noise(scheduler.sigmas[:1])
    plan = df.plan(df.Schedule.edm(), "ddim", steps, prediction_type="edm", timestep_spacing=spacing)
    np.testing.assert_allclose([s / a for a, s in plan.marginals], scheduler.sigmas, rtol=1e-6)
    np.testing.assert_allclose(plan.timesteps, scheduler.timesteps, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 50])
@pytest.mark.parametrize("spacing", ["linspace", "karras", "exponential", "beta_sigmas"])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_is_that_of_diffusers(shift, spacing, steps):
    from diffusers import FlowMatchEulerDiscreteScheduler

    options = {} if spacing == "linspace" else {OPTION[spacing]: True}
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift, **options)
    scheduler.set_timesteps(steps)
    plan = df.plan(df.Schedule.flow(shift=shift), "ddim", steps, prediction_type="flow", timestep_spacing=spacing)
    np.testing.assert_allclose([s for _, s in plan.marginals], scheduler.sigmas, rtol=1e-6)
    np.testing.assert_allclose(plan.timesteps, scheduler.timesteps, rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 4, 50])
def test_flow_pipelines_trail(steps):
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps))  # as the pipelines of Flux and Stable Diffusion 3.5 do
    plan = df.plan(df.Schedule.flow(shift=3.0), "ddim", steps, prediction_type="flow", timestep_spacing="trailing")
    np.testing.assert_allclose(plan.timesteps, scheduler.timesteps, rtol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_closed_forms(schedule):
    steps, low, high = 13, 0.05, 0.9
    u = np.arange(steps) / (steps - 1)
    level = {"karras": (high ** (1 / 5) + u * (low ** (1 / 5) - high ** (1 / 5))) ** 5, "exponential": high * (low / high) ** u}
    for spacing, wanted in level.items():
        t = lay(schedule, spacing, steps, sigma_min=low, sigma_max=high, rho=5.0 if spacing == "karras" else None)
        np.testing.assert_allclose(schedule.noise_level(t), wanted, rtol=1e-12)
    even = schedule.log_snr(lay(schedule, "log_snr", steps, sigma_min=low, sigma_max=high))
    np.testing.assert_allclose(np.diff(even), (even[-1] - even[0]) / (steps - 1), rtol=1e-10)
    np.testing.assert_allclose(schedule.noise_level(schedule.timestep_at_log_snr(even[[0, -1]])), [high, low], rtol=1e-12)
    sigma = (1 - np.arange(steps) / steps) ** 1.5
    power = schedule.shifted(sigma) if schedule.family == "flow" else sigma
    np.testing.assert_allclose(lay(schedule, "power", steps, rho=1.5), schedule.t_max * power, rtol=1e-12)
    if schedule.family not in ("discrete", "flow"):
        even = lay(schedule, "linspace", steps)
        np.testing.assert_allclose(np.diff(even), (schedule.t_min - schedule.t_max) / (steps - 1), rtol=1e-10)


def test_beta_quantile_is_that_of_scipy():
    from scipy import stats

    p = np.concatenate([np.linspace(0, 1, 1001), np.geomspace(1e-12, 0.4, 200)])
    for a, b in ((0.1, 0.1), (0.5, 0.5), (0.6, 0.6), (0.3, 1.7), (1.7, 0.3), (0.05, 2.0), (1.0, 1.0), (5.0, 0.2), (10.0, 10.0)):
        np.testing.assert_allclose(beta_quantile(p, a, b), stats.beta.ppf(p, a, b), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_beta_is_over_timesteps(schedule):
    from scipy import stats

    call = {"schedule": schedule, "solver": "ddim", "steps": 21, "prediction_type": schedule.prediction_types[0]}
    for options, shape in (({}, (0.6, 0.6)), ({"beta_shape": (0.5, 0.8)}, (0.5, 0.8))):
        plan = df.plan(**call, timestep_spacing="beta", **options)
        assert dict(plan.options)["beta_shape"] == shape and df.Plan.from_json(plan.to_json()) == plan
        quantile = stats.beta.ppf(1 - np.arange(21) / 20, *shape)
        times = schedule.t_min + (schedule.t_max - schedule.t_min) * quantile
        if schedule.family == "flow":
            sigma = 0.001 + 0.999 * quantile
            times = 1000 * 3 * sigma / (1 + 2 * sigma)  # Esser et al. 2024, eq. 23, with the shift 3
        np.testing.assert_allclose(lay(schedule, "beta", 21, **options), times, rtol=1e-12, atol=1e-9)
        np.testing.assert_allclose(plan.marginals[7], (schedule.alpha(times[7]), schedule.sigma(times[7])), rtol=1e-9)


def test_beta_over_timesteps_is_as_near_as_even_timesteps(gaussian, run):
    """20 steps of ``ddim`` on the cosine schedule. Of its noise levels half lie above 1e4: even in them the error is far larger."""
    schedule = df.Schedule.cosine()
    network, x = gaussian.network(schedule), np.random.default_rng(0).standard_normal((1024, 4))
    errors = {}
    for spacing in ("trailing", "beta", "beta_sigmas"):
        plan = df.plan(schedule, "ddim", 20, prediction_type="epsilon", timestep_spacing=spacing)
        exact = gaussian.flow(x, *plan.marginals[0], 1.0, 0.0)
        errors[spacing] = np.sqrt(np.mean((run(plan, network, x)[-1] - exact) ** 2))
    assert errors["beta"] < 1.2 * errors["trailing"]
    assert errors["beta_sigmas"] > 5 * errors["trailing"]


@pytest.mark.parametrize(("name", "spacing"), [*itertools.product(SCHEDULES, SPACINGS)])
def test_any_grid_falls_between_its_ends(name, spacing):
    schedule = SCHEDULES[name]
    if (spacing == "leading" and name != "discrete") or (spacing == "trailing" and name not in ("discrete", "flow")):
        with pytest.raises(ArgumentError, match=f"'{spacing}'.*{name}"):
            lay(schedule, spacing, 4)
        return
    options = {"sigma_max": 0.99} if (name, spacing) == ("flow", "log_snr") else {}
    for steps in (1, 2, 3, 10, 77, 1000):
        t = lay(schedule, spacing, steps, **options)
        assert t.shape == (steps,) and t.dtype == np.float64
        assert np.all(np.diff(t) < 0)
        assert t[0] <= schedule.t_max and t[-1] > 0 - (name == "discrete")
        if spacing in LEVELS and not options:
            np.testing.assert_allclose(t[0], schedule.t_max, rtol=1e-9)
            assert steps == 1 or t[-1] == pytest.approx(schedule.t_min, rel=1e-9, abs=1e-6)
        if name == "discrete" and spacing in ("leading", "linspace") and t[0] < 900:
            continue  # test_no_grid_starts_in_the_middle_of_the_schedule_from_pure_noise
        plan = df.plan(schedule, "ddim", steps, prediction_type=schedule.prediction_types[0], timestep_spacing=spacing, **options)
        assert plan.nfe == steps and dict(plan.options)["timestep_spacing"] == spacing


@pytest.mark.parametrize(
    ("name", "default"),
    [("discrete", "trailing"), ("edm", "karras"), ("flow", "linspace"), ("vp_sde", "linspace"), ("ve_sde", "linspace")],
)
def test_every_family_has_its_default(name, default):
    schedule = SCHEDULES[name]
    plan = df.plan(schedule, "ddim", 5, prediction_type=schedule.prediction_types[0])
    assert dict(plan.options)["timestep_spacing"] == default
    assert df.Plan.from_json(plan.to_json()) == plan


def test_the_default_grid_of_a_flow_shifts_its_last_level_twice():
    def shifted(sigma):  # Esser et al. 2024, eq. 23, with the shift 3
        return 3 * sigma / (1 + 2 * sigma)

    sigmas = df.plan(df.Schedule.flow(shift=3.0), "euler", 4, prediction_type="flow").timesteps / 1000
    np.testing.assert_allclose(sigmas, shifted(np.linspace(1.0, shifted(0.001), 4)), rtol=1e-12)
    trailing = df.plan(df.Schedule.flow(shift=3.0), "euler", 4, prediction_type="flow", timestep_spacing="trailing").timesteps
    np.testing.assert_allclose(trailing / 1000, shifted(np.array([1.0, 0.75, 0.5, 0.25])), rtol=1e-12)


@pytest.mark.parametrize("spacing", [None, "linspace", "beta", "karras", "exponential"])
def test_a_flow_of_one_timestep_has_one_level(spacing):
    options = {} if spacing is None else {"timestep_spacing": spacing}
    with pytest.raises(ArgumentError, match=r"num_train_timesteps is 1.*Schedule.flow\(\).*'continuous'.*'trailing'"):
        df.plan(df.Schedule.flow(1), "euler", 4, prediction_type="flow", **options)
    advised = (df.plan(df.Schedule.flow(1), "euler", 4, prediction_type="flow", timestep_spacing="trailing"),
               df.plan(df.Schedule.flow(), "euler", 4, prediction_type="flow", time_convention="continuous"))  # fmt: skip
    assert all(plan.timesteps[0] == 1.0 and plan.nfe == 4 for plan in advised)
    assert df.plan(df.Schedule.flow(1), "euler", 1, prediction_type="flow").timesteps.tolist() == [1.0]


def test_edm_s_own_rho_is_the_default():
    one, other = df.Schedule.edm(rho=5.0), df.Schedule.edm()
    plan = df.plan(one, "ddim", 7, prediction_type="edm")
    assert plan.timesteps.tolist() == df.plan(other, "ddim", 7, prediction_type="edm", rho=5).timesteps.tolist()
    assert dict(plan.options)["rho"] == 5.0


# ---- custom grids -----------------------------------------------------------------------------------------


def test_custom_timesteps_are_kept():
    schedule = df.Schedule.linear()
    plan = df.plan(schedule, "ddim", prediction_type="epsilon", timesteps=[900.5, 20, 0.25])
    assert plan.timesteps.tolist() == [900.5, 20.0, 0.25]
    assert plan.steps == 3
    assert plan.marginals[0] == (schedule.alpha(900.5), schedule.sigma(900.5))


def test_custom_sigmas_are_kept():
    # "Align Your Steps" for Stable Diffusion XL (Sabour et al. 2024), with the 0 that such lists end at.
    sigmas = [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.0]
    plan = df.plan(df.Schedule.scaled_linear().with_interpolation("log_sigma"), "ddim", prediction_type="epsilon", sigmas=sigmas)
    assert plan.steps == 10
    levels = [s / a for a, s in plan.marginals]
    assert levels[0] == pytest.approx(df.Schedule.scaled_linear().noise_level(999))  # 14.6146: the list is rounded
    np.testing.assert_allclose(levels[1:], sigmas[1:], rtol=1e-12)
    schedule = df.Schedule.scaled_linear().with_interpolation("log_sigma")
    assert plan == df.plan(schedule, "ddim", 10, prediction_type="epsilon", sigmas=sigmas[:-1], end="data")
    edm = df.plan(df.Schedule.edm(), "ddim", prediction_type="edm", sigmas=[90.0, 0.001, 0], time_convention="sigma")
    assert edm.timesteps.tolist() == [90.0, 0.001]


def test_a_published_list_may_be_rounded_past_the_last_level():
    # "Align Your Steps" for Stable Diffusion 1.5, as published: the last level, 0.029, is below the schedule's 0.02917.
    sigmas = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029]
    schedule = df.Schedule.scaled_linear(beta_start=0.00085, beta_end=0.012)
    plan = df.plan(schedule, "dpmpp_2m", prediction_type="epsilon", sigmas=sigmas, end="data")
    assert plan.timesteps[[0, -1]].tolist() == pytest.approx([999.0, 0.0], abs=1e-6)
    with pytest.raises(ArgumentError, match=r"a noise level is 0\.02; this schedule has 0\.0291"):
        df.plan(schedule, "dpmpp_2m", prediction_type="epsilon", sigmas=[1.0, 0.02], end="data")


@pytest.mark.parametrize("schedule", [df.Schedule.edm(), df.Schedule.flow(), df.Schedule.vp_sde()], ids=lambda s: s.family)
def test_no_plan_of_more_steps_than_memory_holds(schedule):
    with pytest.raises(ArgumentError, match="at most 100000"):
        df.plan(schedule, "euler", 10**9, prediction_type=schedule.prediction_types[0])


def test_rounding_changes_the_networks_time_and_no_marginal():
    plans = [
        df.plan(LINEAR, "ddim", 30, prediction_type="epsilon", timestep_spacing="karras", timestep_rounding=rounding)
        for rounding in ("none", "nearest", "down")
    ]
    assert plans[0].marginals == plans[1].marginals == plans[2].marginals
    np.testing.assert_array_equal(np.round(plans[0].timesteps), plans[1].timesteps)
    np.testing.assert_array_equal(np.floor(plans[0].timesteps), plans[2].timesteps)
    assert np.any(plans[0].timesteps != plans[1].timesteps)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"timestep_spacing": "karras", "sigma_min": 2.0, "sigma_max": 1.0}, ArgumentError, "interval between them is empty"),
        ({"timestep_spacing": "karras", "sigma_max": 0.001}, ArgumentError, "empty"),
        ({"timestep_spacing": "karras", "sigma_max": 1e4}, ArgumentError, r"a noise level is 10000\.0; this schedule has"),
        ({"timestep_spacing": "trailing", "sigma_min": 1.0}, ArgumentError, "sigma_min and sigma_max are the ends of"),
        ({"timestep_spacing": "exponential", "rho": 7}, ArgumentError, "rho is 7; only the spacings karras and power"),
        (
            {"timestep_spacing": "karras", "beta_shape": (1, 1)},
            ArgumentError,
            "beta_shape is .*only the spacing beta has it, not karras",
        ),
        ({"timestep_spacing": "beta_sigmas", "beta_shape": (1, 1)}, ArgumentError, "not beta_sigmas"),
        ({"timestep_spacing": "beta", "beta_shape": 0.6}, ArgumentTypeError, r"beta_shape is 0.6; it must be a pair"),
        ({"timestep_spacing": "beta", "beta_shape": (0.6, 0.0)}, ArgumentError, r"beta_shape\[1\] is 0.0"),
        ({"timestep_spacing": "beta", "beta_shape": (0.6, 11)}, ArgumentError, "at most 10"),
        ({"timestep_spacing": "beta", "beta_shape": (0.6, 10)}, None, ""),
        ({"timesteps": [3, 2, 1], "beta_shape": (1, 1)}, ArgumentError, "beta_shape is an option of a spacing"),
        ({"timestep_spacing": "power", "rho": -1}, ArgumentError, "rho is -1"),
        ({"timestep_spacing": "karras", "steps_offset": 1}, ArgumentError, "only leading"),
        ({"timestep_spacing": "karras", "steps": 0}, ArgumentError, "steps is 0; it must be at least 1"),
        ({"schedule": LINEAR.rescale_zero_terminal_snr(), "timestep_spacing": "karras"}, ArgumentError, "sigma_max="),
        ({"schedule": df.Schedule.flow(), "prediction_type": "flow", "timestep_spacing": "log_snr"}, ArgumentError, "sigma_max="),
        ({"sigmas": [1.0, 2.0]}, ArgumentError, "sigmas must decrease; 2.0 comes after 1.0"),
        ({"sigmas": [1.0, 1.0]}, ArgumentError, "sigmas must decrease"),
        ({"sigmas": [0.0]}, ArgumentError, "a noise level above 0"),
        ({"sigmas": [1.0, -1.0], "steps": None, "end": "data"}, ArgumentError, "sigmas go from 1.0 to -1.0.*above 0"),
        ({"sigmas": [1e5, 1.0], "steps": None, "end": "data"}, ArgumentError, "sigmas go from 100000.0 to 1.0"),
        ({"sigmas": [3.0, 2.0, 1.0, 0.0], "steps": 4}, ArgumentError, "steps is 4, but sigmas has 3"),
        ({"sigmas": [1.0], "timesteps": [1]}, ArgumentError, "timesteps and sigmas all determine"),
        ({"sigmas": [1.0], "steps": None, "rho": 7}, ArgumentError, "rho is an option of a spacing"),
        ({"timestep_rounding": "up"}, ArgumentError, "timestep_rounding is 'up'"),
        ({"time_convention": "c_noise"}, ArgumentError, "time convention is 'c_noise'"),
        ({"schedule": df.Schedule.edm()}, None, ""),
        ({"schedule": df.Schedule.edm(), "prediction_type": "flow"}, ArgumentError, "family edm it must be one of edm, denoised"),
        ({"schedule": df.Schedule.sub_vp_sde(), "prediction_type": "v_prediction"}, ArgumentError, "family sub_vp_sde it must be"),
        ({"schedule": df.Schedule.flow()}, PlanError, "zero signal-to-noise ratio"),
        (
            {"schedule": df.Schedule.flow(), "prediction_type": "flow", "time_convention": "log_snr"},
            ArgumentError,
            "with time -inf",
        ),
        ({"schedule": df.Schedule.edm(), "timesteps": [3, 1, 0]}, ArgumentError, "at time 0 there is no noise left"),
        ({"schedule": df.Schedule.edm(), "set_alpha_to_one": False}, ArgumentError, "set_alpha_to_one=False"),
    ],
)
def test_bad_grids_are_named(arguments, error, says):
    call = {"schedule": LINEAR, "solver": "ddim", "steps": 3, "prediction_type": "epsilon", **arguments}
    if error is None:
        df.plan(**call)
        return
    with pytest.raises(error, match=says):
        df.plan(**call)
