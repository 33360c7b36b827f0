"""Interleaved timing: candidates take turns, so that other load on the machine affects all of them alike.

Figures are medians and quintiles over rounds, and ratios taken within a round. ``diffuse_fast.tuning.ab_timing`` is for choosing:
it drops slow candidates early and decides by a significance test; the figures here keep every round.
"""

from __future__ import annotations

import functools
import gc
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Timing:
    """Seconds per call over the rounds: 20th percentile, median, 80th percentile."""

    p20: float
    median: float
    p80: float

    @classmethod
    def of(cls, values: np.ndarray) -> Timing:
        return cls(*(float(v) for v in np.quantile(values, (0.2, 0.5, 0.8))))


def take_turns(
    turns: Mapping[str, Callable[[], float | None]],
    *,
    seconds: float,
    fewest: int,
    most: float = float("inf"),
    shuffle: random.Random | None = None,
) -> dict[str, list[float]]:
    """Run rounds in which every candidate has one turn, and return the seconds per call of each round.

    Args:
        turns: Each makes and times one turn; None means that it failed, which removes the candidate.
        seconds: Time for all rounds.
        fewest, most: Bounds on the number of rounds.
        shuffle: Draws the order of each round; None keeps the given order.
    """
    times: dict[str, list[float]] = {name: [] for name in turns}
    end, rounds = time.perf_counter() + seconds, 0
    while times and (rounds < fewest or (time.perf_counter() < end and rounds < most)):
        for name in list(times) if shuffle is None else shuffle.sample(list(times), len(times)):
            value = turns[name]()
            if value is None:
                del times[name]
            else:
                times[name].append(value)
        rounds += 1
    return times


def interleaved(candidates: dict[str, Callable[[], object]], *, seconds: float = 6.0, turn: float = 0.02) -> dict[str, np.ndarray]:
    """Time functions in this process: seconds per call, one value per round for each.

    Args:
        candidates: Functions without arguments, already set up.
        seconds: Time for all rounds; there are at least five.
        turn: Time of one turn, at least one call. An untimed call precedes each.
    """
    turns = {}
    for name, run in candidates.items():
        run()  # first touch of the memory, lazy initialisation
        begin = time.perf_counter()
        run()
        once = time.perf_counter() - begin
        turns[name] = functools.partial(_turn, run, max(1, int(turn / max(once, 1e-7))))
    collecting = gc.isenabled()
    gc.disable()
    try:
        times = take_turns(turns, seconds=seconds, fewest=5)
    finally:
        if collecting:
            gc.enable()
    return {name: np.array(values) for name, values in times.items()}


def _turn(run: Callable[[], object], calls: int) -> float:
    run()  # brings its data and code back into the caches
    begin = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - begin) / calls


def ratio(times: dict[str, np.ndarray], of: str, to: str) -> Timing:
    """The time of ``of`` over that of ``to``, within each round."""
    return Timing.of(times[of] / times[to])
