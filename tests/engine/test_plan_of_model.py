"""Plans by name: what a model knows is not said again, and what contradicts it is refused."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, ArgumentTypeError


@pytest.fixture(scope="module")
def digits():
    return df.load("digits")


def test_three_ways_to_one_plan(digits):
    plan = digits.plan("dpmpp_2m", 8)
    assert df.Sampler(digits, "dpmpp_2m", 8).plan == df.Sampler("digits", plan).plan == plan
    expected = df.sample(digits, 3, 8, solver="dpmpp_2m", seed=1)
    np.testing.assert_array_equal(df.Sampler(digits, plan).sample(3, seed=1), expected)
    np.testing.assert_array_equal(df.Sampler("digits", "dpmpp_2m", 8).sample(3, seed=1), expected)


def test_options_of_the_grid_and_the_solver_reach_the_plan(digits):
    options = {"eta": 0.5, "timestep_spacing": "trailing", "clip": False}
    plan = digits.plan("ddim", 7, **options)
    made = dict(plan.options)
    assert (made["eta"], made["timestep_spacing"], plan.steps) == (0.5, "trailing", 7)
    assert all(not row.clips for row in plan.rows)
    assert df.Sampler(digits, "ddim", 7, **options).plan == plan
    assert digits.plan("ddim", timesteps=[900, 500, 100]).timesteps.tolist() == [900, 500, 100]


def test_a_bare_network_says_what_it_must():
    known = {"schedule": df.Schedule.linear(), "prediction_type": "epsilon"}
    sampler = df.Sampler(lambda x, t: 0.1 * x, "ddim", 5, shape=(2,), **known)
    assert sampler.plan == df.plan(known["schedule"], "ddim", 5, prediction_type="epsilon")
    with pytest.raises(ArgumentError, match="give schedule="):
        df.Sampler(lambda x, t: x, "ddim", 5, shape=(2,))


def test_options_of_a_plan_do_not_go_with_a_plan(digits):
    plan = digits.plan("ddim", 5)
    with pytest.raises(ArgumentTypeError, match=r"no option 'steps'.*part of a plan"):
        df.Sampler(digits, plan, 5)
    with pytest.raises(ArgumentTypeError, match=r"no option 'eta'"):
        df.Sampler(digits, plan, eta=1.0)
    with pytest.raises(ArgumentTypeError, match=r"num_inference_steps.*steps="):
        df.Sampler(digits, plan, num_inference_steps=5)
    with pytest.raises(ArgumentTypeError, match="plan is a int"):
        df.Sampler(digits, 5)


def test_what_contradicts_the_model_is_refused(digits):
    other = df.Schedule.linear() if digits.schedule != df.Schedule.linear() else df.Schedule.cosine()
    for call in (
        lambda: digits.plan("ddim", 5, schedule=other),
        lambda: df.Sampler(digits, "ddim", 5, schedule=other),
        lambda: df.sample(digits, 1, 5, schedule=other),
    ):
        with pytest.raises(ArgumentError, match="was trained with"):
            call()
    with pytest.raises(ArgumentError, match=r"this model predicts"):
        digits.plan("ddim", 5, prediction_type="sample")
    # The same said again is no contradiction, nor is another default grid.
    assert digits.plan("ddim", 5, schedule=digits.schedule, prediction_type=digits.prediction_type) == digits.plan("ddim", 5)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (df.Schedule.linear(), df.Schedule.from_betas(df.Schedule.linear().betas), True),
        (df.Schedule.linear(), df.Schedule.linear(500), False),
        (df.Schedule.cosine(), df.Schedule.cosine().rescale_zero_terminal_snr(), False),
        (df.Schedule.flow(), df.Schedule.flow(shift=3.0), True),
        (df.Schedule.flow(), df.Schedule.flow(100), False),
        (df.Schedule.edm(), df.Schedule.edm(0.01, 10.0, rho=5.0), True),
        (df.Schedule.edm(), df.Schedule.edm(sigma_data=1.0), False),
        (df.Schedule.vp_sde(), df.Schedule.vp_sde(sampling_eps=1e-4), True),
        (df.Schedule.ve_sde(), df.Schedule.ve_sde(sigma_max=10.0), False),
        (df.Schedule.vp_sde(), df.Schedule.sub_vp_sde(), False),
    ],
)
def test_which_schedules_a_network_is_of(one, other, same):
    assert one.same_marginals(other) is same and other.same_marginals(one) is same
