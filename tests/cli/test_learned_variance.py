"""Improved DDPM from end to end: trained with L_hybrid, exported, sampled without torch, against the paper's equations."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("safetensors")
pytest.importorskip("onnxruntime")

import onnxruntime as ort

import diffuse_fast as df
from diffuse_fast.kernels.reference import STREAM_INITIAL, STREAM_ROW, normals

CONFIG = """
[data]
kind = "arrays"
path = "points.npy"
[network]
type = "MLP"
width = 32
depth = 1
[schedule]
type = "cosine"
num_train_timesteps = 40
[train]
steps = 80
batch_size = 32
warmup_steps = 1
learning_rate = 5e-3
ema_decay = 0.9
"""
STEPS = 8


def improved_ddpm(path, x, noises, times, a_bar):
    """Nichol & Dhariwal 2021: eq. 10 for the mean and eq. 15 for the variance, Σ = exp(v·log β + (1 − v)·log β̃), on the betas of
    the timesteps that are left (section 4), in float64; the network says ε, and 2·v − 1 behind it."""
    session = ort.InferenceSession(str(path))
    told = []
    for i, t in enumerate(times):
        given = {"x": x.astype(np.float32), "t": np.full(len(x), t, np.int64)}
        (output,) = session.run(None, given)
        epsilon, v = np.split(output.astype(np.float64), 2, axis=1)
        now, after = a_bar[int(t)], a_bar[int(times[i + 1])] if i + 1 < len(times) else 1.0
        beta = 1 - now / after
        x0 = np.clip((x - np.sqrt(1 - now) * epsilon) / np.sqrt(now), -1, 1)
        mean = np.sqrt(after) * beta / (1 - now) * x0 + np.sqrt(1 - beta) * (1 - after) / (1 - now) * x
        if i + 1 == len(times):
            return mean, told
        share, small = (v + 1) / 2, beta * (1 - after) / (1 - now)
        told.append(share)
        x = mean + np.exp(share * np.log(beta) + (1 - share) * np.log(small)) ** 0.5 * noises[i]


def test_a_learned_variance_from_training_to_samples(run, tmp_path):
    rng = np.random.default_rng(0)
    np.save("points.npy", rng.choice([-0.7, 0.7], (256, 1)) + 0.1 * rng.standard_normal((256, 2)))
    (tmp_path / "p.toml").write_text(CONFIG)
    trained = run("train", "p.toml", "--out", "o", "--objective", "hybrid")
    assert trained.exit_code == 0, trained.stderr
    path = tmp_path / "o" / "model.onnx"
    model = df.load(path)
    assert model.variance == "learned_range" and model.output_shape == (4,)

    code = f"""
import sys, numpy as np, diffuse_fast as df
x = df.sample("o/model.onnx", 16, {STEPS}, solver="ddpm", variance_type="learned_range", clip=(-1, 1), seed=3)
np.save("x.npy", x)
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    times = df.plan(model.schedule, "ddpm", STEPS, prediction_type="epsilon", variance_type="learned_range").timesteps
    # The noise is a function of (seed, sample, row); here from the oracle.
    start, *noises = (
        np.array([normals(2, seed=3, index=i, row=row, stream=stream) for i in range(16)])
        for row, stream in ((0, STREAM_INITIAL), *((row, STREAM_ROW) for row in range(STEPS)))
    )
    expected, told = improved_ddpm(path, start, noises, times, model.schedule.alpha(np.arange(40)) ** 2)
    np.testing.assert_allclose(np.load("x.npy"), expected, rtol=0, atol=1e-5)
    assert np.std(told) > 1e-3  # v is what the network says of a point, not a constant

    drawn = run(
        "sample",
        "o/model.onnx",
        "-n",
        16,
        "--steps",
        STEPS,
        "--solver",
        "ddpm",
        "--option",
        "variance_type=learned_range",
        "--clip=-1,1",
        "--seed",
        3,
        "--out",
        "cli.npy",
    )
    assert drawn.exit_code == 0, drawn.stderr
    np.testing.assert_array_equal(np.load("cli.npy"), np.load("x.npy"))
