"""Schedules against the papers' definitions in 60-digit arithmetic, against diffusers, and against theorems."""

from __future__ import annotations

import copy
import json
import pickle

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diffuse_fast as df

EPS = 2.0**-52

NAMED = {
    "linear": df.Schedule.linear(),
    "scaled_linear": df.Schedule.scaled_linear(),
    "cosine": df.Schedule.cosine(),
    "quadratic": df.Schedule.quadratic(),
    "sigmoid": df.Schedule.sigmoid(),
    "tiny betas": df.Schedule.linear(50, beta_start=1e-12, beta_end=1e-3),
    "short": df.Schedule.cosine(7),
    "one": df.Schedule.linear(1, beta_start=0.3),
    "from_betas": df.Schedule.from_betas(np.random.default_rng(0).uniform(1e-6, 0.3, 30)),
}
ZERO_SNR = {name: s.rescale_zero_terminal_snr() for name, s in NAMED.items() if s.num_train_timesteps > 1}
ALL = NAMED | {f"{name}, zero SNR": s for name, s in ZERO_SNR.items()}


def every(schedules):
    return pytest.mark.parametrize("schedule", [pytest.param(s, id=name) for name, s in schedules.items()])


def exact_cumprod(betas):
    """alphas_cumprod of float64 betas in 60 digits."""
    product, out = mpmath.mpf(1), []
    for beta in betas:
        product *= 1 - mpmath.mpf(float(beta))
        out.append(product)
    return out


def relative(values, exact):
    return max(abs((mpmath.mpf(float(v)) - e) / e) for v, e in zip(values, exact, strict=True) if e != 0)


@pytest.fixture(autouse=True)
def sixty_digits():
    with mpmath.workdps(60):
        yield


# ---- betas ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (df.Schedule.linear(), {"beta_schedule": "linear"}),
        (df.Schedule.scaled_linear(), {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}),
        (df.Schedule.quadratic(), {"beta_schedule": "scaled_linear"}),
        (df.Schedule.cosine(), {"beta_schedule": "squaredcos_cap_v2"}),
        (df.Schedule.sigmoid(), {"beta_schedule": "sigmoid"}),
        (df.Schedule.cosine(40), {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 40}),
        (df.Schedule.sigmoid(13, 0.01, 0.2),
         {"beta_schedule": "sigmoid", "num_train_timesteps": 13, "beta_start": 0.01, "beta_end": 0.2}),
    ],
)  # fmt: skip
def test_betas_are_those_of_diffusers(ours, theirs):
    from diffusers import DDPMScheduler

    # The peer's are float32 from float32 operations: a few roundings of 2^-24 each.
    np.testing.assert_allclose(ours.betas, DDPMScheduler(**theirs).betas.numpy(), rtol=1e-6, atol=0)


def test_zero_snr_betas_are_those_of_diffusers():
    import torch
    from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

    for schedule in NAMED.values():
        if schedule.num_train_timesteps > 1:
            theirs = rescale_zero_terminal_snr(torch.tensor(schedule.betas)).numpy()
            # The peer takes betas as 1 − ratio of alphas_cumprod, which costs it the digits of small betas.
            np.testing.assert_allclose(schedule.rescale_zero_terminal_snr().betas, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("count", "s", "max_beta"), [(1000, 0.008, 0.999), (10, 0.0, 1.0), (4000, 0.008, 0.999)])
def test_cosine_betas_to_the_last_digits(count, s, max_beta):
    def f(u):
        return mpmath.cos((u + mpmath.mpf(s)) / (1 + mpmath.mpf(s)) * mpmath.pi / 2) ** 2

    exact = [min(1 - f(mpmath.mpf(t + 1) / count) / f(mpmath.mpf(t) / count), max_beta) for t in range(count)]
    # Rounding of the argument costs count·EPS near its zero; three sines and a quotient a few EPS.
    assert relative(df.Schedule.cosine(count, s, max_beta).betas, exact) < (count + 8) * EPS


def test_linear_ends_where_it_says():
    schedule = df.Schedule.linear(77, 0.003, 0.07)
    assert schedule.betas[0] == 0.003
    assert schedule.betas[-1] == 0.07
    np.testing.assert_allclose(np.diff(schedule.betas), (0.07 - 0.003) / 76, rtol=1e-12)


# ---- tables -----------------------------------------------------------------------------------------


@every(NAMED)
def test_tables_keep_every_digit(schedule):
    cumprod = exact_cumprod(schedule.betas)
    largest = -float(mpmath.log(cumprod[-1]))  # exp() turns an error of L into L's absolute error
    t = np.arange(schedule.num_train_timesteps)
    assert relative(schedule.alphas_cumprod, cumprod) < (4 + 2 * largest) * EPS
    assert relative(schedule.alpha(t), [mpmath.sqrt(c) for c in cumprod]) < (4 + 2 * largest) * EPS
    # sigma and the SNR keep their relative accuracy where 1 − alphas_cumprod would have none left ("tiny betas").
    assert relative(schedule.sigma(t), [mpmath.sqrt(1 - c) for c in cumprod]) < 8 * EPS
    assert relative(schedule.snr, [c / (1 - c) for c in cumprod]) < (8 + 2 * largest) * EPS
    scale = 1 + np.abs(schedule.log_snr(t))
    log_snr = np.array([float(mpmath.log(c / (1 - c))) for c in cumprod])
    assert np.all(np.abs(schedule.log_snr(t) - log_snr) < 8 * EPS * scale)


@every(ALL)
def test_posterior_is_bayes_rule(schedule):
    # q(x_{t−1} | x_t, x0) ∝ q(x_t | x_{t−1})·q(x_{t−1} | x0): precisions add.
    before = exact_cumprod(schedule.betas)
    for t in range(1, schedule.num_train_timesteps, max(1, schedule.num_train_timesteps // 50)):
        beta, prior = mpmath.mpf(float(schedule.betas[t])), 1 - before[t - 1]
        precision = (1 - beta) / beta + 1 / prior
        found = schedule.posterior_variance[t], schedule.posterior_mean_coef_x0[t], schedule.posterior_mean_coef_xt[t]
        exact = 1 / precision, mpmath.sqrt(before[t - 1]) / prior / precision, mpmath.sqrt(1 - beta) / beta / precision
        assert relative(found, exact) < 1e-12
    assert schedule.posterior_variance[0] == 0.0
    assert schedule.posterior_mean_coef_xt[0] == 0.0
    assert schedule.posterior_mean_coef_x0[0] == pytest.approx(1.0, rel=4 * EPS)


@every(ALL)
def test_tables_agree_with_each_other(schedule):
    np.testing.assert_array_equal(schedule.alphas, 1 - schedule.betas)
    np.testing.assert_array_equal(schedule.alphas_cumprod_prev[1:], schedule.alphas_cumprod[:-1])
    assert schedule.alphas_cumprod_prev[0] == 1.0
    np.testing.assert_allclose(schedule.alphas_cumprod, np.cumprod(schedule.alphas), rtol=1e-12, atol=1e-300)
    again = df.Schedule.from_alphas_cumprod(schedule.alphas_cumprod)
    # A beta taken from rounded products has their rounding error, EPS, in absolute terms.
    np.testing.assert_allclose(again.betas, schedule.betas, rtol=1e-12, atol=4 * EPS)


def test_zero_snr_is_algorithm_1():
    for name, schedule in NAMED.items():
        if schedule.num_train_timesteps > 1:
            sqrt = [mpmath.sqrt(c) for c in exact_cumprod(schedule.betas)]
            rescaled = [(a - sqrt[-1]) * sqrt[0] / (sqrt[0] - sqrt[-1]) for a in sqrt]
            t = np.arange(schedule.num_train_timesteps)
            assert relative(ZERO_SNR[name].alpha(t)[:-1], rescaled[:-1]) < 1e-12
            assert relative(ZERO_SNR[name].sigma(t), [mpmath.sqrt(1 - a**2) for a in rescaled]) < 1e-12


@every(ZERO_SNR)
def test_zero_snr_ends_at_nothing(schedule):
    last = schedule.num_train_timesteps - 1
    assert (schedule.alpha(last), schedule.sigma(last), schedule.log_snr(last)) == (0.0, 1.0, -np.inf)
    assert schedule.betas[-1] == 1.0
    assert schedule.timestep_at_log_snr(-np.inf) == last
    assert schedule.rescale_zero_terminal_snr() == schedule


# ---- marginals at fractional timesteps ----------------------------------------------------------------


def schedules():
    betas = st.floats(1e-9, 0.9)
    count = st.integers(2, 300)
    return st.one_of(
        st.builds(df.Schedule.linear, count, betas, betas),
        st.builds(df.Schedule.scaled_linear, count, betas, betas),
        st.builds(df.Schedule.sigmoid, count, betas, betas),
        st.builds(df.Schedule.cosine, count, st.floats(0, 0.5), st.floats(1e-6, 1.0)),
        st.builds(df.Schedule.from_betas, st.lists(betas, min_size=2, max_size=50)),
    )


@settings(derandomize=True, deadline=None, max_examples=200)
@given(schedule=schedules(), where=st.lists(st.floats(0, 1), min_size=1, max_size=20), rescale=st.booleans())
def test_marginals(schedule, where, rescale):
    if rescale:
        schedule = schedule.rescale_zero_terminal_snr()
    t = np.sort(where) * (schedule.num_train_timesteps - 1)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    np.testing.assert_allclose(alpha**2 + sigma**2, 1.0, rtol=0, atol=4 * EPS)
    assert np.all(np.diff(alpha) <= 0)
    assert np.all(np.diff(sigma) >= 0)
    below = np.floor(t).astype(int)
    above = np.minimum(below + 1, schedule.num_train_timesteps - 1)
    a0, a1, w = schedule.alpha(below), schedule.alpha(above), t - below
    # Linear log(alpha) is a geometric mean; pow() amplifies the rounding of its result's logarithm.
    np.testing.assert_allclose(alpha, a0 ** (1 - w) * a1**w, rtol=1e-12, atol=1e-300)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(schedule=schedules())
def test_alphas_cumprod_falls_and_snr_with_it(schedule):
    assert np.all(np.diff(schedule.log_alpha(np.arange(schedule.num_train_timesteps))) < 0)
    assert np.all(np.diff(schedule.alphas_cumprod) <= 0)
    assert np.all((schedule.alphas_cumprod >= 0) & (schedule.alphas_cumprod <= 1))
    assert np.all(schedule.posterior_variance <= schedule.betas * (1 + 4 * EPS))


@settings(derandomize=True, deadline=None, max_examples=200)
@given(schedule=schedules(), where=st.floats(0, 1))
def test_log_snr_has_an_inverse(schedule, where):
    t = where * (schedule.num_train_timesteps - 1)
    log_snr = schedule.log_snr(t)
    found = schedule.timestep_at_log_snr(log_snr)
    assert 0 <= found <= schedule.num_train_timesteps - 1
    # Judged by what matters, the level of noise, and not by t, which is ill-conditioned where betas are tiny.
    assert schedule.log_snr(found) == pytest.approx(log_snr, rel=1e-10, abs=1e-10)


@every(ALL)
def test_inverse_returns_the_timesteps(schedule):
    last = schedule.num_train_timesteps - 1
    t = np.linspace(0, last - 1 if schedule.alpha(last) == 0 else last, 501)
    np.testing.assert_allclose(schedule.timestep_at_log_snr(schedule.log_snr(t)), t, rtol=0, atol=1e-7)


def test_scalars_and_arrays():
    schedule = df.Schedule.linear()
    assert isinstance(schedule.alpha(3), float)
    assert isinstance(schedule.timestep_at_log_snr(0), float)
    t = np.arange(6, dtype=np.int32).reshape(2, 3)
    for function in (schedule.alpha, schedule.sigma, schedule.log_snr, schedule.log_alpha):
        values = function(t)
        assert values.shape == (2, 3)
        assert values.dtype == np.float64
        assert values[1, 2] == function(5.0)
    assert schedule.alpha([]).shape == (0,)


@every(ALL)
@pytest.mark.parametrize(("interpolation", "line"), [("log_sigma", np.log), ("sigma", np.asarray)])
def test_other_interpolations_are_straight_lines_of_the_noise_level(schedule, interpolation, line):
    other = schedule.with_interpolation(interpolation)
    last = schedule.num_train_timesteps - 1
    integers = np.arange(last + 1)
    np.testing.assert_allclose(other.sigma(integers), schedule.sigma(integers), rtol=1e-15)
    last -= schedule.alpha(last) == 0
    t = np.linspace(0, last, 997)
    # numpy's interpolation, of levels taken from alphas_cumprod, as diffusers does it.
    cumprod = schedule.alphas_cumprod[: last + 1]
    levels = line(np.sqrt((1 - cumprod) / cumprod))
    found = line(other.sigma(t) / other.alpha(t))
    tolerance = 1e-9 if schedule.alphas_cumprod[0] < 1 - 1e-6 else 1e-3  # 1 − alphas_cumprod has no more digits
    np.testing.assert_allclose(found, np.interp(t, np.arange(last + 1), levels), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(other.timestep_at_log_snr(other.log_snr(t)), t, rtol=0, atol=1e-6)
    assert other != schedule and df.Schedule.from_json(other.to_json()) == other
    assert f"with_interpolation('{interpolation}')" in repr(other)
    assert other.with_interpolation("log_alpha") == schedule
    assert other.with_interpolation("log_alpha").to_json() == schedule.to_json()


def test_the_ends_of_the_log_snr_may_be_a_rounding_error_off():
    schedule = df.Schedule.from_betas([0.25])  # log(0.75/0.25)
    for value in (np.nextafter(np.log(3.0), -1.0), np.log(3.0), np.log(3.0) + 1e-14):
        assert schedule.timestep_at_log_snr(value) == 0.0
    with pytest.raises(df.errors.ArgumentError, match=r"log_snr is 1\.0986"):
        schedule.timestep_at_log_snr(np.log(3.0) + 1e-11)


def test_interpolation_survives_rescaling():
    one = df.Schedule.linear().with_interpolation("log_sigma").rescale_zero_terminal_snr()
    assert one == df.Schedule.linear().rescale_zero_terminal_snr().with_interpolation("log_sigma")
    assert one.alpha(10.5) != df.Schedule.linear().rescale_zero_terminal_snr().alpha(10.5)


# ---- what a schedule is as an object ------------------------------------------------------------------


@every(ALL | {"from_alphas_cumprod": df.Schedule.from_alphas_cumprod([0.9, 0.4, 0.0])})
def test_json_both_ways(schedule):
    text = json.dumps(schedule.to_json(), allow_nan=False)
    again = df.Schedule.from_json(json.loads(text))
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert again.to_json() == schedule.to_json()
    assert pickle.loads(pickle.dumps(schedule)) == copy.deepcopy(schedule) == schedule


def test_json_is_the_arguments():
    assert df.Schedule.cosine(10).rescale_zero_terminal_snr().to_json() == {
        "type": "cosine",
        "num_train_timesteps": 10,
        "s": 0.008,
        "max_beta": 0.999,
        "rescale_zero_terminal_snr": True,
    }
    assert df.Schedule.from_betas([0.5]).to_json() == {"type": "from_betas", "betas": [0.5]}


def test_equality_is_by_content():
    linear = df.Schedule.linear(20)
    assert df.Schedule.from_betas(linear.betas) == linear
    assert hash(df.Schedule.from_betas(linear.betas)) == hash(linear)
    assert linear != df.Schedule.linear(21)
    assert linear != df.Schedule.linear(20, beta_end=0.0200001)
    assert linear != linear.rescale_zero_terminal_snr()
    assert linear != "linear"


def test_immutable():
    betas = np.full(4, 0.1)
    schedule = df.Schedule.from_betas(betas)
    betas[:] = 0.9
    assert schedule.betas[0] == 0.1
    for name in (
        "betas",
        "alphas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "snr",
        "posterior_variance",
        "posterior_mean_coef_x0",
        "posterior_mean_coef_xt",
    ):
        with pytest.raises(ValueError, match="read-only"):
            getattr(schedule, name)[0] = 0.5
    with pytest.raises(AttributeError, match="immutable"):
        schedule.betas = betas
    with pytest.raises(AttributeError, match="immutable"):
        del schedule._tables
    schedule.to_json()["betas"][0] = 7.0
    assert schedule.to_json()["betas"][0] == 0.1


def test_repr_is_how_it_was_made():
    schedule = df.Schedule.linear(5, 0.1, 0.2).rescale_zero_terminal_snr()
    written = "Schedule.linear(num_train_timesteps=5, beta_start=0.1, beta_end=0.2).rescale_zero_terminal_snr()"
    assert repr(schedule) == written
    assert repr(df.Schedule.from_betas([0.1, 0.2])) == "Schedule.from_betas(betas=<2 values>)"


# ---- bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "names"),
    [
        (lambda: df.Schedule.linear(0), df.errors.ArgumentError, "num_train_timesteps"),
        (lambda: df.Schedule.linear(-3), df.errors.ArgumentError, "num_train_timesteps"),
        (lambda: df.Schedule.linear(10**7), df.errors.ArgumentError, "num_train_timesteps"),
        (lambda: df.Schedule.linear(10**30), df.errors.ArgumentError, "num_train_timesteps"),
        (lambda: df.Schedule.linear(10.0), df.errors.ArgumentTypeError, "num_train_timesteps"),
        (lambda: df.Schedule.linear(True), df.errors.ArgumentTypeError, "num_train_timesteps"),
        (lambda: df.Schedule.linear(10, 0.0), df.errors.ArgumentError, "beta_start"),
        (lambda: df.Schedule.linear(10, "0.1"), df.errors.ArgumentTypeError, "beta_start"),
        (lambda: df.Schedule.sigmoid(10, 0.1, 1.0), df.errors.ArgumentError, "beta_end"),
        (lambda: df.Schedule.scaled_linear(10, 0.1, float("nan")), df.errors.ArgumentError, "beta_end"),
        (lambda: df.Schedule.cosine(10, s=-1), df.errors.ArgumentError, "s is -1"),
        (lambda: df.Schedule.cosine(10, max_beta=1.5), df.errors.ArgumentError, "max_beta"),
        (lambda: df.Schedule.from_betas([]), df.errors.ArgumentError, "betas"),
        (lambda: df.Schedule.from_betas([[0.1]]), df.errors.ArgumentError, "shape"),
        (lambda: df.Schedule.from_betas("0.1"), df.errors.ArgumentTypeError, "betas"),
        (lambda: df.Schedule.from_betas([0.1, 0.0]), df.errors.ArgumentError, r"betas\[1\]"),
        (lambda: df.Schedule.from_betas([0.1, 1.0, 0.1]), df.errors.ArgumentError, r"betas\[1\]"),
        (lambda: df.Schedule.from_betas([1.0]), df.errors.ArgumentError, r"betas\[0\]"),
        (lambda: df.Schedule.from_betas([0.1, float("nan")]), df.errors.ArgumentError, r"betas\[1\]"),
        (lambda: df.Schedule.from_alphas_cumprod([1.0, 0.5]), df.errors.ArgumentError, r"alphas_cumprod\[0\]"),
        (lambda: df.Schedule.from_alphas_cumprod([0.5, 0.5]), df.errors.ArgumentError, r"alphas_cumprod\[1\]"),
        (lambda: df.Schedule.from_alphas_cumprod([0.5, 0.6]), df.errors.ArgumentError, r"alphas_cumprod\[1\]"),
        (lambda: df.Schedule.from_alphas_cumprod([0.5, 0.0, 0.0]), df.errors.ArgumentError, r"alphas_cumprod\[1\]"),
        (lambda: df.Schedule.linear(1).rescale_zero_terminal_snr(), df.errors.ArgumentError, "at least 2"),
        (lambda: df.Schedule.linear().alpha(1000), df.errors.ArgumentError, "from 0 to 999"),
        (lambda: df.Schedule.linear().sigma([0.0, -0.1]), df.errors.ArgumentError, "timestep is -0.1"),
        (lambda: df.Schedule.linear().log_snr(float("nan")), df.errors.ArgumentError, "timestep"),
        (lambda: df.Schedule.linear().alpha("3"), df.errors.ArgumentTypeError, "t is '3'"),
        (lambda: df.Schedule.linear().timestep_at_log_snr(20.0), df.errors.ArgumentError, "log_snr is 20"),
        (lambda: df.Schedule.linear().timestep_at_log_snr(-np.inf), df.errors.ArgumentError, "log_snr is -inf"),
        (lambda: ZERO_SNR["linear"].timestep_at_log_snr(-100), df.errors.ArgumentError, "-inf at its last"),
        (lambda: df.Schedule(), df.errors.ArgumentTypeError, "from_betas"),
        (lambda: df.Schedule.from_json([]), df.errors.ArgumentError, "object"),
        (lambda: df.Schedule.from_json({}), df.errors.ArgumentError, "'type'"),
        (lambda: df.Schedule.from_json({"type": "liner"}), df.errors.ArgumentError, "Did you mean 'linear'"),
        (lambda: df.Schedule.from_json({"type": "_make"}), df.errors.ArgumentError, "unknown schedule type"),
        (lambda: df.Schedule.from_json({"type": "linear", "beta_start": 0.1, "beta_end": 0.2}),
         df.errors.ArgumentError, "lacks the field 'num_train_timesteps'"),
        (lambda: df.Schedule.from_json({"type": "from_betas", "betas": [0.1], "s": 1}), df.errors.ArgumentError,
        "field 's'"), (lambda: df.Schedule.from_json({"type": "from_betas", "betas": [0.1],
         "rescale_zero_terminal_snr": 1}), df.errors.ArgumentTypeError, "rescale_zero_terminal_snr"),
        (lambda: df.Schedule.from_json({"type": "from_betas", "betas": [0.1, None]}), df.errors.ArgumentTypeError,
         "betas"),
        (lambda: df.Schedule.linear().with_interpolation("cubic"), df.errors.ArgumentError, "interpolation 'cubic'"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, error, names):
    with pytest.raises(error, match=names) as caught:
        call()
    assert isinstance(caught.value, df.DiffuseFastError)
    assert isinstance(caught.value, ValueError | TypeError)
