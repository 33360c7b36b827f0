"""The loop: seeds, batches, injected noise, guidance, and what bad input gets."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, ArtifactNotFoundError, NonFiniteError

KNOWN = {"shape": (3, 5), "schedule": df.Schedule.linear(), "prediction_type": "epsilon"}


def halved(x, t):
    return (0.5 * x).astype(np.float32)


def test_a_sample_is_a_function_of_seed_and_index():
    options = {**KNOWN, "solver": "ddpm"}
    whole = df.sample(halved, 7, 10, seed=3, **options)
    np.testing.assert_array_equal(df.sample(halved, 7, 10, seed=3, batch_size=2, **options), whole)
    np.testing.assert_array_equal(df.sample(halved, 3, 10, seed=3, first_index=4, **options), whole[4:])
    np.testing.assert_array_equal(df.sample(halved, 2, 10, seed=[9, 3], **options)[1], whole[0])
    assert not np.array_equal(whole[0], whole[1])


@pytest.mark.parametrize("solver", ["ddim", "ddpm"])
def test_injected_noise_is_the_noise(solver):
    rng = np.random.default_rng(0)
    noise, steps = rng.standard_normal((2, 3, 5)), rng.standard_normal((10, 2, 3, 5))
    x = df.sample(halved, 2, 10, solver=solver, noise=noise, step_noise=lambda i: steps[i], **KNOWN)
    plan = df.plan(KNOWN["schedule"], solver, 10, prediction_type="epsilon")
    state = noise
    for i, row in enumerate(plan.rows):
        state = row.a * state + row.b * 0.5 * state + row.s * steps[i]
    np.testing.assert_allclose(x, state, atol=1e-5)


def test_guidance_combines_two_outputs():
    def shifted(x, t, shift):
        return (0.5 * x + shift[:, None, None]).astype(np.float32)

    noise = np.ones((2, 3, 5), np.float32)
    guided = df.sample(shifted, 2, 5, noise=noise, guidance_scale=3.0, cond={"shift": 1.0}, negative_cond={"shift": 0.5}, **KNOWN)
    plain = df.sample(shifted, 2, 5, noise=noise, cond={"shift": 3.0 * 1.0 - 2.0 * 0.5}, **KNOWN)
    np.testing.assert_allclose(guided, plain, atol=1e-5)


def test_two_threads_share_a_sampler():
    plan = df.plan(KNOWN["schedule"], "ddpm", 20, prediction_type="epsilon")
    sampler = df.Sampler(halved, plan, shape=(3, 5))
    alone = [sampler.sample(4, seed=s) for s in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for x, y in zip(pool.map(lambda s: sampler.sample(4, seed=s), range(8)), alone, strict=True):
            np.testing.assert_array_equal(x, y)


def test_nan_names_row_and_sample():
    def breaks(x, t):
        out = np.zeros_like(x)
        if t[0] < 500:
            out[1, 0, 0] = np.nan
        return out

    with pytest.raises(NonFiniteError, match="row 5") as caught:
        df.sample(breaks, 3, 10, seed=0, **KNOWN)
    assert caught.value.samples == (1,)


@pytest.mark.parametrize(
    ("n", "steps", "options", "message"),
    [
        (0, 10, {}, "n is 0"),
        (2, 0, {}, "steps"),
        (2, 10, {"solver": "dimm"}, "ddim"),
        (2, 10, {"seed": [1]}, "one seed per sample"),
        (2, 10, {"noise": np.zeros((2, 3))}, "noise has shape"),
        (2, 10, {"schedule": None}, "schedule"),
        (2, 10, {"prediction_type": None}, "prediction_type"),
        (2, 10, {"guidance_scale": 2.0}, "negative_cond"),
    ],
)
def test_bad_input_is_named(n, steps, options, message):
    with pytest.raises(ArgumentError, match=message):
        df.sample(halved, n, steps, **{**KNOWN, **options})


def test_an_unknown_model_is_named():
    with pytest.raises(ArtifactNotFoundError, match="digits"):
        df.sample("digit", 1, 5)


def test_importing_loads_no_framework():
    code = "import sys, diffuse_fast; print([m for m in ('torch', 'triton', 'onnx', 'onnxruntime') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
