"""What the first state is a multiple of: N(0, 1) where a network of the family has seen it, else the noise of the first time."""

from __future__ import annotations

import math

import pytest

import diffuse_fast as df


@pytest.mark.parametrize(
    ("schedule", "prediction_type", "scale"),
    [
        (df.Schedule.linear(), "epsilon", 1.0),
        (df.Schedule.vp_sde(), "epsilon", 1.0),
        (df.Schedule.sub_vp_sde(), "epsilon", 1.0),  # not its sigma, 1 - alpha^2
        (df.Schedule.flow(), "flow", 1.0),
        (df.Schedule.ve_sde(sigma_min=0.01, sigma_max=50.0), "score", 50.0),
        (df.Schedule.edm(sigma_max=80.0, sigma_data=0.5), "edm", 80.0 / math.hypot(80.0, 0.5)),  # times the network's c_in
    ],
    ids=lambda value: getattr(value, "family", None),
)
def test_initial_scale(schedule, prediction_type, scale):
    plan = df.plan(schedule, "ddim", 4, prediction_type=prediction_type)
    assert plan.initial_scale == pytest.approx(scale, rel=1e-12)
