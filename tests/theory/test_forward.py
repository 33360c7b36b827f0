"""The forward process against its theorems: closed form, Monte Carlo, and Bayes' rule by numerical integration."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import integrate, stats

import diffuse_fast as df
from diffuse_fast import theory
from diffuse_fast.errors import ArgumentError

SCHEDULES = {
    "linear": (df.Schedule.linear(100), [1, 5, 30, 70, 99]),
    "cosine": (df.Schedule.cosine(), [0, 10, 300.5, 900, 999]),
    "edm": (df.Schedule.edm(), [0.002, 0.1, 1.0, 10.0, 80.0]),
    "flow": (df.Schedule.flow(), [1.0, 100.0, 500.0, 900.0, 990.0]),
    "vp_sde": (df.Schedule.vp_sde(), [0.001, 0.1, 0.4, 0.8, 1.0]),
    "sub_vp_sde": (df.Schedule.sub_vp_sde(), [0.001, 0.1, 0.4, 0.8, 1.0]),
    "ve_sde": (df.Schedule.ve_sde(), [0.0, 0.1, 0.4, 0.8, 1.0]),
}


def every():
    return pytest.mark.parametrize(("schedule", "times"), [pytest.param(*value, id=name) for name, value in SCHEDULES.items()])


def test_one_step_is_ddpms():
    """q(x_t | x_{t−1}) = N(sqrt(1 − β_t)·x_{t−1}, β_t) by the betas themselves, which theory does not read."""
    betas = np.linspace(1e-4, 0.02, 1000)
    x = np.array([[1.5, -0.5]])
    for t in (1, 2, 500, 999):
        q = theory.transition(df.Schedule.linear(), x, s=t - 1, t=t)
        np.testing.assert_allclose(q.mean, np.sqrt(1 - betas[t]) * x, rtol=1e-12)
        np.testing.assert_allclose(q.variance, betas[t], rtol=1e-9)
    first = theory.transition(df.Schedule.linear(), x, s=None, t=0)
    np.testing.assert_allclose(first.mean, np.sqrt(1 - betas[0]) * x, rtol=1e-12)
    np.testing.assert_allclose(first.variance, betas[0], rtol=1e-12)


@every()
def test_transitions_in_a_row_are_the_marginal(schedule, times):
    """The composition of linear Gaussian maps (Chapman & Kolmogorov): means chain, variances go by the square."""
    x0 = np.array([[0.7, -1.2]])
    mean, variance, s = x0, 0.0, None
    for t in times:
        one = theory.transition(schedule, np.array([[1.0]]), s=s, t=t)
        gain = one.mean.item()
        mean, variance, s = gain * mean, gain**2 * variance + one.variance, t
        q = theory.marginal(schedule, x0, t)
        np.testing.assert_allclose(mean, q.mean, rtol=1e-12)
        np.testing.assert_allclose(variance, q.variance, rtol=1e-10)


def test_walking_step_by_step_draws_from_the_marginal():
    rng, count = np.random.default_rng(0), 40_000
    betas = np.linspace(1e-3, 0.2, 30)
    schedule = df.Schedule.from_betas(betas)
    x = x0 = np.full((count, 1), 0.8)
    for t in range(30):
        x = theory.transition(schedule, x, s=t - 1 if t else None, t=t).sample(rng.standard_normal(x.shape))
    q = theory.marginal(schedule, x0, 29)
    assert stats.kstest(x.ravel(), "norm", args=(q.mean[0, 0], np.sqrt(q.variance.item()))).pvalue > 1e-3


@pytest.mark.parametrize("name", ["linear", "cosine", "vp_sde", "edm"])
def test_unit_variance_is_preserved(name):
    # EDM's state is c_in·x, with data of sigma_data.
    schedule, times = SCHEDULES[name]
    for s, t in pairwise(times):
        unit = schedule.sigma_data
        one = theory.transition(schedule, np.array([[1.0]]), s=s, t=t)
        before = (schedule.alpha(s) * unit) ** 2 + schedule.sigma(s) ** 2
        assert one.mean.item() ** 2 * before + one.variance.item() == pytest.approx(1.0, rel=1e-12)


@every()
@pytest.mark.parametrize("earlier", [None, 0, 1, 2])
def test_the_posterior_is_bayes_rule(schedule, times, earlier):
    """Moments of q(x_t | x_s)·q(x_s | x_0) as a function of x_s, normalised by quadrature."""
    x0, t = 0.4, times[3]
    x_t = schedule.alpha(t) * x0 + 1.3 * schedule.sigma(t)
    if earlier is None:
        q = theory.posterior(schedule, np.array([[x_t]]), np.array([[x0]]), t=t, s=None)
        assert (q.mean.item(), q.variance.item()) == (pytest.approx(x0, rel=1e-12), 0.0)
        return
    s = times[earlier]
    alpha, sigma = schedule.alpha(s), schedule.sigma(s)
    ratio = schedule.alpha(t) / alpha
    added = np.sqrt(schedule.sigma(t) ** 2 - (ratio * sigma) ** 2)
    scale = 1 / np.hypot(1 / sigma, ratio / added)

    def density(x):
        return stats.norm.pdf(x, alpha * x0, sigma) * stats.norm.pdf(x_t, ratio * x, added)

    grid = np.linspace(alpha * x0 - 20 * sigma, alpha * x0 + 20 * sigma, 200_001)
    top = grid[np.argmax(density(grid))]
    ends = (top - 15 * scale, top + 15 * scale)
    zeroth, first = (integrate.quad(lambda x, k=k: x**k * density(x), *ends, epsabs=0, epsrel=1e-11, limit=300)[0] for k in (0, 1))
    spread = integrate.quad(lambda x: (x - first / zeroth) ** 2 * density(x), *ends, epsabs=0, epsrel=1e-11, limit=300)[0]
    q = theory.posterior(schedule, np.array([[x_t]]), np.array([[x0]]), t=t, s=s)
    assert q.mean.item() == pytest.approx(first / zeroth, rel=1e-8, abs=1e-10)
    assert q.variance.item() == pytest.approx(spread / zeroth, rel=1e-7)


def test_the_posterior_of_samples_is_that_of_the_equation():
    """Regress x_s on x_t over draws of both: slope, intercept and residual are the posterior's (Monte Carlo)."""
    schedule, x0, s, t, count = df.Schedule.cosine(50), 0.6, 20, 35, 200_000
    rng = np.random.default_rng(1)
    x_s = theory.marginal(schedule, np.full((count, 1), x0), s).sample(rng.standard_normal((count, 1)))
    x_t = theory.transition(schedule, x_s, s=s, t=t).sample(rng.standard_normal((count, 1)))
    fit = stats.linregress(x_t.ravel(), x_s.ravel())
    one, two = (theory.posterior(schedule, np.array([[v]]), np.array([[x0]]), t=t, s=s) for v in (0.0, 1.0))
    assert abs(fit.slope - (two.mean - one.mean).item()) < 5 * fit.stderr
    assert abs(fit.intercept - one.mean.item()) < 5 * fit.intercept_stderr
    residual = x_s.ravel() - fit.intercept - fit.slope * x_t.ravel()
    assert residual.var() == pytest.approx(one.variance.item(), rel=5 * np.sqrt(2 / count))


@every()
def test_the_score_is_the_slope_of_the_log_density(schedule, times):
    x, x0, t, h = np.array([[0.9, -0.3]]), np.array([[0.2, 0.1]]), times[2], 1e-6
    q = theory.marginal(schedule, x0, t)
    slope = [(q.log_density(x + h * e) - q.log_density(x - h * e)).item() / (2 * h) for e in np.eye(2)]
    np.testing.assert_allclose(theory.score(schedule, x, x0, t).ravel(), slope, rtol=1e-6)
    epsilon = (x - schedule.alpha(t) * x0) / schedule.sigma(t)
    converted = df.convert_prediction(
        epsilon, x, from_="epsilon", to="sample", alpha=schedule.alpha(t), sigma=schedule.sigma(t), sigma_data=schedule.sigma_data
    )
    np.testing.assert_allclose(converted, x0, atol=1e-9)


def test_times_may_be_one_per_sample():
    schedule, x = df.Schedule.cosine(), np.random.default_rng(2).standard_normal((3, 2, 2))
    t, s = np.array([5, 500, 900]), np.array([4, 100, 899])
    together = theory.posterior(schedule, x, 0.5 * x, t=t, s=s)
    for i in range(3):
        alone = theory.posterior(schedule, x[i : i + 1], 0.5 * x[i : i + 1], t=int(t[i]), s=int(s[i]))
        np.testing.assert_allclose(together.mean[i], alone.mean[0], rtol=1e-13)
        np.testing.assert_allclose(together.variance[i], np.broadcast_to(alone.variance, (1, 1, 1))[0], rtol=1e-13)


def test_snr_is_the_ratio_of_powers():
    schedule = df.Schedule.edm()
    assert theory.snr(schedule, 2.0) == pytest.approx(0.25)
    np.testing.assert_allclose(theory.snr(df.Schedule.flow(), np.array([200.0, 800.0])), [16.0, 1 / 16])


def test_times_and_arguments_out_of_order_are_refused():
    schedule, x = df.Schedule.linear(), np.zeros((1, 1))
    with pytest.raises(ArgumentError, match="noisier"):
        theory.transition(schedule, x, s=10, t=9)
    with pytest.raises(ArgumentError, match="noisier"):
        theory.posterior(schedule, x, x, t=9, s=10)
    with pytest.raises(ArgumentError, match="one per sample"):
        theory.marginal(schedule, x, [[1, 2]])
    with pytest.raises(ArgumentError, match="no density"):
        theory.posterior(schedule, x, x, t=9, s=None).log_density(x)
