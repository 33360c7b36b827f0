"""What a server is asked for, and what it answers: plain data that crosses the border between processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of a job.

    Attributes:
        seed, index: The key of its noise, as for :func:`diffuse_fast.sample`.
        cond, negative_cond: Its conditioning by input name, without a batch axis.
    """

    seed: int
    index: int = 0
    cond: Mapping[str, Any] | None = None
    negative_cond: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """What one client asks for. Its samples share everything but seed, index and conditioning.

    Attributes:
        id: Its name; no two jobs that are not finished have the same.
        model: The name of the model.
        samples: At least one.
        solver, steps: As for :func:`diffuse_fast.sample`; None is the server's default.
        options: Further options of the plan, as for :func:`diffuse_fast.sample`.
        guidance_scale: None is 1: no guidance.
        priority: Higher is sooner.
        deadline: The value of ``time.monotonic()`` after which nobody wants the samples; None if there is none.
        previews: How many unfinished states to report of each sample, evenly spaced over its steps.
    """

    id: str
    model: str
    samples: tuple[Sample, ...]
    solver: str | None = None
    steps: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    guidance_scale: float | None = None
    priority: int = 0
    deadline: float | None = None
    previews: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a job.

    Attributes:
        job: The job's id.
    """

    job: str


@dataclass(frozen=True, slots=True)
class Admitted(Event):
    """A sample joined the batch.

    Attributes:
        sample: Its position in the job.
        at: When, by ``time.monotonic()``.
    """

    sample: int
    at: float


@dataclass(frozen=True, slots=True)
class Preview(Event):
    """A sample that is not finished.

    Attributes:
        sample: Its position in the job.
        number: Which of the job's ``previews`` it is, from 0.
        step, steps: Calls of the network made so far, and in all.
        x: The state, float32, of the model's shape.
    """

    sample: int
    number: int
    step: int
    steps: int
    x: np.ndarray


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """A sample is finished.

    Attributes:
        sample: Its position in the job.
        x: The sample, float32, of the model's shape.
        steps: Steps of its plan.
        calls: Calls of the network.
        record: What :func:`diffuse_fast.sample` needs to draw it again to the same bits, as JSON data.
    """

    sample: int
    x: np.ndarray
    steps: int
    calls: int
    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """A sample failed; the others of its job go on.

    Attributes:
        sample: Its position in the job.
        kind: ``argument`` (the model cannot take it), ``non_finite`` (the network returned NaN or Inf for it), ``network`` (the
            network failed), ``deadline`` (it could not be finished in time) or ``worker`` (the process that drew it died).
        message: Fit for a client.
    """

    sample: int
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Cancelled(Event):
    """The job was cancelled; nothing follows."""
