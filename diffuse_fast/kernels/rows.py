"""Rows as a kernel reads them: the NumPy record of ``Row`` in ``csrc/step/step.h``, whose dtype the compiled core exports."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import _core
from ..errors import ArgumentTypeError
from ..plans.plan import REDUCTIONS, Row

ROW: np.dtype = _core.ROW

REDUCE_CODES = {kind: code for code, kind in enumerate(REDUCTIONS, start=1)}  # those of Reduce in csrc/step/step.h
_SCALARS = tuple(name for name in ROW.names or () if ROW[name] == np.float32 and hasattr(Row, name))


def pack(rows: Sequence[Row] | np.ndarray) -> np.ndarray:
    """The rows as a record array, coefficients rounded to float32 once. An array is returned unchanged.

    Raises:
        ArgumentTypeError: an item is not a row.
    """
    if isinstance(rows, np.ndarray):
        return rows
    table = np.zeros(len(rows), ROW)
    for record, row in zip(table, rows, strict=True):
        if not isinstance(row, Row):
            raise ArgumentTypeError(f"a row is a {type(row).__name__}; give rows of a plan, for example plan.rows[0].")
        with np.errstate(over="ignore"):  # a bound beyond float32 becomes infinite: no bound
            for name in _SCALARS:
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
            record["reduce"] = REDUCE_CODES[row.reduce.kind]
            for name, value in zip(("reduce_0", "reduce_1"), row.reduce.values, strict=False):
                record[name] = value
    return table
