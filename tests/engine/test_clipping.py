"""Dynamic thresholding in complete runs: against the formula, and against diffusers."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, PlanError

SCHEDULE = df.Schedule.scaled_linear(1000, 1e-4, 0.02)


def f(x, t):
    return (1.5 * np.tanh(x) + 0.001 * np.asarray(t).reshape(-1, *(1,) * (x.ndim - 1))).astype(np.float32)


@pytest.mark.parametrize(("solver", "peer"), [("ddim", "DDIMScheduler"), ("dpmpp_2m", "DPMSolverMultistepScheduler")])
@pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")
def test_diffusers(solver, peer):
    import diffusers
    import torch

    scheduler = getattr(diffusers, peer)(
        beta_schedule="scaled_linear",
        thresholding=True,
        dynamic_thresholding_ratio=0.8,
        sample_max_value=1.7,
        **({"clip_sample": False} if peer == "DDIMScheduler" else {}),
    )
    scheduler.set_timesteps(8)
    noise = np.random.default_rng(3).standard_normal((3, 4, 5)).astype(np.float32)
    state = torch.tensor(noise)
    for t in scheduler.timesteps:
        output = torch.tensor(f(state.numpy(), np.full(3, float(t))))
        state = scheduler.step(output, t, state, return_dict=False)[0]
    ours = df.sample(
        f,
        3,
        shape=(4, 5),
        schedule=SCHEDULE,
        prediction_type="epsilon",
        solver=solver,
        noise=noise,
        timesteps=scheduler.timesteps.tolist(),
        clip=df.DynamicThreshold(0.8, maximum=1.7),
        **({"rederive_epsilon": False} if solver == "ddim" else {}),
    )
    np.testing.assert_allclose(ours, state.numpy(), atol=2e-5)


def test_the_threshold_is_each_samples_own():
    plan = df.plan(SCHEDULE, "ddim", 1, prediction_type="sample", clip=df.DynamicThreshold(1.0, maximum=8.0))
    outputs = np.stack([np.linspace(-0.5, 0.5, 10), np.linspace(-4, 4, 10)]).astype(np.float32)
    result = df.Sampler(lambda x, t: outputs, plan, shape=(10,)).sample(2, seed=0)
    np.testing.assert_allclose(result, [outputs[0], outputs[1] / 4], rtol=1e-6)


@pytest.mark.parametrize(
    "given", [{"ratio": 0.0}, {"ratio": 1.5}, {"ratio": float("nan")}, {"maximum": 0.5}, {"maximum": float("inf")}]
)
def test_values_out_of_range_are_refused(given):
    with pytest.raises(ArgumentError, match=next(iter(given))):
        df.DynamicThreshold(**given)


def test_a_row_has_one_reduction():
    plan = df.plan(SCHEDULE, "ddim", 4, prediction_type="epsilon", clip=df.DynamicThreshold())
    with pytest.raises(PlanError, match="reduction"):
        plan.with_guidance(2.0, rescale=0.5)


@pytest.mark.parametrize("clip", [None, False, (-0.5, 0.5), [-0.5, 0.5], np.array([-0.5, 0.5]), df.DynamicThreshold(0.9)])
def test_plan_and_sample_take_the_same_values(clip):
    """A bare function knows no clip of its own, so each value means the same in the two."""
    known = {"schedule": df.Schedule.linear(), "prediction_type": "epsilon"}
    plan = df.plan(known["schedule"], "ddim", 4, prediction_type="epsilon", clip=clip)
    clips = clip is not None and clip is not False
    assert all(row.clips is clips for row in plan.rows)

    def network(x, t):
        return x * np.float32(0.2)

    sampled = df.sample(network, 2, 4, seed=1, shape=(3,), clip=clip, **known)
    np.testing.assert_array_equal(sampled, df.Sampler(network, plan, shape=(3,)).sample(2, seed=1))
    for refused in (True, 1.0, "ab", (1,)):
        for call in (
            lambda c: df.plan(known["schedule"], "ddim", 4, prediction_type="epsilon", clip=c),
            lambda c: df.sample(network, 2, 4, seed=1, shape=(3,), clip=c, **known),
        ):
            with pytest.raises(df.errors.ArgumentTypeError, match="clip is"):
                call(refused)
