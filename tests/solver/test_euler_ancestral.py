"""Euler-ancestral against k-diffusion's formulas, diffusers, and what a Gaussian says of it."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df

PREDICTIONS = ("epsilon", "sample", "v_prediction")
LINEAR = df.Schedule.linear()
# The full grid of combinations is slow.
STEPS = [1, 5, *(pytest.param(steps, marks=pytest.mark.slow) for steps in (2, 10, 50))]
BETAS = ["scaled_linear", pytest.param("linear", marks=pytest.mark.slow)]


def naive(denoise, sigmas, x, noises, eta):
    """k-diffusion's sample_euler_ancestral, on x = state/alpha."""
    for i, (sigma, after) in enumerate(zip(sigmas, [*sigmas[1:], 0.0], strict=True)):
        up = min(after, eta * (after**2 * (sigma**2 - after**2) / sigma**2) ** 0.5)
        down = (after**2 - up**2) ** 0.5
        d = (x - denoise(x, sigma)) / sigma
        x = x + d * (down - sigma) + noises[i] * up
    return x


@pytest.mark.parametrize("clip", [None, (-0.3, 1.0)])
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0, 1.3])
@pytest.mark.parametrize("prediction_type", PREDICTIONS)
def test_k_diffusion(gaussian, run, denoiser, laid, prediction_type, eta, clip):
    rng = np.random.default_rng(0)
    for schedule in (LINEAR, df.Schedule.scaled_linear(), df.Schedule.cosine()):
        network = gaussian.network(schedule, prediction_type)
        for steps, spacing in ((1, "trailing"), (2, "linspace"), (5, "leading"), (23, "linspace")):
            plan = df.plan(
                schedule,
                "euler_ancestral",
                steps,
                prediction_type=prediction_type,
                clip=clip,
                eta=eta,
                timesteps=laid(schedule, "euler_ancestral", spacing, steps),
            )
            x, noises = rng.standard_normal((6, 4)), rng.standard_normal((steps, 6, 4))
            sigmas = [schedule.sigma(t) / schedule.alpha(t) for t in plan.timesteps]
            exact = naive(
                denoiser(schedule, network, prediction_type, clip), sigmas, x / schedule.alpha(plan.timesteps[0]), noises, eta
            )
            np.testing.assert_allclose(run(plan, network, x, noises)[-1], exact, rtol=0, atol=1e-9 * max(1, np.abs(exact).max()))


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # NumPy on torch tensors, in diffusers
def test_diffusers(gaussian, run, peer_loop, laid, betas, spacing, prediction_type, steps):
    import torch
    from diffusers import EulerAncestralDiscreteScheduler

    schedule = getattr(df.Schedule, betas)()
    start, end = schedule.to_json()["beta_start"], schedule.to_json()["beta_end"]
    scheduler = EulerAncestralDiscreteScheduler(
        beta_schedule=betas, beta_start=start, beta_end=end, prediction_type=prediction_type, timestep_spacing=spacing
    )
    scheduler.set_timesteps(steps)
    if spacing == "linspace":  # its linspace is not rounded, and between timesteps it takes σ, not log(alpha), to be linear
        plan = df.plan(
            schedule, "euler_ancestral", prediction_type=prediction_type, timesteps=scheduler.timesteps.numpy().astype(np.float64)
        )
        sigmas = [schedule.sigma(t) / schedule.alpha(t) for t in plan.timesteps]
        scheduler.sigmas = torch.tensor([*sigmas, 0.0], dtype=torch.float32)
    else:
        grid = laid(schedule, "euler_ancestral", spacing, steps)
        plan = df.plan(schedule, "euler_ancestral", prediction_type=prediction_type, timesteps=grid)
        assert plan.timesteps.tolist() == scheduler.timesteps.tolist()
    rng = np.random.default_rng(1)
    x, noises = rng.standard_normal((6, 4)), rng.standard_normal((steps, 6, 4))
    network = gaussian.network(schedule, prediction_type)
    ours = run(plan, network, x, noises)
    theirs = peer_loop(scheduler, network, x / plan.marginals[0][0], noises, torch.float32)
    for one, other in zip(ours, theirs, strict=True):
        assert np.abs(one - other).max() < 1e-5 * max(1.0, np.abs(one).max())


def test_on_a_variance_preserving_schedule_it_is_ddim():
    for eta in (0.0, 0.4, 1.0):
        arguments = {"prediction_type": "v_prediction", "timestep_spacing": "trailing", "eta": eta}
        schedule = df.Schedule.cosine().rescale_zero_terminal_snr()
        mine, ddim = (df.plan(schedule, name, 12, **arguments).rows for name in ("euler_ancestral", "ddim"))
        for one, other in zip(mine, ddim, strict=True):
            np.testing.assert_allclose((one.a, one.b, one.s), (other.a, other.b, other.s), rtol=0, atol=1e-13)


def test_order_1_at_eta_0(gaussian, measured_order):
    order, errors = measured_order(gaussian, "euler_ancestral", [16, 32, 64, 128, 256], "epsilon", eta=0.0)
    assert order == pytest.approx(1.0, abs=0.2), errors


def test_mean_and_variance_of_a_gaussian_as_the_steps_grow(gaussian):
    # The optimal network is affine in x, so mean and variance go through the rows in closed form.
    schedule, errors, counts = df.Schedule.linear(20000, 1e-4 / 20, 0.02 / 20), [], [250, 500, 1000, 2000]
    network = gaussian.network(schedule)
    for count in counts:
        plan = df.plan(schedule, "euler_ancestral", count, prediction_type="epsilon")
        mean, variance = gaussian.marginal(*plan.marginals[0])
        for row in plan.rows:
            offset = network(np.zeros(4), row.timestep)
            slope = network(np.ones(4), row.timestep) - offset
            mean = (row.a + row.b * slope) * mean + row.b * offset
            variance = (row.a + row.b * slope) ** 2 * variance + row.s**2
        np.testing.assert_allclose(mean, gaussian.mean, rtol=0, atol=1e-9)
        errors.append(np.abs(variance - gaussian.variance).max())
    order = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert order == pytest.approx(1.0, abs=0.2), errors


def test_bad_options_are_named():
    with pytest.raises(df.errors.ArgumentError, match=r"eta is -0\.5"):
        df.plan(LINEAR, "euler_ancestral", 5, prediction_type="epsilon", eta=-0.5)
