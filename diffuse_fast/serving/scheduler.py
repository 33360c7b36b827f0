"""Which waiting samples join the batch, and when: a state machine without clock, threads or input and output.

A sample waits, runs, and ends. It joins at a step boundary where a slot is free and where the batch with it makes no more
evaluations of the network per step than allowed. The first to join is the one with the highest effective priority; among equal ones
the one with the least slack to its deadline; then the one that costs least; then the one that came first. Effective priority grows
by one with every ``ageing`` seconds of waiting, so every sample's turn comes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """A sample, as the scheduler sees it.

    Attributes:
        job, sample: The job's id, and the sample's position in it.
        calls: Steps that call the network, from the sample's plan.
        evaluations: Evaluations of the network in one such step: 2 with guidance, else 1.
        priority: Higher is sooner.
        deadline: Time by which it must have ended; None if there is none.
        arrived: When it began to wait.
    """

    job: str
    sample: int
    calls: int
    evaluations: int = 1
    priority: int = 0
    deadline: float | None = None
    arrived: float = 0.0

    @property
    def cost(self) -> int:
        """Evaluations of the network in all."""
        return self.calls * self.evaluations


class Scheduler:
    """The samples of one batch.

    Args:
        capacity: Most samples that run at once.
        evaluations: Most evaluations of the network per step; at least 2, so that any sample can run.
        ageing: Seconds of waiting that weigh as much as one level of priority.
    """

    def __init__(self, capacity: int, evaluations: int | None = None, ageing: float = 1.0):
        self.capacity, self.ageing = capacity, ageing
        self.evaluations = 2 * capacity if evaluations is None else evaluations
        self._waiting: dict[tuple[str, int], tuple[int, Entry]] = {}  # with the order of arrival
        self._running: dict[tuple[str, int], Entry] = {}
        self._arrivals = 0

    @property
    def waiting(self) -> tuple[Entry, ...]:
        """Samples that wait, in order of arrival."""
        return tuple(entry for _, entry in self._waiting.values())

    @property
    def running(self) -> tuple[Entry, ...]:
        """Samples in the batch."""
        return tuple(self._running.values())

    def add(self, entry: Entry) -> None:
        """Let a sample wait."""
        key = entry.job, entry.sample
        assert key not in self._waiting and key not in self._running, "a sample is added once"
        self._waiting[key] = self._arrivals, entry
        self._arrivals += 1

    def admit(self, now: float, seconds_per_call: float = 0.0) -> list[Entry]:
        """Move samples into the batch, and return them in order.

        A sample that does not fit waits, and none behind it passes it: it would wait for ever behind smaller ones.

        Args:
            now: The time.
            seconds_per_call: How long a step takes, for the slack to deadlines.
        """
        free = self.capacity - len(self._running)
        if free == 0 or not self._waiting:
            return []
        room = self.evaluations - sum(entry.evaluations for entry in self._running.values())
        admitted: list[Entry] = []
        for _, entry in sorted(self._waiting.values(), key=lambda item: self.order(item[1], item[0], now, seconds_per_call)):
            room -= entry.evaluations
            if len(admitted) == free or room < 0:
                break
            key = entry.job, entry.sample
            del self._waiting[key]
            self._running[key] = entry
            admitted.append(entry)
        return admitted

    def order(self, entry: Entry, arrival: int, now: float, seconds_per_call: float) -> tuple[float, float, int, int]:
        """The key by which samples are sorted, the first to join first."""
        effective = entry.priority + math.floor((now - entry.arrived) / self.ageing)
        slack = math.inf if entry.deadline is None else entry.deadline - now - entry.calls * seconds_per_call
        return -effective, slack, entry.cost, arrival

    def late(
        self, now: float, seconds_per_call: float = 0.0, left: Callable[[Entry], int] = lambda entry: entry.calls
    ) -> list[Entry]:
        """Remove and return the samples whose deadlines cannot be met, so that no step is spent on them: of those that wait, where
        not even joining now would do.

        Args:
            now: The time.
            seconds_per_call: How long a step takes.
            left: How many calls of the network a running sample has left.
        """

        def in_vain(entry: Entry, calls: int) -> bool:
            return entry.deadline is not None and now + calls * seconds_per_call > entry.deadline

        late = [entry for entry in self.waiting if in_vain(entry, entry.calls)]
        late += [entry for entry in self.running if entry.deadline is not None and in_vain(entry, left(entry))]
        for entry in late:
            self.end(entry.job, entry.sample)
        return late

    def cancel(self, job: str) -> list[Entry]:
        """Remove and return the samples of a job that have not ended."""
        found = [entry for entry in (*self.waiting, *self.running) if entry.job == job]
        for entry in found:
            self.end(entry.job, entry.sample)
        return found

    def end(self, job: str, sample: int) -> None:
        """A sample has ended, finished or not."""
        key = job, sample
        if self._running.pop(key, None) is None:
            del self._waiting[key]
