"""The loop: seeds, batches, injected noise, guidance, and what bad input gets."""

import copy
import dataclasses
import os
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
    together = df.sample(halved, 7, 10, seed=3, **options)
    np.testing.assert_array_equal(df.sample(halved, 7, 10, seed=3, batch_size=2, **options), together)
    np.testing.assert_array_equal(df.sample(halved, 3, 10, seed=3, first_index=4, **options), together[4:])
    np.testing.assert_array_equal(df.sample(halved, 2, 10, seed=[9, 3], **options)[1], together[0])
    assert not np.array_equal(together[0], together[1])


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
        (2, 10, {"noise": np.full((2, 3, 5), np.nan)}, "noise has NaN"),
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


def changed(solver="ddim", **fields):
    plan = df.plan(KNOWN["schedule"], solver, 5, prediction_type="epsilon")
    return dataclasses.replace(plan, rows=tuple(dataclasses.replace(row, **fields) for row in plan.rows))


@pytest.mark.parametrize(
    ("fields", "message"), [({"log_s": (-1.0, 1.0)}, "predicts no variance"), ({"g": (1.0, 1.0, -1.0)}, "weighs 3 network outputs")]
)
def test_a_plan_that_the_model_cannot_serve_is_refused(fields, message):
    with pytest.raises(ArgumentError, match=message):
        df.Sampler(halved, changed(**fields), shape=(3, 5))


def test_a_plan_for_another_prediction_is_refused():
    model = df.load("digits")
    plan, other = (df.plan(model.schedule, "ddim", 5, prediction_type=p) for p in (model.prediction_type, "epsilon"))
    with pytest.raises(ArgumentError, match="predicts 'v_prediction'"):
        df.Sampler(model, other)
    with pytest.raises(ArgumentError, match="predicts 'v_prediction'"):
        df.Sampler(model, plan).sample_requests([df.Request(plan=other)])


def test_a_fractional_plan_names_the_way_out():
    model = df.load("digits")
    karras = [
        df.plan(
            model.schedule,
            "euler",
            5,
            prediction_type=model.prediction_type,
            timestep_spacing="karras",
            sigma_max=80.0,
            timestep_rounding=rounding,
        )
        for rounding in ("none", "nearest")
    ]
    with pytest.raises(ArgumentError, match="timestep_rounding='nearest'"):
        df.Sampler(model, karras[0]).sample_requests([df.Request(seed=0)])
    assert np.isfinite(df.Sampler(model, karras[1]).sample_requests([df.Request(seed=0)])).all()


def test_a_learned_variance_is_read_behind_the_prediction(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        def forward(self, x, t):
            return torch.cat([0.5 * x, torch.tanh(x) + 0.001 * t.float().reshape(-1, 1, 1, 1)], dim=1)

    model = df.export(
        Net().eval(),
        tmp_path / "net.onnx",
        shape=(2, 3, 3),
        schedule=KNOWN["schedule"],
        prediction_type="epsilon",
        variance="learned",
    )
    plan = changed(log_s=(-1.0, 0.3))
    fast = df.Sampler(model, plan).sample(3, seed=4)
    monkeypatch.setenv("DIFFUSE_FAST_KERNEL", "reference")
    np.testing.assert_allclose(fast, df.Sampler(model, plan).sample(3, seed=4), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_can_sample():
    # In a process of its own: the pool must have run before the fork, and pytest's own threads must not matter.
    code = """
import os, numpy as np, diffuse_fast as df
df.set_num_threads(2)
x = np.ones((2, 200_000), np.float32)
mine = df.step(x, None, df.Row(calls_network=False, a=0.5, s=1.0))
pid = os.fork()
if pid == 0:
    same = np.array_equal(df.step(x, None, df.Row(calls_network=False, a=0.5, s=1.0)), mine)
    os._exit(0 if same else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=280, check=True)
    assert done.stdout.strip() == "0"


def test_a_copy_of_a_sampler_has_slots_of_its_own():
    schedule = df.Schedule.linear()
    sampler = df.Sampler(lambda x, t: 0.1 * x, df.plan(schedule, "ddim", 2, prediction_type="epsilon"), shape=(3,))
    want = sampler.sample(2, seed=0)
    other = copy.copy(sampler)
    assert other._pool is not sampler._pool
    np.testing.assert_array_equal(other.sample(2, seed=0), want)
