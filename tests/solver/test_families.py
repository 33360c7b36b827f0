"""DDIM and DDPM on every family: against diffusers' EDM and flow schedulers, Bayes' rule, and the exact flow of a Gaussian."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.kernels.reference import apply_row

SCHEDULES = {
    "edm": df.Schedule.edm(sigma_data=0.7),
    "flow": df.Schedule.flow(shift=2.0),
    "vp_sde": df.Schedule.vp_sde(),
    "sub_vp_sde": df.Schedule.sub_vp_sde(),
    "learned": df.Schedule.learned(7.0 - 16.0 * np.linspace(0, 1, 65) - np.sin(6.0 * np.linspace(0, 1, 65))),
    "ve_sde": df.Schedule.ve_sde(),
}
PAIRS = [pytest.param(s, p, id=f"{n}-{p}") for n, s in SCHEDULES.items() for p in s.prediction_types]
MEAN, VARIANCE = np.array([0.5, -1.0, 0.0, 2.0]), np.array([0.04, 0.5, 1.0, 2.0])


def network(schedule, prediction_type):
    """The optimal network of data N(MEAN, diag(VARIANCE)), told the log-SNR."""

    def predict(x, log_snr):
        _, alpha, sigma = schedule.marginal_at_log_snr(log_snr)
        spread = alpha**2 * VARIANCE + sigma**2
        x0 = MEAN + alpha * VARIANCE * (x - alpha * MEAN) / spread
        noise = sigma * (x - alpha * MEAN) / spread
        return df.convert_prediction(
            noise,
            x0 * alpha + noise * sigma,
            from_="epsilon",
            to=prediction_type,
            alpha=alpha,
            sigma=sigma,
            sigma_data=schedule.sigma_data,
        )

    return predict


def test_edm_agrees_with_diffusers(run):
    import torch
    from diffusers import EDMEulerScheduler

    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((4, 4)) / 2

    def smooth(x, t):
        return np.tanh(x @ matrix) + 0.3 * np.sin(t)

    for prediction_type, name in (("edm", "epsilon"), ("v_prediction", "v_prediction")):
        for steps in (1, 2, 5, 18):
            scheduler = EDMEulerScheduler(prediction_type=name)
            scheduler.set_timesteps(steps)
            plan = df.plan(df.Schedule.edm(), "ddim", steps, prediction_type=prediction_type)
            x = rng.standard_normal((3, 4))
            ours = run(plan, smooth, plan.initial_scale * x)[-1]
            theirs = torch.tensor(80.0 * x)  # Karras et al. 2022, Algorithm 2, line 2
            for t in scheduler.timesteps:
                scaled = scheduler.scale_model_input(theirs, t)
                theirs = scheduler.step(torch.tensor(smooth(scaled.numpy(), float(t))), t, theirs).prev_sample
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-5 * np.abs(ours).max())


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 2, 5, 28])
def test_flow_agrees_with_diffusers(run, steps, shift):
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler

    rng = np.random.default_rng(steps)
    matrix = rng.standard_normal((4, 4)) / 2

    def smooth(x, t):
        return np.tanh(x @ matrix) + 0.3 * np.sin(t / 300)

    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    plan = df.plan(df.Schedule.flow(shift=shift), "ddim", steps, prediction_type="flow")
    x = rng.standard_normal((3, 4))
    assert plan.initial_scale == 1.0
    ours, theirs = run(plan, smooth, x)[-1], torch.tensor(x)
    for t in scheduler.timesteps:
        theirs = scheduler.step(torch.tensor(smooth(theirs.numpy(), float(t))), t, theirs).prev_sample
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-5 * np.abs(ours).max())


@pytest.mark.parametrize(("schedule", "prediction_type"), PAIRS)
@pytest.mark.parametrize("solver", ["ddim", "ddpm"])
def test_a_perfect_prediction_keeps_the_marginal(schedule, prediction_type, solver):
    start = {} if schedule.family != "flow" else {"sigma_max": 0.98}
    for steps in (1, 2, 7, 50):
        options = {"eta": 0.7} if solver == "ddim" else {}
        plan = df.plan(schedule, solver, steps, prediction_type=prediction_type, timestep_spacing="karras", **start, **options)
        for row, (alpha, sigma), after in zip(plan.rows, plan.marginals, plan.marginals[1:], strict=False):
            x = np.array([[alpha, sigma]])  # what x0 and what ε contribute
            m = df.convert_prediction(
                np.array([[0.0, 1.0]]),
                x,
                from_="epsilon",
                to=prediction_type,
                alpha=alpha,
                sigma=sigma,
                sigma_data=schedule.sigma_data,
            )
            ((of_x0, of_noise),) = apply_row(row, x, [m], [], z=np.zeros_like(x))
            tolerance = 1e-12 * max(1.0, abs(row.a), abs(row.b))
            assert of_x0 == pytest.approx(after[0], abs=tolerance * alpha + 1e-13)
            assert of_noise**2 + row.s**2 == pytest.approx(after[1] ** 2, rel=1e-10, abs=tolerance)
        assert plan.marginals[-1] == (1.0, 0.0)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_ddpm_is_the_posterior(schedule):
    # q(x_s | x_t, x0): the product of q(x_t | x_s) = N(alpha_t/alpha_s·x_s, β) and q(x_s | x0).
    t, s = schedule.timestep_at_noise_level(0.8), schedule.timestep_at_noise_level(0.5)
    (alpha, sigma), (alpha_s, sigma_s) = ((schedule.alpha(u), schedule.sigma(u)) for u in (t, s))
    ratio = alpha / alpha_s
    beta = sigma**2 - ratio**2 * sigma_s**2
    precision = ratio**2 / beta + 1 / sigma_s**2
    plan = df.plan(schedule, "ddpm", prediction_type=schedule.prediction_types[-1], timesteps=[t, s], clip=(-9, 9))
    row = plan.rows[0]
    assert (row.s**2, row.a, row.d) == pytest.approx(
        (1 / precision, ratio / beta / precision, alpha_s / sigma_s**2 / precision), rel=1e-10
    )


@pytest.mark.parametrize(("schedule", "prediction_type"), PAIRS)
def test_ddim_converges_to_the_exact_flow(schedule, prediction_type, run):
    levels = np.array([0.9, 0.05])
    ends = schedule.log_snr(schedule.timestep_at_noise_level(levels))
    (_, alpha, sigma), (_, alpha_end, sigma_end) = (schedule.marginal_at_log_snr(float(e)) for e in ends)
    x = alpha * MEAN + np.linspace(-2, 2, 5)[:, None]
    spread, spread_end = (a**2 * VARIANCE + s**2 for a, s in ((alpha, sigma), (alpha_end, sigma_end)))
    exact = alpha_end * MEAN + np.sqrt(spread_end / spread) * (x - alpha * MEAN)
    errors = []
    counts = (16, 32, 64, 128)
    for count in counts:
        plan = df.plan(
            schedule,
            "ddim",
            count + 1,
            prediction_type=prediction_type,
            timestep_spacing="log_snr",
            sigma_max=levels[0],
            sigma_min=levels[1],
            time_convention="log_snr",
        )
        assert plan.marginals[-2] == pytest.approx((alpha_end, sigma_end), rel=1e-12)
        errors.append(np.abs(run(plan, network(schedule, prediction_type), x)[-2] - exact).max())
    assert -np.polyfit(np.log(counts), np.log(errors), 1)[0] == pytest.approx(1.0, abs=0.2), errors


def test_where_the_state_starts():
    assert df.plan(df.Schedule.linear(), "ddim", 3, prediction_type="epsilon").initial_scale == 1.0
    assert df.plan(df.Schedule.vp_sde(), "ddim", 3, prediction_type="epsilon").initial_scale == 1.0
    assert df.plan(df.Schedule.ve_sde(), "ddim", 3, prediction_type="score").initial_scale == pytest.approx(50.0)
    edm = df.Schedule.edm()
    assert df.plan(edm, "ddim", 3, prediction_type="edm").initial_scale == pytest.approx(80.0 * edm.c_in(80.0), rel=1e-14)
