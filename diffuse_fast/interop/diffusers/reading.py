"""Read the configuration of a diffusers scheduler from the scheduler, a dict or a file, and check it."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ArgumentError, ArgumentTypeError, suggest
from .config import ENDS, Config
from .schedulers import SCHEDULERS, UNSUPPORTED, SchedulerSpec


def read(scheduler: Any) -> tuple[str, SchedulerSpec, Config]:
    """The class name, its record in ``SCHEDULERS``, and the configuration with all defaults filled in."""
    if isinstance(scheduler, str | os.PathLike):
        scheduler = _load(Path(scheduler))
    given = getattr(scheduler, "config", scheduler)
    if not isinstance(given, Mapping):
        raise ArgumentTypeError(
            f"the scheduler is a {type(scheduler).__name__}; it must be a diffusers scheduler, its configuration as a dict, or the "
            f"path of a scheduler_config.json or of a folder that holds one."
        )
    name = given.get("_class_name") if given is scheduler else type(scheduler).__name__
    if not isinstance(name, str | None):
        raise ArgumentTypeError(f"the configuration's '_class_name' is {name!r}; it must be the name of a class.")
    if name is None:
        raise ArgumentError(
            "the configuration lacks '_class_name' (as scheduler.config does); give the scheduler itself, or add the name of its "
            "class."
        )
    if name in UNSUPPORTED:
        raise ArgumentError(f"{name} is not supported: {UNSUPPORTED[name]}")
    if name not in SCHEDULERS:
        raise ArgumentError(f"unknown scheduler {name!r}.{suggest(str(name), SCHEDULERS)}")
    spec = SCHEDULERS[name]
    if given is not scheduler:
        _check_signature(name, spec, type(scheduler), given)
    all_options = {option for other in SCHEDULERS.values() for option in other.options}
    for option in given:
        if option not in all_options and not option.startswith("_"):
            raise ArgumentError(f"{name} has the unknown option {option!r}.{suggest(option, spec.options)}")
    config = {**spec.options, **{option: value for option, value in given.items() if option in spec.options}}
    for option, value in config.items():
        default = spec.options[option]
        if not _has_valid_type(option, value, default):
            raise ArgumentTypeError(f"{name} has {option}={value!r}, a value of the wrong type; the default is {default!r}.")
    return name, spec, config


def _load(path: Path) -> Any:
    """Load the configuration from a JSON file, a scheduler's folder or a pipeline's folder."""
    file = path
    if path.is_dir():
        names = ("scheduler_config.json", "scheduler/scheduler_config.json")
        file = next((path / name for name in names if (path / name).is_file()), path / names[0])
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArgumentError(f"cannot read the scheduler's configuration at {str(file)!r}: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise ArgumentError(f"{str(file)!r} is not a valid scheduler_config.json: {error}") from None


# Numbers or None. Other options whose default is None are a string or a list of betas.
_NUMBER_OR_NONE = (*ENDS, "shift_terminal")


def _has_valid_type(option: str, value: Any, default: Any) -> bool:
    """Whether a value has the type of the default. Options that accept several types are checked where they are used."""
    if isinstance(default, bool):
        return isinstance(value, bool | np.bool_)
    if isinstance(default, int | float) or (option in _NUMBER_OR_NONE and value is not None):
        return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if option == "trained_betas":
        return not isinstance(value, str)
    return isinstance(value, str) if isinstance(default, str) else True


def _check_signature(name: str, spec: SchedulerSpec, scheduler: type, given: Mapping[str, Any]) -> None:
    """Reject options that a newer diffusers has and ``SCHEDULERS`` does not list, unless they have their default."""
    for option, parameter in inspect.signature(scheduler).parameters.items():
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if named and option not in spec.options and given.get(option, parameter.default) != parameter.default:
            raise ArgumentError(f"{name} has {option}={given[option]!r}, an option that is not supported; only its default is.")
