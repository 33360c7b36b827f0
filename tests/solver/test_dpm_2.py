"""DPM-2, plain and ancestral, against k-diffusion's formulas, diffusers, and exact solutions."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from tests.solver.unguarded import unguarded_plan

PREDICTIONS = ("epsilon", "sample", "v_prediction")
LINEAR, COSINE = df.Schedule.linear(), df.Schedule.cosine()
# The full grid of combinations is slow.
STEPS = [1, 5, *(pytest.param(steps, marks=pytest.mark.slow) for steps in (2, 10, 50))]
BETAS = ["scaled_linear", pytest.param("linear", marks=pytest.mark.slow)]


def naive(denoise, sigmas, x, noises, eta):
    """k-diffusion's sample_dpm_2 (eta = 0) and sample_dpm_2_ancestral, on x = state/alpha; noises are taken when needed."""
    noises = iter(noises)
    for sigma, after in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        up = min(after, eta * (after**2 * (sigma**2 - after**2) / sigma**2) ** 0.5)
        down = (after**2 - up**2) ** 0.5
        d = (x - denoise(x, sigma)) / sigma
        if down == 0:
            x = x + d * (down - sigma)
        else:
            middle = np.exp((np.log(sigma) + np.log(down)) / 2)
            x_2 = x + d * (middle - sigma)
            x = x + (x_2 - denoise(x_2, middle)) / middle * (down - sigma)
        if up > 0:
            x = x + up * next(noises)
    return x


@pytest.mark.parametrize("clip", [None, (-0.3, 1.0)])
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("prediction_type", PREDICTIONS)
def test_k_diffusion(gaussian, run, denoiser, laid, prediction_type, eta, clip):
    rng = np.random.default_rng(0)
    for schedule in (LINEAR, df.Schedule.scaled_linear(), COSINE):
        network = gaussian.network(schedule, prediction_type)
        for steps, spacing in ((1, "trailing"), (2, "linspace"), (5, "leading"), (23, "linspace")):
            if schedule is COSINE and spacing != "leading":
                continue  # it begins with sigma/alpha = 2e4, which the formulas multiply rounding errors with
            plan = unguarded_plan(
                schedule,
                "dpm_2",
                steps,
                prediction_type=prediction_type,
                clip=clip,
                eta=eta,
                timesteps=laid(schedule, "dpm_2", spacing, steps),
            )
            x, noises = rng.standard_normal((6, 4)), rng.standard_normal((len(plan.rows), 6, 4))
            sigmas = [schedule.sigma(t) / schedule.alpha(t) for t in plan.timesteps[::2]]
            drawn = [z for z, row in zip(noises, plan.rows, strict=True) if row.stochastic]
            exact = naive(
                denoiser(schedule, network, prediction_type, clip), sigmas, x / schedule.alpha(plan.timesteps[0]), drawn, eta
            )
            np.testing.assert_allclose(run(plan, network, x, noises)[-1], exact, rtol=0, atol=1e-9 * max(1, np.abs(exact).max()))


@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # NumPy on torch tensors, in diffusers
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_diffusers(gaussian, run, peer_loop, laid, eta, betas, spacing, prediction_type, steps):
    # The peer interpolates the time of the middle in log σ between timesteps, where log(alpha) is linear here: the middle
    # keeps its σ and moves by less than a twentieth of a timestep. Its logic is compared on our times and σ, in float64.
    import torch
    from diffusers import KDPM2AncestralDiscreteScheduler, KDPM2DiscreteScheduler

    schedule = getattr(df.Schedule, betas)()
    start, end = schedule.to_json()["beta_start"], schedule.to_json()["beta_end"]
    grid = laid(schedule, "dpm_2", spacing, steps)
    plan = unguarded_plan(schedule, "dpm_2", steps, prediction_type=prediction_type, timesteps=grid, eta=eta)
    rng = np.random.default_rng(1)
    x, noises = rng.standard_normal((6, 4)), rng.standard_normal((len(plan.rows), 6, 4))
    network = gaussian.network(schedule, prediction_type)
    drawn = [z for z, row in zip(noises, plan.rows, strict=True) if row.stochastic]
    ours = run(plan, network, x, noises)
    kind = KDPM2AncestralDiscreteScheduler if eta else KDPM2DiscreteScheduler
    scheduler = kind(beta_schedule=betas, beta_start=start, beta_end=end, prediction_type=prediction_type, timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    np.testing.assert_allclose(scheduler.timesteps.numpy(), plan.timesteps, rtol=0, atol=0.05)
    as_it_is = scheduler.sigmas.numpy(), scheduler.sigmas_interpol.numpy()
    sigma = np.array([*(schedule.sigma(t) / schedule.alpha(t) for t in plan.timesteps[::2]), 0.0])
    after = sigma[1:]
    up = eta * after * np.sqrt(1 - (after / sigma[:-1]) ** 2)
    down = np.sqrt(after**2 - up**2)
    middle = np.sqrt(sigma[:-1] * down)

    def doubled(values, *tail):  # one for the first stage of the first step, two for every later step
        return torch.tensor([values[0], *np.repeat(values[1:], 2), *tail], dtype=torch.float64)

    scheduler.timesteps = torch.tensor(plan.timesteps)
    if eta:
        scheduler.sigmas, scheduler.sigmas_interpol = doubled(sigma, 0.0), doubled(middle, 0.0, 0.0)
        scheduler.sigmas_up, scheduler.sigmas_down = doubled(up), doubled(down)
    else:
        scheduler.sigmas, scheduler.sigmas_interpol = doubled(sigma[:-1], 0.0), doubled(np.array([np.nan, *middle]), 0.0)
    for mine, theirs in zip((scheduler.sigmas, scheduler.sigmas_interpol), as_it_is, strict=True):
        shared = min(len(mine), len(theirs), 2 * steps - 1)
        np.testing.assert_allclose(mine[1:shared], theirs[1:shared], rtol=1e-3)
    scheduler.set_begin_index(0)
    theirs = peer_loop(scheduler, network, x / plan.marginals[0][0], drawn, torch.float64)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9 * max(1.0, np.abs(one).max()))


@pytest.mark.parametrize("data", ["gaussian", "mixture"])
def test_order_2_at_eta_0(request, measured_order, data):
    order, errors = measured_order(request.getfixturevalue(data), "dpm_2", [32, 64, 128, 256], "epsilon")
    assert order == pytest.approx(2.0, abs=0.2), errors


def test_at_eta_0_it_is_dpm_solver_2():
    arguments = {"prediction_type": "sample", "timestep_spacing": "trailing"}
    one, other = (df.plan(LINEAR, name, 9, **arguments) for name in ("dpm_2", "dpmsolver_2s"))
    for mine, theirs in zip(one.rows, other.rows, strict=True):
        for name in ("a", "b", "e_x", "e_m"):
            assert getattr(mine, name) == pytest.approx(getattr(theirs, name), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_mean_and_variance_of_a_gaussian_as_the_steps_grow(gaussian, eta):
    # The optimal network is affine in x, and so is a whole step: its slope and offset are read off by two states.
    schedule, counts = df.Schedule.linear(20000, 1e-4 / 20, 0.02 / 20), [125, 250, 500, 1000]
    network, errors = gaussian.network(schedule), []
    for count in counts:
        plan = df.plan(schedule, "dpm_2", count, prediction_type="epsilon", eta=eta)
        mean, variance = gaussian.marginal(*plan.marginals[0])
        rows = iter(plan.rows)
        for first in rows:
            step = [first] if first.write is None else [first, next(rows)]
            offset, one = (through(step, network, np.full(4, value)) for value in (0.0, 1.0))
            mean, variance = (one - offset) * mean + offset, (one - offset) ** 2 * variance + step[-1].s ** 2
        errors.append(np.abs(variance - gaussian.variance).max())
    order = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert order > 0.8, errors


def through(step, network, x):
    from diffuse_fast.kernels.reference import apply_row

    registers = [None]
    for row in step:
        x = apply_row(row, x, [network(x, row.timestep)], registers)
    return x
