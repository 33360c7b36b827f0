"""Plans as JSON; ``plan.schema.json`` in this package is the published schema."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentTypeError, PlanError
from .row import MAX_ROWS, Reduction, Row
from .validate import MAX_OPTION_DEPTH

if TYPE_CHECKING:
    from .plan import Plan

FORMAT = "diffuse_fast.plan"
VERSION = 1

_FIELDS = {"format", "version", "solver", "steps", "prediction_type", "registers", "initial_scale", "marginals", "deviation",
           "options", "rows"}  # fmt: skip
_ROW_DEFAULTS = {f.name: f.default for f in dataclasses.fields(Row)}


def dumps(plan: Plan, *, indent: int | None = None) -> str:
    """The plan as JSON text."""
    document: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "solver": plan.solver,
        "steps": plan.steps,
        "prediction_type": plan.prediction_type,
        "registers": plan.registers,
        "initial_scale": plan.initial_scale,
        "marginals": [list(pair) for pair in plan.marginals],
        "deviation": None if plan.deviation is None else [list(pair) for pair in plan.deviation],
        "options": dict(plan.options),
        "rows": [_row_to_json(row) for row in plan.rows],
    }
    return json.dumps(document, indent=indent, allow_nan=False)


def loads(text: str | bytes, cls: type[Plan]) -> Plan:
    """The plan in a JSON text.

    Raises:
        PlanError: the text is not a valid plan.
        ArgumentTypeError: neither text nor bytes.
    """
    if not isinstance(text, str | bytes | bytearray):
        raise ArgumentTypeError(f"the plan is a {type(text).__name__}; give its JSON, as text or bytes.")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PlanError(f"the plan is not valid JSON: {error}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise PlanError(f"this JSON is not a plan: its 'format' must be {FORMAT!r}.")
    if document.get("version") != VERSION:
        raise PlanError(f"unknown plan version {document.get('version')!r}; this library reads version {VERSION}.")
    if extra := set(document) - _FIELDS:
        raise PlanError(f"the plan has unknown fields: {', '.join(sorted(extra))}.")
    if missing := _FIELDS - set(document):
        raise PlanError(f"the plan lacks the fields: {', '.join(sorted(missing))}.")
    deviation, rows = document["deviation"], document["rows"]
    if isinstance(rows, list) and len(rows) > MAX_ROWS:
        raise PlanError(f"the plan has {len(rows)} rows; it must have 1 to {MAX_ROWS}.")
    try:
        return cls(
            solver=document["solver"],
            steps=document["steps"],
            prediction_type=document["prediction_type"],
            rows=tuple(_row_from_json(row, i) for i, row in enumerate(rows)),
            registers=document["registers"],
            initial_scale=float(document["initial_scale"]),
            marginals=tuple((float(a), float(s)) for a, s in document["marginals"]),
            deviation=None if deviation is None else tuple((float(a), float(v)) for a, v in deviation),
            options=_options_from_json(document["options"]),
        )
    except PlanError:
        raise
    except (TypeError, ValueError, AttributeError, KeyError, OverflowError) as error:
        raise PlanError(f"the plan's JSON has a field of the wrong type: {error}") from None


def _options_from_json(options: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Options sorted by name, with lists as tuples."""

    def freeze(value: Any, depth: int = 0) -> Any:
        if not isinstance(value, list):
            return value
        if depth >= MAX_OPTION_DEPTH:
            raise PlanError(f"a plan's options have lists nested more than {MAX_OPTION_DEPTH} deep.")
        return tuple(freeze(item, depth + 1) for item in value)

    return tuple(sorted((name, freeze(value)) for name, value in options.items()))


def _row_to_json(row: Row) -> dict[str, Any]:
    """The fields of a row that differ from their defaults, and its timestep."""
    out: dict[str, Any] = {"timestep": row.timestep}
    for name, default in _ROW_DEFAULTS.items():
        value = getattr(row, name)
        if name == "timestep" or value == default:
            continue
        if isinstance(value, Reduction):
            value = {"kind": value.kind, "values": list(value.values)}
        elif isinstance(value, tuple):
            value = list(value)
        out[name] = value
    return out


def _row_from_json(document: Any, index: int) -> Row:
    if not isinstance(document, dict):
        raise PlanError(f"row {index} of the plan must be a JSON object.")
    if extra := set(document) - set(_ROW_DEFAULTS):
        raise PlanError(f"row {index} of the plan has unknown fields: {', '.join(sorted(extra))}.")
    if "timestep" not in document:
        raise PlanError(f"row {index} of the plan lacks the field 'timestep'.")
    values: dict[str, Any] = {}
    try:
        for name, value in document.items():
            if name == "reduce" and value is not None:
                value = Reduction(value["kind"], _floats(value["values"]))
            elif name != "write":
                value = _floats(value)
            values[name] = value
        return Row(**values)
    except PlanError as error:
        raise PlanError(f"row {index} of the plan is invalid: {error}") from None


def _floats(value: Any) -> Any:
    """Numbers as floats, and lists of numbers as tuples. Other values are returned unchanged; Row rejects them."""
    if isinstance(value, list):
        return tuple(map(_floats, value)) if all(isinstance(v, int | float) for v in value) else value
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
