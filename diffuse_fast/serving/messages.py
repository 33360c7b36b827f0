"""What a worker and its supervisor say to each other, beside the events of :mod:`.job`.

The worker gets :class:`Settings` first, then :class:`Draw`, :class:`Cancel` and :class:`Free`. It sends lists: first one with
:class:`Ready` or :class:`Broken`, then events and a :class:`Pulse`. The arrays of events may be a :class:`~.shared_arrays.Place`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..artifact.file_identity import Files
from .job import Job


@dataclass(frozen=True, slots=True)
class Settings:
    """What a worker is started with.

    Attributes:
        files: The model's files, the .onnx file first; the worker refuses others that took their place.
        capacity: Slots of the batch.
        evaluations: Most evaluations of the network per step; None: two for each slot.
        ageing: See :class:`~.scheduler.Scheduler`.
        places: Arrays in the shared memory.
        solver, steps: Of jobs that do not say them.
        runtime, precision, threads: As for :func:`diffuse_fast.sample`.
    """

    files: Files
    capacity: int
    evaluations: int | None
    ageing: float
    places: int
    solver: str
    steps: int
    runtime: str
    precision: str
    threads: int | None


@dataclass(frozen=True, slots=True)
class Draw:
    """Draw some samples of a job, by position."""

    job: Job
    samples: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop drawing a job."""

    job: str


@dataclass(frozen=True, slots=True)
class Free:
    """Arrays in the shared memory have been read."""

    places: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ready:
    """The network has been loaded and has drawn a sample. ``network`` says what runs it, as JSON data."""

    network: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Broken:
    """The worker cannot start."""

    message: str


@dataclass(frozen=True, slots=True)
class Pulse:
    """How it goes: steps so far, and lately the seconds of a step and of an evaluation of the network."""

    ticks: int
    seconds_per_tick: float
    seconds_per_evaluation: float
