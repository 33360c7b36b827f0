"""Every application's shape is the flattened problem, bit for bit: solvers and noise see elements, not axes."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df

SHAPES = {
    "tabular (B, D)": (60,),
    "audio (B, C, L)": (2, 30),
    "images (B, C, H, W)": (3, 4, 5),
    "video (B, C, F, H, W)": (3, 2, 5, 2),
    "points (B, 3, N)": (3, 20),
}
CASES = [
    ("ddim", {}), ("ddim", {"eta": 1.0, "clip": (-0.5, 0.8)}), ("ddpm", {"clip": df.DynamicThreshold(0.9, 1.5)}),
    ("dpmpp_3m", {}), ("unipc", {"solver_order": 3}), ("pndm", {}), ("dpmsolver_3s", {}),
    ("heun", {"s_churn": 3.0, "s_tmax": 20.0}), ("dpmpp_2m_sde", {}), ("euler_ancestral", {}), ("langevin_pc", {}),
]  # fmt: skip


def network(x, t):
    return np.tanh(0.7 * x + np.float32(np.ravel(t)[0] / 1000)) - np.float32(0.1) * x


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(("solver", "options"), CASES, ids=lambda v: v if isinstance(v, str) else "-".join(v) or "plain")
def test_shape_is_only_a_shape(solver, options, shape):
    arguments = {"seed": 5, "schedule": df.Schedule.linear(), "prediction_type": "epsilon", "clip": False, **options}
    flat = df.sample(network, 3, 6, solver=solver, shape=(60,), **arguments)
    shaped = df.sample(network, 3, 6, solver=solver, shape=shape, **arguments)
    assert shaped.shape == (3, *shape)
    assert np.isfinite(shaped).all()
    assert np.array_equal(shaped.reshape(3, 60), flat)
