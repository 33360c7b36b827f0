"""Time grids, against diffusers and against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.solvers.spacing import checked, grid

STEPS = (1, 2, 3, 5, 7, 10, 30, 50, 99, 100, 333, 600, 999, 1000)


def timesteps(spacing, steps, train=1000, **options):
    schedule = df.Schedule.linear(train)
    return df.plan(schedule, "ddim", steps, prediction_type="epsilon", timestep_spacing=spacing, **options).timesteps


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_grids_are_those_of_diffusers(spacing, steps):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    theirs = scheduler.timesteps.numpy()
    # The peer's arange over floats sometimes has one timestep too many, −1.
    np.testing.assert_array_equal(timesteps(spacing, steps), theirs[:steps])
    assert np.all(theirs[steps:] == -1)


@pytest.mark.parametrize("train", [1, 2, 17, 1000])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_grids_fall_within_the_schedule(spacing, train):
    schedule = df.Schedule.linear(train)
    for steps in range(1, train + 1):
        t = grid(checked(schedule, spacing), schedule, steps)
        assert len(t) == steps
        assert np.all(np.diff(t) < 0)
        assert t[0] <= train - 1
        assert t[-1] >= 0
        np.testing.assert_array_equal(t, np.round(t))
        if spacing == "trailing" or (spacing == "linspace" and steps > 1):
            assert t[0] == train - 1


def test_leading_is_the_default_and_has_an_offset():
    np.testing.assert_array_equal(timesteps(None, 4), [750, 500, 250, 0])
    np.testing.assert_array_equal(timesteps(None, 4, steps_offset=1), [751, 501, 251, 1])


def test_custom_timesteps_are_kept():
    schedule = df.Schedule.linear()
    plan = df.plan(schedule, "ddim", prediction_type="epsilon", timesteps=[900.5, 20, 0.25])
    assert plan.timesteps.tolist() == [900.5, 20.0, 0.25]
    assert plan.steps == 3
    assert plan.marginals[0] == (schedule.alpha(900.5), schedule.sigma(900.5))
