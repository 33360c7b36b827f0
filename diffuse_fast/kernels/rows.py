"""Rows as a kernel reads them: the NumPy record with the layout of ``Row`` in ``csrc/step/step.h``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import ArgumentTypeError
from ..plans.plan import MAX_OUTPUTS, MAX_REGISTERS, REDUCTIONS, Row

ROW = np.dtype(
    [
        ("g", "<f4", MAX_OUTPUTS),
        *((name, "<f4") for name in ("p", "q", "r", "lo", "hi", "a", "b", "d", "s")),
        ("c", "<f4", MAX_REGISTERS),
        *((name, "<f4") for name in ("log_s_a", "log_s_b", "known_y", "known_z", "e_x", "e_m", "e_0")),
        ("f", "<f4", MAX_REGISTERS),
        ("reduce_values", "<f4", 2),
        *((name, "<i4") for name in ("reduce", "write", "learned_s", "calls_network")),
    ]
)

_REDUCE_CODES = {kind: code for code, kind in enumerate(REDUCTIONS, start=1)}
_PLAIN = ("p", "q", "r", "lo", "hi", "a", "b", "d", "s", "known_y", "known_z", "e_x", "e_m", "e_0")


def pack(rows: Sequence[Row]) -> np.ndarray:
    """The rows as a record array, coefficients rounded to float32 once.

    Raises:
        ArgumentTypeError: what is given are not rows.
    """
    table = np.zeros(len(rows), ROW)
    for record, row in zip(table, rows, strict=True):
        if not isinstance(row, Row):
            raise ArgumentTypeError(f"a row is a {type(row).__name__}; give rows of a plan, as plan.rows[0].")
        with np.errstate(over="ignore"):  # a bound that is too large for float32 is none
            for name in _PLAIN:
                record[name] = getattr(row, name)
        for name in ("g", "c", "f"):
            weights = getattr(row, name)
            record[name][: len(weights)] = weights
        record["write"] = -1 if row.write is None else row.write
        record["calls_network"] = row.calls_network
        if row.log_s is not None:
            record["learned_s"] = 1
            record["log_s_a"], record["log_s_b"] = row.log_s
        if row.reduce is not None:
            record["reduce"] = _REDUCE_CODES[row.reduce.kind]
            record["reduce_values"][: len(row.reduce.values)] = row.reduce.values
    return table
