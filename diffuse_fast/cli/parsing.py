"""Parse values on the command line: ``NAME=VALUE``, comma-separated lists, numbers, true and false."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from ..model import Model

Value = bool | int | float | str


def pairs(option: str, given: Sequence[str]) -> dict[str, str]:
    """Parse ``["eta=0.5"]`` to ``{"eta": "0.5"}``."""
    out: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise typer.BadParameter(f"{option} takes NAME=VALUE, not {text!r}.")
        if name in out:
            raise typer.BadParameter(f"{option} gives {name!r} twice.")
        out[name] = value
    return out


def numbers(option: str, text: str) -> list[float]:
    """Parse ``"900,500.5,0"`` to floats."""
    return [typed(option, part, float) for part in text.split(",")]


def values(option: str, text: str, names: Sequence[str] = ()) -> Value | list[Value]:
    """Parse one value, or a list: one of the names, an integer, a number, true or false. A name takes precedence."""
    parts: list[Value] = [part if part in names else _value(option, part, names) for part in text.split(",")]
    return parts[0] if len(parts) == 1 else parts


def class_names(model: Model, name: str) -> Sequence[str]:
    """The class names of a model's conditioning input, or an empty sequence."""
    return next((c.class_names or () for c in model.conditioning if c.name == name), ())


def typed(option: str, text: str, kind: Callable[[str], Any]) -> Any:
    """Parse a bool, int, float or str."""
    try:
        return _truth(text) if kind is bool else kind(text)
    except ValueError:
        what = {bool: "true or false", int: "an integer", float: "a number"}[kind]  # type: ignore[index]  # an option is of one of these types
        raise typer.BadParameter(f"{option} is {text!r}; it must be {what}.") from None


def _value(option: str, text: str, names: Sequence[str]) -> Value:
    for kind in (int, float, _truth):
        try:
            return kind(text)
        except ValueError:
            pass
    named = f", or the name of a class: {', '.join(names)}" if names else ", or true or false"
    raise typer.BadParameter(f"{option} is {text!r}; it must be a number{named}.")


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError
    return text.lower() == "true"
