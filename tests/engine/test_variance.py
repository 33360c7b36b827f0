"""Networks with twice the channels, as ADM and DiT with ``learn_sigma``: declared by ``variance=``."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, NetworkError
from diffuse_fast.kernels.reference import STREAM_INITIAL, STREAM_ROW, normals

SCHEDULE = df.Schedule.linear()
SHAPE = (3, 2, 2)
KNOWN = {"shape": SHAPE, "schedule": SCHEDULE, "prediction_type": "epsilon"}


def adm(x, t):
    """ε in the first half of the channels, v in the second."""
    return np.concatenate([0.9 * x, np.tanh(x)], axis=1).astype(np.float32)


def improved_ddpm(n, steps, seed, network=adm):
    """Nichol & Dhariwal 2021, eq. 10 and 15, on the betas of the timesteps that are left, in float64."""
    plan = df.plan(SCHEDULE, "ddpm", steps, prediction_type="epsilon", variance_type="learned_range")
    times = plan.timesteps.astype(int)
    a_bar = SCHEDULE.alphas_cumprod

    def noise(row, stream):
        return np.stack([normals(12, seed=seed, index=i, row=row, stream=stream).reshape(SHAPE) for i in range(n)])

    x = noise(0, STREAM_INITIAL)
    for i, t in enumerate(times):
        epsilon, v = np.split(network(x.astype(np.float32), None).astype(np.float64), 2, axis=1)
        now, after = a_bar[t], a_bar[times[i + 1]] if i + 1 < len(times) else 1.0
        beta = 1 - now / after
        x0 = (x - np.sqrt(1 - now) * epsilon) / np.sqrt(now)
        x = np.sqrt(after) * beta / (1 - now) * x0 + np.sqrt(1 - beta) * (1 - after) / (1 - now) * x
        if i + 1 < len(times):
            share, small = (v + 1) / 2, beta * (1 - after) / (1 - now)
            x = x + np.exp(share * np.log(beta) + (1 - share) * np.log(small)) ** 0.5 * noise(i, STREAM_ROW)
    return x


def test_a_callable_is_sampled_as_the_paper_says():
    x = df.sample(adm, 3, 8, solver="ddpm", variance_type="learned_range", variance="learned_range", seed=5, **KNOWN)
    np.testing.assert_allclose(x, improved_ddpm(3, 8, 5), rtol=1e-4, atol=1e-4)


def test_a_module_and_requests_give_the_same():
    torch = pytest.importorskip("torch")

    class Module(torch.nn.Module):
        def forward(self, x, t):
            return torch.cat([0.9 * x, torch.tanh(x)], dim=1)

    plan = df.plan(SCHEDULE, "ddpm", 8, prediction_type="epsilon", variance_type="learned_range")
    sampler = df.Sampler(Module(), plan, shape=SHAPE, variance="learned_range")
    np.testing.assert_allclose(sampler.sample(3, seed=5).numpy(), improved_ddpm(3, 8, 5), rtol=1e-4, atol=1e-4)
    requests = [df.Request(seed=5, index=i) for i in range(3)]
    np.testing.assert_allclose(sampler.sample_requests(requests), improved_ddpm(3, 8, 5), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [0.0, 2.5])
def test_guided_requests_take_the_variance_of_the_conditional_output(scale):
    """The mean is guided, the variance is not: at scale 0 too, where the conditional mean has no weight (ADM, guided-diffusion)."""

    def network(x, t, label):
        shift = np.asarray(label, np.float64).reshape(-1, 1, 1, 1)
        return np.concatenate([0.9 * x + 0.1 * shift, np.tanh(x + shift)], axis=1).astype(np.float32)

    def guided(x, _):
        (conditional, v), (negative, _) = (np.split(network(x, 0, [label] * len(x)), 2, axis=1) for label in (1, -2))
        return np.concatenate([scale * conditional + (1 - scale) * negative, v], axis=1)

    plan = df.plan(SCHEDULE, "ddpm", 8, prediction_type="epsilon", variance_type="learned_range")
    sampler = df.Sampler(network, plan, shape=SHAPE, variance="learned_range")
    cond, negative_cond = {"label": 1}, {"label": -2}
    requests = [df.Request(seed=5, index=i, guidance_scale=scale, cond=cond, negative_cond=negative_cond) for i in range(3)]
    expected = improved_ddpm(3, 8, 5, guided)
    np.testing.assert_allclose(sampler.sample_requests(requests), expected, rtol=1e-4, atol=1e-4)
    options = {"solver": "ddpm", "variance_type": "learned_range", "variance": "learned_range", "guidance_scale": scale}
    several = {"cond": {"label": [1] * 3}, "negative_cond": {"label": [-2] * 3}}
    np.testing.assert_allclose(df.sample(network, 3, 8, seed=5, **options, **several, **KNOWN), expected, rtol=1e-4, atol=1e-4)


def test_other_solvers_leave_the_variance_aside():
    got = df.sample(adm, 2, 6, variance="learned_range", seed=1, **KNOWN)
    np.testing.assert_array_equal(got, df.sample(lambda x, t: adm(x, t)[:, :3], 2, 6, seed=1, **KNOWN))


def test_the_flow_and_the_bound_know_it():
    known = {"schedule": df.Schedule.vp_sde(), "prediction_type": "epsilon"}
    one, other = (
        df.probability_flow(f, 2, shape=SHAPE, seed=0, variance=v, **known)[0]
        for f, v in ((adm, "learned"), (lambda x, t: adm(x, t)[:, :3], None))
    )
    np.testing.assert_array_equal(one, other)
    x = np.zeros((2, *SHAPE))
    found = df.likelihood(adm, x, seed=0, evaluations=4, variance="learned_range", schedule=SCHEDULE, prediction_type="epsilon")
    assert np.isfinite(found.bits_per_dim).all()
    fixed = df.likelihood(
        adm,
        x,
        seed=0,
        evaluations=4,
        variance="learned_range",
        schedule=SCHEDULE,
        prediction_type="epsilon",
        variance_type="fixed_large",
    )
    assert not np.array_equal(found.bits_per_dim, fixed.bits_per_dim)


def test_what_is_missing_or_contradicts_is_said(small):
    with pytest.raises(NetworkError, match=r"twice the channels.*variance='learned_range'"):
        df.sample(adm, 2, 4, **KNOWN)
    with pytest.raises(ArgumentError, match="variance='learned_range'"):
        df.sample(adm, 2, 4, solver="ddpm", variance_type="learned_range", **KNOWN)
    with pytest.raises(ArgumentError, match=r"the variance as 'learned', but the network's is 'learned_range'"):
        df.sample(adm, 2, 4, solver="ddpm", variance_type="learned", variance="learned_range", **KNOWN)
    with pytest.raises(ArgumentError, match="variance is 'yes'"):
        df.sample(adm, 2, 4, variance="yes", **KNOWN)
    with pytest.raises(ArgumentError, match=r"variance is 'learned', but this model says 'none'"):
        df.sample(small(), 2, 4, variance="learned")
