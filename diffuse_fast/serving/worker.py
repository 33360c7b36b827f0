"""The process that draws: ``python -m diffuse_fast.serving.worker CONNECTION MEMORY``.

It owns the model, the batch and the scheduler, and has no other Python thread: a step of a millisecond would wait for the
interpreter's lock several times as long. Between steps it takes commands (:mod:`.messages`), and it sleeps while there is nothing
to draw. It ends when the other end of the connection is closed.
"""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import numpy as np

from ..engine.loop import slots_class
from ..engine.plan_cache import facts_of
from ..engine.request import Defaults, Request
from ..engine.setup import setup_for
from ..errors import DiffuseFastError, NetworkError, NonFiniteError
from ..model import load
from ..plans.plan import Plan
from ..runtimes.record import record
from .job import Admitted, Failed, Finished, Job, Preview
from .messages import Broken, Cancel, Draw, Free, Pulse, Ready, Settings
from .scheduler import Entry, Scheduler
from .shared_arrays import SharedArrays

_LATELY = 32  # steps by which the next ones are judged


def main(connection: Connection, memory: int) -> None:
    """Start a worker with the settings that come first over the connection, and run it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process at the other end, which ends this one
    settings: Settings = connection.recv()
    try:
        worker = Worker(connection, memory, settings)
    except (DiffuseFastError, OSError, MemoryError) as error:
        connection.send([Broken(str(error))])
        return
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # nobody is there any more
        worker.run()


class Worker:
    """See the module."""

    def __init__(self, connection: Connection, memory: int, settings: Settings):
        self._connection, self._settings = connection, settings
        with settings.files.unchanged():
            self._model = load(settings.files.paths[0])
        options: dict[str, Any] = {"runtime": settings.runtime, "precision": settings.precision, "threads": settings.threads}
        self._setup = setup_for(self._model, **options, device="cpu", graph="none")
        defaults = Defaults(self._plan(settings.solver, settings.steps), 1.0)
        self._slots = slots_class(self._setup)(self._setup, settings.capacity, defaults)
        self._scheduler = Scheduler(settings.capacity, settings.evaluations, settings.ageing)
        self._shared = SharedArrays(memory, settings.places, self._setup.shape)
        self._jobs: dict[str, _Drawing] = {}
        self._in_slot: dict[int, _Running] = {}
        self._events: list[Any] = []
        self._ticks = 0
        self._lately: deque[tuple[float, float]] = deque(maxlen=_LATELY)  # seconds of steps, and of evaluations in them
        self._warm_up()
        self._connection.send([Ready(record(self._model, options["runtime"], options["precision"], options["threads"]))])

    def run(self) -> None:
        """Draw until the connection is closed."""
        while True:
            idle = not self._scheduler.waiting and not self._in_slot
            while self._connection.poll(None if idle else 0):
                self._obey(self._connection.recv())
                idle = False
            self._step()

    def _warm_up(self) -> None:
        """Draw one sample, so that the first client's does not pay for memory that was never touched."""
        self._slots.admit(Request(seed=0))
        while self._slots.tick():
            pass
        self._slots.retire(0)

    # ---- commands -------------------------------------------------------------------------------

    def _obey(self, command: Draw | Cancel | Free) -> None:
        if isinstance(command, Draw):
            self._queue(command.job, command.samples)
        elif isinstance(command, Cancel):
            self._jobs.pop(command.job, None)
            for entry in self._scheduler.cancel(command.job):
                self._leave(entry)
        else:
            for place in command.places:
                self._shared.free(place)

    def _queue(self, job: Job, samples: tuple[int, ...]) -> None:
        try:
            plan = self._plan(job.solver or self._settings.solver, job.steps or self._settings.steps, **job.options)
            facts = facts_of(self._setup.plan(plan, 1.0 if job.guidance_scale is None else job.guidance_scale))
        except DiffuseFastError as error:
            self._events += [Failed(job.id, sample, "argument", str(error)) for sample in samples]
            return
        calls_before = np.cumsum([0, *(row.calls_network for row in plan.rows)])
        self._jobs[job.id] = _Drawing(job, plan, calls_before, len(samples))
        now = time.monotonic()
        for sample in samples:
            self._scheduler.add(Entry(job.id, sample, facts.calls, facts.outputs, job.priority, job.deadline, now))

    def _plan(self, solver: str, steps: int, **options: Any) -> Plan:
        return self._model.plan(solver, steps, **options)

    # ---- a step ---------------------------------------------------------------------------------

    def _step(self) -> None:
        now = time.monotonic()
        seconds = self._seconds_of_a_step()
        for entry in self._scheduler.late(now, seconds, self._calls_left):
            self._leave(entry)
            self._fail(entry.job, entry.sample, "deadline", "the sample could not be finished before its deadline.")
        for entry in self._scheduler.admit(now, seconds):
            self._admit(entry)
        self._report()  # before the network is called: if this process dies there, the other knows what was running
        if self._in_slot:
            self._tick()
            for slot, running in list(self._in_slot.items()):
                self._look(slot, running)
            if self._events:
                self._events.append(Pulse(self._ticks, *(median(column) for column in zip(*self._lately, strict=True))))
                self._report()

    def _admit(self, entry: Entry) -> None:
        drawing = self._jobs[entry.job]
        job, sample = drawing.job, drawing.job.samples[entry.sample]
        request = Request(
            plan=drawing.plan,
            seed=sample.seed,
            index=sample.index,
            guidance_scale=job.guidance_scale,
            cond=sample.cond,
            negative_cond=sample.negative_cond,
        )
        try:
            slot = self._slots.admit(request)
        except DiffuseFastError as error:
            self._scheduler.end(entry.job, entry.sample)
            self._fail(entry.job, entry.sample, "argument", str(error))
            return
        self._in_slot[slot] = _Running(entry, drawing)
        self._events.append(Admitted(entry.job, entry.sample, time.monotonic()))

    def _tick(self) -> None:
        evaluations = sum(running.entry.evaluations for running in self._in_slot.values())
        begin = time.perf_counter()
        try:
            self._slots.tick()
        except NonFiniteError as error:
            for slot in error.samples:
                self._end(slot, "non_finite", "the network returned NaN or Inf for this sample.")
        except NetworkError:
            for slot in list(self._in_slot):
                self._end(slot, "network", "the network failed.")
        seconds = time.perf_counter() - begin
        self._ticks += 1
        self._lately.append((seconds, seconds / evaluations))

    def _seconds_of_a_step(self) -> float:
        """How long the next step should take; medians, because now and then a step is held up."""
        if not self._lately:
            return 0.0
        evaluations = sum(running.entry.evaluations for running in self._in_slot.values())
        return median(each for _, each in self._lately) * max(1, evaluations)

    def _calls_left(self, entry: Entry) -> int:
        slot, running = next((s, r) for s, r in self._in_slot.items() if r.entry is entry)
        return entry.calls - int(running.drawing.calls_before[self._slots.at(slot)])

    def _look(self, slot: int, running: _Running) -> None:
        """Report a sample that is finished, or whose next preview is due."""
        entry = running.entry
        # In the messages a Place may stand for the array, which is why their types are ignored: the supervisor puts it back.
        if self._slots.done(slot):
            x = self._shared.put(self._slots.result(slot))
            self._events.append(Finished(entry.job, entry.sample, x, running.drawing.plan.steps, entry.calls, {}))  # type: ignore[arg-type]
            self._end(slot)
        elif running.drawing.job.previews:
            done = int(running.drawing.calls_before[self._slots.at(slot)])
            if done >= running.due(entry.calls):
                while done >= running.due(entry.calls):
                    running.shown += 1
                x = self._shared.put(self._slots.state[slot])
                self._events.append(Preview(entry.job, entry.sample, running.shown - 1, done, entry.calls, x))  # type: ignore[arg-type]

    def _end(self, slot: int, kind: str | None = None, message: str = "") -> None:
        """Free a slot whose sample has finished or, with a kind, failed."""
        entry = self._in_slot.pop(slot).entry
        self._slots.retire(slot)
        self._scheduler.end(entry.job, entry.sample)
        if kind is not None:
            self._fail(entry.job, entry.sample, kind, message)
        else:
            self._count_down(entry.job)

    def _leave(self, entry: Entry) -> None:
        """Free the slot of a sample that the scheduler has removed, if it had one."""
        slot = next((slot for slot, running in self._in_slot.items() if running.entry is entry), None)
        if slot is not None:
            del self._in_slot[slot]
            self._slots.retire(slot)

    def _fail(self, job: str, sample: int, kind: str, message: str) -> None:
        self._events.append(Failed(job, sample, kind, message))
        self._count_down(job)

    def _count_down(self, job: str) -> None:
        """Forget a job with its last sample."""
        drawing = self._jobs[job]
        drawing.left -= 1
        if drawing.left == 0:
            del self._jobs[job]

    def _report(self) -> None:
        if self._events:
            self._connection.send(self._events)
            self._events = []


@dataclass(slots=True)
class _Drawing:
    """A job in work.

    Attributes:
        job, plan: The job and its plan.
        calls_before: For each row of the plan, and its end, how many rows before it call the network.
        left: Samples that have not ended.
    """

    job: Job
    plan: Plan
    calls_before: np.ndarray
    left: int


@dataclass(slots=True)
class _Running:
    """A sample in a slot, and how many of its previews have been shown."""

    entry: Entry
    drawing: _Drawing
    shown: int = 0

    def due(self, calls: int) -> float:
        """After how many calls the next preview is due."""
        previews = self.drawing.job.previews
        return (self.shown + 1) * calls / (previews + 1) if self.shown < previews else math.inf


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])), int(sys.argv[2]))
