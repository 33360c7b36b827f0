"""Rows for noise that the caller gives in place of the generator."""

from __future__ import annotations

import dataclasses

from ..errors import ArgumentError
from ..plans.plan import MAX_REGISTERS, Reduction, Row


def with_given_noise(rows: tuple[Row, ...], registers: int) -> tuple[Row, ...]:
    """Return the rows with one register more, which holds the given noise and stands where z would in the sum.

    Raises:
        ArgumentError: the plan has no register left, or the network predicts the standard deviation.
    """
    reason = None
    if registers == MAX_REGISTERS:
        reason = f"it uses all {MAX_REGISTERS} registers, and given noise takes one"
    elif any(r.log_s is not None for r in rows):
        reason = "the standard deviation is the network's"
    if reason is not None:
        raise ArgumentError(f"step_noise cannot replace the generator in this plan: {reason}.")
    return tuple(_with_given_noise(row, registers) if row.stochastic else row for row in rows)


def _with_given_noise(row: Row, register: int) -> Row:
    scale, reduce = row.s, row.reduce
    if reduce is not None and reduce.kind == "langevin":
        scale, reduce = 1.0, Reduction("langevin_given", reduce.values)  # it sets the scale itself
    return dataclasses.replace(row, s=0.0, c=(*row.c, *(0.0,) * (register - len(row.c)), scale), reduce=reduce)
