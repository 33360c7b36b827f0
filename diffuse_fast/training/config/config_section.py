"""The sections of a configuration: read from TOML, checked without torch and data, and passed to constructors.

:func:`check` lists all faults at once, before torch and the data are loaded.
"""

from __future__ import annotations

import inspect
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ...artifact.document import TIME_DTYPES
from ...errors import ArgumentError, ArgumentTypeError, DiffuseFastError, TrainingError, suggest
from ...plans.plan import PREDICTION_TYPES
from ...schedule import Schedule
from ...schedule.discrete import DiscreteSchedule
from ...schedule.types import DISCRETE, TYPES, ZERO_SNR
from ..data.decode import ON_ERROR, Framing
from .train_config import TrainConfig

Settings = Mapping[str, Mapping[str, Any]]

SECTIONS = ("data", "network", "schedule", "objective", "weighting", "times", "train", "artifact")
FRAMING = ("size", "channels", "crop", "data_range")
DATA = {  # settings of each kind of data
    "images": ("path", "labels", "on_error", *FRAMING),
    "datasets": ("path", "split", "image", "label", "on_error", *FRAMING),
    "arrays": ("path", "data_range"),
    "digits": (),
    "emoji": ("archive", "size", "on_error"),
}
NETWORKS = {"MLP": 1, "UNet1D": 2, "UNet": 3, "DiT": 3, "UNet3D": 4}  # axes of a sample
ARTIFACT = ("name", "license", "value_range", "clip", "time_dtype")
OBJECTIVES = ("simple", "vlb", "hybrid")
WEIGHTINGS = ("min_snr", "p2", "edm")
TIMES = ("uniform", "importance", "log_normal", "logit_normal")


def read_config(path: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """Read the settings of a TOML file, by section.

    Raises:
        ArgumentError: the file cannot be read or is not TOML.
    """
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except (OSError, ValueError) as error:
        raise ArgumentError(f"cannot read the configuration {os.fspath(path)!r}: {error}.") from error


def call_section(section: str, make: Callable[..., Any], known: Sequence[str], options: Mapping[str, Any]) -> Any:
    """Call ``make(**options)`` for the options of a section.

    Raises:
        ArgumentError: an option is unknown, or ``make`` refuses a value; the message names the section.
    """
    for name in options:
        if name not in known:
            raise ArgumentError(f"unknown setting {section}.{name}.{suggest(name, known)}")
    try:
        return make(**options)
    except (ArgumentError, ArgumentTypeError, TrainingError) as error:
        raise type(error)(f"section [{section}]: {error}") from error
    except TypeError as error:
        raise ArgumentError(f"section [{section}]: {error}.") from error


def check(settings: Settings) -> None:
    """Check settings without loading torch or the data.

    Raises:
        ArgumentError: settings are wrong; the message lists all of them with section and key.
    """
    faults = list(_faults(settings))
    if len(faults) == 1:
        raise ArgumentError(faults[0])
    if faults:
        raise ArgumentError("\n".join([f"{len(faults)} settings are invalid:", *(f"  {fault}" for fault in faults)]))


def make_schedule(options: Mapping[str, Any]) -> Schedule | None:
    """Make the schedule of a section ``schedule``; None for a learned one.

    Raises:
        ArgumentError: a setting is unknown or invalid.
    """
    options = dict(options)
    name = options.pop("type", "cosine")
    if name == "learned" and "log_snr" not in options:
        return None
    if name not in TYPES:
        raise ArgumentError(f"schedule.type is {name!r}.{suggest(str(name), TYPES)}")
    make = getattr(Schedule, name)
    rescale = options.pop(ZERO_SNR, False) if name in DISCRETE else False
    made: Schedule = call_section("schedule", make, list(inspect.signature(make).parameters), options)
    if not isinstance(rescale, bool):
        raise ArgumentError(f"schedule.{ZERO_SNR} is {rescale!r}; it must be true or false.")
    return made.rescale_zero_terminal_snr() if rescale and isinstance(made, DiscreteSchedule) else made


def _faults(settings: Settings) -> Iterator[str]:
    sections: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    for section, content in settings.items():
        if section not in SECTIONS:
            yield f"there is no section [{section}].{suggest(section, SECTIONS)}"
        elif not isinstance(content, Mapping):
            yield f"{section} is {content!r}; it must be a section."
        else:
            sections[section] = dict(content)
    yield from _of_data(sections["data"])
    yield from _of_type("network", sections["network"], NETWORKS)
    yield from _of_type("objective", sections["objective"], OBJECTIVES)
    yield from _of_type("times", sections["times"], TIMES)
    yield from _of_type("weighting", sections["weighting"], WEIGHTINGS, needed=bool(sections["weighting"]))
    yield from _of_training(sections["train"], sections["schedule"])
    yield from _of_artifact(sections["artifact"])


def _of_type(
    section: str, options: Mapping[str, Any], types: Sequence[str] | Mapping[str, Any], needed: bool = False
) -> Iterator[str]:
    kind = options.get("type")
    if (needed or "type" in options) and (not isinstance(kind, str) or kind not in types):
        yield f"{section}.type is {kind!r}.{suggest(str(kind), types)}"


def _of_data(options: dict[str, Any]) -> Iterator[str]:
    kind, fraction = options.pop("kind", None), options.pop("held_out", None)
    if fraction is not None and not (isinstance(fraction, int | float) and 0 < fraction < 1):
        yield f"data.held_out is {fraction!r}; it must be between 0 and 1."
    if not isinstance(kind, str) or kind not in DATA:
        yield f"data.kind is {kind!r}.{suggest(str(kind), DATA)}"
        return
    for name in options:
        if name not in DATA[kind]:
            yield f"unknown setting data.{name}.{suggest(name, DATA[kind])}"
    for name, value in options.items():
        if name in FRAMING and name in DATA[kind] and not (kind == "arrays" and value is False):
            try:
                Framing(**{name: value})
            except (ArgumentError, ArgumentTypeError) as error:
                yield f"section [data]: {error}"
    if options.get("on_error", "raise") not in ON_ERROR:
        yield f"data.on_error is {options['on_error']!r}; it must be one of {', '.join(ON_ERROR)}."
    if "path" not in DATA[kind]:
        return
    path = options.get("path")
    if not isinstance(path, str):
        yield f"data.path is {path!r}; it must be the path of the data."
    elif kind == "arrays" and not Path(path).is_file():
        yield f"section [data]: there is no file {path!r}."
    elif kind != "arrays" and not Path(path).is_dir():
        yield f"section [data]: there is no folder {path!r}."


def _of_training(options: Mapping[str, Any], of_schedule: Mapping[str, Any]) -> Iterator[str]:
    names = [field.name for field in fields(TrainConfig)]
    prediction_type = options.get("prediction_type", TrainConfig.prediction_type)
    yield from (f"unknown setting train.{name}.{suggest(name, names)}" for name in options if name not in names)
    yield from (f"section [train]: {fault}" for fault, _ in TrainConfig.faults({n: v for n, v in options.items() if n in names}))
    try:
        made = make_schedule(of_schedule)
    except DiffuseFastError as error:
        yield str(error)
        return
    if made is not None and prediction_type in PREDICTION_TYPES and prediction_type not in made.prediction_types:
        has = ", ".join(made.prediction_types)
        yield f"train.prediction_type is {prediction_type!r}; a schedule of the family {made.family} has {has}."


def _of_artifact(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        if name not in ARTIFACT:
            yield f"unknown setting artifact.{name}.{suggest(name, ARTIFACT)}"
        elif name in ("name", "license") and not (isinstance(value, str) and value):
            yield f"artifact.{name} is {value!r}; it must be a non-empty string."
        elif name == "name" and Path(value).name != value:
            yield f"artifact.name is {value!r}; it must be a file name without a folder."
        elif name == "time_dtype" and value not in TIME_DTYPES:
            yield f"artifact.time_dtype is {value!r}; it must be one of {', '.join(TIME_DTYPES)}."
        elif name in ("value_range", "clip") and not _is_pair(value):
            yield f"artifact.{name} is {value!r}; it must be two numbers in ascending order."


def _is_pair(value: Any) -> bool:
    numbers = isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(v, int | float) for v in value)
    return numbers and value[0] < value[1]
