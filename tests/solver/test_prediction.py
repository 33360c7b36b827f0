"""Prediction types: what they mean, from the definitions; EDM's preconditioning; conversions among all of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, ArgumentTypeError
from diffuse_fast.plans.plan import PREDICTION_TYPES
from diffuse_fast.solver.prediction import data_prediction, noise_prediction

EPS = 2.0**-52


def said(prediction_type, x0, noise, alpha, sigma, sigma_data):
    """What a perfect network says, by the definition of its type."""
    if prediction_type == "v_prediction":  # of unit data and variance-preserving: Salimans & Ho 2022
        return sigma_data * alpha * noise - sigma * (x0 / sigma_data)
    if prediction_type == "edm":  # Karras et al. 2022, eq. 8: the target of F, where the state is c_in·(x0 + σ·noise)
        level = sigma / alpha
        c_skip = sigma_data**2 / (level**2 + sigma_data**2)
        c_out = level * sigma_data / np.sqrt(level**2 + sigma_data**2)
        return (x0 - c_skip * (x0 + level * noise)) / c_out
    return {"epsilon": noise, "sample": x0, "denoised": x0, "flow": noise - x0, "score": -noise / sigma}[prediction_type]


def levels(draw):
    """A marginal and sigma_data of some family, away from its ends."""
    family, u = draw(st.sampled_from(["vp", "edm", "flow", "ve", "any"])), draw(st.floats(0.01, 0.99))
    if family == "vp":
        return np.cos(u * np.pi / 2), np.sin(u * np.pi / 2), 1.0
    if family == "edm":
        edm = df.Schedule.edm(sigma_data=draw(st.floats(0.1, 5.0)))
        level = edm.sigma_data * np.exp(10 * u - 5)
        return edm.alpha(level), edm.sigma(level), edm.sigma_data
    if family == "flow":
        return 1 - u, u, 1.0
    return (1.0, 50.0 * u, 1.0) if family == "ve" else (draw(st.floats(0.01, 3)), draw(st.floats(0.01, 3)), 1.0)


@settings(derandomize=True, max_examples=300)
@given(data=st.data())
def test_every_conversion(data):
    alpha, sigma, sigma_data = levels(data.draw)
    from_, to = data.draw(st.sampled_from(PREDICTION_TYPES)), data.draw(st.sampled_from(PREDICTION_TYPES))
    unit = sigma_data**2 * alpha**2 + sigma**2
    if abs(unit - 1) > 1e-12 and "edm" in (from_, to):
        return  # F is of a state of unit variance
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x0, noise = rng.standard_normal((2, 4, 3))
    x = alpha * x0 + sigma * noise
    given_, wanted = (said(t, x0, noise, alpha, sigma, sigma_data) for t in (from_, to))
    found = df.convert_prediction(given_, x, from_=from_, to=to, alpha=alpha, sigma=sigma, sigma_data=sigma_data)
    # A few roundings of the terms, whose weights are not above 1/(alpha·sigma)-ish at these marginals.
    scale = np.abs(x).max() + np.abs(given_).max() + np.abs(wanted).max()
    amplified = max(1.0, 1 / alpha, 1 / sigma, sigma / alpha, alpha / sigma) ** 2
    np.testing.assert_allclose(found, wanted, rtol=0, atol=64 * EPS * scale * amplified)
    if from_ == to:
        np.testing.assert_array_equal(found, given_)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_one_marginal_per_sample(kind):
    rng = np.random.default_rng(1)
    schedule = df.Schedule.cosine()
    t = np.array([3, 400, 900])
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    x, m = rng.standard_normal((2, 3, 2, 5)).astype(kind)
    together = df.convert_prediction(m, x, from_="v_prediction", to="epsilon", alpha=alpha, sigma=sigma)
    assert together.dtype == kind
    for i in range(3):
        one = df.convert_prediction(m[i : i + 1], x[i : i + 1], from_="v_prediction", to="epsilon", alpha=alpha[i], sigma=sigma[i])
        np.testing.assert_array_equal(together[i : i + 1], one)
    assert df.convert_prediction(m, x, from_="flow", to="sample", alpha=0.5, sigma=sigma).shape == m.shape


def test_torch_says_the_same():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    x, m = rng.standard_normal((2, 3, 4)).astype(np.float32)
    arguments = {"from_": "epsilon", "to": "v_prediction", "alpha": np.array([0.6, 0.8, 0.96]), "sigma": np.array([0.8, 0.6, 0.28])}
    found = df.convert_prediction(torch.from_numpy(m), torch.from_numpy(x), **arguments)
    assert isinstance(found, torch.Tensor) and found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), df.convert_prediction(m, x, **arguments), rtol=0, atol=1e-6)
    half = df.convert_prediction(torch.from_numpy(m).bfloat16(), torch.from_numpy(x).bfloat16(), **arguments)
    assert half.dtype == torch.bfloat16


@pytest.mark.parametrize("prediction_type", df.Schedule.edm().prediction_types)
def test_edm_denoises_as_published(prediction_type):
    # D = c_skip·x + c_out·F (eq. 7) from the state c_in·x; diffusers' "epsilon" and "v_prediction" are F and −F.
    schedule = df.Schedule.edm(sigma_data=0.7)
    for level in np.geomspace(0.002, 80, 15):
        x, m = 1.3, -0.4
        alpha, sigma = schedule.alpha(level), schedule.sigma(level)
        p, q = data_prediction(prediction_type, alpha, sigma, schedule.sigma_data)
        raw = schedule.c_skip(level) * x + schedule.c_out(level) * m
        reversed_ = schedule.c_skip(level) * x - schedule.c_out(level) * m
        wanted = {"edm": raw, "v_prediction": reversed_, "denoised": m, "epsilon": x - level * m}[prediction_type]
        assert p * schedule.c_in(level) * x + q * m == pytest.approx(wanted, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("prediction_type", "alpha", "sigma"), [*itertools.product(PREDICTION_TYPES, [0.3, 1.0], [0.2, 0.9])])
def test_data_and_noise_make_the_state(prediction_type, alpha, sigma):
    (p, q), (p_, q_) = data_prediction(prediction_type, alpha, sigma), noise_prediction(prediction_type, alpha, sigma)
    assert alpha * p + sigma * p_ == pytest.approx(1, abs=1e-14)
    assert alpha * q + sigma * q_ == pytest.approx(0, abs=1e-14)


X = np.ones((2, 3))


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"from_": "noise"}, ArgumentError, "from_ is 'noise'"),
        ({"to": "v"}, ArgumentError, "to is 'v'"),
        ({"alpha": 0.0}, ArgumentError, "sample cannot be computed from epsilon at alpha 0.0"),
        ({"from_": "sample", "to": "epsilon", "sigma": 0.0}, ArgumentError, "epsilon cannot be computed from sample"),
        ({"to": "score", "sigma": [0.5, 0.0]}, ArgumentError, "score cannot be computed"),
        ({"alpha": [0.1, 0.2, 0.3]}, ArgumentError, "alpha has shape"),
        ({"sigma": -1.0}, ArgumentError, "sigma is -1.0"),
        ({"sigma": np.nan}, ArgumentError, "sigma is nan"),
        ({"sigma_data": 0}, ArgumentError, "sigma_data is 0"),
        ({"x": np.ones((3, 2))}, ArgumentError, "must be equal"),
        ({"x": [1.0]}, ArgumentTypeError, "x is a list"),
        ({"model_output": np.ones((2, 3), int)}, ArgumentTypeError, "model_output is a ndarray of int64"),
    ],
)
def test_bad_input_is_named(arguments, error, says):
    call = {"model_output": X, "x": X, "from_": "epsilon", "to": "sample", "alpha": 0.6, "sigma": 0.8, **arguments}
    with pytest.raises(error, match=says):
        df.convert_prediction(call.pop("model_output"), call.pop("x"), **call)


def test_what_needs_no_division_is_there_at_the_ends():
    # v is the noise where there is no data, and minus the data where there is no noise.
    to = {"to": "epsilon", "from_": "v_prediction"}
    np.testing.assert_array_equal(df.convert_prediction(X, 2 * X, **to, alpha=0.0, sigma=1.0), 2 * X)
    np.testing.assert_array_equal(df.convert_prediction(X, 2 * X, to="sample", from_="v_prediction", alpha=1.0, sigma=0.0), 2 * X)
    np.testing.assert_array_equal(df.convert_prediction(X, 2 * X, from_="sample", to="denoised", alpha=1.0, sigma=0.0), X)
