"""The rate of requests per API key: a token bucket that holds ten seconds' worth."""

from __future__ import annotations

import time
from collections.abc import Callable

BURST = 10.0  # seconds


class Rates:
    """Buckets by owner.

    Args:
        rate: Requests per second; None is no limit.
        clock: A monotonic clock in seconds.
    """

    def __init__(self, rate: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # owner -> tokens, when

    def wait(self, owner: str) -> float:
        """Take a token and return 0, or return the seconds until there is one."""
        if self._rate is None:
            return 0.0
        now, full = self._clock(), max(1.0, self._rate * BURST)
        tokens, then = self._buckets.get(owner, (full, now))
        tokens = min(full, tokens + (now - then) * self._rate)
        if tokens < 1.0:
            self._buckets[owner] = tokens, now
            return (1.0 - tokens) / self._rate
        self._buckets[owner] = tokens - 1.0, now
        return 0.0
