"""The workers of a server, one process for each model, from the side of asyncio."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..checks import require_int
from ..engine.conditioning import conditions
from ..engine.plan_cache import derive, facts_of
from ..errors import ArgumentError, DrainingError, QueueFullError, UnknownModelError, suggest
from ..kernels.step import noise_address
from ..model import Conditioning, Model, load
from ..plans.plan import Plan
from ..schedule import Schedule
from .job import Finished, Job
from .messages import Settings
from .supervisor import Supervisor
from .ticket import Ticket

# Arrays in the shared memory, for each slot: one that is being read and one that is being written.
_PLACES = 2
_MOST_PREVIEWS = 1000


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What clients may know of a model.

    Attributes:
        name: Its name here.
        shape: Shape of one sample.
        value_range: Of a sample's values, if it is an image.
        conditioning: Its conditioning inputs.
        schedule: Its noise schedule.
        prediction_type: What it predicts.
        solver, steps: What a job gets that does not say them.
        checksum: SHA-256 of its files.
        runtime, precision: What runs the network; the runtime is ``auto`` before the worker is ready.
    """

    name: str
    shape: tuple[int, ...]
    value_range: tuple[float, float] | None
    conditioning: tuple[Conditioning, ...]
    schedule: Schedule
    prediction_type: str
    solver: str
    steps: int
    checksum: str
    runtime: str
    precision: str


@dataclass(frozen=True, slots=True)
class ModelState:
    """How one model's worker does.

    Attributes:
        waiting, running: Samples in the queue and in the batch.
        ticks: Steps of the batch so far.
        seconds_per_tick: Seconds per step, lately.
        occupancy: The part of the batch that is used, 0 to 1.
        restarts: How often its process died.
    """

    waiting: int
    running: int
    ticks: int
    seconds_per_tick: float
    occupancy: float
    restarts: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of all models at one moment."""

    models: dict[str, ModelState]


class Workers:
    """A process for each model, which draws the samples of all clients in one batch. For one event loop.

    Args:
        models: Model files, or names of bundled models, by the names that clients use.
        capacity: Samples that a model draws at once.
        queue: Samples that may wait for each model.
        max_samples: Samples of one job.
        evaluations: Evaluations of the network per step; None: two for each sample. With guidance, a sample takes two.
        ageing: Seconds of waiting that weigh as much as one level of priority.
        solver, steps: Of jobs that do not say them.
        runtime, precision, threads: As for :func:`diffuse_fast.sample`.
        warm_timeout: Seconds in which a process must be ready.

    Attributes:
        capacity, queue, max_samples: As given.

    Raises:
        ArtifactError: a file is not a model.

    Example:
        >>> import asyncio, diffuse_fast as df
        >>> from diffuse_fast.serving.job import Finished, Job, Sample
        >>> from diffuse_fast.serving.workers import Workers
        >>> async def main():
        ...     workers = Workers({"digits": "digits"})
        ...     await workers.start()
        ...     try:
        ...         job = Job("first", "digits", (Sample(seed=1, cond={"label": 7}),), solver="ddim", steps=5)
        ...         async for event in workers.submit(job):
        ...             if isinstance(event, Finished):
        ...                 return event.x
        ...     finally:
        ...         await workers.stop(drain=1.0)
        >>> x = asyncio.run(main())
        >>> bool((x == df.sample("digits", 1, 5, seed=1, cond={"label": 7})[0]).all())
        True
    """

    def __init__(
        self,
        models: Mapping[str, str | Path],
        *,
        capacity: int = 16,
        queue: int = 256,
        max_samples: int = 64,
        evaluations: int | None = None,
        ageing: float = 1.0,
        solver: str = "ddim",
        steps: int = 20,
        runtime: str = "auto",
        precision: str = "float32",
        threads: int | None = None,
        warm_timeout: float = 60.0,
    ):
        self.capacity, self.queue = require_int("capacity", capacity, 1), require_int("queue", queue, 0)
        self.max_samples = require_int("max_samples", max_samples, 1)
        if evaluations is not None:
            require_int("evaluations", evaluations, 2)
        if not models:
            raise ArgumentError("models is empty; give at least one.")
        self._solver, self._steps, self._runtime, self._precision = solver, require_int("steps", steps, 1), runtime, precision
        self._texts: dict[int, tuple[Plan, str]] = {}
        self._draining = False

        def supervisor(name: str, path: str | Path) -> Supervisor:
            model = load(path)
            model.plan(solver, steps)  # raises, rather than each job
            settings = Settings(
                model.files, capacity, evaluations, ageing, _PLACES * capacity, solver, steps, runtime, precision, threads
            )
            return Supervisor(name, model, settings, warm_timeout, self._record)

        self._supervisor = supervisor
        self._supervisors = {name: supervisor(name, path) for name, path in models.items()}
        self._retiring: set[asyncio.Task[None]] = set()

    # ---- life -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the processes, and wait until each has loaded its network and drawn a sample.

        Raises:
            StartError: one of them cannot, or not within ``warm_timeout``; the others are ended.
        """
        started = await asyncio.gather(*(s.start() for s in self._supervisors.values()), return_exceptions=True)
        failed = next((error for error in started if isinstance(error, BaseException)), None)
        if failed is not None:
            await self.stop(0.0)
            raise failed

    async def stop(self, drain: float) -> None:
        """Refuse new jobs, let those that there are end, and end the processes.

        Args:
            drain: Seconds; what has not ended by then is cancelled.
        """
        self._draining = True
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*(s.stop(drain) for s in self._supervisors.values()), *self._retiring, return_exceptions=True)

    async def reload(self, name: str) -> None:
        """Read a model's files again. Jobs that were accepted before are drawn with the old ones, in their process.

        The old process goes on until its jobs have ended; meanwhile the model takes twice its memory. If the new files cannot be
        served, nothing changes.

        Raises:
            ArtifactError, StartError: they cannot be served.
        """
        old = self._supervisors[name]
        new = self._supervisor(name, old.model.path)
        await new.start()
        new.carry_on(old)
        self._supervisors[name] = new
        task = asyncio.create_task(old.stop(math.inf))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    @property
    def ready(self) -> bool:
        """Whether every model takes jobs."""
        return not self._draining and all(s.ready for s in self._supervisors.values())

    @property
    def models(self) -> Mapping[str, ModelInfo]:
        """The models by name, in the order in which they were given."""
        return {name: self._info(name) for name in self._supervisors}

    def snapshot(self) -> Snapshot:
        """How the workers do."""
        return Snapshot({name: self._state(s) for name, s in self._supervisors.items()})

    # ---- jobs -----------------------------------------------------------------------------------

    def submit(self, job: Job) -> Ticket:
        """Accept a job, after checks that need no network.

        Raises:
            UnknownModelError: no model has that name.
            ArgumentError, ArgumentTypeError, PlanError: the job does not fit the model; nothing was queued.
            QueueFullError: too many samples wait, or so many that the job could not be finished before its deadline.
            DrainingError: the server stops.
        """
        if self._draining:
            raise DrainingError("the server stops and takes no new jobs.")
        if job.model not in self._supervisors:
            raise UnknownModelError(f"there is no model {job.model!r}.{suggest(job.model, self._supervisors)}")
        supervisor = self._supervisors[job.model]
        if job.id in supervisor.tickets:
            raise ArgumentError(f"there is a job {job.id!r} already.")
        calls, evaluations = self._check(job, supervisor.model)
        estimate = self._estimate(supervisor, len(job.samples), calls, evaluations)
        unfinished = sum(len(ticket.unfinished) for ticket in supervisor.tickets.values())
        if unfinished + len(job.samples) > self.capacity + self.queue:
            message = f"{job.model!r} has {unfinished} samples to draw; it takes {self.capacity + self.queue}."
            raise QueueFullError(message, retry_after=max(0.1, estimate))
        if supervisor.tickets and job.deadline is not None and time.monotonic() + estimate > job.deadline:
            message = f"{job.model!r} would finish this in {estimate:.2g} s, after its deadline."
            raise QueueFullError(message, retry_after=max(0.1, estimate))
        ticket = Ticket(job, calls, evaluations, estimate, supervisor.cancelled)
        supervisor.add(ticket)
        return ticket

    def _check(self, job: Job, model: Model) -> tuple[int, int]:
        """Check a job, and return the calls of the network of one sample and the evaluations in each."""
        if not 1 <= len(job.samples) <= self.max_samples:
            raise ArgumentError(f"a job has 1 to {self.max_samples} samples; this one has {len(job.samples)}.")
        if require_int("previews", job.previews, 0) > _MOST_PREVIEWS:
            raise ArgumentError(f"previews is {job.previews}; it must be at most {_MOST_PREVIEWS}.")
        plan = self._plan(job, model)
        scale = 1.0 if job.guidance_scale is None else float(job.guidance_scale)
        if not math.isfinite(scale):
            raise ArgumentError(f"guidance_scale is {job.guidance_scale!r}; it must be finite.")
        if scale != 1.0 and not model.conditioning:
            raise ArgumentError("guidance_scale is not 1, but the model has no conditioning to guide by.")
        facts = facts_of(derive(plan, scale))
        for sample in job.samples:
            noise_address([sample.seed], [sample.index], 1)
            for name, given in (("cond", sample.cond), ("negative_cond", sample.negative_cond)):
                if given is not None:
                    conditions(name, {key: [value] for key, value in given.items()}, 1, model.conditioning)
            if sample.negative_cond is not None and scale == 1.0:
                raise ArgumentError("negative_cond needs a guidance_scale other than 1.")
        return facts.calls, facts.outputs

    def _plan(self, job: Job, model: Model) -> Plan:
        return model.plan(job.solver or self._solver, job.steps or self._steps, **job.options)

    def _estimate(self, supervisor: Supervisor, samples: int, calls: int, evaluations: int) -> float:
        """Seconds until a job should be finished, by the time that an evaluation of the network takes.

        Its samples wait while those that do not fit into the batch are drawn, and then share their steps with a full batch.
        """
        tickets = supervisor.tickets.values()
        fit = min(1.0, self.capacity / (samples + sum(len(ticket.unfinished) for ticket in tickets)))
        ahead = sum(len(ticket.unfinished) * ticket.calls * ticket.evaluations for ticket in tickets)
        in_step = samples * evaluations + sum(len(ticket.unfinished) * ticket.evaluations for ticket in tickets)
        return supervisor.seconds_per_evaluation * ((1 - fit) * ahead + calls * fit * in_step)

    def _state(self, supervisor: Supervisor) -> ModelState:
        running = sum(len(ticket.admitted) for ticket in supervisor.tickets.values())
        unfinished = sum(len(ticket.unfinished) for ticket in supervisor.tickets.values())
        return ModelState(
            unfinished - running,
            running,
            supervisor.ticks,
            supervisor.seconds_per_tick,
            running / self.capacity,
            supervisor.restarts,
        )

    def _info(self, name: str) -> ModelInfo:
        model, network = self._supervisors[name].model, self._supervisors[name].network
        assert model.schedule is not None and model.prediction_type is not None  # a plan was made with them
        return ModelInfo(
            name=name,
            shape=tuple(model.shape),
            value_range=model.value_range,
            conditioning=tuple(model.conditioning),
            schedule=model.schedule,
            prediction_type=model.prediction_type,
            solver=self._solver,
            steps=self._steps,
            checksum=model.sha256,
            runtime=network.get("runtime", self._runtime),
            precision=network.get("precision", self._precision),
        )

    def _record(self, supervisor: Supervisor, ticket: Ticket, event: Finished) -> dict[str, Any]:
        """What it takes to draw a sample again."""
        job, model = ticket.job, supervisor.model
        sample = job.samples[event.sample]
        return {
            "model": model.name,
            "model_sha256": model.sha256,
            "seed": int(sample.seed),
            "index": int(sample.index),
            "solver": job.solver or self._solver,
            "steps": job.steps or self._steps,
            "guidance_scale": 1.0 if job.guidance_scale is None else float(job.guidance_scale),
            "cond": _as_lists(sample.cond),
            "negative_cond": _as_lists(sample.negative_cond),
            "plan": self._text(self._plan(job, model)),
            "network": supervisor.network,
            "diffuse_fast": __version__,
        }

    def _text(self, plan: Plan) -> str:
        """The plan as JSON; most jobs share theirs with others."""
        found = self._texts.get(id(plan))
        if found is None or found[0] is not plan:
            if len(self._texts) >= 64:
                self._texts.clear()
            found = self._texts[id(plan)] = plan, plan.to_json()
        return found[1]


def _as_lists(cond: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if cond is None else {name: getattr(value, "tolist", lambda value=value: value)() for name, value in cond.items()}
