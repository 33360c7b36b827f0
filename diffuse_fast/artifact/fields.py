"""Typed access to the fields of a document's JSON."""

from __future__ import annotations

import math
import reprlib
from typing import Any, NoReturn

from ..errors import ArtifactError
from ..plans.row import MAX_ELEMENTS
from .document import MAX_RANK, Range


class Fields:
    """A JSON object with typed access to its fields. Errors name the field by its path."""

    def __init__(self, raw: Any, where: str):
        if not isinstance(raw, dict):
            if not where:
                raise ArtifactError("the model's document must be a JSON object.")
            fail(where, raw, "an object")
        self.raw: dict[str, Any] = raw
        self._where = where

    def path(self, name: str) -> str:
        return f"{self._where}.{name}" if self._where else name

    def require_exactly(self, *names: str) -> None:
        for name in names:
            if name not in self.raw:
                raise ArtifactError(f"the model's document lacks the field {self.path(name)!r}.")
        for name in self.raw:
            if name not in names:
                raise ArtifactError(f"the model's document has an unknown field {self.path(name)[:100]!r}.")

    def get(self, name: str) -> Any:
        return self.raw[name]

    def text(self, name: str, *, empty: bool = False) -> str:
        value = self.raw[name]
        if not isinstance(value, str) or not (value or empty):
            fail(self.path(name), value, "a string")
        return value

    def one_of(self, name: str, choices: tuple[str, ...]) -> str:
        value = self.raw[name]
        if not isinstance(value, str) or value not in choices:
            fail(self.path(name), value, f"one of {', '.join(choices)}")
        return value

    def integer(self, name: str, low: int, high: int) -> int:
        value = self.raw[name]
        if type(value) is not int or not low <= value <= high:
            fail(self.path(name), value, f"an integer from {low} to {high}")
        return value

    def number(self, name: str) -> float:
        value = self.raw[name]
        if not is_finite(value):
            fail(self.path(name), value, "a finite number")
        return float(value)

    def number_or_none(self, name: str) -> int | float | None:
        value = self.raw[name]
        if value is not None and not is_finite(value):
            fail(self.path(name), value, "a finite number or null")
        return value

    def numbers(self, name: str) -> tuple[float, ...]:
        value = self.raw[name]
        if not isinstance(value, list) or not all(map(is_finite, value)):
            fail(self.path(name), value, "a list of numbers")
        return tuple(map(float, value))

    def names(self, name: str, most: int, *, least: int = 0) -> tuple[str, ...]:
        value = self.raw[name]
        if not isinstance(value, list) or not least <= len(value) <= most or not all(isinstance(n, str) and n for n in value):
            fail(self.path(name), value, f"a list of {least} to {most} names")
        if len(set(value)) < len(value):
            fail(self.path(name), value, "different names")
        return tuple(value)

    def range(self, name: str) -> Range | None:
        return None if self.raw[name] is None else self.pair(name, ", or null")

    def pair(self, name: str, more: str = "") -> Range:
        value = self.raw[name]
        if not isinstance(value, list | tuple) or len(value) != 2 or not all(map(is_finite, value)) or value[0] >= value[1]:
            fail(self.path(name), value, f"a pair of numbers [lo, hi] with lo < hi{more}")
        return float(value[0]), float(value[1])

    def shape(self, name: str, *, scalar: bool = False) -> tuple[int, ...]:
        value = self.raw[name]
        least = 0 if scalar else 1
        if (
            not isinstance(value, list | tuple)
            or not least <= len(value) <= MAX_RANK
            or not all(type(n) is int and 0 < n <= MAX_ELEMENTS for n in value)
        ):
            fail(self.path(name), value, f"a list of {least} to {MAX_RANK} positive integers")
        return tuple(value)


def is_finite(value: Any) -> bool:
    """Whether a JSON value is a finite number, and an integer fits in 64 bits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= 1 << 63 if isinstance(value, int) else math.isfinite(value)


def fail(where: str, given: Any, expected: str) -> NoReturn:
    """Raise an ArtifactError for a field: its path, its value, and what it must be."""
    # reprlib, because the value may have any size and depth.
    raise ArtifactError(f"the model's field {where!r} is {reprlib.repr(given)}; it must be {expected}.")
