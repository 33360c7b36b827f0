"""The best hand-made solver and spacing for a model: the baseline of a learned table, and its starting point."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import ArgumentError, NonFiniteError, PlanError
from ..plans.plan import Plan
from ..solver import SOLVERS
from ..solver.solver import Option
from ..solver.spacing import INTEGER, LEVELS
from .task import Task

# Every named spacing, and the powers of time. None is the solver's own.
SPACINGS: tuple[dict[str, Any], ...] = (
    {},
    *({"timestep_spacing": name} for name in (*INTEGER, *LEVELS, "beta")),
    *({"timestep_spacing": "power", "rho": rho} for rho in (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)),
)
SCREENED = 32  # samples on which all combinations are tried
REFINED = 4  # best combinations to try on all samples and with other options
RHO_STEP = 0.125


@dataclass(frozen=True)
class Baseline:
    """A hand-made solver with a spacing.

    Attributes:
        solver: Its name.
        options: Options of :func:`diffuse_fast.plan`, including the spacing.
        plan: Its plan.
        distance: RMS distance to the fine solver's results on the fitting samples.
    """

    solver: str
    options: dict[str, Any]
    plan: Plan
    distance: float

    def __str__(self) -> str:
        options = [f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in self.options.items()]
        return f"{self.solver} ({', '.join(options) or 'defaults'})"


def search(task: Task, steps: int, report: Callable[[str], None]) -> tuple[list[Baseline], Baseline]:
    """Try all deterministic solvers of at most ``steps`` network calls with every spacing.

    Returns:
        The best ones, best first, after varying their options; and the best with default spacing and options.
    """
    solvers = [name for name, solver in SOLVERS.items() if solver.from_noise]
    tried = [b for solver in solvers for spacing in SPACINGS if (b := _try(task, solver, steps, spacing, SCREENED))]
    if not tried:
        raise ArgumentError(f"no deterministic solver has a plan of {steps} network calls for this model.")
    screened = sorted(tried, key=lambda b: b.distance)
    report(f"{len(screened)} pairs of solver and spacing tried; {screened[0]} is best so far")
    default = _best(task, [b for b in screened if not b.options][:REFINED])[0]
    best = _best(task, screened[:REFINED])
    seen: set[str] = set()
    while True:
        leader = best[0]
        changes = [c for b in best[:2] if str(b) not in seen for c in _changes(b)]
        seen |= {str(b) for b in best[:2]}
        more = [b for solver, options in changes if (b := _try(task, solver, steps, options, SCREENED))]
        best = _distinct([*best, *_best(task, sorted(more, key=lambda b: b.distance)[:REFINED])])
        report(f"{best[0]}: distance {best[0].distance:.4f}")
        if best[0] is leader:
            return best, default


def _best(task: Task, some: list[Baseline]) -> list[Baseline]:
    """Measure on all samples; best first."""
    again = [Baseline(b.solver, b.options, b.plan, task.distance(b.plan)) for b in some]
    return sorted(again, key=lambda b: b.distance)


def _distinct(some: list[Baseline]) -> list[Baseline]:
    """Best first, without duplicate tables (options may have no effect)."""
    found: dict[Any, Baseline] = {}
    for b in sorted(some, key=lambda b: b.distance):
        found.setdefault(b.plan.rows, b)
    return list(found.values())


def _try(task: Task, solver: str, steps: int, options: dict[str, Any], samples: int) -> Baseline | None:
    """The solver with the most steps that cost at most ``steps`` network calls; None if there is no such plan."""
    for count in range(steps, 0, -1):
        try:
            plan = task.plan(solver, count, **options)
        except (ArgumentError, PlanError):
            return None  # the schedule does not have this spacing
        if plan.stochastic:
            return None
        if plan.nfe <= steps:
            try:
                distance = task.distance(plan, min(samples, task.samples))
            except NonFiniteError:
                return None
            return Baseline(solver, options, plan, distance) if math.isfinite(distance) else None
    return None


def _changes(baseline: Baseline) -> Iterator[tuple[str, dict[str, Any]]]:
    """The variants with one option changed."""
    if "rho" in baseline.options:
        for rho in (baseline.options["rho"] - RHO_STEP, baseline.options["rho"] + RHO_STEP):
            yield baseline.solver, {**baseline.options, "rho": rho}
    for name, option in SOLVERS[baseline.solver].options.items():
        now = baseline.options.get(name, option.default)
        for value in _values(option):
            if value != now:
                yield baseline.solver, {**baseline.options, name: value}


def _values(option: Option) -> tuple[Any, ...]:
    if option.kind is bool:
        return (False, True)
    if isinstance(option.default, str):
        return option.choices
    if isinstance(option.default, int) and option.minimum is not None and option.maximum is not None:
        return tuple(range(int(option.minimum), int(option.maximum) + 1))
    return ()  # a continuous range
