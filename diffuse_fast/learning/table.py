"""The learned object, a general linear multistep method, and its conversion to a plan.

Row i calls the network at time ``times[i]``, computes the data prediction y_i from its output, and goes on to::

    x' = state[i]·x + Σ_{j ≤ i} data[i, j]·y_j

Every deterministic solver with one network call per step has this form, from DDIM to UniPC. So a hand-made solver is a point
of the search space (:func:`of_plan`), and a starting point.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..artifact.document import LEARNED
from ..plans.plan import Plan
from ..schedule import Schedule
from ..solver import multistep
from ..solver.multistep import Transfer
from ..solver.prediction import data_prediction
from ..solver.solver import CLEAN, Grid


@dataclass(frozen=True, eq=False)
class Multistep:
    """A linear multistep method of N steps.

    Attributes:
        times: Times of the network calls, in the schedule's unit, descending (N,).
        state: Weight of the state in each row (N,).
        data: Weight of data prediction j in row i, (N, N), lower triangular.
    """

    times: np.ndarray
    state: np.ndarray
    data: np.ndarray

    @property
    def steps(self) -> int:
        return len(self.times)


def empty_grid(schedule: Schedule, prediction_type: str, clip: tuple[float, float] | None, options: dict[str, Any]) -> Grid:
    """The grid without its points; ``options`` are those of :func:`diffuse_fast.plan` on the network's time input."""
    lo, hi = (-np.inf, np.inf) if clip is None else clip
    return Grid(
        schedule=schedule,
        points=(),
        prediction_type=prediction_type,
        lo=float(lo),
        hi=float(hi),
        time_convention=options["time_convention"],
        timestep_rounding=options["timestep_rounding"],
    )


def at(grid: Grid, times: np.ndarray) -> Grid:
    """The grid with points at these times."""
    return replace(grid, points=grid.at_times(times))


def to_plan(method: Multistep, grid: Grid, options: dict[str, Any]) -> Plan:
    """Convert a method to a plan. The plan declares its deviation from the marginals: for a perfect prediction y_j = x0, row i
    gives ``state·(alpha·x0 + sigma·ε) + Σ data·x0``.
    """
    here = at(grid, method.times)
    points = (*here.points, CLEAN)
    transfers, deviation = [], []
    for i, (now, then) in enumerate(itertools.pairwise(points)):
        newest_first = method.data[i, i::-1]
        used = np.flatnonzero(newest_first)
        weights = newest_first[: used[-1] + 1 if used.size else 1].tolist()
        state = float(method.state[i])
        transfers.append(Transfer(state, weights))
        deviation.append((state * now.alpha + sum(weights) - then.alpha, (state * now.sigma) ** 2 - then.sigma**2))
    table = multistep.table(here, points, transfers, "data")
    return Plan(
        solver=LEARNED,
        steps=method.steps,
        prediction_type=here.prediction_type,
        rows=table.rows,
        registers=table.registers,
        initial_scale=here.initial_scale,
        marginals=table.marginals,
        deviation=tuple(deviation),
        options=tuple(sorted(options.items())),
    )


def of_plan(plan: Plan, schedule: Schedule) -> Multistep | None:
    """Convert a hand-made plan to this form. None if that is impossible: the plan repeats a time (several network calls per
    step), uses an unclipped output beside a clipped x0, or refers to a state that cannot be recovered."""
    steps = len(plan.rows)
    times = np.array([_time(schedule, *pair) for pair in plan.marginals[:-1]])
    if plan.nfe != steps or plan.stochastic or not np.all(np.diff(times) < 0.0):
        return None
    state, data = np.zeros(steps), np.zeros((steps, steps))
    # Registers as combinations of the state and the data predictions so far.
    of_x, of_y = np.zeros(plan.registers), np.zeros((plan.registers, steps))
    for i, (row, (alpha, sigma)) in enumerate(zip(plan.rows, plan.marginals, strict=False)):
        p, q = data_prediction(plan.prediction_type, alpha, sigma, schedule.sigma_data)
        count = len(row.c)
        now = np.eye(steps)[i]
        if row.clips and (row.b != 0.0 or row.e_m != 0.0):
            return None
        # The model output is (y − p·x)/q.
        state[i] = row.a - row.b * p / q + of_x[:count] @ np.array(row.c)
        data[i] = (row.b / q + row.d) * now + np.array(row.c) @ of_y[:count]
        if row.write is not None:
            count = len(row.f)
            kept_x = row.e_x - row.e_m * p / q + of_x[:count] @ np.array(row.f)
            kept_y = (row.e_m / q + row.e_0) * now + np.array(row.f) @ of_y[:count]
            of_x[row.write], of_y[row.write] = kept_x, kept_y
        if i < steps - 1 and np.any(of_x != 0.0):
            if state[i] == 0.0:
                return None
            of_y -= np.outer(of_x / state[i], data[i])  # the state before the row, by the state after it
            of_x /= state[i]
    return Multistep(times, state, data)


def _time(schedule: Schedule, alpha: float, sigma: float) -> float:
    if alpha == 0.0:
        return float(schedule.t_max)
    return float(np.clip(schedule.timestep_at_log_snr(2.0 * (np.log(alpha) - np.log(sigma))), schedule.t_min, schedule.t_max))
