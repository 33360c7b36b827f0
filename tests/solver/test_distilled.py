"""Solvers of distilled models (consistency, LCM, TCD) against the papers' formulas and diffusers."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, PlanError

PREDICTIONS = ("epsilon", "sample", "v_prediction")
LINEAR = df.Schedule.linear()
SCALED = df.Schedule.scaled_linear()


def draw(steps, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((6, 4)), rng.standard_normal((steps, 6, 4))


def assert_same(run, plan, network, x, noises, theirs, rel=1e-9):
    for one, other in zip(run(plan, network, x, noises), theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=rel * max(1.0, np.abs(one).max()))


# ---- LCM --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 4, 8, 50])
@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("float64", [False, True])
def test_lcm_diffusers(gaussian, run, peer_loop, prediction_type, steps, clip, float64):
    import torch
    from diffusers import LCMScheduler

    scheduler = LCMScheduler(prediction_type=prediction_type, clip_sample=clip is not None, clip_sample_range=clip or 1.0)
    scheduler.set_timesteps(steps)
    plan = df.plan(
        SCALED, "lcm", prediction_type=prediction_type, timesteps=scheduler.timesteps.numpy(), clip=clip and (-clip, clip)
    )
    if float64:  # its logic on our table
        scheduler.alphas_cumprod = torch.tensor(SCALED.alphas_cumprod)
    x, noises = draw(steps)
    network = gaussian.network(SCALED, prediction_type)
    theirs = peer_loop(scheduler, network, x, noises, torch.float64 if float64 else torch.float32)
    # its scalings are float32 whatever the table is
    assert_same(run, plan, network, x, noises, theirs, 1e-7 if float64 else 1e-5)


def test_lcm_paper(gaussian, run):
    # Algorithm 3: x0 from f with the boundary scalings of section 4, then q(x_t' | x0).
    plan = df.plan(LINEAR, "lcm", 4, prediction_type="epsilon", timestep_scaling=0.01)
    x, noises = draw(4)
    network, state = gaussian.network(LINEAR), x
    for i, t in enumerate(plan.timesteps):
        alpha, sigma = LINEAR.alpha(t), LINEAR.sigma(t)
        c_skip, c_out = 0.25 / ((0.01 * t) ** 2 + 0.25), 0.01 * t / np.sqrt((0.01 * t) ** 2 + 0.25)
        f = c_skip * state + c_out * (state - sigma * network(state, t)) / alpha
        last = i == 3
        state = f if last else LINEAR.alpha(plan.timesteps[i + 1]) * f + LINEAR.sigma(plan.timesteps[i + 1]) * noises[i]
    np.testing.assert_allclose(run(plan, network, x, noises)[-1], state, rtol=0, atol=1e-9)


# ---- TCD --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 4, 8, 50])
@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("float64", [False, True])
def test_tcd_diffusers(gaussian, run, peer_loop, prediction_type, steps, eta, float64):
    import torch
    from diffusers import TCDScheduler

    scheduler = TCDScheduler(prediction_type=prediction_type)
    scheduler.set_timesteps(steps)
    plan = df.plan(SCALED, "tcd", prediction_type=prediction_type, timesteps=scheduler.timesteps.numpy(), eta=eta)
    if float64:  # its logic on our table
        scheduler.alphas_cumprod = torch.tensor(SCALED.alphas_cumprod)
    x, noises = draw(steps)
    network = gaussian.network(SCALED, prediction_type)
    theirs = peer_loop(scheduler, network, x, noises, torch.float64 if float64 else torch.float32, eta=eta)
    assert_same(run, plan, network, x, noises, theirs, 1e-9 if float64 else 1e-5)


def test_tcd_at_eta_0_is_ddim(run, gaussian):
    arguments = {"prediction_type": "epsilon", "timestep_spacing": "trailing", "set_alpha_to_one": True}
    x, _ = draw(1)
    one, other = (run(df.plan(LINEAR, name, 6, **arguments, eta=0.0), gaussian.network(LINEAR), x) for name in ("tcd", "ddim"))
    np.testing.assert_allclose(one[-1], other[-1], rtol=0, atol=1e-12)


# ---- consistency ------------------------------------------------------------------------------------------


def raw_network(x, sigma):
    """Some smooth F."""
    return np.tanh(x + 0.3 * np.log(sigma)) * 0.7 - 0.2 * x


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 5, 18])
def test_consistency_diffusers(run, peer_loop, steps, clip):
    import torch
    from diffusers import CMStochasticIterativeScheduler

    scheduler = CMStochasticIterativeScheduler(clip_denoised=clip is not None)
    scheduler.set_timesteps(steps)
    sigmas = scheduler.sigmas.numpy()[:-1].astype(np.float64)
    schedule = df.Schedule.edm()
    plan = df.plan(
        schedule, "consistency", prediction_type="edm", sigmas=np.minimum(sigmas, 80.0), end="data", clip=clip and (-clip, clip)
    )
    np.testing.assert_allclose(plan.timesteps * 1000, scheduler.timesteps.numpy(), rtol=1e-5)
    x, noises = draw(steps)
    theirs = peer_loop(scheduler, lambda x, t: raw_network(x, np.exp(t / 250)), x / plan.marginals[0][0], noises, torch.float32)
    for one, other in zip(run(plan, lambda x, t: raw_network(x, np.exp(4 * t)), x, noises), theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5 * max(1.0, np.abs(one).max()))


def test_consistency_paper(run):
    # Algorithm 1 on x = state/alpha, with the scalings of appendix C.
    schedule, eps, unit = df.Schedule.edm(sigma_min=0.01, sigma_data=0.7), 0.01, 0.7
    plan = df.plan(schedule, "consistency", prediction_type="edm", sigmas=[80.0, 9.0, 1.3, 0.2, 0.0], s_noise=0.9)
    x, noises = draw(4)
    state, levels = x / plan.marginals[0][0], [80.0, 9.0, 1.3, 0.2, eps]
    for i, sigma in enumerate(levels[:-1]):
        output = raw_network(state / np.sqrt(sigma**2 + unit**2), sigma)
        c_skip, c_out = unit**2 / ((sigma - eps) ** 2 + unit**2), unit * (sigma - eps) / np.sqrt(sigma**2 + unit**2)
        state = c_skip * state + c_out * output + np.sqrt(levels[i + 1] ** 2 - eps**2) * 0.9 * noises[i]
    found = run(plan, lambda x, t: raw_network(x, np.exp(4 * t)), x, noises)[-1]
    np.testing.assert_allclose(found, state, rtol=0, atol=1e-9)


def test_consistency_of_the_exact_map_draws_the_data(gaussian, run):
    # The consistency function of a Gaussian is the end of the probability flow, known in closed form.
    schedule, count = LINEAR, 20000
    rng = np.random.default_rng(5)

    def function(x, t):
        return gaussian.flow(x, schedule.alpha(t), schedule.sigma(t), 1.0, 0.0)

    plan = df.plan(schedule, "consistency", 4, prediction_type="sample")
    mean, variance = gaussian.marginal(*plan.marginals[0])
    x = mean + np.sqrt(variance) * rng.standard_normal((count, 4))
    samples = run(plan, function, x, rng.standard_normal((4, count, 4)))[-1]
    assert np.all(np.abs(samples.mean(0) - gaussian.mean) < 5 * np.sqrt(gaussian.variance / count))
    # the noise level that the paper takes for clean is 0.01 on this schedule, to which the last step adds nothing
    assert np.all(np.abs(samples.var(0) / gaussian.variance - 1) < 5 * np.sqrt(2 / count) + 0.01**2 / gaussian.variance)


# ---- all ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "solver", "arguments", "error", "says"),
    [
        (LINEAR, "tcd", {"eta": 1.5}, ArgumentError, "eta is 1.5"),
        (LINEAR, "tcd", {"time_convention": "log_snr"}, PlanError, "tcd is defined on training timesteps"),
        (LINEAR, "lcm", {"time_convention": "continuous"}, PlanError, "lcm is defined on training timesteps"),
        (df.Schedule.edm(), "lcm", {"prediction_type": "denoised"}, PlanError, "discrete"),
    ],
)  # fmt: skip
def test_bad_input_is_named(schedule, solver, arguments, error, says):
    with pytest.raises(error, match=says):
        df.plan(schedule, solver, 4, **{"prediction_type": "epsilon", **arguments})
