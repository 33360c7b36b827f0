"""One worker process from the outside: it is started, watched, and started again when it dies.

What a process that died had not finished is drawn again; a sample's seed makes that exact. A job that was alone in the batch is to
blame for the death; if several were, each is under suspicion. A job that is to blame once or under suspicion twice is drawn alone
from then on, so that it costs no other job a retry, and fails when it has been to blame :data:`DEATHS` times.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from ..errors import StartError
from ..model import Model
from .job import Event, Failed, Finished, Preview
from .messages import Broken, Cancel, Draw, Free, Pulse, Ready, Settings
from .shared_arrays import Place, SharedArrays, new_file
from .ticket import Ticket

DEATHS = 3  # deaths that a job is to blame for, before it fails
SUSPICIONS = 2  # deaths at which a job was in the batch, before it is drawn alone
STARTS = 3  # failed starts in a row, after which jobs fail instead of waiting for the next
_PAUSES = (0.0, 0.5, 2.0, 5.0)  # seconds before a start, by the failed ones before it; the last for all others


class Supervisor:
    """See the module. For the thread of one event loop.

    Args:
        name: The model's name, for messages.
        model: The model.
        settings: What the process is started with.
        warm_timeout: Seconds that it may take to start.
        record: Called as ``record(supervisor, ticket, event)`` for a finished sample: what stands in its record.

    Attributes:
        name, model: As given.
        ready: Whether the process takes jobs.
        network: What runs the network, once it was ready.
        ticks: Steps of all processes so far.
        seconds_per_tick, seconds_per_evaluation: Lately, of a step and of an evaluation of the network.
        restarts: How many processes died.
        tickets: Jobs that have not ended, by id.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        settings: Settings,
        warm_timeout: float,
        record: Callable[[Supervisor, Ticket, Finished], dict[str, Any]],
    ):
        self.name, self.model, self._settings, self._warm_timeout, self._record = name, model, settings, warm_timeout, record
        self.ready, self.network = False, dict[str, Any]()
        self.ticks, self._ticks_before, self.restarts = 0, 0, 0
        self.seconds_per_tick = self.seconds_per_evaluation = 0.0
        self.tickets: dict[str, Ticket] = {}
        self._sent: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._blame: dict[str, int] = {}
        self._suspicions: dict[str, int] = {}
        self._process: _Process | None = None
        self._restarting: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        """Start the process and wait until it is ready.

        Raises:
            StartError: it is not ready in time, or says why it cannot be.
        """
        process = await asyncio.to_thread(
            _Process, self._settings, tuple(self.model.shape), asyncio.get_running_loop(), self._heard
        )
        try:
            async with asyncio.timeout(self._warm_timeout):
                await process.started
        except TimeoutError:
            await process.stop(0)
            raise StartError(f"the worker of {self.name!r} was not ready within {self._warm_timeout:g} s.") from None
        except (StartError, asyncio.CancelledError):
            await process.stop(0)
            raise
        if process.dead:
            raise StartError(f"the worker of {self.name!r} ended as soon as it was ready.")
        self._process, self.network, self.ready = process, process.network, True
        self._ticks_before = self.ticks
        self._send()

    async def stop(self, drain: float = 0.0) -> None:
        """Let the jobs end within some seconds, cancel what is left, and end the process."""
        end = asyncio.get_running_loop().time() + drain
        while self.tickets and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.01)
        self._stopping, self.ready = True, False
        for ticket in list(self.tickets.values()):
            ticket.cancel()
        if self._restarting is not None:
            self._restarting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._restarting
        if self._process is not None:
            await self._process.stop(5.0)

    def carry_on(self, other: Supervisor) -> None:
        """Count from where another, which this one follows, has come."""
        self.ticks, self.restarts = other.ticks, other.restarts
        self._ticks_before = self.ticks

    def add(self, ticket: Ticket) -> None:
        """Draw a job."""
        job = ticket.job
        self.tickets[job.id] = ticket
        if job.deadline is not None:  # also of jobs that wait for a process
            seconds = max(0.0, job.deadline - time.monotonic())
            self._timers[job.id] = asyncio.get_running_loop().call_later(seconds, self._late, ticket)
        self._send()

    def cancelled(self, ticket: Ticket) -> None:
        """A ticket was cancelled."""
        job = ticket.job.id
        if job in self._sent and self._process is not None:
            self._process.send(Cancel(job))
        self._forget(job)

    def _late(self, ticket: Ticket) -> None:
        for sample in sorted(ticket.unfinished):
            ticket.deliver(Failed(ticket.job.id, sample, "deadline", "the sample was not finished before its deadline."))
        self.cancelled(ticket)

    # ---- from the process -----------------------------------------------------------------------

    def _heard(self, process: _Process, messages: list[Any] | None) -> None:
        """Messages of a process that has started, or None: it has died."""
        if process is not self._process:
            return
        if messages is None:
            self._died()
            return
        read = []
        for message in messages:
            if isinstance(message, Pulse):
                self.ticks = self._ticks_before + message.ticks
                self.seconds_per_tick, self.seconds_per_evaluation = message.seconds_per_tick, message.seconds_per_evaluation
                continue
            if isinstance(message, Finished | Preview) and isinstance(message.x, Place):
                read.append(message.x.number)
                message = replace(message, x=process.arrays.get(message.x))
            self._deliver(message)
        if read:
            process.send(Free(tuple(read)))

    def _deliver(self, event: Event) -> None:
        ticket = self.tickets.get(event.job)
        if ticket is None:
            return
        if isinstance(event, Finished):
            event = replace(event, record=self._record(self, ticket, event))
        ticket.deliver(event)
        if ticket.ended:
            self._forget(event.job)

    def _forget(self, job: str) -> None:
        """A job has ended."""
        self.tickets.pop(job, None)
        if (timer := self._timers.pop(job, None)) is not None:
            timer.cancel()
        self._sent.discard(job)
        self._blame.pop(job, None)
        self._suspicions.pop(job, None)
        self._send()

    # ---- to the process -------------------------------------------------------------------------

    def _send(self) -> None:
        """Send the jobs that may be drawn now: those under suspicion one by one, the others when there are none."""
        if not self.ready or self._process is None:
            return
        alone = [job for job in self.tickets if self._blame.get(job, 0) >= 1 or self._suspicions.get(job, 0) >= SUSPICIONS]
        if alone and self._sent:
            return
        for job in alone[:1] or [job for job in self.tickets if job not in self._sent]:
            ticket = self.tickets[job]
            self._sent.add(job)
            self._process.send(Draw(ticket.job, tuple(sorted(ticket.unfinished))))

    # ---- after a death --------------------------------------------------------------------------

    def _died(self) -> None:
        self.ready, self._process = False, None
        self.restarts += 1
        self._ticks_before = self.ticks
        # If it died before it said what it admits, any of the jobs may be the reason.
        running = [ticket for ticket in self.tickets.values() if ticket.admitted]
        running = running or [self.tickets[job] for job in self._sent]
        self._sent.clear()
        if len(running) == 1:
            self._to_blame(running[0])
        else:
            for ticket in running:
                self._suspicions[ticket.job.id] = self._suspicions.get(ticket.job.id, 0) + 1
        for ticket in self.tickets.values():
            ticket.admitted.clear()
        if not self._stopping:
            self._restarting = asyncio.get_running_loop().create_task(self._restart())

    def _to_blame(self, ticket: Ticket) -> None:
        deaths = self._blame.get(ticket.job.id, 0) + 1
        self._blame[ticket.job.id] = deaths
        if deaths >= DEATHS:
            self._fail(ticket, f"the process that drew it died {deaths} times.")

    def _fail(self, ticket: Ticket, message: str) -> None:
        for sample in sorted(ticket.unfinished):
            ticket.deliver(Failed(ticket.job.id, sample, "worker", message))
        self._forget(ticket.job.id)

    async def _restart(self) -> None:
        failed = 0
        while not self._stopping:
            await asyncio.sleep(_PAUSES[min(failed, len(_PAUSES) - 1)])
            try:
                await self.start()
                return
            except StartError:
                failed += 1
                if failed >= STARTS:
                    for ticket in list(self.tickets.values()):
                        self._fail(ticket, "the process that draws cannot be started.")


class _Process:
    """A process and the two threads that talk to it, so that a full pipe holds up nobody.

    ``heard`` is called on the event loop with each list of messages after the first, and with None when the process has died.
    """

    def __init__(
        self,
        settings: Settings,
        shape: tuple[int, ...],
        loop: asyncio.AbstractEventLoop,
        heard: Callable[[_Process, list[Any] | None], None],
    ):
        self._loop, self._heard = loop, heard
        self.network: dict[str, Any] = {}
        self.dead = False
        self.started: asyncio.Future[None] = loop.create_future()
        self._commands: queue.SimpleQueue[Any] = queue.SimpleQueue()
        memory = new_file(settings.places, shape)
        self._connection, theirs = Pipe()
        try:
            self.arrays = SharedArrays(memory, settings.places, shape)
            # -P: not from the folder that the server was started in. A session of its own: a terminal's Ctrl-C is for the server.
            command = [sys.executable, "-P", "-m", "diffuse_fast.serving.worker", str(theirs.fileno()), str(memory)]
            self._process = subprocess.Popen(
                command, pass_fds=(theirs.fileno(), memory), stdin=subprocess.DEVNULL, start_new_session=True
            )
        finally:
            theirs.close()
            os.close(memory)
        self.send(settings)
        self._writer = threading.Thread(target=self._write, name=f"to worker {self.pid}", daemon=True)
        self._writer.start()
        threading.Thread(target=self._read, name=f"from worker {self.pid}", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, command: Any) -> None:
        """Send a command, in order, without waiting."""
        self._commands.put(command)

    async def stop(self, patience: float) -> None:
        """Close the connection, and end the process if it has not ended by itself after some seconds."""
        self._commands.put(None)
        await asyncio.to_thread(self._wait, patience)

    def _wait(self, patience: float) -> None:
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _write(self) -> None:
        with contextlib.suppress(OSError):
            while (command := self._commands.get()) is not None:
                self._connection.send(command)
        with contextlib.suppress(OSError):
            _half_close(self._connection)

    def _read(self) -> None:
        try:
            with contextlib.suppress(EOFError, OSError):
                self._call(self._first, self._connection.recv())
                while True:
                    self._call(self._heard, self, self._connection.recv())
        finally:
            self._call(self._last)
            self._commands.put(None)
            self._writer.join()
            self._connection.close()
            self._wait(5.0)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            self._loop.call_soon_threadsafe(function, *arguments)

    def _first(self, messages: list[Any]) -> None:
        (first,) = messages
        if self.started.done():
            return
        if isinstance(first, Ready):
            self.network = first.network
            self.started.set_result(None)
        elif isinstance(first, Broken):
            self.started.set_exception(StartError(first.message))

    def _last(self) -> None:
        self.dead = True
        if not self.started.done():
            self.started.set_exception(StartError("the worker ended while it started."))
        self._heard(self, None)


def _half_close(connection: Connection) -> None:
    """Let the other end read to the end of what was sent."""
    import socket

    with socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_WR)
