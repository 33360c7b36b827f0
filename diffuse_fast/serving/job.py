"""Temporary: the core half's file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Sample:
    seed: int
    index: int = 0
    cond: Mapping[str, Any] | None = None
    negative_cond: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Job:
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
    min_steps: int | None = None


@dataclass(frozen=True)
class Event:
    job: str


@dataclass(frozen=True)
class Admitted(Event):
    sample: int
    at: float


@dataclass(frozen=True)
class Preview(Event):
    sample: int
    number: int
    step: int
    steps: int
    x: np.ndarray


@dataclass(frozen=True)
class Finished(Event):
    sample: int
    x: np.ndarray
    steps: int
    calls: int
    record: dict[str, Any]


@dataclass(frozen=True)
class Failed(Event):
    sample: int | None
    kind: str
    message: str


@dataclass(frozen=True)
class Cancelled(Event):
    pass
