"""Timing that can be argued with: candidates run in turns, so that what the machine does meanwhile hits all of them; medians
and quintiles, and ratios taken within a turn."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Timing:
    """Seconds of one call, over the turns: 20th percentile, median, 80th."""

    p20: float
    median: float
    p80: float

    @classmethod
    def of(cls, values: np.ndarray) -> Timing:
        return cls(*(float(v) for v in np.quantile(values, (0.2, 0.5, 0.8))))


def interleaved(candidates: dict[str, Callable[[], object]], *, seconds: float = 6.0, turn: float = 0.02) -> dict[str, np.ndarray]:
    """Seconds per call, one value per turn for each candidate.

    Args:
        candidates: Functions without arguments, already set up.
        seconds: Time to spend on all of them.
        turn: Time that one candidate runs at a stretch, at least one call.
    """
    calls = {}
    for name, run in candidates.items():
        run()  # first touch of the memory, lazily made things
        begin = time.perf_counter()
        run()
        once = time.perf_counter() - begin
        calls[name] = max(1, int(turn / max(once, 1e-7)))
    times: dict[str, list[float]] = {name: [] for name in candidates}
    end = time.perf_counter() + seconds
    collecting = gc.isenabled()
    gc.disable()
    try:
        while time.perf_counter() < end or len(next(iter(times.values()))) < 5:
            for name, run in candidates.items():
                run()  # brings its own data and code back into the caches
                n = calls[name]
                begin = time.perf_counter()
                for _ in range(n):
                    run()
                times[name].append((time.perf_counter() - begin) / n)
    finally:
        if collecting:
            gc.enable()
    return {name: np.array(values) for name, values in times.items()}


def ratio(times: dict[str, np.ndarray], of: str, to: str) -> Timing:
    """How many times as long ``of`` takes as ``to``, turn by turn."""
    return Timing.of(times[of] / times[to])
