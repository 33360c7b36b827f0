"""Checks of the arguments that schedules take."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import ArgumentError, ArgumentTypeError


def whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ArgumentTypeError(f"{name} is {value!r}; it must be a whole number.")
    integer = int(value)
    if abs(integer) >= 2**63:  # the core takes 64 bits, and says the range itself
        raise ArgumentError(f"{name} is {value!r}; that is out of any range.")
    return integer


def number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise ArgumentTypeError(f"{name} is {value!r}; it must be a number.")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def numeric(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "iuf":
            raise TypeError
        return array.astype(np.float64, copy=False)
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"{name} is {value!r}; it must be a number or an array of numbers.") from None


def table(name: str, value: Any) -> np.ndarray:
    array = numeric(name, value)
    if array.ndim != 1 or array.size == 0:
        raise ArgumentError(f"{name} has shape {array.shape}; it must be a sequence of at least one number.")
    return array


def positive(name: str, value: Any) -> float:
    given = number(name, value)
    if not 0.0 < given < math.inf:
        raise ArgumentError(f"{name} is {value!r}; it must be above 0 and finite.")
    return given


def rising(low_name: str, low: Any, high_name: str, high: Any) -> tuple[float, float]:
    """Two positive numbers, the first below the second."""
    pair = positive(low_name, low), positive(high_name, high)
    if not pair[0] < pair[1]:
        raise ArgumentError(f"{low_name} is {low!r} and {high_name} {high!r}; the interval between them is empty.")
    return pair


def plain(values: Any) -> Any:
    """An array as it is, a number as a float."""
    return float(values) if np.ndim(values) == 0 else values
