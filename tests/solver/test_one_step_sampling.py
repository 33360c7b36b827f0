"""The one-step solvers sampled through the engine, in float32, against their tables run by the float64 oracle."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.kernels.reference import STREAM_INITIAL, STREAM_ROW, apply_row, normals

CASES = [
    ("consistency", {}), ("ddim_inverse", {}), ("dpm_2", {}), ("dpm_2", {"eta": 1.0}), ("dpmpp_2s", {}), ("dpmsolver_1s", {}),
    ("dpmsolver_2s", {"solver_type": "heun"}), ("dpmsolver_3s", {}), ("euler_ancestral", {}), ("euler_maruyama", {}),
    ("flow_euler", {}), ("flow_heun", {}), ("heun", {}), ("heun", {"s_churn": 3.0, "s_tmax": 20.0, "s_noise": 1.01}),
    ("langevin_pc", {}), ("lcm", {}), ("tcd", {}),
]  # fmt: skip


@pytest.mark.parametrize("shape", [(5,), (2, 3, 3)])
@pytest.mark.parametrize("clip", [None, (-0.5, 0.8)])
@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda v: v if isinstance(v, str) else "-".join(map(str, v)))
def test_the_engine_runs_the_table(name, options, clip, shape):
    flow = name.startswith("flow")
    schedule, kind = (df.Schedule.flow(), "flow") if flow else (df.Schedule.linear(), "epsilon")

    def network(x, t):
        level = np.asarray(t, np.float64).reshape(-1, *(1,) * (np.ndim(x) - 1)) / 1000
        return (np.tanh(0.7 * x + level) - 0.1 * x).astype(x.dtype)

    steps, seed = 6, 11
    arguments = {"prediction_type": kind, "clip": clip, **options}
    sampled = df.sample(
        network,
        2,
        steps,
        solver=name,
        seed=seed,
        shape=shape,
        schedule=schedule,
        **{**arguments, "clip": False if clip is None else clip},
    )
    plan = df.plan(schedule, name, steps, **arguments)
    size = int(np.prod(shape))
    for index in range(2):
        x = plan.initial_scale * normals(size, seed=seed, index=index, row=0, stream=STREAM_INITIAL).reshape(shape)
        registers = [None] * plan.registers
        for i, row in enumerate(plan.rows):
            z = normals(size, seed=seed, index=index, row=i, stream=STREAM_ROW).reshape(shape)
            outputs = [network(x[None], row.timestep)[0]] if row.calls_network else []
            x = apply_row(row, x, outputs, registers, z=z if row.stochastic else None)
        np.testing.assert_allclose(sampled[index], x, rtol=0, atol=1e-4 * max(1.0, np.abs(x).max()))
