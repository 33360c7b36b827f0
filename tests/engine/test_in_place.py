"""Networks that work in place on what they are given: the samples are those of the same network that does not."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df

torch = pytest.importorskip("torch")

SHAPE = (4,)
SCHEDULE = df.Schedule.linear()
KNOWN = {"shape": SHAPE, "schedule": SCHEDULE, "prediction_type": "epsilon"}
PLAN = df.plan(SCHEDULE, "dpmpp_2m", 6, prediction_type="epsilon")


class Net(torch.nn.Module):
    """ReLU before a linear layer, with an embedding that is doubled; in place or not."""

    def __init__(self, inplace, channels=1):
        super().__init__()
        self.act = torch.nn.ReLU(inplace=inplace)
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(0.3 * torch.randn(4, 4 * channels, generator=generator))
        self.inplace = inplace

    def forward(self, x, t, emb=None):
        y = self.act(x) @ self.weight
        return y if emb is None else y + (emb.mul_(2.0) if self.inplace else emb * 2.0)


def function(inplace):
    def call(x, t, emb=None):
        scale = np.float32(0.5)
        if not inplace:
            return x * scale if emb is None else x * scale + emb * scale
        x *= scale
        if emb is not None:
            emb *= scale
            x += emb
        return x

    return call


MAKERS = {"module": lambda inplace: Net(inplace).eval(), "callable": function}


@pytest.fixture(params=MAKERS)
def make(request):
    return MAKERS[request.param]


EMB = {"emb": np.full((3, 4), 0.25, np.float32)}
GUIDED = {"cond": EMB, "negative_cond": {"emb": 0 * EMB["emb"]}, "guidance_scale": 2.0}


def twice(sampler):
    return np.stack([np.asarray(sampler.sample(2, seed=4, cond={"emb": EMB["emb"][:2]})) for _ in range(2)])


PATHS = {
    "lockstep": lambda net: df.sample(net, 3, 6, seed=0, **KNOWN),
    "conditioning": lambda net: df.sample(net, 3, 6, seed=0, cond=EMB, **KNOWN),
    "guidance": lambda net: df.sample(net, 3, 6, seed=0, **GUIDED, **KNOWN),
    "separate guidance": lambda net: df.sample(net, 3, 6, seed=0, guidance_batch="separate", **GUIDED, **KNOWN),
    "requests": lambda net: df.Sampler(net, PLAN, shape=SHAPE).sample_requests(
        [df.Request(seed=1, cond={"emb": EMB["emb"][0]}), df.Request(seed=2, cond={"emb": EMB["emb"][1]})]
    ),
    "a sampler used twice": lambda net: twice(df.Sampler(net, PLAN, shape=SHAPE)),
    "probability flow": lambda net: df.probability_flow(
        net, 3, seed=0, shape=SHAPE, cond=EMB, schedule=df.Schedule.vp_sde(), prediction_type="epsilon"
    )[0],
    "elbo": lambda net: df.likelihood(
        net, EMB["emb"], seed=0, cond=EMB, schedule=SCHEDULE, prediction_type="epsilon", evaluations=4
    ).bits_per_dim,
    "ode": lambda net: df.likelihood(
        net, EMB["emb"], "ode", seed=0, cond=EMB, schedule=df.Schedule.vp_sde(), prediction_type="epsilon", draws=1
    ).bits_per_dim,
}  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_the_result_is_that_of_the_network_that_copies(make, path):
    expected, got = (np.asarray(PATHS[path](make(inplace))) for inplace in (False, True))
    np.testing.assert_array_equal(got, expected)


def test_the_caller_keeps_his_conditioning_and_noise(make):
    given, noise = {"emb": EMB["emb"].copy()}, np.ones((3, 4), np.float32)
    df.sample(make(True), 3, 4, seed=0, cond=given, noise=noise, **KNOWN)
    np.testing.assert_array_equal(given["emb"], EMB["emb"])
    np.testing.assert_array_equal(noise, 1.0)


def test_a_guided_network_and_its_classifier_may_both_work_in_place():
    def log_prob(inplace):
        return lambda x, t: -((x.sub_(1.0) if inplace else x - 1.0) ** 2).sum(1)

    expected, got = (
        df.sample(
            df.ClassifierGuidance(Net(inplace), log_prob(inplace), 0.5, schedule=SCHEDULE, prediction_type="epsilon").eval(),
            3,
            6,
            seed=0,
            **KNOWN,
        )
        for inplace in (False, True)
    )
    assert torch.equal(got, expected)


def test_the_variational_bound_sees_the_state_before_the_network_did():
    from diffuse_fast.training.objectives import VariationalObjective

    x0 = torch.linspace(-1, 1, 8).reshape(2, 4)
    expected, got = (
        VariationalObjective(SCHEDULE, "epsilon")(Net(inplace), x0, generator=torch.Generator().manual_seed(0)).loss
        for inplace in (False, True)
    )
    assert torch.equal(got, expected)
