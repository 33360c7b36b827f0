"""Fit the times and weights of a method to the results of a fine solver: Levenberg-Marquardt, without the network's gradient.

A method of a few steps has a few dozen parameters, and every element of every sample gives a residual. So a second-order
least-squares method needs about ten iterations, where stochastic gradients need thousands. The derivative of the result with
respect to a parameter is propagated forward through the steps: it is a direction in the space of states, and the network's
contribution is a difference quotient along it. So this works for any network that can be sampled, and needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..runtimes import BoundCall
from ..solver.solver import Point
from .table import Multistep, at
from .task import Task

# RMS length of a difference quotient's step, which balances float32 rounding (1e-6) and curvature.
PROBE = 3e-3
# The step for a time, relative to the gap to its neighbours.
TIME_PROBE = 0.02
# Largest move of a time in one iteration, relative to the gap to its neighbour, so that times keep their order.
MOST_MOVE = 0.4
# Stop when an iteration reduces the squared distance by less than this fraction.
ENOUGH = 1e-2


@dataclass(frozen=True, eq=False)
class Parameters:
    """The free parameters of a method: all times, the state's weights, and the weights of the last predictions.

    Attributes:
        steps: Steps of the method.
        rows, columns: Indices of the free weights in ``Multistep.data``.
    """

    steps: int
    rows: np.ndarray
    columns: np.ndarray

    @classmethod
    def of(cls, steps: int, history: int) -> Parameters:
        rows, columns = np.tril_indices(steps)
        near = rows - columns <= history
        return cls(steps, rows[near], columns[near])

    @property
    def count(self) -> int:
        return 2 * self.steps + len(self.rows)

    def moved(self, method: Multistep, by: np.ndarray, ends: tuple[float, float]) -> Multistep:
        """The method with its parameters changed: times, the state's weights, the predictions'. Times stay between the ends."""
        n = self.steps
        data = method.data.copy()
        data[self.rows, self.columns] += by[2 * n :]
        low, high = ends
        gaps = np.diff(method.times)
        lowest, highest = np.append(method.times[:-1] + MOST_MOVE * gaps, low), np.append(high, method.times[1:] - MOST_MOVE * gaps)
        times = np.clip(np.clip(method.times + by[:n], lowest, highest), low, high)
        return Multistep(times, method.state + by[n : 2 * n], data)


def fit(
    task: Task, start: Multistep, *, history: int, iterations: int, samples: int, report: Callable[[str], None]
) -> tuple[Multistep, float]:
    """Fit a method on ``samples`` samples, beginning at ``start``. Returns it with its RMS distance, at most that of ``start``."""
    free = Parameters.of(start.steps, history)
    best, damping = start, 1e-2
    loss = task.distance_of(best, samples) ** 2
    for iteration in range(1, iterations + 1):
        normal, gradient = _normal_equations(task, best, free, samples)
        scale = np.diag(normal) + 1e-12 * np.trace(normal)
        before = loss
        while damping < 1e6:
            by = -np.linalg.solve(normal + damping * np.diag(scale), gradient)
            trial = free.moved(best, by, (task.schedule.t_min, task.schedule.t_max))
            if (tried := task.distance_of(trial, samples) ** 2) < loss:
                best, loss, damping = trial, tried, damping / 5.0
                break
            damping *= 4.0
        report(f"iteration {iteration}: distance {np.sqrt(loss):.4f}")
        if before - loss < ENOUGH * before:
            break
    return best, float(np.sqrt(loss))


class _Prediction:
    """The data prediction of a batch, computed as the rows do."""

    def __init__(self, task: Task, call: BoundCall):
        self._task, self._call = task, call
        self._grid = task.grid

    def __call__(self, x: np.ndarray, point: Point) -> np.ndarray:
        np.copyto(self._call.x, x / np.float32(point.alpha) if self._task.by_alpha else x, casting="same_kind")
        m = self._call(point.time)[:, : x.shape[1]]
        p, q = self._grid.data(point)
        return np.clip(np.float32(p) * x + np.float32(q) * m, self._grid.lo, self._grid.hi, dtype=np.float32)


def _normal_equations(task: Task, method: Multistep, free: Parameters, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """JᵀJ and Jᵀr of the mean square over samples and elements."""
    normal, gradient = np.zeros((free.count, free.count)), np.zeros(free.count)
    for first in range(0, samples, task.batch_size):
        count = min(task.batch_size, samples - first)
        predict = _Prediction(task, task.bind(first, count))
        residual, jacobian = _linearised(task, method, free, predict, task.noise(first, count), task.reference(first, count))
        normal += jacobian @ jacobian.T
        gradient += jacobian @ residual
    size = samples * np.prod(task.shape)
    return normal / size, gradient / size


def _linearised(
    task: Task, method: Multistep, free: Parameters, predict: _Prediction, noise: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The residual, flat, and its derivatives (parameters, residuals)."""
    n = method.steps
    here = at(task.grid, method.times)
    x: Any = (here.initial_scale * noise).astype(np.float32)
    of_x: dict[int, np.ndarray] = {}  # derivative of the state by parameter
    if (slope := _initial_slope(task, method)) != 0.0:
        of_x[0] = slope * noise
    ys: list[np.ndarray] = []
    of_ys: list[dict[int, np.ndarray]] = []
    for i, point in enumerate(here.points):
        y = predict(x, point)
        of_y = {}
        for k, direction in of_x.items():
            length = float(np.sqrt(np.mean(np.square(direction))))
            step = PROBE / max(length, 1e-12)
            of_y[k] = (predict(x + np.float32(step) * direction, point) - y) / np.float32(step)
        low, high = _around(task, method.times, i)
        below, above = (p for p in task.grid.at_times(np.array([low, high])))
        by_time = (predict(x, above) - predict(x, below)) / np.float32(high - low)
        of_y[i] = of_y[i] + by_time if i in of_y else by_time
        ys.append(y)
        of_ys.append(of_y)

        of_next: dict[int, Any] = {k: np.float32(method.state[i]) * v for k, v in of_x.items()}
        for j in range(i + 1):
            if method.data[i, j] != 0.0:
                for k, v in of_ys[j].items():
                    of_next[k] = of_next.get(k, 0.0) + np.float32(method.data[i, j]) * v
        of_next[n + i] = x
        for number in np.flatnonzero(free.rows == i).tolist():
            of_next[2 * n + number] = ys[free.columns[number]]
        rows = [np.float32(method.state[i]) * x, *(np.float32(method.data[i, j]) * ys[j] for j in range(i + 1))]
        x = np.sum(rows, axis=0, dtype=np.float32)
        of_x = of_next
    jacobian = np.stack([np.ravel(of_x[k]) if k in of_x else np.zeros(x.size) for k in range(free.count)])
    return np.ravel(x - target).astype(np.float64), jacobian.astype(np.float64)


def _around(task: Task, times: np.ndarray, i: int) -> tuple[float, float]:
    """A time below and one above times[i] for a difference quotient; integers for a model of discrete timesteps."""
    gaps = -np.diff(times)[max(0, i - 1) : i + 1] if len(times) > 1 else [task.schedule.t_max - task.schedule.t_min]
    reach = TIME_PROBE * min(gaps)
    if task.plan_options["timestep_rounding"] != "none":
        reach = max(reach, 2.0)
    low, high = max(task.schedule.t_min, times[i] - reach), min(task.schedule.t_max, times[i] + reach)
    if task.plan_options["timestep_rounding"] != "none":
        low, high = np.floor(low), np.ceil(high)
    return float(low), float(high)


def _initial_slope(task: Task, method: Multistep) -> float:
    """The derivative of the initial scale by the first time; nonzero only for families that start at sigma."""
    low, high = _around(task, method.times, 0)
    scales = [at(task.grid, np.array([t])).initial_scale for t in (low, high)]
    return (scales[1] - scales[0]) / (high - low)
