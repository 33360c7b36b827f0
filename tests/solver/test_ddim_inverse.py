"""Inverse DDIM against diffusers, the paper's formula, and the DDIM that it turns around."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df

LINEAR = df.Schedule.linear()


def naive(schedule, plan, network, x, start, clip, rederive):
    """Equation (12) with eta = 0 as it stands, from one alphas_cumprod to the next larger noise."""
    a = start
    for t in plan.timesteps:
        a_next, output = schedule.alpha(t) ** 2, network(x, t)
        if plan.prediction_type == "epsilon":
            eps, x0 = output, (x - np.sqrt(1 - a) * output) / np.sqrt(a)
        elif plan.prediction_type == "sample":
            eps, x0 = (x - np.sqrt(a) * output) / np.sqrt(1 - a), output
        else:
            eps, x0 = np.sqrt(a) * output + np.sqrt(1 - a) * x, np.sqrt(a) * x - np.sqrt(1 - a) * output
        if clip is not None:
            x0 = np.clip(x0, *clip)
        if rederive and a < 1:
            eps = (x - np.sqrt(a) * x0) / np.sqrt(1 - a)
        x, a = np.sqrt(a_next) * x0 + np.sqrt(1 - a_next) * eps, a_next
    return x


@pytest.mark.parametrize("rederive", [None, True, False])
@pytest.mark.parametrize("clip", [None, (-0.3, 1.0)])
@pytest.mark.parametrize("to_one", [True, False])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_paper(gaussian, run, laid, prediction_type, to_one, clip, rederive):
    network = gaussian.network(LINEAR, prediction_type)
    for steps, spacing in ((1, "trailing"), (2, "linspace"), (5, "leading"), (23, "trailing")):
        arguments = {"prediction_type": prediction_type, "clip": clip, "timesteps": laid(LINEAR, "ddim_inverse", spacing, steps),
                     "rederive_epsilon": rederive}  # fmt: skip
        if to_one and prediction_type == "sample":
            with pytest.raises(df.errors.PlanError, match="carries no information about the noise"):
                df.plan(LINEAR, "ddim_inverse", steps, **arguments)
            continue
        plan = df.plan(LINEAR, "ddim_inverse", steps, **arguments, set_alpha_to_one=to_one)
        x = np.random.default_rng(0).standard_normal((6, 4))
        rederived = clip is not None if rederive is None else rederive
        exact = naive(LINEAR, plan, network, x, 1.0 if to_one else LINEAR.alphas_cumprod[0], clip, rederived)
        np.testing.assert_allclose(run(plan, network, x)[-1], exact, rtol=0, atol=1e-9 * max(1, np.abs(exact).max()))


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 5, 10, 50])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("to_one", [True, False])
def test_diffusers(gaussian, run, peer_loop, laid, to_one, spacing, prediction_type, steps, clip):
    import torch
    from diffusers import DDIMInverseScheduler

    if to_one and prediction_type == "sample":
        pytest.skip("refused here; the peer divides by zero")
    scheduler = DDIMInverseScheduler(
        beta_schedule="linear",
        prediction_type=prediction_type,
        timestep_spacing=spacing,
        set_alpha_to_one=to_one,
        clip_sample=clip is not None,
        clip_sample_range=clip or 1.0,
    )
    scheduler.set_timesteps(steps)
    plan = df.plan(
        LINEAR,
        "ddim_inverse",
        prediction_type=prediction_type,
        timesteps=laid(LINEAR, "ddim_inverse", spacing, steps),
        clip=clip and (-clip, clip),
        set_alpha_to_one=to_one,
        rederive_epsilon=False,
    )
    assert plan.timesteps.tolist() == scheduler.timesteps.tolist()
    network = gaussian.network(LINEAR, prediction_type)
    x = np.random.default_rng(0).standard_normal((6, 4))
    scheduler.alphas_cumprod = torch.tensor(LINEAR.alphas_cumprod)
    if not to_one:
        scheduler.initial_alpha_cumprod = scheduler.alphas_cumprod[0]
    ours = run(plan, network, x)
    if spacing == "trailing" and to_one:
        pytest.skip("the peer's first step of this grid starts at timestep −1 + T/steps − T//steps, not at the data: checked above")
    theirs = peer_loop(scheduler, network, x, [], torch.float64)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9 * max(1.0, np.abs(one).max()))


def test_ddim_leads_back(gaussian, run):
    # What both make of the probability-flow ODE has an error of first order, so the way there and back closes as steps grow.
    network, errors, counts = gaussian.network(LINEAR), [], [50, 100, 200, 400]
    x = gaussian.mean + np.sqrt(gaussian.variance) * np.random.default_rng(0).standard_normal((20, 4))
    for steps in counts:
        there = df.plan(LINEAR, "ddim_inverse", steps, prediction_type="epsilon")
        back = df.plan(LINEAR, "ddim", steps, prediction_type="epsilon")
        assert there.marginals[-1] == back.marginals[0]
        assert there.initial_scale == 1.0
        assert np.all(np.diff(there.timesteps) > 0)
        errors.append(np.abs(run(back, network, run(there, network, x)[-1])[-1] - x).max())
    assert -np.polyfit(np.log(counts), np.log(errors), 1)[0] > 0.7, errors
