"""Slots that are kept from call to call: each set belongs to one plan, and keeps nothing of another call."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.kernels import get_kernel
from diffuse_fast.kernels.reference import STREAM_ROW
from diffuse_fast.kernels.step import noise_address

SCHEDULE = df.Schedule.linear()
SHAPE = (3, 5)


def halved(x, t):
    return (0.5 * x).astype(np.float32)


def plan(solver, steps, **options):
    return df.plan(SCHEDULE, solver, steps, prediction_type="epsilon", **options)


def test_two_plans_of_one_model_share_no_slots():
    short, long = plan("ddim", 4), plan("ddpm", 7)
    sampler = df.Sampler(halved, long, shape=SHAPE)
    sampler.sample(2, seed=1)  # leaves slots of the long plan
    other = sampler.with_plan(short)
    np.testing.assert_array_equal(other.sample(2, seed=1), df.Sampler(halved, short, shape=SHAPE).sample(2, seed=1))
    np.testing.assert_array_equal(sampler.sample(2, seed=1), df.Sampler(halved, long, shape=SHAPE).sample(2, seed=1))


@pytest.mark.parametrize("solver", ["dpmpp_2m_sde", "dpmpp_3m_sde"])
def test_given_noise_is_that_of_the_generator_beside_registers(solver):
    """Their first rows read fewer registers than the plan has, and the given noise comes behind all of them."""
    chosen = plan(solver, 6)
    assert any(row.s and len(row.c) < chosen.registers for row in chosen.rows)
    seeds, indices = noise_address(5, 0, 2)

    def generated(i):
        out = np.empty((2, *SHAPE), np.float32)
        get_kernel().normals(out, seeds=seeds, indices=indices, row=i, stream=STREAM_ROW)
        return out

    sampler = df.Sampler(halved, chosen, shape=SHAPE)
    np.testing.assert_allclose(sampler.sample(2, seed=5, step_noise=generated), sampler.sample(2, seed=5), atol=1e-5)
