"""What a batch must not hide: which sample was bad, and on what scale given noise starts."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, NonFiniteError

SHAPE = (2,)


def bad_where(marked):
    """A network that returns NaN for the samples whose ``mark`` is one of ``marked``."""

    def network(x, t, mark):
        output = np.zeros_like(x)
        output[np.isin(mark, marked)] = np.nan
        return output

    return network


KNOWN = {"shape": SHAPE, "schedule": df.Schedule.linear(), "prediction_type": "epsilon"}
PLAN = df.plan(KNOWN["schedule"], "ddim", 4, prediction_type="epsilon", timesteps=[900, 600, 300, 0])


@pytest.mark.parametrize("batch_size", [None, 1, 2, 3])
def test_a_bad_sample_has_its_number_in_the_call(batch_size):
    cond = {"mark": np.arange(6)}
    with pytest.raises(NonFiniteError, match="sample 5") as caught:
        df.sample(bad_where([5]), 6, 4, seed=0, cond=cond, batch_size=batch_size, **KNOWN)
    assert caught.value.samples == (5,)
    with pytest.raises(NonFiniteError) as caught:
        df.sample(bad_where([4, 5]), 6, 4, seed=0, cond=cond, batch_size=batch_size, guidance_scale=[1.0] * 6, **KNOWN)
    assert caught.value.samples == ((4,) if batch_size == 1 else (4, 5))
    requests = [df.Request(seed=i, cond={"mark": i}) for i in range(6)]
    with pytest.raises(NonFiniteError, match="sample 5") as caught:
        df.Sampler(bad_where([5]), PLAN, shape=SHAPE).sample_requests(requests, batch_size=batch_size)
    assert caught.value.samples == (5,)


@pytest.mark.parametrize("method", ["elbo", "ode"])
def test_a_bad_sample_of_a_likelihood_too(method):
    known = {"schedule": df.Schedule.vp_sde(), "prediction_type": "epsilon"}
    with pytest.raises(NonFiniteError, match="sample 3") as caught:
        df.likelihood(bad_where([3]), np.zeros((5, 2)), method, seed=0, cond={"mark": np.arange(5)}, batch_size=2, **known)
    assert caught.value.samples == (3,)


def test_a_request_that_does_not_fit_has_its_number():
    requests = [*(df.Request(seed=i) for i in range(3)), df.Request(noise=np.zeros(3, np.float32))]
    with pytest.raises(ArgumentError, match="noise of request 3"):
        df.Sampler(lambda x, t: x, PLAN, shape=SHAPE).sample_requests(requests, batch_size=2)
    requests[3] = df.Request(seed=0, negative_cond={"mark": 1})
    with pytest.raises(ArgumentError, match="request 3: negative_cond"):
        df.Sampler(lambda x, t: x, PLAN, shape=SHAPE).sample_requests(requests, batch_size=2)


SCALED = {
    "linear": (df.Schedule.linear(), "epsilon", 1.0),
    "edm": (df.Schedule.edm(sigma_max=20.0), "edm", 20.0 / np.hypot(20.0, 0.5)),
    "ve": (df.Schedule.ve_sde(sigma_max=30.0), "epsilon", 30.0),
    "flow from the middle": (df.Schedule.flow(), "flow", 0.5),
}


@pytest.mark.parametrize("family", SCALED)
@pytest.mark.parametrize("way", ["noise", "request", "scales"])
def test_given_noise_starts_on_the_scale_of_the_family(family, way):
    """The first state that the network sees: sigma at the first time, times what was given."""
    schedule, predicts, scale = SCALED[family]
    times = {"timesteps": [500, 250]} if family.startswith("flow") else {"steps": 3}
    if not family.startswith("flow"):
        times["timestep_spacing"] = {"edm": "karras", "ve": "linspace"}.get(family, "trailing")
    first = []

    def network(x, t, **cond):
        first.append(x.copy())
        return x * 0

    noise = np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float32)
    plan = df.plan(schedule, "ddim", prediction_type=predicts, **times)
    sampler = df.Sampler(network, plan, shape=SHAPE)
    if way == "noise":
        sampler.sample(2, noise=noise)
    elif way == "request":
        sampler.sample_requests([df.Request(noise=one) for one in noise])
    else:
        df.sample(
            network, 2, shape=SHAPE, schedule=schedule, prediction_type=predicts, noise=noise, guidance_scale=[1.0, 1.0], **times
        )
    np.testing.assert_allclose(first[0], scale * noise, rtol=1e-6)
