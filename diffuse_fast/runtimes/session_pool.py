"""Pool of idle sessions, keyed by input shapes, for a runtime whose sessions run one call at a time and copy the weights.

For each key the pool keeps as many sessions as there are bound calls, so that every call finds one. For keys without bound calls it
keeps one session each, for the few that were used last.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class SessionPool(Generic[T]):
    """A thread-safe pool.

    Args:
        kept: For how many keys without bound calls a session is kept.
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._lock = threading.Lock()
        self._idle: OrderedDict[Hashable, list[T]] = OrderedDict()  # least recently used first
        self._calls: Counter[Hashable] = Counter()
        # Keys of garbage-collected calls. Collection can happen in any thread at any time, also in one that holds the lock, so it
        # must not wait for the lock.
        self._ended: deque[Hashable] = deque()

    def bind(self, call: object, key: Hashable) -> None:
        """Count a bound call until it is garbage-collected."""
        with self._lock:
            self._calls[key] += 1
        weakref.finalize(call, self._end, key).atexit = False

    def take(self, key: Hashable) -> T | None:
        """Take an idle session; None if there is none. The caller gives it back with :meth:`give`."""
        with self._lock:
            found = self._idle.get(key)
            if not found:
                return None
            self._idle.move_to_end(key)
            return found.pop()

    def give(self, key: Hashable, session: T) -> None:
        """Return a session to the pool, which drops it if it has enough."""
        with self._lock:
            self._idle.setdefault(key, []).append(session)
            self._idle.move_to_end(key)
            gone = self._surplus()
        del gone  # outside the lock, because destruction is slow
        self._settle()

    def idle(self) -> dict[Hashable, int]:
        """Return the number of idle sessions by key."""
        with self._lock:
            return {key: len(sessions) for key, sessions in self._idle.items() if sessions}

    def _end(self, key: Hashable) -> None:
        self._ended.append(key)
        self._settle()

    def _settle(self) -> None:
        """Drop the sessions of ended calls. If another thread holds the lock, that thread does it."""
        while self._ended and self._lock.acquire(blocking=False):
            try:
                gone = self._surplus()
            finally:
                self._lock.release()
            del gone

    def _surplus(self) -> list[T]:
        """Remove and return the surplus sessions. The caller holds the lock."""
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
