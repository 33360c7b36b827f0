"""What became of the requests, and the figures of a run."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LOST = "lost"  # no connection was free
BROKEN = "broken"  # the connection failed
TIMEOUT = "timeout"
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request's end.

    Attributes:
        result: The HTTP status, or :data:`LOST`, :data:`BROKEN` or :data:`TIMEOUT`.
        seconds: From the moment when it should have been sent to the end of the answer.
        deadline: Seconds within which it is of use.
    """

    result: int | str
    seconds: float
    deadline: float


def summary(outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
    """The figures of a run, ready for JSON.

    Args:
        outcomes: Of all arrivals.
        seconds: How long the run took, to its last answer.

    Returns:
        ``arrivals``, ``completed``, ``within_deadline`` and ``lost`` as counts; ``not_completed`` as counts by status or reason;
        ``throughput`` and ``goodput`` in requests per second, completed and completed within the deadline; ``latency_ms`` of
        the completed and ``refusal_ms`` of those with status 429 and 503, by percentile, None where there were none.
    """
    completed = [o for o in outcomes if o.result == 200]
    good = sum(o.seconds <= o.deadline for o in completed)
    others = collections.Counter(str(o.result) for o in outcomes if o.result != 200)
    return {
        "seconds": seconds,
        "arrivals": len(outcomes),
        "completed": len(completed),
        "within_deadline": good,
        "lost": others[LOST],
        "not_completed": dict(sorted(others.items())),
        "throughput": len(completed) / seconds,
        "goodput": good / seconds,
        "latency_ms": _percentiles([o.seconds for o in completed]),
        "refusal_ms": _percentiles([o.seconds for o in outcomes if o.result in (429, 503)]),
    }


def _percentiles(seconds: Sequence[float]) -> dict[str, float | None]:
    values = 1e3 * np.percentile(seconds, PERCENTILES) if seconds else [None] * len(PERCENTILES)
    return {f"p{p}": None if value is None else float(value) for p, value in zip(PERCENTILES, values, strict=True)}
