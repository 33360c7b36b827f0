"""What a supervisor makes of processes that die, with a process that is not one."""

from __future__ import annotations

import asyncio
import time

import pytest

import diffuse_fast as df
from diffuse_fast.errors import StartError
from diffuse_fast.serving import supervisor as module
from diffuse_fast.serving.job import Failed, Job, Sample
from diffuse_fast.serving.messages import Draw
from diffuse_fast.serving.supervisor import DEATHS, Supervisor
from diffuse_fast.serving.ticket import Ticket


class FakeProcess:
    """Starts, or does not; takes commands; dies when it is told to."""

    starts = True
    made: list[FakeProcess] = []  # noqa: RUF012  (the fixture gives each test its own)

    def __init__(self, settings, shape, loop, heard):
        self.network, self.dead, self.commands, self._heard = {}, False, [], heard
        self.started = loop.create_future()
        if FakeProcess.starts:
            loop.call_soon_threadsafe(self.started.set_result, None)
        else:
            loop.call_soon_threadsafe(self.started.set_exception, StartError("no memory"))
        FakeProcess.made.append(self)

    def send(self, command):
        self.commands.append(command)

    async def stop(self, patience):
        pass

    def die(self):
        self._heard(self, None)

    @property
    def drawing(self):
        return [command.job.id for command in self.commands if isinstance(command, Draw)]


@pytest.fixture
def process(monkeypatch):
    monkeypatch.setattr(module, "_Process", FakeProcess)
    monkeypatch.setattr(module, "_PAUSES", (0.0,))
    monkeypatch.setattr(FakeProcess, "starts", True)
    monkeypatch.setattr(FakeProcess, "made", [])
    return FakeProcess


def supervised(scenario):
    async def main():
        one = Supervisor("digits", df.load("digits"), None, 60.0, lambda *_: {})
        await one.start()
        async with asyncio.timeout(120):
            return await scenario(one)

    return asyncio.run(main())


def ticket_of(supervisor, name, deadline=None):
    job = Job(name, "digits", (Sample(1),), deadline=deadline)
    ticket = Ticket(job, 5, 1, 0.0, supervisor.cancelled)
    supervisor.add(ticket)
    return ticket


async def replaced(supervisor, process):
    """Let the process die, and wait for the next."""
    count = len(process.made)
    process.made[-1].die()
    while len(process.made) == count or not supervisor.ready:
        await asyncio.sleep(0.001)


async def end_of(ticket):
    return [event async for event in ticket][-1]


def test_jobs_fail_while_no_process_starts(process):
    """Those that wait when it died, and those that come later."""

    async def scenario(supervisor):
        first = ticket_of(supervisor, "first")
        process.starts = False
        process.made[-1].die()
        ends = [await end_of(first)]
        ends.append(await end_of(ticket_of(supervisor, "second")))
        await supervisor.stop()
        return ends

    assert [(type(end), end.kind) for end in supervised(scenario)] == [(Failed, "worker")] * 2


def test_a_death_before_a_word_is_that_of_the_job_that_was_sent(process):
    async def scenario(supervisor):
        ticket = ticket_of(supervisor, "poison")
        for death in range(DEATHS):
            assert process.made[-1].drawing == ["poison"], death
            await replaced(supervisor, process)
        return await end_of(ticket)

    assert supervised(scenario).kind == "worker"


def test_suspects_are_drawn_one_by_one(process):
    async def scenario(supervisor):
        tickets = [ticket_of(supervisor, name) for name in "abc"]
        for _ in range(2):
            assert sorted(process.made[-1].drawing) == ["a", "b", "c"]
            await replaced(supervisor, process)
        assert process.made[-1].drawing == ["a"]
        tickets[0].cancel()
        assert process.made[-1].drawing == ["a", "b"]
        late = ticket_of(supervisor, "d")
        assert process.made[-1].drawing == ["a", "b"]
        tickets[1].cancel()
        tickets[2].cancel()
        assert process.made[-1].drawing == ["a", "b", "c", "d"]
        late.cancel()
        assert not supervisor.tickets and not supervisor._timers

    supervised(scenario)


def test_a_deadline_passes_also_without_a_process(process, monkeypatch):
    async def scenario(supervisor):
        monkeypatch.setattr(module, "_PAUSES", (60.0,))
        process.made[-1].die()
        end = await end_of(ticket_of(supervisor, "late", deadline=time.monotonic() + 0.01))
        await supervisor.stop()
        return end

    assert supervised(scenario).kind == "deadline"
