"""``known`` and ``mask``: samples that are held to given data in a region."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, ArgumentTypeError
from diffuse_fast.kernels import get_kernel
from diffuse_fast.kernels.reference import STREAM_KNOWN
from diffuse_fast.kernels.step import noise_address

SHAPE = (2, 5)
LINEAR = df.Schedule.linear()
N = 3


def network(x, t, label=None):
    """Elementwise and exact, so that a sample does not depend on its batch."""
    scale = (0.5 + np.asarray(t, np.float64) / 2000).astype(np.float32)[:, None, None]
    shift = np.float32(0) if label is None else (label.astype(np.float32) / 8)[:, None, None]
    return np.clip(x * scale + shift, -2, 2)


def plan(solver="ddim", steps=6, **options):
    return df.plan(LINEAR, solver, steps, prediction_type="epsilon", **options)


PLANS = {
    "ddim": plan(),
    "ddpm, clipped": plan("ddpm", 5, clip=(-1, 1)),
    "dpmpp_2m": plan("dpmpp_2m", 7),
    "heun, churn": plan("heun", 4, s_churn=3.0, s_tmax=50.0, timestep_spacing="karras"),
}
KNOWN = np.random.default_rng(0).standard_normal((N, *SHAPE)).astype(np.float32)
MASK = np.random.default_rng(1).choice([0.0, 0.25, 1.0], (N, *SHAPE)).astype(np.float32)


def sampler(chosen, **options):
    return df.Sampler(network, chosen, shape=SHAPE, **options)


@pytest.fixture(params=["cpu", "device", "reference"])
def make(request, mocked, monkeypatch):
    """Samplers on each place that the engine runs on."""
    if request.param == "reference":
        monkeypatch.setenv("DIFFUSE_FAST_KERNEL", "reference")
    if request.param == "device":
        return lambda chosen, **options: mocked(network, chosen, shape=SHAPE, **options).sampler
    return sampler


@pytest.mark.parametrize("chosen", PLANS.values(), ids=PLANS)
def test_a_mask_of_ones_returns_the_known_data(make, chosen):
    seen = []
    got = make(chosen).sample(N, seed=1, known=KNOWN, mask=1.0, callback=lambda i, x: seen.append(x.copy()))
    np.testing.assert_array_equal(got, KNOWN)
    np.testing.assert_allclose(seen[-1], KNOWN, atol=1e-5)  # the step adds a difference, which rounds


@pytest.mark.parametrize("chosen", PLANS.values(), ids=PLANS)
def test_a_mask_of_zeros_changes_nothing(make, chosen):
    got = make(chosen).sample(N, seed=1, known=KNOWN, mask=np.zeros(SHAPE))
    np.testing.assert_array_equal(got, make(chosen).sample(N, seed=1))


@pytest.mark.parametrize("chosen", PLANS.values(), ids=PLANS)
def test_the_known_region_is_at_its_marginal_after_every_row(make, chosen):
    """``alpha·y + sigma·z``, with z of stream 2."""
    seeds, indices = noise_address(9, 0, N)
    states = []
    make(chosen).sample(N, seed=9, known=KNOWN, mask=1.0, callback=lambda i, x: states.append(x.copy()))
    for i, (state, (alpha, sigma)) in enumerate(zip(states, chosen.marginals[1:], strict=True)):
        z = np.empty((N, *SHAPE), np.float32)
        get_kernel().normals(z, seeds=seeds, indices=indices, row=i, stream=STREAM_KNOWN)
        np.testing.assert_allclose(state, alpha * KNOWN + sigma * z, atol=2e-5)


@pytest.mark.parametrize("chosen", PLANS.values(), ids=PLANS)
def test_bits_do_not_depend_on_how_samples_are_drawn(make, chosen):
    drawn = make(chosen).sample(N, seed=4, known=KNOWN, mask=MASK)
    np.testing.assert_array_equal(make(chosen).sample(N, seed=4, known=KNOWN, mask=MASK, batch_size=2), drawn)
    for i in range(N):
        alone = make(chosen).sample(1, seed=4, first_index=i, known=KNOWN[i], mask=MASK[i])
        np.testing.assert_array_equal(alone[0], drawn[i])
    asked = [df.Request(seed=4, index=i, known=KNOWN[i], mask=MASK[i]) for i in range(N)]
    np.testing.assert_array_equal(make(chosen).sample_requests(asked), drawn)


def test_requests_with_and_without_a_known_region_share_a_batch(make):
    free = df.Request(plan=PLANS["ddpm, clipped"], seed=6)
    asked = [free, df.Request(seed=4, known=KNOWN[0], mask=MASK[0]), df.Request(seed=5, index=2)]
    got = make(plan()).sample_requests(asked)
    for one, request in zip(got, asked, strict=True):
        np.testing.assert_array_equal(one, make(plan()).sample_requests([request])[0])
    np.testing.assert_array_equal(got[0], make(PLANS["ddpm, clipped"]).sample(1, seed=6)[0])


def test_with_guidance_and_a_scale_for_each_sample(make):
    call = {"cond": {"label": np.arange(N)}, "negative_cond": {"label": 7}, "seed": 3, "known": KNOWN, "mask": MASK}
    drawn = make(plan("ddpm"), guidance_scale=2.0).sample(N, **call)
    np.testing.assert_array_equal(drawn[MASK == 1], KNOWN[MASK == 1])
    options = {"solver": "ddpm", "shape": SHAPE, "schedule": LINEAR, "prediction_type": "epsilon"}
    together = df.sample(network, N, 6, guidance_scale=[2.0, 1.0, 2.0], **call, **options)
    np.testing.assert_array_equal(together[[0, 2]], df.sample(network, N, 6, guidance_scale=2.0, **call, **options)[[0, 2]])


def test_a_sampler_goes_on_without_a_mask_as_before(make):
    one = make(plan("ddpm"))
    before = one.sample(N, seed=2)
    one.sample(N, seed=2, known=KNOWN, mask=MASK)
    np.testing.assert_array_equal(one.sample(N, seed=2), before)
    np.testing.assert_array_equal(one.sample_requests([df.Request(seed=2)])[0], before[0])


def test_given_step_noise_with_a_known_region(make):
    chosen = plan("ddpm", 5)
    draws = np.random.default_rng(2).standard_normal((5, N, *SHAPE)).astype(np.float32)
    call = {"seed": 1, "step_noise": lambda i: draws[i]}
    got = make(chosen).sample(N, known=KNOWN, mask=np.zeros(SHAPE), **call)
    np.testing.assert_array_equal(got, make(chosen).sample(N, **call))


def test_a_plan_that_ends_before_the_data_keeps_the_noised_region(make):
    chosen = plan("ddim", 6, end=200.0)
    alpha, sigma = chosen.marginals[-1]
    z = np.empty((N, *SHAPE), np.float32)
    seeds, indices = noise_address(1, 0, N)
    get_kernel().normals(z, seeds=seeds, indices=indices, row=len(chosen.rows) - 1, stream=STREAM_KNOWN)
    got = make(chosen).sample(N, seed=1, known=KNOWN, mask=1.0)
    np.testing.assert_allclose(got, alpha * KNOWN + sigma * z, atol=2e-5)


def test_forms_of_known_and_mask():
    one = sampler(plan())
    drawn = one.sample(N, seed=4, known=np.stack([KNOWN[0]] * N), mask=np.stack([MASK[0]] * N))
    np.testing.assert_array_equal(one.sample(N, seed=4, known=KNOWN[0], mask=MASK[0]), drawn)
    np.testing.assert_array_equal(one.sample(N, seed=4, known=KNOWN[0].astype(np.float64), mask=MASK[:1]), drawn)
    half = np.zeros(SHAPE, bool)
    half[:, :2] = True
    drawn = one.sample(N, seed=4, known=KNOWN, mask=half)
    for mask in (half[0], half[:1], half.astype(int), [[1, 1, 0, 0, 0]] * 2):
        np.testing.assert_array_equal(one.sample(N, seed=4, known=KNOWN, mask=mask), drawn)
    np.testing.assert_array_equal(drawn[:, half], KNOWN[:, half])


def test_tensors_are_accepted_and_returned():
    torch = pytest.importorskip("torch")
    expected = sampler(plan()).sample(N, seed=4, known=KNOWN, mask=MASK)
    got = sampler(plan()).sample(N, seed=4, known=torch.from_numpy(KNOWN), mask=torch.from_numpy(MASK))
    np.testing.assert_array_equal(got, expected)
    noise = np.random.default_rng(5).standard_normal((N, *SHAPE)).astype(np.float32)
    tensor = sampler(plan()).sample(N, noise=torch.from_numpy(noise), seed=0, known=KNOWN, mask=MASK)
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_array_equal(tensor.numpy(), sampler(plan()).sample(N, noise=noise, seed=0, known=KNOWN, mask=MASK))
    assert (tensor.numpy()[MASK == 1] == KNOWN[MASK == 1]).all()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"mask": MASK}, ArgumentError, "mask is given without known"),
        ({"known": KNOWN}, ArgumentError, "known is given without mask"),
        ({"known": KNOWN[:2], "mask": MASK}, ArgumentError, r"known has shape \(2, 2, 5\); it must be \(2, 5\), .* or \(3, 2, 5\)"),
        ({"known": KNOWN[0, 0], "mask": MASK}, ArgumentError, r"known has shape \(5,\)"),
        ({"known": KNOWN, "mask": MASK[:2]}, ArgumentError, r"mask has shape \(2, 2, 5\); it must broadcast"),
        ({"known": KNOWN, "mask": np.ones((1, *MASK.shape))}, ArgumentError, "mask has shape"),
        ({"known": KNOWN, "mask": np.ones(4)}, ArgumentError, "mask has shape"),
        ({"known": np.where(KNOWN > 0, np.nan, KNOWN), "mask": MASK}, ArgumentError, "known has NaN or Inf"),
        ({"known": KNOWN, "mask": np.full(SHAPE, np.nan)}, ArgumentError, "mask has NaN or Inf"),
        ({"known": KNOWN, "mask": MASK * 2}, ArgumentError, r"mask has values outside 0\.\.1"),
        ({"known": KNOWN, "mask": -MASK}, ArgumentError, r"mask has values outside 0\.\.1"),
        ({"known": KNOWN.astype(np.int64), "mask": MASK}, ArgumentTypeError, "known has dtype int64; it must be floating"),
        ({"known": KNOWN, "mask": "left half"}, ArgumentTypeError, "mask has dtype <U9"),
        ({"known": KNOWN, "mask": [[1.0], [1.0, 0.0]]}, ArgumentTypeError, "mask is a list of parts that differ in shape"),
    ],
)
def test_what_does_not_fit_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        sampler(plan()).sample(N, seed=0, **given)


def test_a_request_that_does_not_fit_is_named():
    for given, message in (
        ({"mask": MASK[0]}, "mask of request 1 is given without known"),
        ({"known": KNOWN, "mask": MASK[0]}, "known of request 1 has shape"),
    ):
        with pytest.raises(ArgumentError, match=message):
            sampler(plan()).sample_requests([df.Request(seed=0), df.Request(seed=1, **given)])


def test_the_moments_of_a_gaussian_with_a_known_half():
    """For data N(0, C) the best network is linear, so each row maps the mean and the covariance of the state: the samples must have
    those moments. Replacing the known half is no exact conditioning; but the free half must lean to where the known one is."""
    covariance = np.array([[1.0, 0.8], [0.8, 1.0]])
    chosen = df.plan(LINEAR, "ddpm", 50, prediction_type="epsilon")
    gains = {
        float(row.timestep): sigma * np.linalg.inv(alpha**2 * covariance + sigma**2 * np.eye(2))
        for row, (alpha, sigma) in zip(chosen.rows, chosen.marginals, strict=False)
    }

    def best(x, t):
        return (x.astype(np.float64) @ gains[float(t[0])]).astype(np.float32)

    y, count = 1.5, 4000
    mean, spread = np.zeros(2), np.eye(2) * chosen.initial_scale**2
    for row, (alpha, sigma) in zip(chosen.rows, chosen.marginals[1:], strict=True):
        step = row.a * np.eye(2) + row.b * gains[float(row.timestep)]
        mean, spread = step @ mean, step @ spread @ step.T + row.s**2 * np.eye(2)
        mean[0], spread[0], spread[:, 0] = alpha * y, 0.0, 0.0
        spread[0, 0] = sigma**2
    got = df.Sampler(best, chosen, shape=(2,)).sample(count, seed=0, known=np.array([y, 0.0]), mask=np.array([1.0, 0.0]))
    np.testing.assert_array_equal(got[:, 0], np.float32(y))
    free = got[:, 1].astype(np.float64)
    deviation = np.sqrt(spread[1, 1])
    assert abs(free.mean() - mean[1]) < 5 * deviation / np.sqrt(count)
    assert abs(free.var() - spread[1, 1]) < 5 * spread[1, 1] * np.sqrt(2 / count)
    assert 0.5 * 0.8 * y < mean[1] < 1.05 * 0.8 * y  # the exact conditional mean is 0.8·y
