"""The forward process: against float64, bit for bit across kernels, threads and shards, and against the theorem of the marginal."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.kernels import forward, get_kernel, kernels, num_threads, reference, set_num_threads

COMPILED = [k.name for k in kernels() if k.device == "cpu" and k.unavailable is None and k.name != "reference"]
SHAPES = [(1, 1), (3, 7), (5, 3, 11, 13), (2, 100_001)]  # the last uses two threads
SHARED = np.empty((2, 3), np.float32)
TARGETS = [None, (0.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (0.0, 0.0)]


def problem(shape, seed=0):
    rng = np.random.default_rng(seed)
    level = rng.uniform(0.01, 1.5, shape[0])
    return rng.standard_normal(shape).astype(np.float32), np.cos(level), np.sin(level)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kernel", COMPILED)
def test_it_computes_the_formula(kernel, shape, target, given):
    x0, alpha, sigma = problem(shape)
    noise = np.random.default_rng(1).standard_normal(shape).astype(np.float32) if given else None
    x_t, aim = forward(x0, alpha, sigma, target=target, seed=2**63 + 5, step=9, index=2**31, noise=noise, kernel=kernel)
    for i in range(shape[0]):
        z = noise[i].reshape(-1) if given else reference.normals(x0[i].size, seed=2**63 + 5, index=2**31 + i, row=9, stream=3)
        a, s = np.float64(np.float32(alpha[i])), np.float64(np.float32(sigma[i]))
        np.testing.assert_allclose(x_t[i].reshape(-1), a * x0[i].reshape(-1) + s * z, atol=5e-6)
        if target is None:
            assert aim is None
        else:
            np.testing.assert_allclose(aim[i].reshape(-1), target[0] * x0[i].reshape(-1) + target[1] * z, atol=5e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_kernel_thread_count_and_shard_gives_the_same_bits(shape):
    x0, alpha, sigma = problem(shape)
    call = {"target": (-sigma, alpha), "seed": 3, "step": 2**32 - 1}
    x_t, target = forward(x0, alpha, sigma, **call)
    threads = num_threads()
    try:
        for kernel in COMPILED:
            for set_num in (1, 2, 5):
                set_num_threads(set_num)
                again = forward(x0, alpha, sigma, **call, kernel=kernel)
                np.testing.assert_array_equal(again[0], x_t)
                np.testing.assert_array_equal(again[1], target)
    finally:
        set_num_threads(threads)
    for i in range(shape[0]):
        alone = forward(x0[i : i + 1], alpha[i], sigma[i], target=(-sigma[i], alpha[i]), seed=3, step=2**32 - 1, index=i)
        np.testing.assert_array_equal(alone[0][0], x_t[i])
        np.testing.assert_array_equal(alone[1][0], target[i])


def test_the_noise_is_not_that_of_sampling_and_changes_with_the_step():
    x0 = np.zeros((1, 64), np.float32)
    z = forward(x0, 0.0, 1.0, seed=4)[0]
    sampling = np.empty_like(x0)
    for stream in (0, 1, 2):
        get_kernel().normals(sampling, seeds=np.array([4], np.uint64), indices=np.array([0], np.uint32), row=0, stream=stream)
        assert not np.array_equal(z, sampling)
    assert not np.array_equal(z, forward(x0, 0.0, 1.0, seed=4, step=1)[0])


def test_v_prediction_and_x_t_recover_data_and_noise():
    """(x_t, v) is a rotation of (x0, z) by the angle of the level (Salimans & Ho 2022): rotate it back."""
    x0, alpha, sigma = problem((4, 1000))
    x_t, v = forward(x0, alpha, sigma, target=(-sigma, alpha), seed=8)
    z = forward(np.zeros_like(x0), 0.0, 1.0, seed=8)[0]
    a, s = alpha[:, None], sigma[:, None]
    np.testing.assert_allclose(a * x_t - s * v, x0, atol=2e-6)
    np.testing.assert_allclose(s * x_t + a * v, z, atol=2e-6)


def test_an_absent_term_is_not_read():
    x0 = np.full((1, 9), np.nan, np.float32)
    x_t, target = forward(x0, 0.0, 1.0, target=(0.0, 2.0), seed=1)
    assert np.isfinite(x_t).all()
    np.testing.assert_array_equal(target, 2 * x_t)


def test_it_writes_to_out():
    x0, alpha, sigma = problem((3, 7))
    place = np.empty_like(x0), np.empty_like(x0)
    result = forward(x0, alpha, sigma, target=(0.0, 1.0), seed=1, out=place)
    assert result[0] is place[0] and result[1] is place[1]
    expected = forward(x0, alpha, sigma, target=(0.0, 1.0), seed=1)
    np.testing.assert_array_equal(place[0], expected[0])
    np.testing.assert_array_equal(place[1], expected[1])


def test_tensors_return_tensors():
    torch = pytest.importorskip("torch")
    x0, alpha, sigma = problem((2, 3, 5))
    x_t, target = forward(torch.from_numpy(x0), alpha, sigma, target=(0.0, 1.0), seed=1)
    expected = forward(x0, alpha, sigma, target=(0.0, 1.0), seed=1)
    np.testing.assert_array_equal(x_t.numpy(), expected[0])
    np.testing.assert_array_equal(target.numpy(), expected[1])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"x0": np.ones((2, 3))}, "float64"),
        ({"x0": np.ones((2, 3), np.float16)}, "must be float32"),
        ({"x0": np.ones((0, 3), np.float32)}, "at least one element"),
        ({"x0": np.ones((4, 3), np.float32)[::2]}, "not contiguous"),
        ({"alpha": [1.0, 2.0, 3.0]}, "one per sample"),
        ({"sigma": np.nan}, "finite"),
        ({"seed": -1}, "seed"),
        ({"step": 2**32}, "step"),
        ({"index": 2**32 - 1}, "index"),
        ({"out": (np.ones((2, 3), np.float32), np.ones((2, 3), np.float32))}, "out must be a pair"),
        ({"out": (SHARED, SHARED), "target": (0.0, 1.0)}, "overlap"),
        ({"noise": np.ones((2, 4), np.float32)}, "x0's shape"),
    ],
)
def test_invalid_arguments_are_refused(change, message):
    call = {"x0": np.ones((2, 3), np.float32), "alpha": 0.6, "sigma": 0.8, **change}
    with pytest.raises(df.DiffuseFastError, match=message):
        forward(call.pop("x0"), call.pop("alpha"), call.pop("sigma"), **call)
