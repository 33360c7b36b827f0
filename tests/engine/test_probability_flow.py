"""The adaptive reference, against a path known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, NonFiniteError

MEAN, VARIANCE = np.array([0.5, -1.0]), np.array([0.2, 1.5])

FAMILIES = {
    "discrete": (df.Schedule.linear(), "epsilon"),
    "cosine": (df.Schedule.cosine(), "v_prediction"),
    "vp_sde": (df.Schedule.vp_sde(), "epsilon"),
    "ve_sde": (df.Schedule.ve_sde(), "epsilon"),
    "edm": (df.Schedule.edm(), "denoised"),
}


def optimal(schedule, prediction_type):
    """The best prediction for data N(MEAN, diag(VARIANCE)), in the scale of the state."""

    def network(x, t):
        # What the network is told, back to the schedule's own time.
        alpha, sigma = marginal_of(schedule, np.asarray(t, np.float64))
        mean, variance = alpha * MEAN, alpha**2 * VARIANCE + sigma**2
        epsilon = sigma * (x - mean) / variance
        x0 = MEAN + alpha * VARIANCE * (x - mean) / variance
        answers = {"epsilon": epsilon, "denoised": x0, "v_prediction": alpha * epsilon - sigma * x0}
        return answers[prediction_type].astype(np.float32)

    return network


def marginal_of(schedule, told):
    grid = np.linspace(schedule.t_min, schedule.t_max, 20001)
    seen = schedule.network_time(grid)
    order = np.argsort(seen)
    t = np.interp(told, seen[order], grid[order])
    return schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]


@pytest.mark.parametrize("family", FAMILIES)
def test_it_follows_the_exact_path(family):
    """A Gaussian is carried to a Gaussian, quantile by quantile."""
    schedule, prediction_type = FAMILIES[family]
    noise = np.random.default_rng(1).standard_normal((16, 2)).astype(np.float32)
    x, nfe = df.probability_flow(
        optimal(schedule, prediction_type), 16, shape=(2,), schedule=schedule, prediction_type=prediction_type, noise=noise
    )
    assert x.dtype == np.float64
    assert 20 < nfe < 2000
    first, last = schedule.t_max, schedule.t_min
    start = noise * (1.0 if family in ("discrete", "cosine", "vp_sde") else schedule.sigma(first))
    alpha, sigma = schedule.alpha(first), schedule.sigma(first)
    quantile = (start - alpha * MEAN) / np.sqrt(alpha**2 * VARIANCE + sigma**2)
    alpha, sigma = schedule.alpha(last), schedule.sigma(last)
    state = alpha * MEAN + np.sqrt(alpha**2 * VARIANCE + sigma**2) * quantile
    expected = MEAN + alpha * VARIANCE * (state - alpha * MEAN) / (alpha**2 * VARIANCE + sigma**2)
    np.testing.assert_allclose(x, expected, atol=2e-3)


def test_fine_solvers_arrive_where_it_does():
    schedule = df.Schedule.linear()
    network = optimal(schedule, "epsilon")
    common = {"shape": (2,), "schedule": schedule, "prediction_type": "epsilon", "seed": 3}
    x, _ = df.probability_flow(network, 8, **common)
    fine = df.sample(network, 8, 200, solver="dpmpp_2m", timestep_spacing="log_snr", **common)
    np.testing.assert_allclose(fine, x, atol=2e-3)


def test_what_it_cannot_do_is_refused():
    with pytest.raises(ArgumentError, match="whole timesteps"):
        df.probability_flow("digits", 2)
    for zero, predicts in ((df.Schedule.scaled_linear().rescale_zero_terminal_snr(), "v_prediction"), (df.Schedule.flow(), "flow")):
        with pytest.raises(ArgumentError, match="no signal"):
            df.probability_flow(lambda x, t: x, 2, shape=(2,), schedule=zero, prediction_type=predicts)
    with pytest.raises(NonFiniteError, match="NaN"):
        df.probability_flow(lambda x, t: x * np.nan, 2, shape=(2,), schedule=df.Schedule.vp_sde(), prediction_type="epsilon")
