"""A job from its client's side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from .job import Admitted, Cancelled, Event, Failed, Finished, Job, Preview


class Ticket:
    """A job that was accepted. For the thread of one event loop.

    Iterate over it for its events; the iteration ends when every sample has finished or failed, or with ``Cancelled``.

    Attributes:
        job: The job.
        calls, evaluations: Calls of the network of each sample, and evaluations in each call: 2 with guidance.
        estimate: Seconds until it should be finished, when it was accepted.
        unfinished: The positions of the samples that have not ended.
        admitted: Those of them that are in the batch.
    """

    def __init__(self, job: Job, calls: int, evaluations: int, estimate: float, cancelled: Callable[[Ticket], None]):
        self.job, self.calls, self.evaluations, self.estimate = job, calls, evaluations, estimate
        self.unfinished, self.admitted = set(range(len(job.samples))), set[int]()
        self._cancelled = cancelled
        self._seen_admitted, self._previews = set[int](), dict[int, int]()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether no event follows."""
        return self._ended

    def cancel(self) -> None:
        """Stop the job; does nothing if it has ended. At most one more step is computed for it."""
        if not self._ended:
            self._end(Cancelled(self.job.id))
            self._cancelled(self)

    async def __aiter__(self) -> AsyncIterator[Event]:
        while not (self._ended and self._events.empty()):
            yield await self._events.get()

    def deliver(self, event: Event) -> None:
        """Pass an event on to whoever iterates, but for one that a worker repeats that took over from another."""
        if self._ended:
            return
        if isinstance(event, Finished | Failed):
            if event.sample not in self.unfinished:
                return
            self.unfinished.discard(event.sample)
            self.admitted.discard(event.sample)
        elif isinstance(event, Admitted):
            self.admitted.add(event.sample)
            if event.sample in self._seen_admitted:
                return
            self._seen_admitted.add(event.sample)
        elif isinstance(event, Preview):
            if event.number < self._previews.get(event.sample, 0):
                return
            self._previews[event.sample] = event.number + 1
        if self.unfinished:
            self._events.put_nowait(event)
        else:
            self._end(event)

    def _end(self, event: Event) -> None:
        self._ended = True
        self.admitted.clear()
        self.unfinished.clear()
        self._events.put_nowait(event)
