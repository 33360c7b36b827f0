"""Workers without processes and networks: a batch that steps on the event loop. What it draws depends on seed and index only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diffuse_fast.artifact.document import Conditioning
from diffuse_fast.errors import ArgumentError, ArtifactError, DrainingError, QueueFullError, StartError, UnknownModelError
from diffuse_fast.schedule import Schedule
from diffuse_fast.serving.job import Admitted, Cancelled, Event, Failed, Finished, Job, Preview


@dataclass(frozen=True)
class Info:
    name: str
    shape: tuple[int, ...] = (1, 8, 8)
    value_range: tuple[float, float] | None = (-1.0, 1.0)
    conditioning: tuple[Conditioning, ...] = (Conditioning("label", "int64", (), null=10, classes=10),)
    schedule: Schedule = field(default_factory=Schedule.linear)
    prediction_type: str = "epsilon"
    solver: str = "ddim"
    steps: int = 20
    checksum: str = "0" * 64
    runtime: str = "native"
    precision: str = "float32"


@dataclass(frozen=True)
class State:
    waiting: int = 0
    running: int = 0
    ticks: int = 0
    seconds_per_tick: float = 0.001
    occupancy: float = 0.0
    restarts: int = 0


@dataclass(frozen=True)
class Snapshot:
    models: dict[str, State]


def drawn(seed: int, index: int, shape: tuple[int, ...]) -> np.ndarray:
    """What the fake draws."""
    return np.random.default_rng([seed, index]).uniform(-1, 1, shape).astype(np.float32)


class FakeTicket:
    def __init__(self, job: Job, workers: FakeWorkers) -> None:
        self.job = job
        self.estimate = 0.5
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._task = asyncio.create_task(self._draw(workers))
        self.steps_after_cancel = 0

    def cancel(self) -> None:
        self._task.cancel()

    async def _draw(self, workers: FakeWorkers) -> None:
        job, info = self.job, workers.models[self.job.model]
        steps = job.steps or info.steps
        samples = range(len(job.samples))
        try:
            await workers.slots.acquire()
        except asyncio.CancelledError:
            self._events.put_nowait(Cancelled(job.id))
            self._events.put_nowait(None)
            return
        finally:
            workers.waiting -= 1
        try:
            workers.running += 1
            for i in samples:
                self._events.put_nowait(Admitted(job.id, i, asyncio.get_running_loop().time()))
            at = {max(1, steps * (k + 1) // (job.previews + 1)): k for k in range(job.previews)}
            for step in range(1, steps + 1):
                await asyncio.sleep(workers.step_seconds)
                workers.ticks += 1
                for i in samples:
                    if step in at:
                        sample = job.samples[i]
                        x = drawn(sample.seed, sample.index, info.shape) * step / steps
                        self._events.put_nowait(Preview(job.id, i, at[step], step, steps, x))
            for i, sample in enumerate(job.samples):
                kind = workers.failures.get(sample.seed)
                if kind is not None:
                    self._events.put_nowait(Failed(job.id, i, kind, "the sample failed."))
                    continue
                record = {
                    "model_sha256": info.checksum,
                    "seed": sample.seed,
                    "index": sample.index,
                    "solver": job.solver or info.solver,
                    "steps": steps,
                    "guidance_scale": 1.0 if job.guidance_scale is None else job.guidance_scale,
                    "cond": None if sample.cond is None else {name: value.tolist() for name, value in sample.cond.items()},
                    "negative_cond": None,
                    "plan": "{}",
                    "network": {"runtime": info.runtime, "precision": info.precision},
                    "diffuse_fast": "0",
                }
                x = drawn(sample.seed, sample.index, info.shape)
                self._events.put_nowait(Finished(job.id, i, x, steps, steps, record))
        except asyncio.CancelledError:
            self._events.put_nowait(Cancelled(job.id))
        finally:
            workers.running -= 1
            workers.slots.release()
            self._events.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[Event]:
        while (event := await self._events.get()) is not None:
            yield event


@dataclass
class FakeWorkers:
    """``failures`` maps a seed to the kind of failure its sample meets."""

    capacity: int = 4
    queue: int = 8
    step_seconds: float = 0.0005
    ready: bool = True
    broken_file: bool = False
    reloaded: list[str] = field(default_factory=list)
    draining: bool = False
    broken: bool = False
    warm_seconds: float = 0.0
    models: dict[str, Any] = field(default_factory=lambda: {"digits": Info("digits")})
    failures: dict[int, str] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)
    waiting: int = 0
    running: int = 0
    ticks: int = 0

    def __post_init__(self) -> None:
        self.slots = asyncio.Semaphore(self.capacity)

    async def start(self) -> None:
        await asyncio.sleep(self.warm_seconds)
        if self.broken:
            raise StartError("the model does not load.")
        self.ready = True

    async def reload(self, name: str) -> None:
        self.reloaded.append(name)
        if self.broken_file:
            raise ArtifactError("the file is truncated.")

    async def stop(self, drain: float) -> None:
        self.draining, self.ready = True, False
        end = asyncio.get_running_loop().time() + drain
        while self.running + self.waiting and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.01)

    def submit(self, job: Job) -> FakeTicket:
        if job.model not in self.models:
            raise UnknownModelError(f"there is no model {job.model!r}.")
        if self.draining:
            raise DrainingError("the server stops.")
        if job.solver == "nonsense":
            raise ArgumentError("solver is 'nonsense'; known: ddim.")
        if self.waiting >= self.queue:
            raise QueueFullError("the queue is full.", retry_after=1.5)
        self.waiting += 1
        self.jobs.append(job)
        return FakeTicket(job, self)

    def snapshot(self) -> Snapshot:
        state = State(self.waiting, self.running, self.ticks, occupancy=self.running / self.capacity)
        return Snapshot(dict.fromkeys(self.models, state))
