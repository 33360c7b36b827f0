"""Euler and Heun on a flow against diffusers and exact solutions, and the one-step solvers on every family."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df

FLOW = df.Schedule.flow()
MEAN, VARIANCE = np.array([0.5, -1.0, 0.0, 2.0]), np.array([0.04, 0.5, 1.0, 2.0])
FAMILIES = {
    "edm": df.Schedule.edm(sigma_data=0.7),
    "flow": df.Schedule.flow(shift=2.0),
    "vp_sde": df.Schedule.vp_sde(),
    "sub_vp_sde": df.Schedule.sub_vp_sde(),
    "ve_sde": df.Schedule.ve_sde(),
}
ONE_STEP = {"euler_ancestral": 1, "heun": 2, "dpm_2": 2, "dpmsolver_1s": 1, "dpmsolver_2s": 2, "dpmsolver_3s": 3, "dpmpp_2s": 2}


def network(schedule, prediction_type):
    """The optimal network of data N(MEAN, diag(VARIANCE)), told the log-SNR."""

    def predict(x, log_snr):
        _, alpha, sigma = schedule.marginal_at_log_snr(log_snr)
        spread = alpha**2 * VARIANCE + sigma**2
        noise = sigma * (x - alpha * MEAN) / spread
        x0 = MEAN + alpha * VARIANCE * (x - alpha * MEAN) / spread
        return df.convert_prediction(
            noise,
            alpha * x0 + sigma * noise,
            from_="epsilon",
            to=prediction_type,
            alpha=alpha,
            sigma=sigma,
            sigma_data=schedule.sigma_data,
        )

    return predict


def velocity(x, t):
    """Some smooth velocity."""
    return np.tanh(x * 0.8) * 0.7 - 0.2 * x + 0.3 * np.cos(t / 400)


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 50])
@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("kind", ["euler", "stochastic", "heun"])
def test_diffusers(run, peer_loop, kind, shift, steps):
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler

    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 4))
    if kind == "heun":
        scheduler = FlowMatchHeunDiscreteScheduler(shift=shift)
    else:
        scheduler = FlowMatchEulerDiscreteScheduler(shift=shift, stochastic_sampling=kind == "stochastic")
    scheduler.set_timesteps(steps)
    times = np.unique(scheduler.timesteps.numpy().astype(np.float64))[::-1]
    options = {} if kind == "heun" else {"stochastic_sampling": kind == "stochastic"}
    plan = df.plan(
        df.Schedule.flow(shift=shift),
        "flow_heun" if kind == "heun" else "flow_euler",
        prediction_type="flow",
        timesteps=times,
        **options,
    )
    np.testing.assert_allclose(plan.timesteps, scheduler.timesteps.numpy(), rtol=0, atol=1e-9)
    noises = rng.standard_normal((len(plan.rows), 6, 4))
    ours, theirs = run(plan, velocity, x, noises), peer_loop(scheduler, velocity, x, noises, torch.float32)
    # Heun there takes v from (x − (x − σ·v))/σ, which leaves float32's rounding over the smallest σ.
    tolerance = max(1e-5, 2**-24 / (times[-1] / 1000) if kind == "heun" else 0.0)
    for one, other in zip(ours, theirs, strict=True):
        assert np.abs(one - other).max() < tolerance * max(1.0, np.abs(one).max())


@pytest.mark.parametrize("clip", [None, (-0.3, 1.0)])
@pytest.mark.parametrize("prediction_type", ["flow", "epsilon", "sample"])
@pytest.mark.parametrize("name", ["flow_euler", "flow_heun"])
def test_formulas(run, name, prediction_type, clip):
    # x' = x + (σ' − σ)·v, and the trapezoidal rule, with v = (x − x0)/σ.
    shifted = df.Schedule.flow(shift=2.0)
    inner = network(shifted, prediction_type)
    plan = df.plan(
        shifted, name, prediction_type=prediction_type, timesteps=[980.0, 700.0, 333.0, 41.0], clip=clip, time_convention="log_snr"
    )

    def v(x, sigma):
        alpha = 1 - sigma
        output = inner(x, 2 * np.log(alpha / sigma))
        x0 = {"flow": x - sigma * output, "epsilon": (x - sigma * output) / alpha, "sample": output}[prediction_type]
        return (x - (x0 if clip is None else np.clip(x0, *clip))) / sigma

    x = state = np.random.default_rng(0).standard_normal((6, 4))
    levels = [0.98, 0.7, 0.333, 0.041, 0.0]
    for sigma, after in zip(levels[:-1], levels[1:], strict=True):  # noqa: RUF007
        first = v(state, sigma)
        guess = state + (after - sigma) * first
        second = v(guess, after) if after and name == "flow_heun" else first
        state = state + (after - sigma) * (first + second) / 2
    np.testing.assert_allclose(run(plan, inner, x)[-1], state, rtol=0, atol=1e-9)


def flow_of_a_gaussian(x, start, end):
    def marginal(alpha, sigma):
        return alpha * MEAN, alpha**2 * VARIANCE + sigma**2

    (mean, variance), (mean_end, variance_end) = marginal(*start), marginal(*end)
    return mean_end + np.sqrt(variance_end / variance) * (x - mean)


@pytest.mark.parametrize(("name", "order"), [("flow_euler", 1), ("flow_heun", 2)])
def test_order_in_the_time_of_the_flow(run, name, order):
    counts, errors = [32, 64, 128, 256], []
    for count in counts:
        plan = df.plan(FLOW, name, prediction_type="flow", timesteps=np.linspace(990, 20, count + 1), time_convention="log_snr")
        x = plan.marginals[0][0] * MEAN + np.linspace(-2, 2, 9)[:, None]
        exact = flow_of_a_gaussian(x, plan.marginals[0], plan.marginals[-2])
        errors.append(np.abs(run(plan, network(FLOW, "flow"), x)[-2] - exact).max())
    assert -np.polyfit(np.log(counts), np.log(errors), 1)[0] == pytest.approx(order, abs=0.2), errors


def test_a_flow_is_what_they_are_for():
    with pytest.raises(df.errors.PlanError, match="families flow"):
        df.plan(df.Schedule.linear(), "flow_heun", 4, prediction_type="v_prediction")


# ---- the one-step solvers on every family ------------------------------------------------------------------


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("name", list(ONE_STEP))
def test_order_on_every_family(run, name, family):
    schedule, errors, counts = FAMILIES[family], [], [16, 32, 64, 128]
    kind = schedule.prediction_types[0]
    options = {"eta": 0.0} if name == "euler_ancestral" else {}
    low, high = (np.clip(bound, schedule.log_snr(schedule.t_max), schedule.log_snr(schedule.t_min)) for bound in (-8.0, 5.0))
    for count in counts:
        plan = df.plan(
            schedule,
            name,
            prediction_type=kind,
            time_convention="log_snr",
            **options,
            timesteps=schedule.timestep_at_log_snr(np.linspace(low, high, count + 1)),
        )
        alpha, sigma = plan.marginals[0]
        x = alpha * MEAN + np.sqrt(alpha**2 * VARIANCE + sigma**2) * np.linspace(-2, 2, 9)[:, None]
        exact = flow_of_a_gaussian(x, plan.marginals[0], plan.marginals[-2])
        errors.append(np.abs(run(plan, network(schedule, kind), x)[-2] - exact).max())
    assert -np.polyfit(np.log(counts), np.log(errors), 1)[0] == pytest.approx(ONE_STEP[name], abs=0.25), errors


def test_churn_on_edm_deviates_as_declared(assert_declared_marginals):
    schedule = FAMILIES["edm"]
    plan = df.plan(
        schedule,
        "heun",
        18,
        prediction_type="edm",
        timestep_spacing="karras",
        s_churn=40.0,
        s_tmin=0.05,
        s_tmax=50.0,
        s_noise=1.003,
    )
    assert not plan.exact_marginal
    assert_declared_marginals(plan, schedule.sigma_data)
