"""Check that a plan is consistent: types, ranges, and registers that are written before they are read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..errors import PlanError
from .conventions import PREDICTION_TYPES
from .row import MAX_OUTPUTS, MAX_REGISTERS, MAX_ROWS, Row, fits_float32

if TYPE_CHECKING:
    from .plan import Plan

MAX_OPTION_DEPTH = 16


def validate(plan: Plan) -> None:
    """Raise a PlanError if the plan is inconsistent."""
    _check_header(plan)
    _check_rows(plan)


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise PlanError(message)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(*values: Any) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values)


def _is_option_value(value: Any, depth: int = 0) -> bool:
    if isinstance(value, tuple):
        return depth < MAX_OPTION_DEPTH and all(_is_option_value(item, depth + 1) for item in value)
    return value is None or isinstance(value, bool | int | str) or _is_finite(value)


def _check_header(plan: Plan) -> None:
    _check(isinstance(plan.solver, str) and plan.solver != "", "a plan needs the name of its solver.")
    _check(0 < len(plan.rows) <= MAX_ROWS, f"a plan has {len(plan.rows)} rows; it must have 1 to {MAX_ROWS}.")
    _check(
        _is_int(plan.steps) and 1 <= plan.steps <= MAX_ROWS,
        f"a plan's steps is {plan.steps!r}; it must be an integer from 1 to {MAX_ROWS}.",
    )
    _check(
        plan.prediction_type in PREDICTION_TYPES,
        f"prediction_type is {plan.prediction_type!r}; it must be one of {', '.join(PREDICTION_TYPES)}.",
    )
    _check(
        _is_int(plan.registers) and 0 <= plan.registers <= MAX_REGISTERS,
        f"a plan has {plan.registers!r} registers; it must have 0 to {MAX_REGISTERS}.",
    )
    _check(fits_float32(plan.initial_scale), f"a plan's initial_scale is {plan.initial_scale}; it must be finite in float32.")
    _check(len(plan.marginals) == len(plan.rows) + 1, "a plan needs a marginal before each row and one after the last.")
    _check(
        all(len(pair) == 2 and _is_finite(*pair) and pair[1] >= 0 for pair in plan.marginals),
        "a plan's marginals are pairs (alpha, sigma), finite, with sigma not negative.",
    )
    if plan.deviation is not None:
        _check(
            len(plan.deviation) == len(plan.rows) and all(len(p) == 2 and _is_finite(*p) for p in plan.deviation),
            "a plan's deviation is one finite pair per row.",
        )
    _check(
        all(isinstance(name, str) and _is_option_value(value) for name, value in plan.options),
        f"a plan's options are strings, numbers, booleans or lists of them, at most {MAX_OPTION_DEPTH} levels deep.",
    )


def _check_rows(plan: Plan) -> None:
    written: set[int] = set()
    for i, row in enumerate(plan.rows):
        where = f"row {i} of the plan"
        _check(isinstance(row, Row), f"{where} is a {type(row).__name__}; it must be a Row.")
        _check(len(row.g) >= 1, f"{where} has no weights of network outputs; it must have 1 to {MAX_OUTPUTS}.")
        _check(row.log_s is None or row.s == 0.0, f"{where} has both a fixed and a learned noise.")
        _check(row.s >= 0.0, f"{where} has a negative standard deviation.")
        if not row.calls_network:
            uses = row.b != 0 or row.e_m != 0 or (row.q != 0 and (row.d != 0 or row.e_0 != 0)) or row.log_s is not None
            _check(not uses and row.reduce is None, f"{where} uses the model output but does not call the network.")
        _check(
            row.reduce is None or row.reduce.kind != "langevin_given",
            f"{where} has the reduction langevin_given, which only the engine may use; a plan has langevin.",
        )
        for name, weights in (("c", row.c), ("f", row.f)):
            _check(len(weights) <= plan.registers, f"{where}: {name} has more weights than the plan has registers.")
            for k, weight in enumerate(weights):
                _check(weight == 0.0 or k in written, f"{where} reads register {k} before any row has written it.")
        if row.write is None:
            _check(not (row.e_x or row.e_m or row.e_0 or any(row.f)), f"{where} keeps a value but names no register to write.")
        else:
            _check(row.write < plan.registers, f"{where} writes register {row.write!r}; the plan has {plan.registers}.")
            written.add(row.write)
