"""Bytes per element of a step: eager PyTorch's, counted per operator, and those of the compiled Triton kernel."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

import diffuse_fast as df  # noqa: E402
from bench.cases.traffic import bytes_per_element, eager_ddim, fused_bytes_per_element, run  # noqa: E402  # needs torch


@pytest.mark.parametrize(("rederive", "expected"), [(False, 64), (True, 92)])
def test_eager_ddim_moves_many_times_what_the_fused_step_does(rederive, expected):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(clip_sample=True)
    scheduler.set_timesteps(10)
    x, m = (torch.from_numpy(np.random.default_rng(k).standard_normal((2, 3, 8, 8)).astype(np.float32)) for k in range(2))

    def theirs():
        return scheduler.step(m, int(scheduler.timesteps[3]), x, use_clipped_model_output=rederive).prev_sample

    row = df.Plan.from_diffusers(scheduler, 10, rederive_epsilon=rederive).rows[3]
    # Multiplying, dividing and clamping move 8 bytes for each element in float32, adding two tensors 12.
    assert bytes_per_element(theirs) == expected
    assert fused_bytes_per_element(row) == 12
    # The same numbers from all three.
    squares = [float(scheduler.alphas_cumprod[int(t)]) for t in scheduler.timesteps[3:5]]
    ours = eager_ddim(x, m, *(v for a in squares for v in (a**0.5, (1 - a) ** 0.5)), rederive=rederive)
    np.testing.assert_allclose(ours, theirs(), atol=2e-6)
    np.testing.assert_allclose(df.step(x, m, row), theirs(), atol=2e-6)


def test_half_precision_moves_half_and_views_move_nothing():
    x = torch.zeros(4, 6, dtype=torch.float16)
    assert bytes_per_element(lambda: x.reshape(-1) + x.reshape(-1)) == 6
    assert bytes_per_element(lambda: x.T) == 0


def test_the_bench_prints_them():
    values = {line.name: line.value for line in run(0.0)}
    assert values["ddim, clipped, eager"] == 64
    assert values["ddim, clipped, fused"] == 12


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("name", ["ddim", "ddpm", pytest.param("multistep", marks=pytest.mark.slow)])
def test_the_compiled_kernel_moves_what_is_said(name, ahead_of_time):
    case = ahead_of_time.CASES[name]
    built = ahead_of_time.compiled(name, "step", 90)
    per_thread = 1024 // 128
    assert 16 * (built.count("LDG.E.128") + built.count("STG.E.128")) / per_thread == fused_bytes_per_element(case.rows[0])
