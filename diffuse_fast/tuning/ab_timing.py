"""Which of several ways to do the same thing is fastest, where nothing but a sure win displaces the first of them.

They take turns in rounds, each round in an order of its own, so that what else the machine does hits all of them, and what one
leaves behind hits no other more than the rest; they are compared within rounds. Those that fall behind leave, so that the time goes
to the close ones; the first, the yardstick, stays to the end.
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

from .wait_idle import rest

MARGIN = 0.02  # of the first one's time, that another must be below it
CHANCE = 0.01  # that the first is displaced where all are as fast
LONGEST = 15.0  # times the seconds asked for, after which no round begins

# Times the seconds asked for, after which it is looked at who has won. Looked at after each round, noise is ahead by enough at one
# time or another (of two as fast, one won three times as often as it should): so the looks are few, and share the chance.
_LOOKS = (1.0, 2.0, 4.0, 8.0, LONGEST)

_TURN = 0.02  # seconds that one runs at a stretch
_TICK = 1e-7  # no time is less
_WARM = 0.1  # of a turn, and at least a call, before it: for its data and code, and until its threads are awake
_LONG = 0.1  # seconds of a call, beside which these are nothing
_MOST = 1000  # rounds
_CLEAR = 0.1  # of the first one's time: who is ahead by that gets more rounds
_COUNTED = 10  # per cent that a round counts at most
_FIRST_OUT = 3  # rounds before the first may leave
_BEHIND = 1.5  # after n rounds: slower than the fastest by this over n, and in four of five rounds


@dataclass(frozen=True, slots=True)
class Contest:
    """How it went.

    Attributes:
        times: Of each, seconds per call, one value for every round that it was in, from the first.
        winner: Which one to take.
        spared: Which run on fewer cores than the first.
        others: Share of the cores that other processes took meanwhile.
    """

    times: tuple[np.ndarray, ...]
    winner: int
    others: float = 0.0

    def ratios(self, i: int) -> np.ndarray:
        """How many times as long the first took as this one, for each round that both were in."""
        return self.times[0][: len(self.times[i])] / self.times[i]

    def gain(self, i: int) -> float:
        """The median of the ratios."""
        return float(np.median(self.ratios(i)))

    def won(self, i: int) -> int:
        """Rounds in which this one was faster than the first."""
        return int(np.sum(self.ratios(i) > 1))


def contest(
    runs: Sequence[Callable[[], object]],
    seconds: float,
    *,
    spared: Collection[int] = (),
    others: Callable[[], float] = lambda: 0.0,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
    rest: Callable[[], object] = rest,
) -> Contest:
    """Find the fastest.

    The winner is the first, unless another is faster by :data:`MARGIN` in the median of the rounds, and so surely that, were all as
    fast as the first, one of them would be ahead by as much with a probability of :data:`CHANCE` at most: each may with that over
    the number of others and of looks (Bonferroni; :func:`chance`). Of several such, the one with the least median. For those that
    are spared, what other processes took of the cores is added to the margin: it may have cost the first alone so much.

    Args:
        runs: What to time, each called without arguments; the first is what is taken unless another is surely faster.
        seconds: Time to spend, if it is enough for as many rounds as a sure win needs; else, and while one is a tenth ahead but not
            surely, up to :data:`LONGEST` times as much.
        spared: Which run on fewer cores than the first.
        others: Share of the cores that other processes have taken since it was made.
        seed: Of the orders of the rounds: the same seed, the same orders.
        clock: Seconds, from any start.
        rest: Waits, before each turn, until the threads of the one before have stopped spinning.
    """
    turns = [_calls_of_a_turn(run, clock) for run in runs]
    times: list[list[float]] = [[] for _ in runs]
    left, rounds = list(range(len(runs))), 0
    order, due = random.Random(seed), [seconds * n for n in _LOOKS]
    begin = clock()
    collecting = gc.isenabled()
    gc.disable()
    try:
        while rounds == 0 or _goes_on(times, left, rounds, clock() - begin, due):
            for i in order.sample(left, len(left)):
                rest()
                times[i].append(_turn(runs[i], *turns[i], clock))
            rounds += 1
            if rounds >= _FIRST_OUT:
                left = _close(left, times, rounds)
    finally:
        if collecting:
            gc.enable()
    found = Contest(tuple(np.array(values) for values in times), 0, others())
    return Contest(found.times, _winner(found, [i for i in left if i], spared), found.others)


def fewest(others: int) -> int:
    """Rounds in which a win can be sure, where so many are beside the first."""
    return next(n for n in itertools.count(1) if 0.5**n <= _enough(others))


def _enough(others: int) -> float:
    """The :func:`chance` of one of so many that makes its win sure."""
    return CHANCE / len(_LOOKS) / max(1, others)


def chance(ratios: np.ndarray) -> float:
    """The probability that one as fast as the first would be ahead by as much as this one.

    It would be ahead as often as behind, so every round may as well have gone the other way (Fisher's test by changes of sign). A
    round counts by the per cent that it was won or lost by, ten at most: one in which the machine stood still is no more than
    lost, and one lost by little takes little from those won by much.

    Args:
        ratios: Time of the first over that of the other, for each round.
    """
    counts = np.clip(np.rint(100 * np.log(ratios)), -_COUNTED, _COUNTED).astype(int)
    sums = np.ones(1)  # how likely each sum of the counts is, from the least to the largest
    for count in np.abs(counts):
        sums = np.convolve(sums, [0.5, *[0.0] * (2 * count - 1), 0.5]) if count else sums
    return float(sums[int(np.abs(counts).sum() + counts.sum()) :].sum())


def _goes_on(times: list[list[float]], left: list[int], rounds: int, spent: float, due: list[float]) -> bool:
    """Whether there is another round. ``due`` has the times of the looks to come."""
    if rounds < fewest(len(times) - 1):
        return spent < due[-1]
    if len(left) == 1 or rounds >= _MOST:
        return False
    if spent < due[0]:
        return True
    due[:] = [look for look in due if look > spent]
    return bool(due) and _open(times, left)


def _open(times: list[list[float]], left: list[int]) -> bool:
    """Whether the fastest is ahead of the first by so much that it would win, if only that were sure: a round or two of noise are
    too many among ten."""
    ratios = np.array(times[0]) / np.array(times[min(left, key=lambda i: float(np.median(times[i])))])
    return float(np.median(ratios)) * (1 - _CLEAR) >= 1 and chance(ratios) > _enough(len(times) - 1)


def _calls_of_a_turn(run: Callable[[], object], clock: Callable[[], float]) -> tuple[int, int]:
    """How many are timed, and how many are made before."""
    run()  # first touch of the memory, lazily made things
    begin = clock()
    run()
    once = max(clock() - begin, _TICK)
    calls = max(1, int(_TURN / once))
    return calls, math.ceil(_WARM * calls) if once < _LONG else 0


def _turn(run: Callable[[], object], calls: int, warm: int, clock: Callable[[], float]) -> float:
    for _ in range(warm):
        run()
    begin = clock()
    for _ in range(calls):
        run()
    return max(clock() - begin, _TICK) / calls


def _close(left: list[int], times: list[list[float]], rounds: int) -> list[int]:
    """Those that may still be the fastest, and the first."""
    leader = np.array(times[min(left, key=lambda i: float(np.median(times[i])))])
    kept = []
    for i in left:
        ratios = np.array(times[i]) / leader
        behind = np.median(ratios) > 1 + _BEHIND / rounds and np.mean(ratios > 1) >= 0.8
        if i == 0 or not behind:
            kept.append(i)
    return kept


def _winner(found: Contest, among: list[int], spared: Collection[int]) -> int:
    def sure(i: int) -> bool:
        least = (1 - MARGIN) * (1 - found.others * (i in spared))
        return found.gain(i) * least >= 1 and chance(found.ratios(i)) <= _enough(len(found.times) - 1)

    return min(filter(sure, among), key=lambda i: float(np.median(found.times[i])), default=0)
