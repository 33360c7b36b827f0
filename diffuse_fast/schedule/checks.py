"""Argument checks that return the value as a plain number or a float64 array."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import ArgumentError, ArgumentTypeError


def require_int(name: str, value: Any) -> int:
    """An integer as an int."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ArgumentTypeError(f"{name} is {value!r}; it must be an integer.")
    integer = int(value)
    if abs(integer) >= 2**63:  # the core takes 64 bits and checks the range itself
        raise ArgumentError(f"{name} is {value!r}; it is out of range.")
    return integer


def require_number(name: str, value: Any) -> float:
    """A number as a float."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise ArgumentTypeError(f"{name} is {value!r}; it must be a number.")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def to_float64(name: str, value: Any) -> np.ndarray:
    """A number or an array of numbers, as a float64 array."""
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "iuf":
            raise TypeError
        return array.astype(np.float64, copy=False)
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"{name} is {value!r}; it must be a number or an array of numbers.") from None


def to_vector(name: str, value: Any) -> np.ndarray:
    """A sequence of at least one number, as a float64 array (n,)."""
    array = to_float64(name, value)
    if array.ndim != 1 or array.size == 0:
        raise ArgumentError(f"{name} has shape {array.shape}; it must be a sequence of at least one number.")
    return array


def require_positive(name: str, value: Any) -> float:
    """A number above 0 and finite, as a float."""
    given = require_number(name, value)
    if not 0.0 < given < math.inf:
        raise ArgumentError(f"{name} is {value!r}; it must be above 0 and finite.")
    return given


def require_increasing(low_name: str, low: Any, high_name: str, high: Any) -> tuple[float, float]:
    """Two positive numbers, the first below the second, as floats."""
    pair = require_positive(low_name, low), require_positive(high_name, high)
    if not pair[0] < pair[1]:
        raise ArgumentError(f"{low_name} is {low!r} and {high_name} {high!r}; the interval between them is empty.")
    return pair


def unwrap_scalar(values: Any) -> Any:
    """A 0-d array as a float; any other array unchanged."""
    return float(values) if np.ndim(values) == 0 else values
