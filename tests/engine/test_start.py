"""Sampling that starts from data plus noise: ``begin=`` and ``data=``."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, ArgumentTypeError

SCHEDULE = df.Schedule.linear()
SHAPE = (2, 5)
KNOWN = {"shape": SHAPE, "schedule": SCHEDULE, "prediction_type": "epsilon"}


def network(x, t):
    return (np.tanh(x) * 0.5).astype(np.float32)


def first_state(**options):
    """The state that the network is called with first."""
    seen = []

    def watch(x, t, **cond):
        seen.append(np.array(x))
        return network(x, t)

    df.sample(watch, 3, 10, **{**KNOWN, **options})
    return seen[0]


@pytest.mark.parametrize("noise", [None, "given"])
@pytest.mark.parametrize(
    ("schedule", "prediction_type", "begin"),
    [(SCHEDULE, "epsilon", 600.0), (SCHEDULE, "epsilon", 612.5), (df.Schedule.edm(), "edm", 3.0),
     (df.Schedule.flow(), "flow", 400.0), (df.Schedule.ve_sde(), "epsilon", 0.5)],
)  # fmt: skip
def test_data_is_noised_to_where_the_plan_begins(schedule, prediction_type, begin, noise):
    data = np.random.default_rng(0).standard_normal((3, *SHAPE))
    given = None if noise is None else np.random.default_rng(1).standard_normal((3, *SHAPE))
    z = df.noise(7, 3, SHAPE, first_index=4) if given is None else given
    known = {"schedule": schedule, "prediction_type": prediction_type}
    found = first_state(**known, begin=begin, data=data, noise=given, seed=7, first_index=4)
    exact = schedule.alpha(begin) * data + schedule.sigma(begin) * z
    np.testing.assert_allclose(found, exact, rtol=3e-7, atol=1e-7)


def test_data_may_start_any_plan():
    """Also one that starts at the last timestep, and one whose times are given."""
    data = np.full((3, *SHAPE), 2.0, np.float32)
    for options, first in (({}, 900), ({"steps": None, "timesteps": [400, 100]}, 400)):
        call = {"steps": 10, **KNOWN, **options}
        seen = []
        df.sample(lambda x, t, seen=seen: seen.append(np.array(x)) or network(x, t), 3, seed=1, data=data, **call)
        exact = SCHEDULE.alpha(first) * data + SCHEDULE.sigma(first) * df.noise(1, 3, SHAPE)
        np.testing.assert_allclose(seen[0], exact, rtol=3e-7, atol=1e-7)


def test_edited_samples_keep_the_distribution_of_the_data():
    """Data N(0.3, 0.5²), noised to the middle and sampled back by the exact network."""
    rng = np.random.default_rng(0)
    data = 0.3 + 0.5 * rng.standard_normal((4096, 1))

    def exact(x, t):
        alpha, sigma = (np.asarray(f(t)).reshape(-1, 1) for f in (SCHEDULE.alpha, SCHEDULE.sigma))
        return (sigma * (x - 0.3 * alpha) / ((0.5 * alpha) ** 2 + sigma**2)).astype(np.float32)

    for begin in (200, 500, 800):
        known = {**KNOWN, "shape": (1,)}
        x = df.sample(exact, 4096, 100, solver="dpmpp_2m", timestep_spacing="trailing", seed=0, begin=begin, data=data, **known)
        assert x.mean() == pytest.approx(0.3, abs=0.03)  # four standard errors
        assert x.std() == pytest.approx(0.5, abs=0.03)
        # The path back is affine, so the sample is as near to the data as the noised state is.
        signal, sigma = 0.5 * SCHEDULE.alpha(begin), SCHEDULE.sigma(begin)
        assert np.corrcoef(x[:, 0], data[:, 0])[0, 1] == pytest.approx(signal / np.hypot(signal, sigma), abs=0.06)


@pytest.mark.parametrize("solver", ["ddim", "heun", "dpmpp_2s", "ddpm"])
def test_two_runs_are_one(solver):
    """A run that ends at a timestep of its grid, and one that begins there from its result: the bits of one run."""
    options = {"solver": solver, "timestep_spacing": "linspace", "seed": 3, **KNOWN}
    ends = np.linspace(0, 999, 10)[::-1][4] if solver == "heun" else 555.0
    if solver == "dpmpp_2s":
        options = {**options, "timestep_spacing": None, "timesteps": np.linspace(999, 0, 10).tolist()}
    if solver == "ddpm":  # its noise is that of a row's number
        options["step_noise"] = lambda i: np.zeros((3, *SHAPE), np.float32)
    together = df.sample(network, 3, 10, **options)
    first = df.sample(network, 3, 10, end=ends, **options)
    np.testing.assert_array_equal(df.sample(network, 3, 10, begin=ends, noise=first, **options), together)


def test_requests_start_as_samples_in_step_do():
    data = np.random.default_rng(0).standard_normal((3, *SHAPE)).astype(np.float32)
    noise = np.random.default_rng(1).standard_normal((3, *SHAPE)).astype(np.float32)
    plan = df.plan(SCHEDULE, "ddim", 10, prediction_type="epsilon", begin=500)
    sampler = df.Sampler(network, plan, shape=SHAPE)
    for given in (None, noise):
        in_step = sampler.sample(3, seed=5, data=data, noise=given)
        asked = [df.Request(seed=5, index=i, data=data[i], noise=None if given is None else given[i]) for i in range(3)]
        np.testing.assert_array_equal(sampler.sample_requests(asked), in_step)
        np.testing.assert_array_equal(sampler.sample(3, seed=5, data=data, noise=given, batch_size=2), in_step)
    state = [df.Request(seed=5, index=i, noise=noise[i]) for i in range(3)]
    np.testing.assert_array_equal(sampler.sample_requests(state), sampler.sample(3, noise=noise))


def test_a_tensor_may_be_the_data():
    import torch

    data = torch.full((2, *SHAPE), 0.5)
    options = {"begin": 300, "seed": 1, **KNOWN}
    x = df.sample(network, 2, 10, data=data, **options)
    assert isinstance(x, torch.Tensor)
    np.testing.assert_array_equal(x.numpy(), df.sample(network, 2, 10, data=data.numpy(), **options))


def test_an_artifact_is_edited():
    eights = df.sample("digits", 4, 20, seed=0, cond={"label": 8})
    threes = df.sample("digits", 4, 20, seed=1, cond={"label": 3}, begin=300, data=eights)
    assert threes.shape == eights.shape and not np.array_equal(threes, eights)
    near = df.sample("digits", 4, 20, seed=1, cond={"label": 8}, begin=100, data=eights)
    assert np.abs(near - eights).mean() < 0.5 * np.abs(df.sample("digits", 4, 20, seed=1, cond={"label": 8}) - eights).mean()


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"strength": 0.6}, ArgumentTypeError, "begin=, a time, with data="),
        ({"begin": 600}, ArgumentError, "begins at time 600, where the state is data plus noise. Give data="),
        ({"begin": 600, "guidance_scale": [1.0, 1.0, 1.0]}, ArgumentError, "begins at time 600"),
        ({"begin": 600, "data": np.zeros((1, *SHAPE), np.float32)}, ArgumentError, r"data has shape \(1, 2, 5\)"),
        ({"begin": 600, "data": np.zeros((3, *SHAPE), np.int64)}, ArgumentTypeError, "data has dtype int64"),
        ({"begin": 600, "data": np.full((3, *SHAPE), np.nan, np.float32)}, ArgumentError, "data has NaN"),
    ],
)
def test_a_start_that_is_not_there_is_named(options, error, says):
    with pytest.raises(error, match=says):
        df.sample(network, 3, 10, **KNOWN, **options)
    plan = df.plan(SCHEDULE, "ddim", 10, prediction_type="epsilon", begin=600)
    with pytest.raises(ArgumentError, match="begins at time 600"):
        df.Sampler(network, plan, shape=SHAPE).sample_requests([df.Request(seed=1)])
