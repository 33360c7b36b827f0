"""The adaptive reference, against a path known in closed form."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.engine.probability_flow import integrate
from diffuse_fast.errors import ArgumentError, NonFiniteError
from diffuse_fast.solver.solver import Grid

MEAN, VARIANCE = np.array([0.5, -1.0]), np.array([0.2, 1.5])

FAMILIES = {
    "discrete": (df.Schedule.linear(), "epsilon"),
    "cosine": (df.Schedule.cosine(), "v_prediction"),
    "vp_sde": (df.Schedule.vp_sde(), "epsilon"),
    "ve_sde": (df.Schedule.ve_sde(), "epsilon"),
    "edm": (df.Schedule.edm(), "denoised"),
    "flow": (df.Schedule.flow(), "flow"),
    "shifted flow": (df.Schedule.flow(shift=3.0), "sample"),
}


def optimal(schedule, prediction_type):
    """The best prediction for data N(MEAN, diag(VARIANCE)), in the scale of the state."""

    def network(x, t):
        # The time that the network gets, back to the schedule's own time.
        alpha, sigma = marginal_of(schedule, np.asarray(t, np.float64))
        mean, variance = alpha * MEAN, alpha**2 * VARIANCE + sigma**2
        epsilon = sigma * (x - mean) / variance
        x0 = MEAN + alpha * VARIANCE * (x - mean) / variance
        answers = {
            "epsilon": epsilon, "denoised": x0, "v_prediction": alpha * epsilon - sigma * x0, "flow": epsilon - x0, "sample": x0,
        }  # fmt: skip
        return answers[prediction_type].astype(np.float32)

    return network


def marginal_of(schedule, times):
    grid = np.linspace(schedule.t_min, schedule.t_max, 20001)
    seen = schedule.network_time(grid)
    order = np.argsort(seen)
    t = np.interp(times, seen[order], grid[order])
    return schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]


@pytest.mark.parametrize("family", FAMILIES)
def test_it_follows_the_exact_path(family):
    """A Gaussian is carried to a Gaussian, quantile by quantile."""
    schedule, prediction_type = FAMILIES[family]
    noise = np.random.default_rng(1).standard_normal((16, 2)).astype(np.float32)
    x, nfe = df.probability_flow(
        optimal(schedule, prediction_type),
        16,
        shape=(2,),
        schedule=schedule,
        prediction_type=prediction_type,
        noise=noise,
        input_scale="none",
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


@pytest.mark.parametrize(("schedule", "prediction_type"), [
    (df.Schedule.flow(), "flow"), (df.Schedule.flow(), "sample"), (df.Schedule.flow(100, shift=3.0), "flow"),
    (df.Schedule.vp_sde(), "epsilon"), (df.Schedule.edm(), "denoised"),
])  # fmt: skip
def test_the_path_to_rounding(schedule, prediction_type):
    """The same with a network in float64: from no signal at all, where there is none."""
    noise = np.random.default_rng(2).standard_normal((16, 2))
    problem = Grid(schedule=schedule, points=(), prediction_type=prediction_type, lo=-np.inf, hi=np.inf)
    problem = dataclasses.replace(problem, points=problem.at_times(np.array([schedule.t_max, schedule.t_min])))

    def predict(x, point):
        mean, variance = point.alpha * MEAN, point.alpha**2 * VARIANCE + point.sigma**2
        epsilon = point.sigma * (x - mean) / variance
        x0 = MEAN + point.alpha * VARIANCE * (x - mean) / variance
        return {"epsilon": epsilon, "denoised": x0, "sample": x0, "flow": epsilon - x0}[prediction_type]

    first, last = problem.points
    found = integrate(problem, predict, first.sigma * noise, 1e-12, 1e-12)
    quantile = (first.sigma * noise - first.alpha * MEAN) / np.sqrt(first.alpha**2 * VARIANCE + first.sigma**2)
    variance = last.alpha**2 * VARIANCE + last.sigma**2
    expected = MEAN + last.alpha * VARIANCE * quantile / np.sqrt(variance)  # what the network says of the last state
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_fine_solvers_arrive_where_it_does():
    schedule = df.Schedule.linear()
    network = optimal(schedule, "epsilon")
    common = {"shape": (2,), "schedule": schedule, "prediction_type": "epsilon", "seed": 3}
    x, _ = df.probability_flow(network, 8, **common)
    fine = df.sample(network, 8, 200, solver="dpmpp_2m", timestep_spacing="log_snr", **common)
    np.testing.assert_allclose(fine, x, atol=2e-3)


def test_what_it_cannot_do_is_refused():
    with pytest.raises(ArgumentError, match="integer timesteps"):
        df.probability_flow("digits", 2)
    zero_snr = df.Schedule.scaled_linear().rescale_zero_terminal_snr()
    for zero, predicts, says in (
        (zero_snr, "v_prediction", "between it and the one before"),
        (zero_snr, "epsilon", "singular"),
        (df.Schedule.flow(), "epsilon", "no signal.*singular"),
    ):
        with pytest.raises(ArgumentError, match=says):
            df.probability_flow(lambda x, t: x, 2, shape=(2,), schedule=zero, prediction_type=predicts)
    with pytest.raises(NonFiniteError, match="NaN"):
        df.probability_flow(lambda x, t: x * np.nan, 2, shape=(2,), schedule=df.Schedule.vp_sde(), prediction_type="epsilon")
