"""Compare the speed of several functions by interleaved timing. Only a significant win displaces the first one.

The candidates take turns in rounds, each round in a random order, so that other load on the machine and the after-effects of a
candidate affect all others alike. They are compared within rounds. Candidates that fall behind are dropped, so that the time is
spent on the close ones. The first one, the baseline, stays to the end.
"""

from __future__ import annotations

import gc
import itertools
import math
import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from . import wait_idle as idle

MARGIN = 0.02  # of the baseline's time, by which another must be faster
SIGNIFICANCE = 0.01  # probability that the baseline is displaced if all are equally fast
MAX_TIME_FACTOR = 15.0  # times the requested seconds, after which no round begins

# Times the requested seconds, at which the results are tested. If they were tested after each round, noise would be ahead by enough
# at some point (of two equally fast candidates, one won three times as often as it should). So the tests are few, and share the
# significance level.
_TESTS_AT = (1.0, 2.0, 4.0, 8.0, MAX_TIME_FACTOR)

_TURN = 0.02  # seconds of one turn
_TICK = 1e-7  # seconds; lower bound of a measured time
_WARM_UP = 0.1  # of a turn, and at least one call, before it: loads data and code into the caches and wakes threads
_LONG_CALL = 0.1  # seconds of a call that needs no warm-up
_MAX_ROUNDS = 1000
_CLEAR_LEAD = 0.1  # of the baseline's time: a candidate ahead by this gets more rounds
_MAX_WEIGHT = 10  # largest weight of a round, in percent of time won or lost
_FIRST_DROP = 3  # rounds before a candidate may be dropped
_BEHIND = 1.5  # dropped after n rounds: slower than the fastest by this over n, in four of five rounds


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of :func:`compare`.

    Attributes:
        times: For each candidate, seconds per call in each round that it took part in.
        winner: Index of the candidate to take.
        other_load: Share of the cores that other processes took meanwhile.
    """

    times: tuple[np.ndarray, ...]
    winner: int
    other_load: float = 0.0

    def ratios(self, i: int) -> np.ndarray:
        """Return the baseline's time over the candidate's, for each round that both took part in."""
        return self.times[0][: len(self.times[i])] / self.times[i]

    def gain(self, i: int) -> float:
        """Return the median of the ratios."""
        return float(np.median(self.ratios(i)))

    def won(self, i: int) -> int:
        """Return the number of rounds in which the candidate was faster than the baseline."""
        return int(np.sum(self.ratios(i) > 1))


def compare(
    runs: Sequence[Callable[[], object]],
    seconds: float,
    *,
    on_fewer_cores: Collection[int] = (),
    other_load: Callable[[], float] = lambda: 0.0,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
    wait_idle: Callable[[], object] = idle.wait_idle,
) -> Comparison:
    """Find the fastest candidate.

    The winner is the baseline ``runs[0]``, unless another candidate is faster by :data:`MARGIN` in the median of the rounds, and
    the difference is significant: if all were as fast as the baseline, the probability that any is ahead by as much is at most
    :data:`SIGNIFICANCE`. Each candidate gets this level divided by the number of candidates and of tests (Bonferroni;
    :func:`p_value`). Of several winners, the one with the smallest median is taken. For candidates on fewer cores than the
    baseline, the load of other processes is added to the margin, because it may have slowed the baseline only.

    Args:
        runs: Functions to time, without arguments. The first one is the baseline.
        seconds: Time to spend, if it is enough for the rounds that a significant win needs. Otherwise, and while a candidate is a
            tenth ahead but not significantly, up to :data:`MAX_TIME_FACTOR` times as much.
        on_fewer_cores: Indices of the candidates that use fewer cores than the baseline.
        other_load: Returns the share of the cores that other processes have taken so far.
        seed: Seed of the orders of the rounds.
        clock: Returns the time in seconds.
        wait_idle: Waits before each turn until the threads of the previous candidate have stopped spinning.
    """
    turns = [_calls_of_a_turn(run, clock) for run in runs]
    times: list[list[float]] = [[] for _ in runs]
    left, rounds = list(range(len(runs))), 0
    order, due = random.Random(seed), [seconds * n for n in _TESTS_AT]
    begin = clock()
    collecting = gc.isenabled()
    gc.disable()
    try:
        while rounds == 0 or _goes_on(times, left, rounds, clock() - begin, due):
            for i in order.sample(left, len(left)):
                wait_idle()
                times[i].append(_turn(runs[i], *turns[i], clock))
            rounds += 1
            if rounds >= _FIRST_DROP:
                left = _close(left, times, rounds)
    finally:
        if collecting:
            gc.enable()
    found = Comparison(tuple(np.array(values) for values in times), 0, other_load())
    return Comparison(found.times, _winner(found, [i for i in left if i], on_fewer_cores), found.other_load)


def min_rounds(others: int) -> int:
    """Return the smallest number of rounds in which a win over the baseline can be significant, among so many candidates."""
    return next(n for n in itertools.count(1) if 0.5**n <= _level(others))


def _level(others: int) -> float:
    """Return the significance level of each of so many candidates."""
    return SIGNIFICANCE / len(_TESTS_AT) / max(1, others)


def p_value(ratios: np.ndarray) -> float:
    """Return the probability that a candidate as fast as the baseline is ahead by as much as this one.

    Under this hypothesis the sign of each round is random (Fisher's sign-flip permutation test). The weight of a round is the
    difference in percent, at most ten, so that a round in which the machine stalled weights no more than any lost round.

    Args:
        ratios: The baseline's time over the candidate's, for each round.
    """
    weights = np.clip(np.rint(100 * np.log(ratios)), -_MAX_WEIGHT, _MAX_WEIGHT).astype(int)
    sums = np.ones(1)  # probability of each sum of the signed weights, from the smallest to the largest
    for weight in np.abs(weights):
        sums = np.convolve(sums, [0.5, *[0.0] * (2 * weight - 1), 0.5]) if weight else sums
    return float(sums[int(np.abs(weights).sum() + weights.sum()) :].sum())


def _goes_on(times: list[list[float]], left: list[int], rounds: int, spent: float, due: list[float]) -> bool:
    """Return whether to run another round. ``due`` has the times of the tests to come."""
    if rounds < min_rounds(len(times) - 1):
        return spent < due[-1]
    if len(left) == 1 or rounds >= _MAX_ROUNDS:
        return False
    if spent < due[0]:
        return True
    due[:] = [at for at in due if at > spent]
    return bool(due) and _open(times, left)


def _open(times: list[list[float]], left: list[int]) -> bool:
    """Return whether the fastest has a clear lead over the baseline that is not yet significant, as after a few noisy rounds."""
    ratios = np.array(times[0]) / np.array(times[min(left, key=lambda i: float(np.median(times[i])))])
    return float(np.median(ratios)) * (1 - _CLEAR_LEAD) >= 1 and p_value(ratios) > _level(len(times) - 1)


def _calls_of_a_turn(run: Callable[[], object], clock: Callable[[], float]) -> tuple[int, int]:
    """Return the number of timed calls of a turn, and of calls before them."""
    run()  # touches memory and creates what is lazy
    begin = clock()
    run()
    once = max(clock() - begin, _TICK)
    calls = max(1, int(_TURN / once))
    return calls, math.ceil(_WARM_UP * calls) if once < _LONG_CALL else 0


def _turn(run: Callable[[], object], calls: int, warm: int, clock: Callable[[], float]) -> float:
    for _ in range(warm):
        run()
    begin = clock()
    for _ in range(calls):
        run()
    return max(clock() - begin, _TICK) / calls


def _close(left: list[int], times: list[list[float]], rounds: int) -> list[int]:
    """Return the candidates that may still be the fastest, and the baseline."""
    leader = np.array(times[min(left, key=lambda i: float(np.median(times[i])))])
    kept = []
    for i in left:
        ratios = np.array(times[i]) / leader
        behind = np.median(ratios) > 1 + _BEHIND / rounds and np.mean(ratios > 1) >= 0.8
        if i == 0 or not behind:
            kept.append(i)
    return kept


def _winner(found: Comparison, among: list[int], on_fewer_cores: Collection[int]) -> int:
    def wins(i: int) -> bool:
        least = (1 - MARGIN) * (1 - found.other_load * (i in on_fewer_cores))
        return found.gain(i) * least >= 1 and p_value(found.ratios(i)) <= _level(len(found.times) - 1)

    return min(filter(wins, among), key=lambda i: float(np.median(found.times[i])), default=0)
