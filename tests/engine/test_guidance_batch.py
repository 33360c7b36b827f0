"""Guidance as one joined batch or as two calls: the same samples, of calls that are half as large."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, NonFiniteError

SHAPE = (3, 5)
SCHEDULE = df.Schedule.cosine()


class Network:
    """Batch-invariant; remembers how many samples each call had."""

    def __init__(self):
        self.batches = []

    def __call__(self, x, t, label):
        self.batches.append(len(x))
        return np.tanh(x * np.float32(0.7) + (0.01 * t + 0.1 * label)[:, None, None].astype(np.float32))


def plan(solver="ddim", steps=4, **options):
    return df.plan(SCHEDULE, solver, steps, prediction_type="v_prediction", **options)


def both(n, plan, **options):
    """The samples and the batches of both ways."""
    results = []
    for way in ("joined", "separate"):
        network = Network()
        sampler = df.Sampler(network, plan, shape=SHAPE, guidance_batch=way, **options)
        x = sampler.sample(n, seed=3, cond={"label": np.arange(n)}, negative_cond={"label": 7})
        # Other conditioning, in the same slots.
        again = sampler.sample(n, seed=3, cond={"label": np.arange(n) + 1}, negative_cond={"label": 5})
        results.append((x, again, network.batches))
    return results


@pytest.mark.parametrize(("solver", "options"), [
    ("ddim", {}), ("ddpm", {}), ("dpmpp_2m", {}), ("heun", {"s_churn": 5.0, "s_tmax": 10.0}), ("unipc", {"solver_order": 3}),
])  # fmt: skip
@pytest.mark.parametrize("guidance", [
    {"guidance_scale": 2.5}, {"guidance_scale": 0.0}, {"guidance_scale": 3.0, "guidance_rescale": 0.5},
    {"guidance_scale": 3.0, "guidance_interval": (0.1, 2.0)}, {"guidance_scale": 0.0, "guidance_rescale": 0.7},
])  # fmt: skip
def test_the_samples_are_the_same(solver, options, guidance):
    (joined, joined_again, _), (separate, separate_again, batches) = both(3, plan(solver, **options), **guidance)
    np.testing.assert_array_equal(joined, separate)
    np.testing.assert_array_equal(joined_again, separate_again)
    assert set(batches) == {3}


def test_what_is_called():
    (_, _, joined), (_, _, separate) = both(3, plan(), guidance_scale=2.0)
    assert (joined, separate) == ([6] * 8, [3] * 16)
    guided = plan().with_guidance(2.0, interval=(0.1, 2.0))
    calls = sum(len(row.g) for row in guided.rows)
    assert 4 < calls < 8
    (_, _, joined), (_, _, separate) = both(2, plan(), guidance_scale=2.0, guidance_interval=(0.1, 2.0))
    assert (sum(joined), separate) == (2 * 2 * calls, [2] * 2 * calls)  # outside the interval only the conditional one


def test_requests():
    plans = [plan(), plan("ddpm", 7)]
    asked = [
        df.Request(
            plan=plans[i % 2],
            seed=i,
            cond={"label": i},
            guidance_scale=scale,
            negative_cond=None if scale == 1.0 else {"label": 9 - i},
        )
        for i, scale in enumerate((1.0, 2.0, 0.0, 3.0, 1.0))
    ]
    results, largest = [], []
    for way in ("joined", "separate"):
        network = Network()
        results.append(df.Sampler(network, plans[0], shape=SHAPE, guidance_batch=way).sample_requests(asked))
        largest.append(max(network.batches))
    np.testing.assert_array_equal(*results)
    assert largest == [7, 4]
    only_other = [df.Request(seed=1, cond={"label": 1}, guidance_scale=0.0, negative_cond={"label": 2})]
    sampler = df.Sampler(Network(), plans[0], shape=SHAPE, guidance_batch="separate")
    assert np.isfinite(sampler.sample_requests(only_other)).all()


def test_sample_and_a_scale_per_sample():
    known = {"shape": SHAPE, "schedule": SCHEDULE, "prediction_type": "v_prediction", "seed": 1}
    given = {"cond": {"label": 1}, "negative_cond": {"label": 2}, "guidance_scale": [2.0, 1.0]}
    one, other = (df.sample(Network(), 2, 4, guidance_batch=way, **given, **known) for way in ("joined", "separate"))
    np.testing.assert_array_equal(one, other)


def test_bad_input():
    with pytest.raises(ArgumentError, match="guidance_batch is 'both'; it must be one of joined, separate"):
        df.Sampler(Network(), plan(), shape=SHAPE, guidance_batch="both")

    def broken(x, t, label):
        return np.where(label[:, None, None] == 9, np.nan, x).astype(np.float32)

    sampler = df.Sampler(broken, plan(), shape=SHAPE, guidance_scale=2.0, guidance_batch="separate")
    with pytest.raises(NonFiniteError, match="for sample 1") as caught:
        sampler.sample(3, seed=0, cond={"label": 0}, negative_cond={"label": np.array([0, 9, 0])})
    assert caught.value.samples == (1,)
