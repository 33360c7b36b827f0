"""Running jobs, seen from HTTP: who waits for one, its events so far, and the finished ones that are kept."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

from ..job import Cancelled, Event, Failed, Finished, Job
from .log import LOG
from .metrics import Metrics

if TYPE_CHECKING:
    from ..workers import Ticket

FOREVER = float("inf")


class Run:
    """A job that was submitted. Several clients may follow it, each from its first event.

    Args:
        ticket: What the workers gave for the job.
        linger: Seconds that it runs on after the last client left; :data:`FOREVER` never cancels it.
        metrics: Told of every event.

    Attributes:
        created: When it was submitted, in seconds since 1970.
        ended: ``time.monotonic()`` at its end, or None.
        events: Its events so far.
        digest: SHA-256 of the body that asked for it, where a repeated request may join.
    """

    def __init__(self, ticket: Ticket, linger: float, metrics: Metrics) -> None:
        self.ticket = ticket
        self.job: Job = ticket.job
        self.created = int(time.time())
        self.began = time.monotonic()
        self.ended: float | None = None
        self.events: list[Event] = []
        self.digest: bytes | None = None
        self._cancelling = False
        self._linger = linger
        self._metrics = metrics
        self._clients = 0
        self._timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._calls: list[Callable[[], None]] = []
        self._task = asyncio.create_task(self._collect())

    @property
    def done(self) -> bool:
        return self.ended is not None

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled, or is being cancelled."""
        return self._cancelling or any(isinstance(event, Cancelled) for event in self.events)

    @property
    def nbytes(self) -> int:
        """About how many bytes it holds."""
        return 4096 + sum(event.x.nbytes for event in self.events if hasattr(event, "x"))

    def outcomes(self) -> list[Finished | Failed]:
        """How each sample ended, once the run is done and unless it was cancelled."""
        found = {event.sample: event for event in self.events if isinstance(event, Finished | Failed)}
        lost = "the sample was lost; try again."
        return [found.get(i) or Failed(self.job.id, i, "worker", lost) for i in range(len(self.job.samples))]

    def cancel(self) -> None:
        """End it within one step; nothing happens if it has ended."""
        if not self.done:
            self._cancelling = True
            self.ticket.cancel()

    @contextlib.contextmanager
    def client(self) -> Iterator[None]:
        """A client waits. When the last one leaves before the end, the job is cancelled, at once or after ``linger``."""
        self._clients += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            yield
        finally:
            self._clients -= 1
            if not (self._clients or self.done or self._linger == FOREVER):
                if self._linger > 0:
                    self._timer = asyncio.get_running_loop().call_later(self._linger, self.cancel)
                else:
                    self.cancel()

    async def follow(self, ping: float | None = None) -> AsyncIterator[Event | None]:
        """Yield its events from the first to the last. With ``ping``, yield None after every so many seconds without one."""
        at = 0
        while True:
            changed = self._changed
            while at < len(self.events):
                yield self.events[at]
                at += 1
            if self.done:
                return
            try:
                await asyncio.wait_for(changed.wait(), ping)
            except TimeoutError:
                yield None

    def when_ended(self, call: Callable[[], None]) -> None:
        """Call something at its end, or now if it has ended."""
        if self.done:
            call()
        else:
            self._calls.append(call)

    async def finished(self) -> None:
        """Wait until it is done."""
        await asyncio.shield(self._task)

    async def _collect(self) -> None:
        try:
            async for event in self.ticket:
                self.events.append(event)
                self._metrics.event(self, event)
                self._wake()
        except Exception:  # a defect: who waits for the run must still see it end
            LOG.exception("the events of job %s ended early", self.job.id)
            self.ticket.cancel()
        finally:
            self.ended = time.monotonic()
            self._metrics.ended(self)
            if self._timer is not None:
                self._timer.cancel()
            for call in self._calls:
                call()
            self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


Address = tuple[str, ...]


class Shelf:
    """Runs by key: as long as they run, and afterwards for some time within a number of bytes.

    Args:
        seconds, limit: How long after its end a run is kept, and how many bytes of ended runs.
    """

    def __init__(self, seconds: float, limit: int) -> None:
        self._seconds = seconds
        self._limit = limit
        self._runs: dict[Address, Run] = {}
        self._ended: deque[tuple[Address, str]] = deque()  # key and job, in the order of their ends
        self._held = 0  # bytes of ended runs

    def get(self, key: Address) -> Run | None:
        self._tidy()
        return self._runs.get(key)

    def items(self) -> list[tuple[Address, Run]]:
        self._tidy()
        return list(self._runs.items())

    def put(self, key: Address, run: Run) -> None:
        """Keep a run, in place of another with the key."""
        if self._runs.get(key) is not run:
            self.remove(key)
            self._runs[key] = run
            run.when_ended(lambda: self._end(key, run))

    def remove(self, key: Address) -> None:
        run = self._runs.pop(key, None)
        if run is not None and run.done:
            self._held -= run.nbytes

    def _end(self, key: Address, run: Run) -> None:
        if self._runs.get(key) is run:
            self._held += run.nbytes
            self._ended.append((key, run.job.id))
            self._tidy()

    def _tidy(self) -> None:
        """Forget the oldest as long as they are too old or too many."""
        oldest = time.monotonic() - self._seconds
        while self._ended:
            key, job = self._ended[0]
            run = self._runs.get(key)
            if run is not None and run.job.id == job:
                if (run.ended or 0.0) >= oldest and self._held <= self._limit:
                    return
                self.remove(key)
            self._ended.popleft()
