"""Who wins a comparison, on a clock that stands still unless a run moves it: no time is taken here."""

from __future__ import annotations

import gc
import itertools

import numpy as np
import pytest

from diffuse_fast.tuning.ab_timing import MARGIN, MAX_TIME_FACTOR, SIGNIFICANCE, compare, min_rounds, p_value


class Track:
    """Runs that take what they are said to take, on a clock of their own. ``log`` has each call."""

    def __init__(self, *costs):
        self.now, self.log = 0.0, []
        self.runs = [lambda i=i, cost=cost: self._run(i, cost) for i, cost in enumerate(costs)]

    def _run(self, i, cost):
        self.log.append(i)
        self.now += cost(self.now) if callable(cost) else cost

    def compare(self, seconds=4.0, **options):
        return compare(self.runs, seconds, **{"clock": lambda: self.now, "wait_idle": lambda: None, **options})


def noisy(rng, cost, sigma):
    return lambda now: cost * float(np.exp(sigma * rng.standard_normal()))


def turns(found):
    return [len(values) for values in found.times]


@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.4])
def test_noise_does_not_displace_the_first(sigma):
    displaced = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        displaced += Track(*(noisy(rng, 0.03, sigma) for _ in range(6))).compare().winner != 0
    assert displaced <= 1  # the chance of a decision; what it wins would cost nothing


@pytest.mark.parametrize(("others", "seconds"), [(27, 10.0), (1, 5.0)])
def test_the_p_value_is_that_of_the_complete_decision(others, seconds):
    """It was that of each candidate, each time that was looked at it: of 27 one displaced the first four times in a hundred."""
    displaced = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        displaced += Track(*[noisy(rng, 0.1, 0.3)] * (1 + others)).compare(seconds, seed=seed).winner != 0
    assert displaced <= 200 * SIGNIFICANCE


def test_noise_never_takes_what_is_slower():
    for seed in range(100):
        rng = np.random.default_rng(seed)
        assert Track(noisy(rng, 0.03, 0.2), *(noisy(rng, 0.033, 0.2) for _ in range(5))).compare().winner == 0


def test_a_tie_keeps_the_first():
    found = Track(1 / 32, 1 / 32, 1 / 32).compare()  # which a clock adds up without rounding
    assert found.winner == 0 and found.won(1) == 0 and found.gain(1) == 1.0
    assert Track(0.03, 0.03 * (1 - MARGIN) + 1e-4).compare().winner == 0  # less than the margin
    assert Track(0.03, 0.03 * (1 - MARGIN) - 1e-4).compare().winner == 1


def test_what_is_surely_faster_is_found():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        costs = [0.03, 0.031, 0.022, 0.06, 0.03]
        found = Track(*(noisy(rng, cost, 0.1) for cost in costs)).compare()
        assert found.winner == 2
        assert found.gain(2) == pytest.approx(30 / 22, rel=0.15)


def test_of_several_significantly_faster_candidates_the_fastest_wins():
    assert Track(1.0, 0.8, 0.78, 0.79).compare().winner == 2


def test_a_bad_spell_of_the_machine_is_survived():
    # The first is twice as slow in a third of the time, and then slower than the other.
    found = Track(lambda now: 0.04 if now % 1.5 < 0.5 else 0.02, 0.03).compare()
    assert found.winner == 0


def test_two_bad_rounds_among_ten_are_outlived():
    turn = iter(range(1000))
    # Two calls tell how long one takes; then the third and the sixth round are bad.
    found = Track(0.5, lambda now: 0.9 if next(turn) in (4, 7) else 0.39).compare()
    assert found.winner == 1
    assert (found.won(1), turns(found)) == (15, [17, 17])  # at the third look, after as many rounds as two may be lost in


def test_what_falls_behind_leaves_and_the_first_stays():
    track = Track(1.0, 3.0, 0.5, 0.52)
    found = track.compare(4.0)
    assert found.winner == 2
    # The third is the fastest after three rounds; the second leaves, the fourth is near, the first is the yardstick.
    assert turns(found) == [11, 3, 11, 11]
    assert track.log.count(1) == 2 + 3  # two calls tell how long one takes


def test_the_time_is_bounded():
    for cost in (1e-6, 1e-3, 0.1, 1.0, 7.0):
        for seconds in (0.01, 4.0):
            track = Track(*[cost] * 4)
            track.compare(seconds)
            a_round = 4 * (1.1 * (0.02 + cost) + cost)  # the turn, and the calls before it
            assert track.now <= 8 * cost + MAX_TIME_FACTOR * seconds + a_round
            if cost < 0.1 and seconds == 4.0:  # the rounds that it needs fit
                assert track.now <= 8 * cost + seconds + a_round


def test_too_few_rounds_change_nothing():
    assert Track(7.0, 1.0).compare(0.01).winner == 0
    assert Track(0.07, 0.01).compare(0.01).winner == 0
    assert Track(0.07, 0.01).compare(1.0).winner == 1


def test_every_turn_begins_rested():
    track = Track(0.15, 0.15, 0.15)
    found = track.compare(1.0, wait_idle=lambda: track.log.append("rest"))
    assert track.log[6:] == [entry for i in track.log[7::2] for entry in ("rest", i)]
    assert len(track.log[7::2]) == sum(turns(found))


def test_a_single_candidate_is_timed_and_wins():
    found = Track(0.03).compare()
    assert found.winner == 0 and turns(found) == [min_rounds(1)]


def test_each_round_has_an_order_of_its_own():
    """It was the last one turned by a place, so that each ran after the same one nearly always."""

    def rounds(seed):
        track = Track(*[0.15] * 4)  # long enough to be called once a turn
        track.compare(20.0, seed=seed)
        return np.reshape(track.log[8:], (-1, 4))

    ran = rounds(0)
    assert (np.sort(ran, axis=1) == [0, 1, 2, 3]).all()
    followed = {(int(before), int(after)) for order in ran for before, after in itertools.pairwise(order)}
    assert followed == set(itertools.permutations(range(4), 2))
    np.testing.assert_array_equal(rounds(0), ran)
    assert (rounds(1)[:5] != ran[:5]).any()


def test_what_others_took_is_added_to_the_margin_of_those_they_spared():
    # With half of the cores gone, what runs on all of them takes twice as long as it would, what runs on half of them does not.
    for cost, on_fewer_cores, winner in ((0.02, {1}, 0), (0.02, (), 1), (0.012, {1}, 1)):
        found = Track(0.03, cost).compare(other_load=lambda: 0.5, on_fewer_cores=on_fewer_cores)
        assert found.winner == winner and found.other_load == 0.5


def test_what_loses_little_and_wins_much_is_found():
    # The second core is taken by others in every third round. By the number of rounds alone it would be sure after a hundred.
    turn = iter(range(1000))
    found = Track(0.457, lambda now: 0.467 if next(turn) % 3 == 0 else 0.30).compare()
    assert found.winner == 1
    assert found.won(1) < 0.75 * len(found.times[1]) and len(found.times[1]) < 50


def test_chance_is_that_of_all_signs():
    rng = np.random.default_rng(5)
    for n in range(1, 11):
        ratios = np.exp(rng.normal(0.03, 0.08, n))
        counts = [max(-10, min(10, round(100 * float(np.log(r))))) for r in ratios]
        sums = [sum(s * c for s, c in zip(signs, counts, strict=True)) for signs in itertools.product((-1, 1), repeat=n)]
        assert p_value(ratios) == pytest.approx(np.mean(np.array(sums) >= sum(counts)))


def test_chance_of_rounds_that_count_alike_is_that_of_a_coin():
    binom = pytest.importorskip("scipy.stats").binom
    for n in range(1, 300, 7):
        for won in {0, n // 2, 2 * n // 3, n}:
            ratios = np.array([1.5] * won + [1 / 1.5] * (n - won))
            assert p_value(ratios) == pytest.approx(binom.sf(won - 1, n, 0.5))


def test_a_win_needs_more_rounds_the_more_there_are():
    assert [min_rounds(others) for others in (0, 1, 5, 27)] == [9, 9, 12, 14]
    for others in range(1, 40):
        enough = SIGNIFICANCE / 5 / others  # each is looked at five times
        assert p_value(np.full(min_rounds(others), 1.5)) <= enough < p_value(np.full(min_rounds(others) - 1, 1.5))
    for seconds, winner in ((11 / MAX_TIME_FACTOR, 0), (13 / MAX_TIME_FACTOR, 1)):  # of 15 times that, eight rounds take 12
        assert Track(1.0, 0.5).compare(seconds).winner == winner


def test_what_differs_by_nothing_is_chance():
    assert p_value(np.ones(20)) == 1.0 and p_value(np.full(20, 1.004)) == 1.0


def test_garbage_is_collected_again_after_it_and_after_a_failure():
    Track(0.03, 0.03).compare()
    assert gc.isenabled()
    failing = Track(0.03, 0.03)
    failing.runs.append(lambda: 1 / 0 if len(failing.log) > 20 else None)
    with pytest.raises(ZeroDivisionError):
        failing.compare()
    assert gc.isenabled()
