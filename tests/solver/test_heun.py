"""Heun, and Euler with churn, against Algorithm 2 of EDM, diffusers, and exact solutions."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from tests.solver.unguarded import unguarded_plan

PREDICTIONS = ("epsilon", "sample", "v_prediction")
LINEAR = df.Schedule.linear()
# The full grid of combinations is slow.
STEPS = [1, 5, *(pytest.param(steps, marks=pytest.mark.slow) for steps in (2, 10, 50))]
BETAS = ["scaled_linear", pytest.param("linear", marks=pytest.mark.slow)]
SQRT_2 = 2**0.5


def naive(denoise, sigmas, x, noises, corrects, s_churn=0.0, s_tmin=0.0, s_tmax=np.inf, s_noise=1.0):
    """Algorithm 2, line by line, on x = state/alpha, with or without lines 9 to 11; noises are taken when needed."""
    noises = iter(noises)
    for sigma, after in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        gamma = min(s_churn / len(sigmas), SQRT_2 - 1) if s_tmin <= sigma <= s_tmax else 0.0
        hat = sigma + gamma * sigma
        if gamma > 0:
            x = x + np.sqrt(hat**2 - sigma**2) * s_noise * next(noises)
        d = (x - denoise(x, hat)) / hat
        x_next = x + (after - hat) * d
        if corrects and after != 0:
            d_next = (x_next - denoise(x_next, after)) / after
            x_next = x + (after - hat) * (d + d_next) / 2
        x = x_next
    return x


@pytest.mark.parametrize("clip", [None, (-0.3, 1.0)])
@pytest.mark.parametrize(
    "churn", [{}, {"s_churn": 1.0, "s_tmax": 20.0}, {"s_churn": 40.0, "s_tmin": 0.05, "s_tmax": 14.0, "s_noise": 1.007}]
)
@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("solver", ["heun", "euler"])
def test_algorithm_2(gaussian, run, denoiser, laid, solver, prediction_type, churn, clip):
    rng = np.random.default_rng(0)
    for schedule in (LINEAR, df.Schedule.scaled_linear(1200), df.Schedule.cosine()):
        network = gaussian.network(schedule, prediction_type)
        for steps, spacing in ((1, "trailing"), (2, "linspace"), (5, "leading"), (23, "linspace")):
            grid = laid(schedule, solver, spacing, steps)
            plan = unguarded_plan(schedule, solver, steps, prediction_type=prediction_type, clip=clip, timesteps=grid, **churn)
            x, noises = rng.standard_normal((6, 4)), rng.standard_normal((len(plan.rows), 6, 4))
            sigmas = [schedule.sigma(t) / schedule.alpha(t) for t in grid]
            drawn = [z for z, row in zip(noises, plan.rows, strict=True) if row.stochastic]
            exact = naive(
                denoiser(schedule, network, prediction_type, clip),
                sigmas,
                x / schedule.alpha(grid[0]),
                drawn,
                solver == "heun",
                **churn,
            )
            np.testing.assert_allclose(run(plan, network, x, noises)[-1], exact, rtol=0, atol=1e-9 * max(1, np.abs(exact).max()))


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # NumPy on torch tensors, in diffusers
def test_diffusers(gaussian, run, peer_loop, laid, betas, spacing, prediction_type, steps, clip):
    import torch
    from diffusers import HeunDiscreteScheduler

    schedule = getattr(df.Schedule, betas)()
    start, end = schedule.to_json()["beta_start"], schedule.to_json()["beta_end"]
    scheduler = HeunDiscreteScheduler(
        beta_schedule=betas,
        beta_start=start,
        beta_end=end,
        prediction_type=prediction_type,
        timestep_spacing=spacing,
        clip_sample=clip is not None,
        clip_sample_range=clip or 1.0,
    )
    scheduler.set_timesteps(steps)
    arguments = {"prediction_type": prediction_type, "clip": clip and (-clip, clip)}
    if spacing == "linspace":  # its linspace is not rounded, and between timesteps it takes σ, not log(alpha), to be linear
        grid = np.unique(scheduler.timesteps.numpy().astype(np.float64))[::-1]
        plan = unguarded_plan(schedule, "heun", timesteps=grid, **arguments)
    else:
        plan = unguarded_plan(schedule, "heun", steps, timesteps=laid(schedule, "heun", spacing, steps), **arguments)
    assert plan.timesteps.tolist() == scheduler.timesteps.tolist()
    network = gaussian.network(schedule, prediction_type)
    x = np.random.default_rng(1).standard_normal((6, 4))
    ours = run(plan, network, x)
    if spacing != "linspace":  # As it is, in float32. It keeps x/alpha, whose rounding is σ times that of the state.
        rounding = 2**-20 * schedule.sigma(plan.timesteps[0]) / schedule.alpha(plan.timesteps[0])
        theirs = peer_loop(scheduler, network, x / plan.marginals[0][0], [], torch.float32)
        # Its σ at timestep 0 comes from 1 − float32(ᾱ), off by 3e-4, and σ divides where x0 is predicted.
        rounding = max(rounding, 1e-5 if prediction_type != "sample" else 2e-5)
        for one, other in zip(ours, theirs, strict=True):
            assert np.abs(one - other).max() < rounding * max(1.0, np.abs(one).max())
        scheduler.set_timesteps(steps)
    # Its logic alone, on our σ in float64.
    sigmas = np.array([schedule.sigma(t) / schedule.alpha(t) for t in plan.timesteps] + [0.0])
    scheduler.sigmas, scheduler.timesteps = torch.tensor(sigmas), torch.tensor(plan.timesteps)
    scheduler.set_begin_index(0)
    theirs = peer_loop(scheduler, network, x / plan.marginals[0][0], [], torch.float64)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9 * max(1.0, np.abs(one).max()))


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("data", ["gaussian", "mixture"])
def test_order_2(request, measured_order, data, prediction_type):
    order, errors = measured_order(request.getfixturevalue(data), "heun", [32, 64, 128, 256], prediction_type)
    assert order == pytest.approx(2.0, abs=0.2), errors


def test_churn_keeps_the_variance_of_a_gaussian(gaussian, run):
    # Without the network's error, churn and the step after it are one map between marginals.
    schedule, steps, count = LINEAR, 80, 20000
    plan = df.plan(schedule, "heun", steps, prediction_type="epsilon", s_churn=20.0, s_tmax=60.0)
    assert plan.stochastic
    assert plan.nfe == 2 * steps - 1
    rng = np.random.default_rng(3)
    mean, variance = gaussian.marginal(*plan.marginals[0])
    x = mean + np.sqrt(variance) * rng.standard_normal((count, 4))

    class Noises:
        def __getitem__(self, _):
            return rng.standard_normal((count, 4))

    samples = run(plan, gaussian.network(schedule), x, Noises())[-1]
    assert np.all(np.abs(samples.mean(0) - gaussian.mean) < 5 * np.sqrt(gaussian.variance / count))
    # 5 standard errors and the discretisation of 80 steps
    assert np.all(np.abs(samples.var(0) / gaussian.variance - 1) < 5 * np.sqrt(2 / count) + 0.01)


def test_a_step_from_no_signal_is_one_stage(run):
    schedule = df.Schedule.cosine().rescale_zero_terminal_snr()
    plan = df.plan(schedule, "heun", 4, prediction_type="v_prediction", timestep_spacing="trailing")
    assert [row.write for row in plan.rows] == [None, 0, None, 0, None, None]


@pytest.mark.parametrize("ratio", [1.5, 4.0])
def test_why_a_leap_out_of_noise_is_one_stage(run, ratio):
    """The error of Euler's and of Heun's step far above the data's s: s²/(2σ'²)·(1 − 1/r)² of the state, and r − 1 times that."""
    s, after = 0.7, 40.0
    schedule = df.Schedule.ve_sde(sigma_max=300.0)

    def network(x, t):  # the best ε for N(0, s²); a VE-SDE is told σ
        return x * t / (t**2 + s**2)

    x = np.ones((1, 1))
    for solver, factor in (("euler", 1.0), ("heun", 1.0 - ratio)):
        plan = df.plan(schedule, solver, prediction_type="epsilon", sigmas=[ratio * after, after, 0.0])
        landed = run(plan, network, x)[1 if solver == "euler" else 2]
        exact = np.sqrt((after**2 + s**2) / ((ratio * after) ** 2 + s**2))
        off = s**2 / (2 * after**2) * (1 - 1 / ratio) ** 2 * factor
        assert (landed / exact - 1).item() == pytest.approx(-off, rel=0.01)


@pytest.mark.parametrize("solver", ["heun", "dpm_2", "dpmsolver_2s", "dpmsolver_3s"])
def test_the_bundled_model_is_drawn_from_the_default_grid(solver):
    """Its cosine schedule begins at sigma/alpha = 2e4, from where a second stage in the first step would give no digit."""
    pytest.importorskip("onnxruntime")
    given = {"seed": 0, "cond": {"label": np.arange(10)}, "timestep_spacing": "linspace"}
    fine = df.sample("digits", 10, 100, solver="dpmpp_2m", **given)

    def apart(name, calls):
        steps = calls // df.solvers()[name].nfe_per_step
        return np.sqrt(np.mean((df.sample("digits", 10, steps, solver=name, **given) - fine) ** 2))

    assert apart(solver, 24) < 2 * apart("euler", 24)  # with a second stage: 3 to 40 times


@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
def test_a_leap_out_of_noise_is_one_stage_and_short_steps_are_not(spacing):
    cosine, arguments = df.Schedule.cosine(), {"prediction_type": "v_prediction", "timestep_spacing": spacing}
    assert [row.write for row in df.plan(cosine, "heun", 4, **arguments).rows] == [None, 0, None, 0, None, None]
    assert df.plan(LINEAR, "heun", 5, **arguments).rows[0].write == 0  # 157


@pytest.mark.parametrize("bound", ["s_tmin", "s_tmax"])
def test_the_interval_of_churn_is_closed(bound):
    # Algorithm 2, line 4: there is churn where t_i is in [S_tmin, S_tmax].
    edm, arguments = df.Schedule.edm(), {"prediction_type": "edm", "timesteps": [10.0, 3.0, 1.0]}
    alpha, sigma = df.plan(edm, "euler", **arguments).marginals[1]
    plan = df.plan(edm, "euler", s_churn=1.0, **{bound: sigma / alpha}, **arguments)
    assert [row.calls_network for row in plan.rows].count(False) == 2  # this level, and the one above or below it


def test_churn_beyond_the_schedule_is_refused():
    with pytest.raises(df.errors.ArgumentError, match=r"s_churn would raise sigma from .* timestep 999.*s_tmax"):
        df.plan(LINEAR, "heun", 5, prediction_type="epsilon", s_churn=5.0)
    df.plan(LINEAR, "heun", 5, prediction_type="epsilon", s_churn=5.0, s_tmax=80.0)


def test_an_empty_interval_of_churn_is_refused():
    with pytest.raises(df.errors.ArgumentError, match=r"s_tmin is 3 and s_tmax 1; the interval between them.* is empty"):
        df.plan(LINEAR, "heun", 5, prediction_type="epsilon", s_churn=1.0, s_tmin=3.0, s_tmax=1.0)
