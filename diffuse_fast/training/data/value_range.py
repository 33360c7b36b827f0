"""Scaling of stored values to those that a network is trained on: one rule for arrays, generators and images.

Unsigned integers of 8 or 16 bits are levels: 0 becomes -1 and the largest (255, 65535) becomes 1. Other numbers are not
scaled. Images (samples of three axes or more) without a negative value are refused, because they could be 0..1, 0..255 or in the
network's range already; ``data_range`` resolves this.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import ArgumentError, ArgumentTypeError

LEVELS = {"uint8": (0.0, 255.0), "uint16": (0.0, 65535.0)}
CHANNELS = (1, 3, 4)  # of images
HINT = "give data_range=(lo, hi), the values that become -1 and 1"

Range = tuple[float, float]


def parse_range(data_range: Any) -> Range | bool | None:
    """Check a ``data_range``: a pair, False (do not scale), or None (not given).

    Raises:
        ArgumentError, ArgumentTypeError: it is none of these.
    """
    if data_range is None or data_range is False:
        return data_range
    try:
        lo, hi = (float(value) for value in data_range)
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"data_range is {data_range!r}; it must be two numbers, such as (0, 1), or False.") from None
    if not (math.isfinite(lo) and math.isfinite(hi) and lo < hi):
        raise ArgumentError(f"data_range is {data_range!r}; it must be two finite numbers in ascending order.")
    return lo, hi


def infer_range(kind: str, shape: Sequence[int], few: np.ndarray, data_range: Range | bool | None) -> Range | None:
    """The range of an array that becomes [-1, 1]; None if its values are not scaled.

    Args:
        kind: Name of its dtype.
        shape: Shape of one sample.
        few: Some of its samples.
        data_range: See :func:`parse_range`.

    Raises:
        ArgumentError: no range is given, and the values are ambiguous.
    """
    if data_range is not None:
        return None if isinstance(data_range, bool) else data_range
    if kind in LEVELS:
        return LEVELS[kind]
    if len(shape) >= 3 and few.size and few.min() >= 0 and few.max() > 0:
        raise ArgumentError(
            f"data is {kind} of {tuple(shape)} with values from {few.min():g} to {few.max():g}, and none below 0: this may be "
            "0..1, 0..255, or the network's own range. Give data_range=(0, 1), data_range=(0, 255), or data_range=False for no "
            "scaling (an argument of training.data.Arrays, a setting of [data])."
        )
    return None


def scaled(values: np.ndarray, data_range: Range) -> np.ndarray:
    """Scale values from a range to [-1, 1], float32.

    Raises:
        ArgumentError: a value is outside the range.
    """
    lo, hi = data_range
    if values.size and not (values.min() >= lo and values.max() <= hi):
        raise ArgumentError(f"there are values from {values.min():g} to {values.max():g}, outside {lo:g} to {hi:g}; {HINT}.")
    if data_range == (-1.0, 1.0):
        return values.astype(np.float32)
    # float32 holds 16 bits exactly; wider values are rounded once, at the end.
    wide: Any = values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
    x: np.ndarray = ((wide - lo) / (0.5 * (hi - lo)) - 1.0).astype(np.float32)
    return x


def channels_first(shape: Sequence[int]) -> None:
    """Check that the channels of images are not the last axis.

    Raises:
        ArgumentError: they are.
    """
    if len(shape) >= 3 and shape[-1] in CHANNELS and min(shape[:-1]) > max(CHANNELS):
        order = (0, len(shape), *range(1, len(shape)))
        raise ArgumentError(
            f"samples of {tuple(shape)} have their channels last; they must be first, (channels, height, width): "
            f"data.transpose{order}."
        )
