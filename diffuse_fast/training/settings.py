"""A section of a configuration as a call: unknown keys are named, and errors say where they come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import ArgumentError, ArgumentTypeError, TrainingError, near


def called(section: str, make: Callable[..., Any], known: Sequence[str], options: Mapping[str, Any]) -> Any:
    """``make(**options)``.

    Raises:
        ArgumentError: an option is not known, or the call refuses what it is given; the message names the section.
    """
    for name in options:
        if name not in known:
            raise ArgumentError(f"{section}.{name} is no setting.{near(name, known)}")
    try:
        return make(**options)
    except (ArgumentError, ArgumentTypeError, TrainingError) as error:
        raise type(error)(f"section [{section}]: {error}") from error
    except TypeError as error:
        raise ArgumentError(f"section [{section}]: {error}.") from error
