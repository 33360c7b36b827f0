"""What :func:`diffuse_fast.tune` found."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..runtimes.tuning_cache import Choice


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run a batch, and what was found of it.

    Attributes:
        choice: How it is run; ``seconds`` is the median.
        batch: Samples in a call.
        error: Root mean square of its difference to the float32 reference, relative to that of the reference; the largest over
            three times. NaN where it did not run.
        p20, p80: Seconds of a call, 20th and 80th percentile over the turns; NaN where it was not timed.
        turns: How often it was timed.
        gain: How many times as long the default takes: the median over their turns; NaN where it was not timed.
        won: Turns in which it was faster than the default.
        default: Whether it is the default: what ``runtime="auto"`` takes without ``tune``, or where that was refused the next.
        refused: Why it was not timed; None where it was.
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
    """What :func:`diffuse_fast.tune` found.

    Attributes:
        candidates: All that was tried.
        best: What ``auto`` takes from now on, by precision and by batch size; its ``why`` says why.
        file: Where the answer is kept; None where none is.
    """

    candidates: tuple[Candidate, ...]
    best: dict[str, dict[int, Choice]] = field(default_factory=dict)
    file: Path | None = None
