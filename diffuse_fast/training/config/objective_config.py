"""What a configuration says of the objective: sections ``objective``, ``weighting`` and ``times``, as objects."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ...errors import ArgumentError, suggest
from ...schedule import Schedule
from ..objectives import (
    EDM,
    P2,
    ImportanceTimes,
    LearnedScheduleObjective,
    LogitNormalTimes,
    LogNormalTimes,
    LogSNRNetwork,
    MinSNR,
    Objective,
    TimeSampler,
    UniformTimes,
    VariationalObjective,
)
from ..objectives.objective import AnyObjective
from ..objectives.times import Listening
from .config_section import OBJECTIVES, called

WEIGHTINGS: dict[str, Callable[..., Any]] = {"min_snr": MinSNR, "p2": P2, "edm": EDM}
TIMES: dict[str, Callable[..., TimeSampler]] = {
    "uniform": UniformTimes, "importance": ImportanceTimes, "log_normal": LogNormalTimes, "logit_normal": LogitNormalTimes,
}  # fmt: skip


def objective(
    schedule: Schedule | LogSNRNetwork, prediction_type: str, settings: Mapping[str, Mapping[str, Any]]
) -> tuple[AnyObjective, AnyObjective]:
    """The objective that settings describe, and one for measuring: the same, at times that do not follow what was trained.

    Args:
        schedule: Given, or a network that makes it and is trained with the objective.
        prediction_type: One of the schedule's.
        settings: ``objective`` (``type``: simple, vlb, hybrid, and its arguments), ``weighting`` (``type``: min_snr, p2, edm, of a
            simple one), ``times`` (``type``: uniform, importance, log_normal, logit_normal).

    Raises:
        ArgumentError: a setting is unknown, or they do not go together; the message names section and key.
    """
    options = dict(settings["objective"])
    kind = options.pop("type", None)
    if isinstance(schedule, LogSNRNetwork):
        for section, given in (("objective.type", kind), ("weighting", settings["weighting"]), ("times", settings["times"])):
            if given:
                raise ArgumentError(f"{section} is given, but a schedule that is learned has its own objective: the ELBO.")
        known = ["levels", "value_range"]
        made = called("objective", lambda **rest: LearnedScheduleObjective(schedule, prediction_type, **rest), known, options)
        return made, made
    kind = "simple" if kind is None else kind
    if kind not in OBJECTIVES:
        raise ArgumentError(f"objective.type is {kind!r}.{suggest(str(kind), OBJECTIVES)}")
    times = _named("times", TIMES, {"type": "uniform", **settings["times"]}, schedule)
    steady = UniformTimes(schedule) if isinstance(times, Listening) else times
    if kind == "simple":
        weighting = _named("weighting", WEIGHTINGS, settings["weighting"]) if settings["weighting"] else None

        def make(**rest: Any) -> AnyObjective:
            return Objective(schedule, prediction_type, weighting=weighting, **rest)

        known = ["convention", "offset_noise"]
    else:
        if settings["weighting"]:
            raise ArgumentError(f"weighting is given, but objective.type is {kind}, which weighs times by itself.")
        if kind == "hybrid":
            options = {"variance_type": "learned_range", **options}

        def make(**rest: Any) -> AnyObjective:
            return VariationalObjective(schedule, prediction_type, simple=kind == "hybrid", **rest)

        known = ["variance_type", "levels", "value_range", *(["vlb_weight"] if kind == "hybrid" else [])]
    first, second = (
        called("objective", lambda sampler=sampler, **rest: make(times=sampler, **rest), known, options)
        for sampler in (times, steady)
    )
    return first, second


def _named(section: str, kinds: Mapping[str, Callable[..., Any]], options: Mapping[str, Any], *first: Any) -> Any:
    options = dict(options)
    name = options.pop("type", None)
    if name not in kinds:
        raise ArgumentError(f"{section}.type is {name!r}.{suggest(str(name), kinds)}")
    known = list(inspect.signature(kinds[name]).parameters)[len(first) :]
    return called(section, lambda **rest: kinds[name](*first, **rest), known, options)
