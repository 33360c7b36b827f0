"""Make an objective from the sections ``objective``, ``weighting`` and ``times`` of a configuration."""

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
from ..objectives.times import AdaptiveTimes
from .config_section import OBJECTIVES, call_section

WEIGHTINGS: dict[str, Callable[..., Any]] = {"min_snr": MinSNR, "p2": P2, "edm": EDM}
TIMES: dict[str, Callable[..., TimeSampler]] = {
    "uniform": UniformTimes, "importance": ImportanceTimes, "log_normal": LogNormalTimes, "logit_normal": LogitNormalTimes,
}  # fmt: skip


def make_objective(
    schedule: Schedule | LogSNRNetwork, prediction_type: str, settings: Mapping[str, Mapping[str, Any]]
) -> tuple[AnyObjective, AnyObjective]:
    """Make the training objective, and the same objective for evaluation, with times that do not adapt to the training.

    Args:
        schedule: The noise schedule, or the network of a learned one.
        prediction_type: One of the schedule's prediction types.
        settings: ``objective`` (``type``: simple, vlb, hybrid, and its arguments), ``weighting`` (``type``: min_snr, p2, edm; only
            for simple), ``times`` (``type``: uniform, importance, log_normal, logit_normal).

    Raises:
        ArgumentError: a setting is unknown, or settings do not fit together; the message names section and key.
    """
    options = dict(settings["objective"])
    kind = options.pop("type", None)
    if isinstance(schedule, LogSNRNetwork):
        for section, given in (("objective.type", kind), ("weighting", settings["weighting"]), ("times", settings["times"])):
            if given:
                raise ArgumentError(f"{section} is given, but a learned schedule has its own objective, the ELBO.")
        known = ["levels", "value_range"]
        made = call_section("objective", lambda **rest: LearnedScheduleObjective(schedule, prediction_type, **rest), known, options)
        return made, made
    kind = "simple" if kind is None else kind
    if kind not in OBJECTIVES:
        raise ArgumentError(f"objective.type is {kind!r}.{suggest(str(kind), OBJECTIVES)}")
    times = _named("times", TIMES, {"type": "uniform", **settings["times"]}, schedule)
    steady = UniformTimes(schedule) if isinstance(times, AdaptiveTimes) else times
    if kind == "simple":
        weighting = _named("weighting", WEIGHTINGS, settings["weighting"]) if settings["weighting"] else None

        def make(**rest: Any) -> AnyObjective:
            return Objective(schedule, prediction_type, weighting=weighting, **rest)

        known = ["convention", "offset_noise"]
    else:
        if settings["weighting"]:
            raise ArgumentError(f"weighting is given, but objective.type is {kind}, which has its own weights.")
        if kind == "hybrid":
            options = {"variance_type": "learned_range", **options}

        def make(**rest: Any) -> AnyObjective:
            return VariationalObjective(schedule, prediction_type, simple=kind == "hybrid", **rest)

        known = ["variance_type", "levels", "value_range", *(["vlb_weight"] if kind == "hybrid" else [])]
    first, second = (
        call_section("objective", lambda sampler=sampler, **rest: make(times=sampler, **rest), known, options)
        for sampler in (times, steady)
    )
    return first, second


def _named(section: str, kinds: Mapping[str, Callable[..., Any]], options: Mapping[str, Any], *first: Any) -> Any:
    options = dict(options)
    name = options.pop("type", None)
    if name not in kinds:
        raise ArgumentError(f"{section}.type is {name!r}.{suggest(str(name), kinds)}")
    known = list(inspect.signature(kinds[name]).parameters)[len(first) :]
    return call_section(section, lambda **rest: kinds[name](*first, **rest), known, options)
