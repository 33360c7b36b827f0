"""Clipping of the data prediction: fixed bounds, or dynamic thresholding."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ArgumentError, ArgumentTypeError, PlanError
from .row import FLOAT32_OVERFLOW, Reduction, Row


@dataclass(frozen=True, slots=True)
class DynamicThreshold:
    """Dynamic thresholding, a value of ``clip``: the data prediction is clamped to ±s and divided by s.

    s is the quantile ``ratio`` of the absolute values in the sample, at least 1 and at most ``maximum`` (Saharia et al. 2022,
    "Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding", section 2.3; diffusers' ``thresholding`` with
    ``dynamic_thresholding_ratio`` and ``sample_max_value``).

    Args:
        ratio: The quantile, above 0 and at most 1.
        maximum: Upper bound of s, at least 1; 1 is clipping to ±1.

    Raises:
        ArgumentError: a value is out of range.
        ArgumentTypeError: a value is not a number.

    Example:
        >>> import diffuse_fast as df
        >>> clip = df.DynamicThreshold(0.995, maximum=2.0)
        >>> df.plan(df.Schedule.linear(), "ddim", 4, prediction_type="epsilon", clip=clip).rows[0].reduce.kind
        'dynamic_threshold'
    """

    ratio: float = 0.995
    maximum: float = 1.0

    def __post_init__(self) -> None:
        for name in ("ratio", "maximum"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
                raise ArgumentTypeError(f"{name} is {value!r}; it must be a number.")
        if not 0.0 < self.ratio <= 1.0:
            raise ArgumentError(f"ratio is {self.ratio!r}; it must be above 0 and at most 1.")
        if not (1.0 <= self.maximum < FLOAT32_OVERFLOW):
            raise ArgumentError(f"maximum is {self.maximum!r}; it must be at least 1, and finite in float32 (below 3.4e38).")


Clip = tuple[float, float] | DynamicThreshold


def resolve_clip(clip: Any) -> Clip | None:
    """``clip`` as :func:`diffuse_fast.plan` and :func:`diffuse_fast.sample` take it, checked. None and False do not clip.

    Raises:
        ArgumentError: the bounds are not in order.
        ArgumentTypeError: neither None, False, a pair of numbers nor a dynamic threshold.
    """
    if clip is None or clip is False or isinstance(clip, DynamicThreshold):
        return clip or None
    try:
        lo, hi = (float(bound) for bound in clip)
    except (TypeError, ValueError):
        raise ArgumentTypeError(
            f"clip is {clip!r}; it must be a pair (lo, hi) of numbers, a df.DynamicThreshold, or False for no clip."
        ) from None
    if not lo < hi:
        raise ArgumentError(f"clip is {clip!r}; its lower bound must be below its upper bound.")
    return lo, hi


def clip_bounds(clip: Clip | None) -> tuple[float, float]:
    """Bounds for the rows of a plan; infinite without a clip. A dynamic threshold replaces its bounds (−1, 1) per sample."""
    if clip is None:
        return -math.inf, math.inf
    return (-1.0, 1.0) if isinstance(clip, DynamicThreshold) else clip


def with_threshold(row: Row, threshold: DynamicThreshold, solver: str) -> Row:
    """The row with a dynamic threshold in place of its bounds; unchanged if it does not clip.

    Raises:
        PlanError: the row has another reduction already.
    """
    if not row.clips:
        return row
    if row.reduce is not None:
        raise PlanError(
            f"dynamic thresholding and {solver} each need the one reduction that a row has; use fixed bounds, or no clip."
        )
    return dataclasses.replace(row, reduce=Reduction("dynamic_threshold", (float(threshold.ratio), float(threshold.maximum))))
