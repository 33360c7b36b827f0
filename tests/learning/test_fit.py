"""The parts of the fit by themselves: how far a step goes, and how near to its neighbours a time may come."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.learning import fit as module
from diffuse_fast.learning.fit import MOST_MOVE, TIME_PROBE, Parameters, _around, fit
from diffuse_fast.learning.table import Multistep

TIMES = np.array([900.0, 880.0, 400.0, 390.0])


def method(times=TIMES) -> Multistep:
    n = len(times)
    return Multistep(np.array(times), np.ones(n), np.eye(n))


class Scripted:
    """A task with given distances. It records how far the first weight moved for every method tried."""

    schedule = df.Schedule.cosine()

    def __init__(self, distances):
        self.distances, self.moves = list(distances), []

    def distance_of(self, tried, samples):
        self.moves.append(tried.state[0] - 1.0)
        return self.distances.pop(0)


def fitted(monkeypatch, distances, iterations):
    """A fit by steps (JᵀJ + λ·diag(JᵀJ))·by = −Jᵀr, where JᵀJ = 1 and Jᵀr = −1 for the first weight alone: by = 1/(1 + λ)."""

    def normal_equations(task, best, free, samples):
        gradient = np.zeros(free.count)
        gradient[free.steps] = -1.0
        return np.eye(free.count), gradient

    monkeypatch.setattr(module, "_normal_equations", normal_equations)
    task = Scripted(distances)
    found, distance = fit(task, method(), history=0, iterations=iterations, samples=4, report=lambda line: None)
    return task, found, distance


def test_a_step_that_fails_is_tried_shorter_until_one_helps(monkeypatch):
    task, found, distance = fitted(monkeypatch, [10.0, 11.0, 10.5, 9.0], iterations=1)
    tried = 1.0 / np.array(task.moves[1:]) - 1.0
    assert tried[0] < 0.1 and (np.diff(tried) > 0).all()
    assert tried[1] / tried[0] == pytest.approx(tried[2] / tried[1], rel=1e-6)
    assert distance == pytest.approx(9.0)
    assert found.state[0] - 1.0 == pytest.approx(task.moves[-1])


def test_a_step_that_helps_makes_the_next_one_bolder(monkeypatch):
    task, _, distance = fitted(monkeypatch, [10.0, 8.0, 6.0, 4.0], iterations=3)
    steps = np.diff([0.0, *task.moves[1:]])
    tried = 1.0 / steps - 1.0
    assert (np.diff(tried) < 0).all() and tried[-1] > 0
    assert (distance, len(task.moves)) == (pytest.approx(4.0), 4)


def test_a_fit_that_nothing_helps_ends_where_it_began(monkeypatch):
    task, found, distance = fitted(monkeypatch, [10.0] + [10.0] * 40, iterations=5)
    assert distance == pytest.approx(10.0)
    np.testing.assert_array_equal(found.state, method().state)
    assert 1e5 < 1.0 / task.moves[-1] < 1e7  # the last one it tried was next to no step
    assert len(task.moves) < 20


@pytest.mark.parametrize("size", [1e-3, 1e3])
def test_a_fit_ends_where_a_step_gains_little_of_what_is_left(monkeypatch, size):
    task, _, distance = fitted(monkeypatch, [size * part for part in (1.0, 0.9, 0.899, 0.5)], iterations=3)
    assert (distance, len(task.moves)) == (pytest.approx(0.899 * size), 3)


def test_times_keep_their_order_and_a_distance_to_their_neighbours():
    free = Parameters.of(4, 0)
    gaps = -np.diff(TIMES)
    for by, expected in (
        (-1e4, [*(TIMES[:-1] - MOST_MOVE * gaps), 5.0]),  # down: no further than a part of the gap below, the last one to the end
        (1e4, [990.0, *(TIMES[1:] + MOST_MOVE * gaps)]),
        (3.0, TIMES + 3.0),
    ):
        step = np.zeros(free.count)
        step[:4] = by
        np.testing.assert_allclose(free.moved(method(), step, (5.0, 990.0)).times, expected, rtol=1e-12)
    # The worst that two neighbours can do still keeps them apart.
    step = np.zeros(free.count)
    step[:4] = [-1e4, 1e4, -1e4, 1e4]
    assert (np.diff(free.moved(method(), step, (5.0, 990.0)).times) < 0).all()


@pytest.mark.parametrize(("i", "gap"), [(0, 20.0), (1, 20.0), (2, 10.0), (3, 10.0)])
def test_a_time_is_probed_by_a_part_of_its_nearer_gap(i, gap):
    options = {"timestep_rounding": "none"}
    task = SimpleNamespace(schedule=df.Schedule.cosine(), plan_options=options)
    low, high = _around(task, TIMES, i)
    assert (TIMES[i] - low, high - TIMES[i]) == (pytest.approx(TIME_PROBE * gap), pytest.approx(TIME_PROBE * gap))
    options["timestep_rounding"] = "round"
    low, high = _around(task, TIMES + 0.5, i)
    assert low == int(low) and high == int(high) and high - low >= 4


def test_weights_reach_back_as_far_as_the_history():
    free = Parameters.of(4, 1)
    assert list(zip(free.rows.tolist(), free.columns.tolist(), strict=True)) == [
        (0, 0),
        (1, 0),
        (1, 1),
        (2, 1),
        (2, 2),
        (3, 2),
        (3, 3),
    ]
