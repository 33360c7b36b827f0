"""DDPM against the paper's formulas, diffusers, and what theorems say of a Gaussian."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diffuse_fast as df
from diffuse_fast.kernels.reference import apply_row

PREDICTIONS = ("epsilon", "sample", "v_prediction")
VARIANCES = ("fixed_small", "fixed_large")


def draw(steps, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((6, 4)), rng.standard_normal((steps, 6, 4))


def naive(schedule, plan, network, x, noises, variance_type, clip=None):
    """Equations (6), (7) and (15) of the paper as they stand, on the respaced betas."""
    a_bar = [schedule.alpha(t) ** 2 for t in plan.timesteps]
    a_bar_prev = [*a_bar[1:], 1.0]
    for i, t in enumerate(plan.timesteps):
        beta, output = 1 - a_bar[i] / a_bar_prev[i], network(x, t)
        if plan.prediction_type == "epsilon":
            x0 = (x - np.sqrt(1 - a_bar[i]) * output) / np.sqrt(a_bar[i])
        elif plan.prediction_type == "sample":
            x0 = output
        else:
            x0 = np.sqrt(a_bar[i]) * x - np.sqrt(1 - a_bar[i]) * output
        if clip is not None:
            x0 = np.clip(x0, *clip)
        mean = np.sqrt(a_bar_prev[i]) * beta / (1 - a_bar[i]) * x0
        mean = mean + np.sqrt(1 - beta) * (1 - a_bar_prev[i]) / (1 - a_bar[i]) * x
        variance = {"fixed_small": (1 - a_bar_prev[i]) / (1 - a_bar[i]) * beta, "fixed_large": beta}[variance_type]
        x = mean + (np.sqrt(variance) * noises[i] if i < len(a_bar) - 1 else 0.0)
    return x


@pytest.mark.parametrize("clip", [None, (-0.3, 1.0)])
@pytest.mark.parametrize("variance_type", VARIANCES)
@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_paper(schedule, gaussian, run, laid, spacing, prediction_type, variance_type, clip):
    network = gaussian.network(schedule, prediction_type)
    for steps in (1, 2, 5, 23):
        try:
            plan = df.plan(
                schedule,
                "ddpm",
                steps,
                prediction_type=prediction_type,
                clip=clip,
                variance_type=variance_type,
                timesteps=laid(schedule, "ddpm", spacing, steps),
            )
        except df.errors.PlanError:
            assert prediction_type == "epsilon"
            assert schedule.alpha(schedule.num_train_timesteps - 1) == 0
            continue
        x, noises = draw(steps)
        found = run(plan, network, x, noises)[-1]
        exact = naive(schedule, plan, network, x, noises, variance_type, clip)
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-9 * max(1.0, np.abs(exact).max()))


def test_every_timestep_is_the_posterior_of_the_schedule():
    schedule = df.Schedule.cosine(50)
    plan = df.plan(schedule, "ddpm", 50, prediction_type="sample", clip=(-1, 1))
    for row in plan.rows:
        t = int(row.timestep)
        assert row.d == pytest.approx(schedule.posterior_mean_coef_x0[t], rel=1e-12)
        assert row.a == pytest.approx(schedule.posterior_mean_coef_xt[t], rel=1e-12)
        assert row.s**2 == pytest.approx(schedule.posterior_variance[t], rel=1e-12)


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("variance_type", VARIANCES)
@pytest.mark.parametrize(
    "peer",
    [
        {"timestep_spacing": "leading"},
        {"timestep_spacing": "linspace"},
        {"timestep_spacing": "leading", "steps_offset": 1},
        {"timestep_spacing": "trailing"},
        {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True},
    ],
    ids=lambda peer: "-".join(map(str, peer.values())),
)
@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
def test_diffusers(gaussian, run, diffusers_loop, laid, betas, peer, variance_type, prediction_type, clip):
    import torch
    from diffusers import DDPMScheduler

    schedule = getattr(df.Schedule, {"squaredcos_cap_v2": "cosine", "scaled_linear": "quadratic"}.get(betas, betas))()
    if peer.get("rescale_betas_zero_snr"):
        schedule = schedule.rescale_zero_terminal_snr()
        if prediction_type == "epsilon":
            pytest.skip("epsilon at zero signal-to-noise ratio is refused")
    network = gaussian.network(schedule, prediction_type)
    for steps in (1, 2, 5, 10, 50):
        grid = laid(schedule, "ddpm", peer["timestep_spacing"], steps, steps_offset=peer.get("steps_offset", 0))
        plan = df.plan(
            schedule,
            "ddpm",
            steps,
            prediction_type=prediction_type,
            clip=clip and (-clip, clip),
            variance_type=variance_type,
            timesteps=grid,
        )
        x, noises = draw(steps)
        noises[-1] = 0.0  # where the last timestep is not 0 the peer adds noise to the result; Algorithm 2 does not
        states = run(plan, network, x, noises)
        scheduler = DDPMScheduler(
            beta_schedule=betas,
            **peer,
            prediction_type=prediction_type,
            variance_type=variance_type,
            clip_sample=clip is not None,
            clip_sample_range=clip or 1.0,
        )
        # As it is, in float32, judged at the trajectory's own size. Its respaced variances are differences of float32
        # alphas_cumprod, off by up to 1e-3 relatively near t = 0 and, in the cosine table, 3e-5 at the end; and
        # epsilon's own rounding has weight 1/alpha, 2e4 at the end of the cosine table and 157 at that of the linear one.
        amplified = 2**-22 / plan.marginals[0][0] if prediction_type == "epsilon" else 0.0
        float32 = max(1e-5 if betas in ("linear", "scaled_linear") else 1e-4, amplified)
        theirs = diffusers_loop(scheduler, steps, network, x, noises, torch.float32)
        for ours, other in zip(states, theirs, strict=True):
            assert np.abs(ours - other).max() < float32 * max(1.0, np.abs(ours).max())
        # And its logic alone, on our tables in float64.
        scheduler.alphas_cumprod = torch.tensor(schedule.alphas_cumprod)
        theirs = diffusers_loop(scheduler, steps, network, x, noises, torch.float64)
        for ours, other in zip(states, theirs, strict=True):
            np.testing.assert_allclose(ours, other, rtol=0, atol=1e-9 * max(1.0, np.abs(ours).max()))


# ---- learned variance -------------------------------------------------------------------------------------


def doubled(network):
    """A network that also says v: the second half of its output."""

    def predict(x, t):
        return np.concatenate([network(x, t), np.sin(3.0 * x + t / 300.0)], axis=1)

    return predict


def run_learned(plan, network, x, noises):
    states = [x]
    for row, noise in zip(plan.rows, noises, strict=True):
        output, v = np.split(network(states[-1], row.timestep), 2, axis=1)
        states.append(apply_row(row, states[-1], [output], z=noise if row.stochastic else None, v=v))
    return states


@pytest.mark.parametrize("clip", [None, (-0.3, 1.0)])
@pytest.mark.parametrize("variance_type", ["learned", "learned_range"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_learned_variance_of_improved_ddpm(gaussian, laid, spacing, variance_type, clip):
    # Nichol & Dhariwal 2021, eq. (15), and guided-diffusion's ModelVarType.LEARNED, on the respaced betas.
    schedule = df.Schedule.cosine()
    network = doubled(gaussian.network(schedule, "v_prediction"))
    for steps in (1, 2, 5, 23):
        grid = laid(schedule, "ddpm", spacing, steps)
        plan = df.plan(
            schedule, "ddpm", steps, prediction_type="v_prediction", timesteps=grid, clip=clip, variance_type=variance_type
        )
        assert plan.exact_marginal
        x, noises = draw(steps)
        state = x
        a_bar = [schedule.alpha(t) ** 2 for t in plan.timesteps] + [1.0]
        for i, t in enumerate(plan.timesteps):
            output, v = np.split(network(state, t), 2, axis=1)
            beta = 1 - a_bar[i] / a_bar[i + 1]
            x0 = np.sqrt(a_bar[i]) * state - np.sqrt(1 - a_bar[i]) * output
            x0 = x0 if clip is None else np.clip(x0, *clip)
            state = (np.sqrt(a_bar[i + 1]) * beta * x0 + np.sqrt(1 - beta) * (1 - a_bar[i + 1]) * state) / (1 - a_bar[i])
            if i < steps - 1:
                posterior = beta * (1 - a_bar[i + 1]) / (1 - a_bar[i])
                fraction = (v + 1) / 2
                log_variance = v if variance_type == "learned" else fraction * np.log(beta) + (1 - fraction) * np.log(posterior)
                state = state + np.exp(0.5 * log_variance) * noises[i]
        found = run_learned(plan, network, x, noises)[-1]
        np.testing.assert_allclose(found, state, rtol=0, atol=1e-9 * max(1.0, np.abs(state).max()))


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("steps", [1, 2, 5, 50])
def test_learned_range_of_diffusers(gaussian, diffusers_loop, laid, prediction_type, steps):
    # Its "learned" is not here: it takes the root of the output for the standard deviation, where guided-diffusion, whose
    # models have it, predicts the log of the variance.
    import torch
    from diffusers import DDPMScheduler

    schedule = df.Schedule.linear()
    network = doubled(gaussian.network(schedule, prediction_type))
    grid = laid(schedule, "ddpm", "leading", steps)
    plan = df.plan(schedule, "ddpm", steps, prediction_type=prediction_type, variance_type="learned_range", timesteps=grid)
    x, noises = draw(steps)
    scheduler = DDPMScheduler(
        beta_schedule="linear",
        timestep_spacing="leading",
        prediction_type=prediction_type,
        variance_type="learned_range",
        clip_sample=False,
    )
    scheduler.alphas_cumprod = torch.tensor(schedule.alphas_cumprod)
    theirs = diffusers_loop(scheduler, steps, network, x, noises, torch.float64)
    for one, other in zip(run_learned(plan, network, x, noises), theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9 * max(1.0, np.abs(one).max()))


def test_learned_range_deviates_by_nothing_where_v_is_right(schedule, assert_declared_marginals):
    for steps in (1, 2, 9):
        plan = df.plan(schedule, "ddpm", steps, prediction_type="v_prediction", variance_type="learned_range")
        assert df.Plan.from_json(plan.to_json()) == plan
        assert [row.log_s is not None for row in plan.rows] == [True] * (steps - 1) + [False]
        assert_declared_marginals(plan)


# ---- an exact Gaussian: mean and variance are carried through the rows in closed form ---------------------


def moments(plan, schedule, gaussian):
    """Mean and variance of the state before each row and after the last, from the exact marginal at the start. The
    optimal network is affine in x, and so is a row that does not clip."""
    network = gaussian.network(schedule, plan.prediction_type)
    mean, variance = gaussian.marginal(*plan.marginals[0])
    out = [(mean, variance)]
    for row in plan.rows:
        offset = network(np.zeros_like(mean), row.timestep)
        slope = network(np.ones_like(mean), row.timestep) - offset
        mean = (row.a + row.b * slope) * mean + row.b * offset
        variance = (row.a + row.b * slope) ** 2 * variance + row.s**2
        out.append((mean, variance))
    return out


@pytest.mark.parametrize("variance_type", VARIANCES)
@pytest.mark.parametrize("steps", [1, 2, 10, 100, 1000])
def test_the_mean_is_exact_at_any_step_count(gaussian, variance_type, steps):
    # E[x_{t'}] is linear in E[x_t] and E[x0], and the optimal data prediction has the right mean.
    schedule = df.Schedule.linear()
    plan = df.plan(schedule, "ddpm", steps, prediction_type="epsilon", variance_type=variance_type)
    for (mean, _), (alpha, _) in zip(moments(plan, schedule, gaussian), plan.marginals, strict=True):
        np.testing.assert_allclose(mean, alpha * gaussian.mean, rtol=0, atol=1e-10)


@pytest.mark.parametrize("steps", [1, 5, 50, 1000])
def test_fixed_small_is_exact_for_a_point(gaussian, steps):
    # Section 3.2: β̃ is the optimal variance when x0 is a single point.
    schedule = df.Schedule.linear()
    gaussian.variance = np.zeros(4)
    plan = df.plan(schedule, "ddpm", steps, prediction_type="sample")
    for (_, variance), (_, sigma) in zip(moments(plan, schedule, gaussian), plan.marginals, strict=True):
        np.testing.assert_allclose(variance, sigma**2, rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 5, 50, 1000])
def test_fixed_large_is_exact_for_unit_variance(gaussian, steps):
    # Section 3.2: β is the optimal variance when x0 ~ N(0, I): every state then has unit variance. The last step, which
    # draws no noise, leaves alpha² of it.
    schedule = df.Schedule.linear()
    gaussian.variance = np.ones(4)
    plan = df.plan(schedule, "ddpm", steps, prediction_type="sample", variance_type="fixed_large")
    *states, (_, last) = moments(plan, schedule, gaussian)
    for _, variance in states:
        np.testing.assert_allclose(variance, 1.0, rtol=0, atol=1e-12)
    np.testing.assert_allclose(last, plan.marginals[-2][0] ** 2, rtol=0, atol=1e-12)


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("variance_type", VARIANCES)
def test_the_variance_converges_with_order_1(gaussian, variance_type, prediction_type):
    schedule = df.Schedule.linear(20000, 1e-4 / 20, 0.02 / 20)
    counts, errors = [250, 500, 1000, 2000], []
    for count in counts:
        plan = df.plan(schedule, "ddpm", count, prediction_type=prediction_type, variance_type=variance_type)
        mean, variance = moments(plan, schedule, gaussian)[-1]
        np.testing.assert_allclose(mean, gaussian.mean, rtol=0, atol=1e-9)
        errors.append(np.abs(variance - gaussian.variance).max())
    order = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert order == pytest.approx(1.0, abs=0.2), errors


@pytest.mark.parametrize("variance_type", VARIANCES)
def test_samples_have_the_mean_and_covariance_of_the_data(gaussian, run, variance_type):
    # Correlated data: a rotation of the Gaussian. DDPM commutes with rotations, so the rotated network draws it.
    schedule = df.Schedule.linear()
    rng = np.random.default_rng(7)
    rotation = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    network = gaussian.network(schedule)
    count, steps = 20000, 100
    plan = df.plan(schedule, "ddpm", steps, prediction_type="epsilon", variance_type=variance_type)
    mean, variance = gaussian.marginal(*plan.marginals[0])
    x = (mean + np.sqrt(variance) * rng.standard_normal((count, 4))) @ rotation
    noises = (rng.standard_normal((count, 4)) for _ in range(steps))
    samples = run(plan, lambda s, t: network(s @ rotation.T, t) @ rotation, x, _Stream(noises))[-1]
    # The covariance at this step count, known in closed form; that it converges to the data's is tested above.
    expected = rotation.T @ np.diag(moments(plan, schedule, gaussian)[-1][1]) @ rotation
    deviation = np.sqrt(np.diag(expected))
    assert np.all(np.abs(samples.mean(0) - gaussian.mean @ rotation) < 5 * deviation / np.sqrt(count))
    # Var of a sample covariance of Gaussians: (Σ_ii·Σ_jj + Σ_ij²)/n.
    error = np.sqrt((np.outer(deviation**2, deviation**2) + expected**2) / count)
    assert np.all(np.abs(np.cov(samples.T) - expected) < 5 * error)


class _Stream:
    """Noise drawn when asked for, in order."""

    def __init__(self, noises):
        self.noises = noises

    def __getitem__(self, _):
        return next(self.noises)


# ---- marginals ----------------------------------------------------------------------------------------


@settings(derandomize=True, deadline=None, max_examples=40)
@given(data=st.data())
def test_plans_are_finite_and_deviate_as_declared(data, assert_declared_marginals):
    steps = data.draw(st.integers(1, 60))
    schedule = data.draw(
        st.sampled_from(
            [
                df.Schedule.linear(),
                df.Schedule.cosine(),
                df.Schedule.scaled_linear(400),
                df.Schedule.sigmoid(60),
                df.Schedule.quadratic(60, 1e-9, 0.5),
                df.Schedule.cosine(100).rescale_zero_terminal_snr(),
            ]
        )
    )
    last = schedule.num_train_timesteps - 1 - (schedule.alpha(schedule.num_train_timesteps - 1) == 0)
    fractions = data.draw(st.lists(st.integers(0, 10**6), min_size=steps, max_size=steps, unique=True))
    variance_type = data.draw(st.sampled_from(VARIANCES))
    plan = df.plan(
        schedule,
        "ddpm",
        prediction_type=data.draw(st.sampled_from(PREDICTIONS)),
        variance_type=variance_type,
        timesteps=np.sort(fractions)[::-1] * last / 10**6,
        clip=data.draw(st.sampled_from([None, (-1e300, 1e300)])),
    )
    assert plan.exact_marginal == (variance_type == "fixed_small")
    assert df.Plan.from_json(plan.to_json()) == plan
    assert_declared_marginals(plan)


def test_fixed_small_is_ddim_with_eta_1():
    # Song et al. 2020, section 4.1.
    arguments = {"prediction_type": "epsilon", "timestep_spacing": "trailing"}
    ddpm = df.plan(df.Schedule.linear(), "ddpm", 12, **arguments)
    ddim = df.plan(df.Schedule.linear(), "ddim", 12, **arguments, eta=1.0)
    for one, other in zip(ddpm.rows, ddim.rows, strict=True):
        np.testing.assert_allclose((one.a, one.b, one.s), (other.a, other.b, other.s), rtol=1e-11, atol=0)


def test_the_last_row_draws_no_noise():
    for variance_type in VARIANCES:
        rows = df.plan(
            df.Schedule.linear(), "ddpm", 5, prediction_type="epsilon", variance_type=variance_type, timestep_spacing="trailing"
        ).rows
        assert [row.stochastic for row in rows] == [True] * 4 + [False]
