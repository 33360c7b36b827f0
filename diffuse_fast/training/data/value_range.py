"""How stored numbers become those that a network is trained on: one rule for arrays, generators and pictures.

Whole numbers of 8 or 16 bits without a sign are levels: 0 becomes -1 and the largest (255, 65535) becomes 1. All other numbers are
taken as they are. Pictures (samples of three axes or more) that have no value below 0 are refused, because they may be 0..1, 0..255
or in the network's range already: ``data_range`` says which.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import ArgumentError, ArgumentTypeError

LEVELS = {"uint8": (0.0, 255.0), "uint16": (0.0, 65535.0)}
CHANNELS = (1, 3, 4)  # of pictures
SAY = "data_range=(lo, hi), the values that become -1 and 1"

Range = tuple[float, float]


def range_given(data_range: Any) -> Range | bool | None:
    """A ``data_range`` as an argument or a setting: a pair, False (as they are), or None (not said).

    Raises:
        ArgumentError, ArgumentTypeError: it is none of these.
    """
    if data_range is None or data_range is False:
        return data_range
    try:
        lo, hi = (float(value) for value in data_range)
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"data_range is {data_range!r}; it must be two numbers, as (0, 1), or False.") from None
    if not (math.isfinite(lo) and math.isfinite(hi) and lo < hi):
        raise ArgumentError(f"data_range is {data_range!r}; it must be two finite numbers, the lower one first.")
    return lo, hi


def range_of(kind: str, shape: Sequence[int], few: np.ndarray, data_range: Range | bool | None) -> Range | None:
    """What is scaled to [-1, 1] in an array; None where its numbers are taken as they are.

    Args:
        kind: Its dtype's name.
        shape: Of one sample.
        few: Some of its samples.
        data_range: As it was said.

    Raises:
        ArgumentError: nothing was said, and the numbers may mean several things.
    """
    if data_range is not None:
        return None if isinstance(data_range, bool) else data_range
    if kind in LEVELS:
        return LEVELS[kind]
    if len(shape) >= 3 and few.size and few.min() >= 0 and few.max() > 0:
        raise ArgumentError(
            f"data is {kind} of {tuple(shape)} with values from {few.min():g} to {few.max():g}, and none below 0: that may be "
            "0..1, 0..255, or the network's own range. Say which: data_range=(0, 1), data_range=(0, 255), or data_range=False to "
            "take them as they are (an argument of training.data.Arrays, a setting of [data])."
        )
    return None


def scaled(values: np.ndarray, data_range: Range) -> np.ndarray:
    """Numbers of a range in [-1, 1], float32.

    Raises:
        ArgumentError: one lies outside of the range.
    """
    lo, hi = data_range
    if values.size and not (values.min() >= lo and values.max() <= hi):
        raise ArgumentError(f"there are values from {values.min():g} to {values.max():g}, outside of {lo:g} to {hi:g}; say {SAY}.")
    if data_range == (-1.0, 1.0):
        return values.astype(np.float32)
    # float32 holds 16 bits; what is wider is rounded once, at the end.
    wide: Any = values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
    x: np.ndarray = ((wide - lo) / (0.5 * (hi - lo)) - 1.0).astype(np.float32)
    return x


def channels_first(shape: Sequence[int]) -> None:
    """Refuse pictures whose channels are the last axis.

    Raises:
        ArgumentError: they are.
    """
    if len(shape) >= 3 and shape[-1] in CHANNELS and min(shape[:-1]) > max(CHANNELS):
        order = (0, len(shape), *range(1, len(shape)))
        raise ArgumentError(
            f"samples of {tuple(shape)} have their channels last; they must come first, (channels, height, width): "
            f"data.transpose{order}."
        )
