"""Euler–Maruyama and predictor–corrector against Score SDE's formulas, diffusers, and exact Gaussians."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import PlanError
from diffuse_fast.kernels.reference import apply_row

PREDICTIONS = ("epsilon", "sample", "v_prediction")
LINEAR = df.Schedule.linear()
VE = df.Schedule.ve_sde()


def score_of(gaussian, schedule, x, t):
    mean, variance = gaussian.marginal(schedule.alpha(t), schedule.sigma(t))
    return -(x - mean) / variance


def draw(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((6, 4)), rng.standard_normal((count, 6, 4))


# ---- Euler–Maruyama ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("steps", [1, 2, 5, 50])
def test_vp(gaussian, run, prediction_type, steps):
    # Eq. (6) with VP's f = −β/2·x, g² = β in the clock ∫β dt = −2·log(alpha).
    plan = df.plan(LINEAR, "euler_maruyama", steps, prediction_type=prediction_type, timestep_spacing="trailing")
    x, noises = draw(steps)
    state, clock = x, [-2 * LINEAR.log_alpha(t) for t in plan.timesteps] + [0.0]
    for i, t in enumerate(plan.timesteps):
        beta = clock[i] - clock[i + 1]
        state = state + 0.5 * beta * state + beta * score_of(gaussian, LINEAR, state, t)
        if i < steps - 1:
            state = state + np.sqrt(beta) * noises[i]
    found = run(plan, gaussian.network(LINEAR, prediction_type), x, noises)[-1]
    np.testing.assert_allclose(found, state, rtol=0, atol=1e-9 * max(1.0, np.abs(state).max()))


def test_ve(gaussian, run):
    # Eq. (6) with VE's f = 0, g² dt = dσ².
    plan = df.plan(VE, "euler_maruyama", 20, prediction_type="score", time_convention="continuous")
    x, noises = draw(20)
    x = x * plan.initial_scale
    state, levels = x, [VE.sigma(t) for t in plan.timesteps] + [0.0]
    for i, t in enumerate(plan.timesteps):
        added = levels[i] ** 2 - levels[i + 1] ** 2
        state = state + added * score_of(gaussian, VE, state, t)
        if i < 19:
            state = state + np.sqrt(added) * noises[i]
    found = run(plan, lambda x, t: score_of(gaussian, VE, x, t), x, noises)[-1]
    np.testing.assert_allclose(found, state, rtol=0, atol=1e-9)


SDES = [LINEAR, df.Schedule.vp_sde(), df.Schedule.sub_vp_sde(), VE, df.Schedule.flow()]


@pytest.mark.parametrize("name", ["euler_maruyama", "langevin_pc"])
@pytest.mark.parametrize("schedule", SDES, ids=lambda s: s.family)
def test_mean_and_variance_of_a_gaussian_as_the_steps_grow(gaussian, schedule, name):
    # The optimal network is affine in x, so mean and variance go through the rows in closed form; without the corrector, whose
    # step depends on the state.
    options = {"correct_steps": 0} if name == "langevin_pc" else {}
    errors, counts = [], [200, 400, 800, 1600]
    for count in counts:
        low, high = schedule.log_snr(0.99 * schedule.t_max), min(9.0, schedule.log_snr(schedule.t_min))
        times = schedule.timestep_at_log_snr(np.linspace(low, high, count))
        plan = df.plan(schedule, name, prediction_type="epsilon", timesteps=times, time_convention="log_snr", **options)
        mean, variance = gaussian.marginal(*plan.marginals[0])
        for row, (alpha, sigma) in zip(plan.rows, plan.marginals, strict=False):
            center, spread = gaussian.marginal(alpha, sigma)
            slope = row.a + row.b * sigma / spread
            mean, variance = slope * mean - row.b * sigma / spread * center, slope**2 * variance + row.s**2
        errors.append(max(np.abs(variance / gaussian.variance - 1).max(), np.abs(mean - gaussian.mean).max()))
    assert errors[-1] < 0.05, errors
    assert -np.polyfit(np.log(counts), np.log(errors), 1)[0] > 0.8, errors


# ---- predictor–corrector ----------------------------------------------------------------------------------


def langevin(x, score, z, snr, alpha=1.0):
    """Algorithms 4 and 5, for one sample."""
    step = 2 * alpha * (snr * np.linalg.norm(z) / np.linalg.norm(score)) ** 2
    return x + step * score + np.sqrt(2 * step) * z


def test_vp_predictor_corrector(gaussian, run):
    # Algorithms 3 and 5, with β_i of the grid: 1 − β = alpha²/alpha'².
    steps, corrections = 12, 2
    plan = df.plan(LINEAR, "langevin_pc", steps, prediction_type="epsilon", correct_steps=corrections, snr=0.1)
    x, noises = draw(len(plan.rows))
    state, z, grid = x, iter(noises), plan.timesteps[:: corrections + 1]
    a_bar = [LINEAR.alpha(t) ** 2 for t in grid] + [1.0]
    for i, t in enumerate(grid):
        beta = 1 - a_bar[i] / a_bar[i + 1]
        for _ in range(corrections):
            state = langevin(state, score_of(gaussian, LINEAR, state, t), next(z), 0.1, 1 - beta)
        noise = next(z) if i < steps - 1 else 0.0
        state = (2 - np.sqrt(1 - beta)) * state + beta * score_of(gaussian, LINEAR, state, t) + np.sqrt(beta) * noise
    np.testing.assert_allclose(run(plan, gaussian.network(LINEAR), x, noises)[-1], state, rtol=0, atol=1e-9)
    assert plan.nfe == steps * (corrections + 1)


def test_ve_predictor_corrector_is_the_peer_s(gaussian, run):
    # ScoreSdeVe, at batch 1 since it averages norms over the batch.
    import torch
    from diffusers import ScoreSdeVeScheduler

    steps, t_min = 20, 1e-5
    scheduler = ScoreSdeVeScheduler(num_train_timesteps=steps, snr=0.15, sigma_min=0.01, sigma_max=50.0, sampling_eps=t_min)
    scheduler.set_timesteps(steps)
    scheduler.set_sigmas(steps, 0.01, 50.0, t_min)
    levels = scheduler.discrete_sigmas.numpy().astype(np.float64)[::-1]
    schedule = df.Schedule.ve_sde(sigma_min=0.01, sigma_max=50.0)
    plan = df.plan(schedule, "langevin_pc", prediction_type="score", sigmas=np.clip(levels, 0.01, 50.0), end="data", snr=0.15)
    rng = np.random.default_rng(0)
    x, noises = rng.standard_normal((1, 4)) * 50.0, rng.standard_normal((len(plan.rows), 1, 4))
    ours = run(plan, lambda x, sigma: -(x - gaussian.mean) / (gaussian.variance + sigma**2), x, noises)
    sample, theirs = torch.tensor(x), []
    for i, t in enumerate(scheduler.timesteps):
        for step, z in zip(("step_correct", "step_pred"), noises[2 * i : 2 * i + 2], strict=True):
            theirs.append(sample.numpy())
            score = torch.tensor(-(theirs[-1] - gaussian.mean) / (gaussian.variance + levels[i] ** 2))
            module = type(scheduler).__module__
            with mock.patch(f"{module}.randn_tensor", lambda *_, z=z, **__: torch.tensor(z)):
                call = getattr(scheduler, step)
                out = call(score, sample) if step == "step_correct" else call(score, t, sample)
            sample = out.prev_sample
    for one, other in zip(ours, theirs, strict=False):  # the last predictor step of the peer ends in its mean
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * max(1.0, np.abs(one).max()))


def test_the_corrector_keeps_a_gaussian(gaussian):
    # Langevin dynamics has the marginal for its stationary distribution, up to the step.
    plan = df.plan(LINEAR, "langevin_pc", prediction_type="epsilon", timesteps=[500.0], snr=0.02)
    row, rng, count = plan.rows[0], np.random.default_rng(1), 4000
    mean, variance = gaussian.marginal(*plan.marginals[0])
    network = gaussian.network(LINEAR)
    x = mean + np.sqrt(variance) * rng.standard_normal((count, 4))
    for _ in range(5):
        x = np.array([apply_row(row, s, [network(s, 500.0)], z=z) for s, z in zip(x, rng.standard_normal((count, 4)), strict=True)])
    assert np.all(np.abs(x.mean(0) - mean) < 5 * np.sqrt(variance / count))
    assert np.all(np.abs(x.var(0) / variance - 1) < 5 * np.sqrt(2 / count) + 0.01)


def test_the_corrector_needs_a_score():
    with pytest.raises(PlanError, match="proportional to the score"):
        df.plan(LINEAR, "langevin_pc", 4, prediction_type="v_prediction")
