"""Argument checks that return the value as a plain number or a float64 array.

A value of the wrong type raises ArgumentTypeError, a wrong value ArgumentError.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .errors import ArgumentError, ArgumentTypeError


def require_int(name: str, value: Any, least: int | None = None, *, bits: int | None = None) -> int:
    """An integer as an int; of at least ``least`` and below 2**bits where they are given."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ArgumentTypeError(f"{name} is {value!r}; it must be an integer.")
    integer = int(value)
    if least is not None and integer < least:
        raise ArgumentError(f"{name} is {integer}; it must be at least {least}.")
    if bits is not None and integer >= 1 << bits:
        raise ArgumentError(f"{name} is {integer}; it must be below 2**{bits}.")
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
    try:
        array = to_float64(name, value)
    except ArgumentTypeError:
        raise ArgumentTypeError(f"{name} is {value!r}; it must be a sequence of numbers.") from None
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
