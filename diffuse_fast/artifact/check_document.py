"""Check that the fields of a document agree with one another."""

from __future__ import annotations

import math

from ..errors import ArtifactError
from ..plans.plan import Plan
from ..plans.row import MAX_ELEMENTS
from .document import LEARNED, Document
from .fields import fail


def check(document: Document) -> None:
    """Check that the fields of a document agree with one another.

    Raises:
        ArtifactError: two fields contradict each other; the message names them.
    """
    if math.prod(document.shape) > MAX_ELEMENTS:
        fail("sample.shape", list(document.shape), f"at most {MAX_ELEMENTS} elements")
    if document.time.convention != "timestep" and document.time.dtype != "float32":
        fail("time.dtype", document.time.dtype, f"'float32' for the convention {document.time.convention!r}")
    names = [document.input, document.time.input, *(c.name for c in document.conditioning)]
    if len(set(names)) < len(names):
        raise ArtifactError(f"the model's inputs must have different names; 'sample', 'time' and 'conditioning' say {names}.")
    for c in document.conditioning:
        where = f"conditioning[{c.name!r}]"
        if c.null is not None and c.dtype != "float32":
            limit = {"bool": 1, "int32": (1 << 31) - 1, "int64": (1 << 63) - 1}[c.dtype]
            if c.null != int(c.null) or not (0 if c.dtype == "bool" else -limit) <= c.null <= limit:
                fail(f"{where}.null", c.null, f"a value of its dtype {c.dtype}")
        if c.classes is not None and (c.shape != () or not c.dtype.startswith("int")):
            fail(f"{where}.classes", c.classes, "null: only an integer with shape [] is a label")
    for i, plan in enumerate(document.plans):
        _check_plan(f"plans[{i}]", plan, document)
    counts = [plan.steps for plan in document.plans]
    if len(set(counts)) < len(counts):
        raise ArtifactError(f"the model's field 'plans' has plans of {counts} steps; at most one per number of steps is allowed.")


def _check_plan(where: str, plan: Plan, document: Document) -> None:
    """Check that a sampler can run a stored plan on this network."""
    if plan.solver != LEARNED:
        fail(f"{where}.solver", plan.solver, f"{LEARNED!r}; plans of other solvers are not stored")
    if plan.prediction_type != document.prediction_type:
        fail(f"{where}.prediction_type", plan.prediction_type, f"{document.prediction_type!r}, as the model's")
    if plan.steps != len(plan.rows):
        fail(f"{where}.steps", plan.steps, f"{len(plan.rows)}, the number of its rows: a learned plan has one for each step")
    if plan.nfe == 0 or any(row.g != (1.0,) for row in plan.rows):
        raise ArtifactError(f"the model's field {where!r} must call the network, and have no guidance: a sampler adds it.")
    if any(row.log_s is not None for row in plan.rows) and document.variance == "none":
        raise ArtifactError(f"the model's field {where!r} has a learned noise, and the field 'variance' says 'none'.")
    convention = dict(plan.options).get("time_convention", document.time.convention)
    if convention != document.time.convention:
        fail(f"{where}.options.time_convention", convention, f"{document.time.convention!r}, as the model's")
    last = getattr(document.schedule, "num_train_timesteps", math.inf) if document.time.convention == "timestep" else math.inf
    for t in plan.timesteps.tolist():
        if document.time.dtype != "float32" and t != int(t):
            fail(f"{where}.rows[].timestep", t, f"an integer: the model's time is {document.time.dtype}")
        if document.time.convention == "timestep" and not 0.0 <= t < last:
            fail(f"{where}.rows[].timestep", t, f"from 0 to {last - 1}, the schedule's last")


def check_schedule(document: Document) -> None:
    """Check that the family of the schedule supports the prediction type and the time convention.

    Raises:
        ArtifactError: it does not, or a field is missing; the message names the field.
    """
    schedule = document.schedule
    if schedule is None:
        raise ArtifactError("the model's field 'schedule' is missing.")
    family = f"of a schedule of the family {schedule.family}"
    if document.prediction_type not in schedule.prediction_types:
        fail("prediction_type", document.prediction_type, f"one of {', '.join(schedule.prediction_types)}, {family}")
    if document.time.convention not in schedule.time_conventions:
        fail("time.convention", document.time.convention, f"one of {', '.join(schedule.time_conventions)}, {family}")
