"""The reverse process, the KL divergence, the bound and the ODE against closed forms and independent computations."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from scipy import integrate, stats

import diffuse_fast as df
from diffuse_fast import theory
from diffuse_fast.errors import ArgumentError
from diffuse_fast.theory.bound import log_phi

SCHEDULE = df.Schedule.linear()
BETAS = np.linspace(1e-4, 0.02, 1000)
ABAR = np.cumprod(1 - BETAS)


@pytest.mark.parametrize("t", [1, 10, 500, 999])
def test_every_parameterisation_gives_ddpms_mean(t):
    """(x − β/sqrt(1 − ᾱ)·ε)/sqrt(1 − β), DDPM's eq. 11, from ε, x0, v and the score."""
    rng = np.random.default_rng(t)
    x, epsilon = rng.standard_normal((2, 3, 4))
    expected = (x - BETAS[t] / np.sqrt(1 - ABAR[t]) * epsilon) / np.sqrt(1 - BETAS[t])
    alpha, sigma = np.sqrt(ABAR[t]), np.sqrt(1 - ABAR[t])
    x0 = (x - sigma * epsilon) / alpha
    said = {"epsilon": epsilon, "sample": x0, "v_prediction": alpha * epsilon - sigma * x0, "score": -epsilon / sigma}
    for prediction_type, output in said.items():
        p = theory.reverse(SCHEDULE, x, output, t=t, s=t - 1, prediction_type=prediction_type)
        np.testing.assert_allclose(p.mean, expected, rtol=1e-8, atol=1e-10, err_msg=prediction_type)


@pytest.mark.parametrize("t", [1, 10, 500, 999])
def test_variances_are_those_of_the_papers(t):
    small, large = BETAS[t] * (1 - ABAR[t - 1]) / (1 - ABAR[t]), BETAS[t]
    zero = np.zeros((2, 3))

    def variance(kind, v=None):
        p = theory.reverse(SCHEDULE, zero, zero, t=t, s=t - 1, prediction_type="epsilon", variance_type=kind, v=v)
        return np.broadcast_to(p.variance, zero.shape)

    np.testing.assert_allclose(variance("fixed_small"), small, rtol=1e-9)
    np.testing.assert_allclose(variance("fixed_large"), large, rtol=1e-9)
    np.testing.assert_allclose(variance("learned", zero - 3.0), np.exp(-3.0))
    between = variance("learned_range", np.full((2, 3), 0.5))  # eq. 15 of Improved DDPM, frac = 3/4
    np.testing.assert_allclose(between, large**0.75 * small**0.25, rtol=1e-9)


def test_kl_is_an_expectation():
    """∫ q·log(q/p) by quadrature; and by parts, over independent elements."""
    (m_q, v_q), (m_p, v_p) = (0.3, 0.4), (-1.0, 2.5)
    q, p = stats.norm(m_q, v_q**0.5), stats.norm(m_p, v_p**0.5)
    expected, _ = integrate.quad(lambda x: q.pdf(x) * (q.logpdf(x) - p.logpdf(x)), -8, 8)
    ours = theory.kl(theory.Gaussian(np.full((2, 3), m_q), np.array(v_q)), theory.Gaussian(np.full((2, 3), m_p), np.array(v_p)))
    np.testing.assert_allclose(ours, 3 * expected, rtol=1e-9)


def test_kl_of_near_equals_keeps_its_digits():
    q, p = (theory.Gaussian(np.zeros((1, 1)), np.array(v)) for v in (1.0 + 1e-5, 1.0))
    with mpmath.workdps(40):
        r = mpmath.mpf(float(q.variance))
        exact = float((r - 1 - mpmath.log(r)) / 2)
    assert theory.kl(q, p).item() == pytest.approx(exact, rel=1e-5)
    points = [theory.Gaussian(np.full((1, 1), m), np.array(0.0)) for m in (1.0, 1.0, 2.0)]
    assert theory.kl(points[0], points[1]).item() == 0.0
    assert theory.kl(points[0], points[2]).item() == theory.kl(q, points[0]).item() == theory.kl(points[0], q).item() == math.inf


def test_the_weight_is_that_of_equation_12():
    t = np.array([1, 2, 100, 999])
    for variance_type, s2 in (("fixed_small", BETAS[t] * (1 - ABAR[t - 1]) / (1 - ABAR[t])), ("fixed_large", BETAS[t])):
        expected = BETAS[t] ** 2 / (2 * s2 * (1 - BETAS[t]) * (1 - ABAR[t]))
        found = theory.simple_loss_weight(SCHEDULE, t=t, s=t - 1, variance_type=variance_type)
        np.testing.assert_allclose(found, expected, rtol=1e-8)
        # And it is what L_{t−1} is of the error, to the constant of the variances.
        rng = np.random.default_rng(0)
        x0, noise, guess = rng.standard_normal((3, 4, 5))
        x_t = SCHEDULE.alpha(t)[:, None] * x0 + SCHEDULE.sigma(t)[:, None] * noise
        terms = [
            theory.diffusion_term(SCHEDULE, x0, x_t, said, t=t, s=t - 1, prediction_type="epsilon", variance_type=variance_type)
            for said in (guess, noise)
        ]
        np.testing.assert_allclose(terms[0] - terms[1], found * ((guess - noise) ** 2).sum(1), rtol=1e-6)


def test_the_discretised_decoder_is_a_distribution():
    """Its masses over all 256 levels sum to 1, and are equation 13's integrals."""
    levels = np.linspace(-1, 1, 256)
    for mean, std in ((0.1, 0.02), (0.999, 0.3), (-1.5, 0.01)):
        mass = np.exp(-theory.decoder_term(levels[:, None], np.full((256, 1), mean), std, levels=256))
        assert mass.sum() == pytest.approx(1.0, rel=1e-12)
        inner = stats.norm.cdf(levels + 1 / 255, mean, std) - stats.norm.cdf(levels - 1 / 255, mean, std)
        np.testing.assert_allclose(mass[1:-1], inner[1:-1], rtol=1e-6, atol=1e-13)
    assert mass[0] == pytest.approx(1.0)  # what lies outside belongs to the outermost level


def test_the_decoder_is_finite_where_cdfs_underflow():
    x0, mean, std = np.array([[129 / 255]]), np.array([[-0.5]]), 0.01  # level 192
    with mpmath.workdps(60):
        edges = [(x0.item() + sign / 255 - mean.item()) / std for sign in (-1, 1)]
        # ncdf(−x) keeps the digits of the upper tail.
        exact = mpmath.log(mpmath.ncdf(-mpmath.mpf(edges[0])) - mpmath.ncdf(-mpmath.mpf(edges[1])))
    assert theory.decoder_term(x0, mean, std, levels=256).item() == pytest.approx(-float(exact), rel=1e-9)
    x = np.array([-1e4, -40.0, -30.001, -29.999, -3.0, 0.0, 5.0])
    np.testing.assert_allclose(log_phi(x), stats.norm.logcdf(x), rtol=1e-8)


def test_data_off_the_levels_are_refused():
    with pytest.raises(ArgumentError, match="256 levels"):
        theory.decoder_term(np.array([[0.1234]]), np.zeros((1, 1)), 1.0, levels=256)
    with pytest.raises(ArgumentError, match="256 levels"):
        theory.decoder_term(np.array([[1.5]]), np.zeros((1, 1)), 1.0, levels=256)
    with pytest.raises(ArgumentError, match="levels is 1"):
        theory.decoder_term(np.zeros((1, 1)), np.zeros((1, 1)), 1.0, levels=1)
    with pytest.raises(ArgumentError, match="std"):
        theory.decoder_term(np.zeros((1, 1)), np.zeros((1, 1)), 0.0)


def gaussian_gap(steps: int, mean: float, std: float, variance_type: str) -> tuple[float, float]:
    """How far the bound of the best network lies above −log p for data N(mean, std²), in nats per dimension, and the standard
    error of that."""
    schedule, rng = df.Schedule.vp_sde(sampling_eps=1e-4), np.random.default_rng(steps)
    t = np.asarray(schedule.timestep_at_log_snr(np.linspace(schedule.log_snr(1e-4), schedule.log_snr(1.0), steps)))
    x0 = mean + std * rng.standard_normal((4000, 8))

    def predict(x, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return sigma * (x - alpha * mean) / (alpha**2 * std**2 + sigma**2)

    bound = theory.elbo(
        schedule,
        x0,
        predict,
        lambda i: rng.standard_normal(x0.shape),
        prediction_type="epsilon",
        times=t,
        variance_type=variance_type,
    )
    truth = -theory.Gaussian(np.full_like(x0, mean), np.array(std**2)).log_density(x0)
    gap = (bound.total - truth) / 8
    return float(gap.mean()), float(gap.std() / np.sqrt(len(gap)))


def test_the_bound_becomes_the_likelihood_as_steps_grow():
    """For the best network the gap falls as 1/T; it is never below 0."""
    (first, _), (second, _), (last, error) = (gaussian_gap(steps, 0.3, 0.8, "fixed_small") for steps in (25, 100, 400))
    assert first / second > 3.5 and second / last > 3.5
    assert 0.1 < last < 0.15 and error < 0.01
    # The larger variance is the right one where data is smooth: there is next to no gap from the start.
    for steps in (25, 400):
        gap, error = gaussian_gap(steps, 0.3, 0.8, "fixed_large")
        assert error < 0.01
        assert -4 * error < gap < 0.01 + 4 * error


def test_the_priors_term_vanishes_with_the_signal():
    x0 = np.ones((2, 3))
    assert np.all(theory.prior_term(df.Schedule.flow(), x0) == 0.0)
    schedule = df.Schedule.linear()
    alpha2 = ABAR[-1]
    expected = 3 * 0.5 * (alpha2 + (1 - alpha2) - 1 - np.log1p(-alpha2))
    np.testing.assert_allclose(theory.prior_term(schedule, x0), expected, rtol=1e-6)


@pytest.mark.parametrize("schedule", [df.Schedule.vp_sde(), df.Schedule.ve_sde(), df.Schedule.sub_vp_sde()], ids=lambda s: s.family)
def test_the_flow_is_that_of_the_sde(schedule):
    """du/dφ by the chain rule from Song's eq. 13, dx/dt = f·x − ½·g²·score, with f and g of the SDE."""
    t, h = 0.6, 1e-6
    rng = np.random.default_rng(0)
    x, epsilon = rng.standard_normal((2, 1, 5))
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    dx = schedule.drift(t) * x + 0.5 * schedule.diffusion(t) ** 2 * epsilon / sigma

    def rho(t):
        return np.hypot(schedule.alpha(t), schedule.sigma(t))

    def phi(t):
        return np.arctan2(schedule.sigma(t), schedule.alpha(t))

    d_rho, d_phi = ((f(t + h) - f(t - h)) / (2 * h) for f in (rho, phi))
    expected = (dx / rho(t) - x * d_rho / rho(t) ** 2) / d_phi
    np.testing.assert_allclose(theory.probability_flow(x, epsilon, alpha, sigma), expected, rtol=1e-5, atol=1e-7)


def test_what_makes_no_sense_is_refused():
    x = np.zeros((1, 1))
    with pytest.raises(ArgumentError, match="fixed_smal"):
        theory.reverse(SCHEDULE, x, x, t=1, s=0, prediction_type="epsilon", variance_type="fixed_smal")
    with pytest.raises(ArgumentError, match="needs v"):
        theory.reverse(SCHEDULE, x, x, t=1, s=0, prediction_type="epsilon", variance_type="learned")
    with pytest.raises(ArgumentError, match="lower end is 0"):
        theory.reverse(SCHEDULE, x, x, t=1, s=None, prediction_type="epsilon", variance_type="learned_range", v=x)
    with pytest.raises(ArgumentError, match="not a KL"):
        theory.simple_loss_weight(SCHEDULE, t=0, s=None)
    with pytest.raises(ArgumentError, match="give times"):
        theory.elbo(df.Schedule.flow(), x, lambda x, t: x, lambda i: x, prediction_type="flow")
    with pytest.raises(ArgumentError, match="increase"):
        theory.elbo(SCHEDULE, x, lambda x, t: x, lambda i: x, prediction_type="epsilon", times=[3, 2])
