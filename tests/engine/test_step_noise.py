"""Given noise is the generator's noise where the two are equal: bit for bit, in every kind of row that draws it."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.kernels import get_kernel
from diffuse_fast.kernels.reference import STREAM_ROW

SHAPE = (3, 5)
SCHEDULE = df.Schedule.linear()


def network(x, t, label):
    return np.tanh(x * np.float32(0.7) + (0.003 * t + 0.2 * label)[:, None, None].astype(np.float32))


def plan(solver, **options):
    return df.plan(SCHEDULE, solver, 5, prediction_type="epsilon", **options)


PLANS = {
    "ddpm": (plan("ddpm"), {}),
    "ddpm, clipped": (plan("ddpm", clip=(-1, 1)), {}),
    "dynamic threshold": (plan("ddpm", clip=df.DynamicThreshold(0.8, 3.0)), {}),
    "dynamic threshold, other solver": (plan("dpmpp_2m_sde", clip=df.DynamicThreshold(0.8, 3.0)), {}),
    "guidance rescale": (plan("ddpm"), {"guidance_scale": 3.0, "guidance_rescale": 0.7}),
    "guidance rescale, unconditional": (plan("ddpm"), {"guidance_scale": 0.0, "guidance_rescale": 0.7}),
    "langevin": (plan("langevin_pc", correct_steps=2, snr=0.1), {}),
}


@pytest.mark.parametrize("kernel", [None, "reference"])
@pytest.mark.parametrize("name", PLANS)
def test_the_generators_own_noise_gives_the_same_samples(name, kernel, monkeypatch):
    if kernel is not None:
        monkeypatch.setenv("DIFFUSE_FAST_KERNEL", kernel)
    chosen, guidance = PLANS[name]
    n, seed, asked = 3, 11, []

    def step_noise(i):
        asked.append(i)
        z = np.empty((n, *SHAPE), np.float32)
        get_kernel().normals(z, seeds=np.full(n, seed, np.uint64), indices=np.arange(n, dtype=np.uint32), row=i, stream=STREAM_ROW)
        return z

    call = {"seed": seed, "cond": {"label": np.arange(n)}, **({"negative_cond": {"label": 7}} if guidance else {})}
    sampler = df.Sampler(network, chosen, shape=SHAPE, **guidance)
    drawn = sampler.sample(n, **call)
    # The reference is float64, but the noise that is given is float32.
    again = sampler.sample(n, step_noise=step_noise, **call)
    np.testing.assert_allclose(again, drawn, rtol=1e-6 if kernel else 0, atol=1e-5 if kernel else 0)
    assert asked == [i for i, row in enumerate(chosen.rows) if row.stochastic]
    np.testing.assert_array_equal(sampler.sample(n, **call), drawn)  # and the slots are as good as new


def test_the_langevin_step_is_that_of_the_paper():
    """Algorithm 5 of Song et al. 2021 in float64, with the noise that is given."""
    chosen = plan("langevin_pc", correct_steps=1, snr=0.16)
    row = chosen.rows[0]
    assert row.reduce.kind == "langevin"
    snr, kappa = row.reduce.values
    rng = np.random.default_rng(3)
    noise, draws = (rng.standard_normal(size).astype(np.float32) for size in ((1, *SHAPE), (len(chosen.rows), 1, *SHAPE)))
    seen = []
    df.Sampler(network, chosen, shape=SHAPE).sample(
        1, noise=noise, cond={"label": 1}, step_noise=lambda i: draws[i], callback=lambda i, x: seen.append(x.copy())
    )
    x = noise.astype(np.float64) * chosen.initial_scale
    score = kappa * network(x.astype(np.float32), np.array([row.timestep]), np.array([1])).astype(np.float64)
    size = 2.0 * (snr * np.linalg.norm(draws[0]) / np.linalg.norm(score)) ** 2
    np.testing.assert_allclose(seen[0], row.a * x + size * score + np.sqrt(2.0 * size) * draws[0], rtol=0, atol=1e-5)
