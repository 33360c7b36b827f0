"""Sessions that no call is in, by the shapes that they are for, where a session runs one call at a time and has weights of its own.

As many stay as the bound calls of their shapes can use at once, so that a call finds one however many shapes are in use. Of shapes
that no bound call has, the last few stay, one session each.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Sessions(Generic[T]):
    """Safe to use from several threads.

    Args:
        kept: Shapes without a bound call for which a session stays.
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._lock = threading.Lock()
        self._idle: OrderedDict[Hashable, list[T]] = OrderedDict()  # the shapes last used at the end
        self._calls: Counter[Hashable] = Counter()
        # Calls that were collected. That may be in any thread at any moment, in one that has the lock too: it never waits for it.
        self._ended: deque[Hashable] = deque()

    def bind(self, call: object, key: Hashable) -> None:
        """Count a call of those shapes, as long as it lives."""
        with self._lock:
            self._calls[key] += 1
        weakref.finalize(call, self._end, key).atexit = False

    def take(self, key: Hashable) -> T | None:
        """An idle session, which is the caller's until it gives it back; None where there is none."""
        with self._lock:
            found = self._idle.get(key)
            if not found:
                return None
            self._idle.move_to_end(key)
            return found.pop()

    def give(self, key: Hashable, session: T) -> None:
        """Have a session idle, if as many are of use."""
        with self._lock:
            self._idle.setdefault(key, []).append(session)
            self._idle.move_to_end(key)
            gone = self._surplus()
        del gone  # not within the lock: it takes a while
        self._settle()

    def idle(self) -> dict[Hashable, int]:
        """How many are idle, by their shapes."""
        with self._lock:
            return {key: len(sessions) for key, sessions in self._idle.items() if sessions}

    def _end(self, key: Hashable) -> None:
        self._ended.append(key)
        self._settle()

    def _settle(self) -> None:
        """Let go of what ended calls leave. Whoever has the lock meanwhile does it afterwards."""
        while self._ended and self._lock.acquire(blocking=False):
            try:
                gone = self._surplus()
            finally:
                self._lock.release()
            del gone

    def _surplus(self) -> list[T]:
        """Take out the sessions that are of no use. Within the lock."""
        while self._ended:
            key = self._ended.popleft()
            self._calls[key] -= 1
            if not self._calls[key]:
                del self._calls[key]
        gone: list[T] = []
        for key, sessions in self._idle.items():
            most = max(1, self._calls[key])
            gone += sessions[most:]
            del sessions[most:]
        unused = [key for key in self._idle if key not in self._calls]
        for key in unused[: max(0, len(unused) - self._kept)]:
            gone += self._idle.pop(key)
        return gone
