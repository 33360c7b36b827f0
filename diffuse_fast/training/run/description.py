"""What an objective is, as plain data, and what it makes of a network: for checkpoints, previews and artifacts."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, NamedTuple

from ...schedule import Schedule
from ..objectives import (
    ImportanceTimes,
    LearnedScheduleObjective,
    LogitNormalTimes,
    LogNormalTimes,
    Objective,
    UniformTimes,
    VariationalObjective,
)
from ..objectives.objective import AnyObjective


class Meaning(NamedTuple):
    """How what a network puts out is to be read.

    Attributes:
        schedule: Of its training, as it is now.
        prediction_type: What it predicts.
        convention: What it is told of the time.
        variance: ``none``, ``learned`` or ``learned_range``.
    """

    schedule: Schedule
    prediction_type: str
    convention: str
    variance: str


def meaning(objective: AnyObjective) -> Meaning | None:
    """Of a network trained for an objective; None where it is one of the caller's own."""
    if isinstance(objective, LearnedScheduleObjective):
        schedule = objective.schedule()
        return Meaning(schedule, objective.prediction_type, schedule.time_conventions[0], "none")
    if not isinstance(objective, Objective | VariationalObjective):
        return None
    kind = objective.variance_type if isinstance(objective, VariationalObjective) else ""
    process = objective.process
    return Meaning(process.schedule, process.prediction_type, process.convention, kind if kind.startswith("learned") else "none")


def description(objective: AnyObjective) -> dict[str, Any]:
    """Its class and settings as JSON has them: what must be the same when a run is resumed. Of an objective of the caller's own the
    class alone."""
    out: dict[str, Any] = {"type": type(objective).__name__}
    if isinstance(objective, LearnedScheduleObjective):
        out |= {name: getattr(objective, name) for name in ("prediction_type", "levels", "value_range")}
    elif isinstance(objective, Objective | VariationalObjective):
        process = objective.process
        out |= {"schedule": process.schedule.to_json(), "times": _times(objective.times)}
        out |= {"prediction_type": process.prediction_type, "convention": process.convention}
    if isinstance(objective, Objective):
        weighting = objective.weighting
        if dataclasses.is_dataclass(weighting) and not isinstance(weighting, type):
            out["weighting"] = {"type": type(weighting).__name__, **dataclasses.asdict(weighting)}
        else:
            out["weighting"] = None if weighting is None else getattr(weighting, "__name__", type(weighting).__name__)
        out["offset_noise"] = objective.offset_noise
    elif isinstance(objective, VariationalObjective):
        out |= {n: getattr(objective, n) for n in ("variance_type", "levels", "value_range", "simple", "vlb_weight")}
    plain: dict[str, Any] = json.loads(json.dumps(out))
    return plain


def _times(times: Any) -> dict[str, Any]:
    known = {
        UniformTimes: ("spread",), ImportanceTimes: ("history", "uniform"), LogNormalTimes: ("mean", "std"),
        LogitNormalTimes: ("mean", "std"),
    }  # fmt: skip
    return {"type": type(times).__name__, **{name: getattr(times, name) for name in known.get(type(times), ())}}
