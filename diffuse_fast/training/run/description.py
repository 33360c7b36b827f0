"""Descriptions of objectives: as JSON for checkpoints, and of the network's output for previews and artifacts."""

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


class OutputSpec(NamedTuple):
    """How to interpret the output of a network.

    Attributes:
        schedule: The noise schedule of its training; the current one if it is learned.
        prediction_type: What the network predicts.
        convention: The time convention of its input.
        variance: ``none``, ``learned`` or ``learned_range``.
    """

    schedule: Schedule
    prediction_type: str
    convention: str
    variance: str


def output_spec(objective: AnyObjective) -> OutputSpec | None:
    """The output of a network that is trained with an objective; None for an objective of the caller's own."""
    if isinstance(objective, LearnedScheduleObjective):
        schedule = objective.schedule()
        return OutputSpec(schedule, objective.prediction_type, schedule.time_conventions[0], "none")
    if not isinstance(objective, Objective | VariationalObjective):
        return None
    kind = objective.variance_type if isinstance(objective, VariationalObjective) else ""
    process = objective.process
    return OutputSpec(process.schedule, process.prediction_type, process.convention, kind if kind.startswith("learned") else "none")


def description(objective: AnyObjective) -> dict[str, Any]:
    """The class and settings of an objective as JSON, which must be the same when a run is resumed. An objective of the caller's
    own has only its class."""
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
