"""Read schedules from JSON."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError, ArgumentTypeError, suggest
from .types import DISCRETE, INTERPOLATION, TYPES, ZERO_SNR

if TYPE_CHECKING:
    from .base import Schedule


def from_json(document: Any, cls: type[Schedule]) -> Schedule:
    """See :meth:`diffuse_fast.Schedule.from_json`."""
    if not isinstance(document, dict):
        raise ArgumentError(f"a schedule's JSON must be an object, not {type(document).__name__}.")
    fields = dict(document)
    if "type" not in fields:
        raise ArgumentError(f"the schedule's JSON lacks the field 'type', one of {', '.join(TYPES)}.")
    kind = fields.pop("type")
    if kind not in TYPES:
        raise ArgumentError(f"unknown schedule type {kind!r}.{suggest(str(kind), TYPES)}")
    rescale = fields.pop(ZERO_SNR, False) if kind in DISCRETE else False
    if not isinstance(rescale, bool):
        raise ArgumentTypeError(f"the schedule's field {ZERO_SNR!r} is {rescale!r}; it must be true or false.")
    interpolation = fields.pop(INTERPOLATION, None) if kind in DISCRETE else None
    make = getattr(cls, kind)
    expected = tuple(inspect.signature(make).parameters)
    if missing := [name for name in expected if name not in fields]:
        raise ArgumentError(f"the schedule's JSON (type {kind!r}) lacks the field {missing[0]!r}.")
    if extra := sorted(set(fields) - set(expected)):
        raise ArgumentError(
            f"the schedule's JSON (type {kind!r}) has the unknown field {extra[0]!r}; it has {', '.join(expected)}."
        )
    schedule = make(**fields)
    if rescale:
        schedule = schedule.rescale_zero_terminal_snr()
    return schedule if interpolation is None else schedule.with_interpolation(interpolation)
