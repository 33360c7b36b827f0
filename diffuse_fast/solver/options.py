"""Check a solver's options and fill in the defaults."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import hints
from ..checks import require_int
from ..errors import ArgumentError, ArgumentTypeError, suggest
from .solver import Option, Solver

_INTEGER = (int, np.integer)
_NUMBER = (int, float, np.integer, np.floating)


def require_steps(steps: Any) -> int:
    """``steps`` as an int.

    Raises:
        ArgumentError: it is None. ArgumentTypeError: it is not an integer.
    """
    if steps is None:
        raise ArgumentError("one of steps, timesteps and sigmas must be given.")
    return require_int("steps", steps)


def resolve_options(solver: Solver, given: dict[str, Any], family: str, *, clips: bool) -> dict[str, Any]:
    """All options of a solver: the given ones, checked and as plain Python values, and the defaults of the others.

    Args:
        solver: The solver.
        given: Options by name.
        family: The schedule's family, on which some defaults depend.
        clips: Whether the data prediction is clipped or thresholded: the value of options whose default is None.

    Raises:
        ArgumentError: a value is out of range.
        ArgumentTypeError: an unknown option, or a value of the wrong type.
    """
    for name in given:
        if name not in solver.options:
            known = suggest(name, solver.options) if solver.options else " It has no options."
            raise ArgumentTypeError(f"{solver.name} has no option {name!r}.{hints.of_keyword(name) or known}")
    resolved = {}
    for name, option in solver.options.items():
        value = given.get(name, _default(option, family))
        resolved[name] = clips if option.default is None and value is None else _canonicalize(name, option, value)
    return resolved


def _default(option: Option, family: str) -> Any:
    return option.default if family == "discrete" or option.elsewhere is None else option.elsewhere


def _canonicalize(name: str, option: Option, value: Any) -> bool | int | float | str | tuple[int, ...]:
    """The value as a plain Python object of the option's type."""
    default = option.default
    if isinstance(default, tuple):
        if not isinstance(value, list | tuple | range | np.ndarray):
            raise ArgumentTypeError(f"{name} is {value!r}; it must be a list of integers.")
        return tuple(sorted({int(_require_number(name, option, v, integer=True)) for v in value}))
    if option.kind is bool:
        if not isinstance(value, bool | np.bool_):
            allowed = "True, False or None" if default is None else "True or False"
            raise ArgumentTypeError(f"{name} is {value!r}; it must be {allowed}.")
        return bool(value)
    if isinstance(default, str):
        if value not in option.choices:
            raise ArgumentError(f"{name} is {value!r}; it must be one of {', '.join(option.choices)}.")
        return value
    integer = isinstance(default, int)
    number = _require_number(name, option, value, integer=integer)
    return int(number) if integer else float(number)


def _require_number(name: str, option: Option, value: Any, *, integer: bool) -> Any:
    if isinstance(value, bool) or not isinstance(value, _INTEGER if integer else _NUMBER):
        raise ArgumentTypeError(f"{name} is {value!r}; it must be {'an integer' if integer else 'a number'}.")
    if not math.isfinite(value) or (option.minimum is not None and value < option.minimum):
        raise ArgumentError(f"{name} is {value!r}; it must be finite, and at least {option.minimum}.")
    if option.maximum is not None and value > option.maximum:
        raise ArgumentError(f"{name} is {value!r}; it must be at most {option.maximum}.")
    return value
