"""Slots: requests come and go between ticks, and each sample is bit for bit what it is alone."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.engine.loop import slots_class
from diffuse_fast.engine.request import Batch, Defaults
from diffuse_fast.errors import ArgumentError, NonFiniteError
from diffuse_fast.kernels.step import noise_address

SHAPE = (2, 5)
LINEAR = df.Schedule.linear()


def network(x, t, label):
    """Elementwise and exact, so that a sample does not depend on its batch."""
    scale = (1 + np.asarray(t, np.float64) / 1000).astype(np.float32)[:, None, None]
    return np.clip(x * scale + label.astype(np.float32)[:, None, None], -2, 2)


def plan(solver="ddim", steps=6, **options):
    return df.plan(LINEAR, solver, steps, prediction_type="epsilon", **options)


CHURNED = plan("heun", 5, s_churn=3.0, s_tmax=50.0, timestep_spacing="karras")
# Of other lengths, registers, noise and guidance; with rows that do not call the network.
ASKED = [
    df.Request(seed=1, cond={"label": 1}),
    df.Request(plan=plan("dpmpp_3m_sde", 9), seed=2, cond={"label": 2}),
    df.Request(plan=CHURNED, seed=3, cond={"label": 3}),
    df.Request(plan=plan("ddpm", 4), seed=4, cond={"label": 4}, guidance_scale=2.0, negative_cond={"label": 0}),
    df.Request(plan=plan("unipc", 7), seed=5, cond={"label": 5}),
    df.Request(plan=plan("ddim", 3), seed=6, cond={"label": 6}, known=np.full(SHAPE, 0.5, np.float32), mask=[[1.0], [0.0]]),
]


@pytest.fixture(params=["cpu", "device", "device, no graph"])
def sampler(request, mocked):
    chosen = plan("ddpm", 5)
    if request.param == "cpu":
        return df.Sampler(network, chosen, shape=SHAPE)
    return mocked(network, chosen, shape=SHAPE, graph="tick" if request.param == "device" else "none").sampler


def slots_of(sampler, capacity):
    return slots_class(sampler.setup)(sampler.setup, capacity, Defaults(sampler.plan, 1.0))


def alone(asked):
    return df.Sampler(network, plan("ddpm", 5), shape=SHAPE).sample_requests([asked])[0]


def test_samples_that_come_and_go_are_those_drawn_alone(sampler):
    slots, waiting, results = slots_of(sampler, 2), list(enumerate(ASKED)), {}
    running = {}
    while waiting or running:
        while waiting and len(running) < 2:
            number, asked = waiting.pop(0)
            running[slots.admit(asked, number)] = number
        assert slots.tick()
        for slot in [slot for slot in running if slots.done(slot)]:
            results[running.pop(slot)] = slots.result(slot)
            slots.retire(slot)
    slots.check()
    for number, asked in enumerate(ASKED):
        np.testing.assert_array_equal(results[number], alone(asked))


def test_a_sample_that_is_retired_half_way_disturbs_no_other(sampler):
    slots = slots_of(sampler, 3)
    first, second = slots.admit(ASKED[1]), slots.admit(ASKED[4])
    slots.tick()
    slots.tick()
    slots.retire(first)
    third = slots.admit(ASKED[2])
    slots.run()
    np.testing.assert_array_equal(slots.result(second), alone(ASKED[4]))
    np.testing.assert_array_equal(slots.result(third), alone(ASKED[2]))


def test_a_sample_that_joins_another_on_its_way(sampler):
    slots = slots_of(sampler, 3)
    first = slots.admit(ASKED[1])
    for _ in range(4):
        slots.tick()
    second = slots.admit(ASKED[4])
    slots.tick()
    slots.retire(first)
    assert slots.admit(ASKED[3]) == first
    slots.run()
    np.testing.assert_array_equal(slots.result(second), alone(ASKED[4]))
    np.testing.assert_array_equal(slots.result(first), alone(ASKED[3]))


def test_nothing_is_left_to_do_when_all_are_retired(sampler):
    slots = slots_of(sampler, 1)
    slots.admit(ASKED[0])
    slots.tick()
    slots.retire(0)
    assert not slots.tick()
    slots.run()


@pytest.mark.parametrize("place", ["cpu", "device"])
def test_a_bad_sample_that_was_retired_is_not_blamed_on_the_next(mocked, place):
    def broken(x, t, label):
        return np.where(label == 3, np.float32(np.nan), 1)[:, None, None] * network(x, t, label)

    sampler = df.Sampler(broken, plan(), shape=SHAPE) if place == "cpu" else mocked(broken, plan(), shape=SHAPE).sampler
    slots = slots_of(sampler, 1)
    slots.admit(ASKED[2])
    try:
        slots.tick()
    except NonFiniteError:
        assert place == "cpu"
    slots.retire(0)
    slots.admit(ASKED[1])
    slots.run()
    np.testing.assert_array_equal(slots.result(0), alone(ASKED[1]))


def test_a_batch_in_lockstep_that_is_joined_on_its_way(sampler):
    chosen = plan("dpmpp_2m", 6)
    seeds, indices = noise_address(7, 0, 2)
    slots = slots_of(sampler, 2)
    slots.admit_batch(Batch(chosen, seeds, indices, [{"label": np.array([1, 2])}]))
    slots.tick()
    slots.tick()
    slots.retire(0)
    other = slots.admit(ASKED[1])
    slots.run()
    np.testing.assert_array_equal(slots.result(other), alone(ASKED[1]))
    np.testing.assert_array_equal(slots.result(1), alone(df.Request(plan=chosen, seed=7, index=1, cond={"label": 2})))


@pytest.mark.parametrize("chosen", [plan("dpmpp_2m", 6), CHURNED], ids=["multistep", "churn"])
def test_requests_of_one_plan_run_in_lockstep_with_the_same_bits(sampler, chosen):
    slots = slots_of(sampler, 3)
    asked = [df.Request(plan=chosen, seed=i, cond={"label": i}) for i in range(3)]
    for one in asked:
        slots.admit(one)
    ticks = slots.ticks
    slots.run()
    assert ticks >= chosen.nfe
    np.testing.assert_array_equal(slots.results(), [alone(one) for one in asked])


def test_rows_behind_the_last_call_after_another_sample_left(sampler):
    """A slot that has only rows without a call left, in a table that was made anew."""
    base = plan("ddim", 3)
    last = base.marginals[-1]
    tail = [df.Row(calls_network=False, a=2.0), df.Row(calls_network=False, a=1.0, s=0.5)]
    longer = df.Plan(
        solver="tail",
        steps=3,
        prediction_type="epsilon",
        rows=(*base.rows, *tail),
        registers=0,
        initial_scale=1.0,
        marginals=(*base.marginals, last, last),
    )
    slots, asked = slots_of(sampler, 2), df.Request(plan=longer, seed=8, cond={"label": 2})
    other, tailed = slots.admit(ASKED[1]), slots.admit(asked)
    for _ in range(3):
        slots.tick()
    slots.retire(other)
    slots.run()
    np.testing.assert_array_equal(slots.result(tailed), alone(asked))


def test_what_cannot_be_admitted_or_retired_is_refused(sampler):
    slots = slots_of(sampler, 1)
    with pytest.raises(ArgumentError, match="slot 0 is free"):
        slots.retire(0)
    slots.admit(ASKED[0])
    with pytest.raises(ArgumentError, match="all 1 slots are taken"):
        slots.admit(ASKED[0])
    slots.run()
    assert slots.done(0) and not slots.tick()


def test_nan_names_the_number_of_the_request(mocked):
    def broken(x, t, label):
        return np.where(label[:, None, None] == 3, np.float32(np.nan), network(x, t, label))

    for sampler in (df.Sampler(broken, plan(), shape=SHAPE), mocked(broken, plan(), shape=SHAPE).sampler):
        slots = slots_of(sampler, 2)
        slots.admit(df.Request(seed=0, cond={"label": 1}), 40)
        slots.admit(df.Request(plan=plan("ddim", 9), seed=0, cond={"label": 3}), 41)
        with pytest.raises(NonFiniteError) as error:
            slots.run()
        assert (error.value.row, error.value.samples) == (0, (41,))


@pytest.mark.parametrize("place", ["cpu", "device"])
@pytest.mark.parametrize("shared", [True, False], ids=["lockstep", "mixed"])
def test_the_others_go_on_when_a_bad_sample_is_retired(mocked, place, shared):
    def broken(x, t, label):
        return np.where((label == 3) & (np.asarray(t) < 600), np.float32(np.nan), 1)[:, None, None] * network(x, t, label)

    chosen = plan("ddpm", 6)
    sampler = df.Sampler(broken, chosen, shape=SHAPE) if place == "cpu" else mocked(broken, chosen, shape=SHAPE).sampler
    asked = [df.Request(plan=chosen if shared else plan("ddpm", 6 + i), seed=i, cond={"label": i}) for i in range(2, 5)]
    slots = slots_of(sampler, 3)
    taken = {slots.admit(one, number): one for number, one in enumerate(asked)}
    with pytest.raises(NonFiniteError) as error:
        slots.run()
    assert error.value.samples == (1,)
    slots.retire(1)
    slots.run()
    for slot in (0, 2):
        np.testing.assert_array_equal(slots.result(slot), alone(taken[slot]))
