"""The result of :func:`diffuse_fast.tune`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..runtimes.tuning_cache import Choice


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run a batch, and its measurements.

    Attributes:
        choice: How it is run; ``seconds`` is the median.
        batch: Samples in a call.
        error: Root mean square of its difference to the float32 reference, relative to that of the reference; the largest over
            three times. NaN if it did not run.
        p20, p80: Seconds per call, 20th and 80th percentile over the turns; NaN if it was not timed.
        turns: How often it was timed.
        gain: Speedup over the default, the median over the turns; NaN if it was not timed.
        won: Number of turns in which it was faster than the default.
        default: Whether it is the default: what ``runtime="auto"`` takes without ``tune``, or the next one if that was rejected.
        refused: Why it was not timed; None if it was.
    """

    choice: Choice
    batch: int
    error: float = float("nan")
    p20: float = float("nan")
    p80: float = float("nan")
    turns: int = 0
    gain: float = float("nan")
    won: int = 0
    default: bool = False
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Tuning:
    """The result of :func:`diffuse_fast.tune`.

    Attributes:
        candidates: All candidates.
        best: What ``auto`` takes from now on, by precision and batch size; its ``why`` gives the reason.
        file: Where the result is stored; None if there is no cache.
    """

    candidates: tuple[Candidate, ...]
    best: dict[str, dict[int, Choice]] = field(default_factory=dict)
    file: Path | None = None
